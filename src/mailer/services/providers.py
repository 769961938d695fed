"""Keep tenants' providers: store a config sealed, show it without its secrets, disable, enable and remove it.

Each change reads the row, decides, and replaces what it read; where another write came first it reads and decides anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mailer.domain import lifecycle
from mailer.domain.errors import Problem, RequestError
from mailer.domain.onboarding import Document, Us, iam_policy, role_template, trust_policy
from mailer.domain.provider import Kind, Provider, ProviderConfig, RoleConfig, SmtpConfig, StoredConfig, parse_put
from mailer.ports import Clock, ProviderOpener, ProviderStore, TrustProbe, Vault

MAX_BODY = 16 * 1024
"""Characters of a config's JSON; the longest that the rules allow has about 5 000."""

_TRIES = 10
"""Before a caller is told to come again: that many writes to one tenant's row within one call are no accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDesk:
    """The ports of the provider API."""

    store: ProviderStore
    vault: Vault
    opener: ProviderOpener
    trust: TrustProbe
    clock: Clock
    new_external_id: Callable[[], str]
    """Makes a value that nobody can guess."""
    us: Us
    allow_smtp: bool


def put_config(tenant_id: str, body: str | bytes, desk: ProviderDesk) -> Provider:
    """Store a config as the candidate; an active one stays active until the new one is verified.

    Raises:
        RequestError: names every faulty field; too_many_requests where others keep changing the row.
        DependencyError: KMS or DynamoDB did not do its part.
    """
    if len(body) > MAX_BODY:
        raise RequestError([Problem("", f"must have at most {MAX_BODY} characters")])
    kind, config = parse_put(body)
    _refuse_forbidden(config, desk)

    def decide(row: Provider | None) -> Provider:
        row = row or _reserved(tenant_id, desk)
        # Sealed anew for each try: the version is part of what the ciphertext is bound to.
        sealed = desk.vault.seal(tenant_id, kind, row.versions + 1, config.plaintext())
        return lifecycle.store(row, _stored(kind, config, sealed, row), desk.clock.now())

    return change(tenant_id, desk, decide)


def _refuse_forbidden(config: ProviderConfig, desk: ProviderDesk) -> None:
    if isinstance(config, SmtpConfig) and not desk.allow_smtp:
        problem = "must be 'ses': SMTP is for development stacks (template parameter AllowSmtp)"
        raise RequestError([Problem("provider", problem)])
    if not isinstance(config, RoleConfig):
        return
    if config.account == desk.us.account:
        raise RequestError([Problem("config.roleArn", "must be a role of the tenant's own AWS account, not of this service's")])
    if config.partition != desk.us.partition:
        problem = f"must be of this service's own AWS partition, arn:{desk.us.partition}:…; for another, store an access key"
        raise RequestError([Problem("config.roleArn", problem)])


def _reserved(tenant_id: str, desk: ProviderDesk) -> Provider:
    return lifecycle.reserve(tenant_id, desk.new_external_id(), desk.clock.now())


def _stored(kind: Kind, config: ProviderConfig, sealed: bytes, row: Provider) -> StoredConfig:
    ses = None if isinstance(config, SmtpConfig) else config
    return StoredConfig(
        provider=kind,
        version=row.versions + 1,
        ciphertext=sealed,
        region=ses.region if ses else "",
        from_address=config.from_address,
        from_name=config.from_name,
        credentials=config.shown(row.external_id),
        configuration_set=ses.configuration_set if ses else None,
        max_send_rate=ses.max_send_rate if ses else None,
        account=config.account if isinstance(config, RoleConfig) else None,
    )


def get_provider(tenant_id: str, desk: ProviderDesk) -> Provider:
    """Return a tenant's row.

    Raises:
        RequestError: not_found.
    """
    return lifecycle.existing(desk.store.get(tenant_id))


def disable_provider(tenant_id: str, desk: ProviderDesk) -> Provider:
    """Stop sending with the next batch; mail waits.

    Raises:
        RequestError: not_found.
    """
    return change(tenant_id, desk, lambda row: lifecycle.disable(row, desk.clock.now()))


def enable_provider(tenant_id: str, desk: ProviderDesk) -> Provider:
    """Lift `disabled`; what waits goes out.

    Raises:
        RequestError: not_found; provider_not_active where a verify is what it takes.
    """
    return change(tenant_id, desk, lambda row: lifecycle.enable(row, desk.clock.now()))


def delete_provider(tenant_id: str, desk: ProviderDesk) -> None:
    """Remove config and ciphertext, whatever there is; what waits fails."""
    if desk.store.get(tenant_id) is not None:
        change(tenant_id, desk, lambda row: lifecycle.delete(row or _reserved(tenant_id, desk), desk.clock.now()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarding:
    """What a tenant sets up in its own AWS account before it stores a config."""

    external_id: str
    iam_policy: Document
    """For a user or role: what sending takes, no more."""
    trust_policy: Document
    """For a role."""
    role_template: str
    """CloudFormation, as JSON: makes a role of both."""


def onboard(tenant_id: str, desk: ProviderDesk) -> Onboarding:
    """Return what the tenant sets up; its ExternalId is kept from now on, also where nothing was stored yet.

    Raises:
        RequestError: too_many_requests where others keep changing the row.
    """
    row = change(tenant_id, desk, lambda row: row or _reserved(tenant_id, desk))
    config = row.candidate or row.active
    return Onboarding(
        external_id=row.external_id,
        iam_policy=iam_policy(config),
        trust_policy=trust_policy(desk.us, row.external_id),
        role_template=role_template(desk.us, row.external_id, config),
    )


def change(tenant_id: str, desk: ProviderDesk, decide: Callable[[Provider | None], Provider]) -> Provider:
    """Replace a tenant's row by what is decided of it; return the row as it stands then.

    Raises:
        RequestError: what `decide` raises; too_many_requests where others keep changing the row.
    """
    for _ in range(_TRIES):
        row = desk.store.get(tenant_id)
        decided = decide(row)
        if decided is row:
            return decided
        if desk.store.replace(decided):
            return replace(decided, revision=decided.revision + 1)
    raise RequestError([Problem("", "the provider is being changed by others")], "too_many_requests")
