"""Tenants' providers: store a config encrypted, show it without its secrets, disable, enable and delete it.

Each change reads the row, decides, and replaces what it read; if another write came first, it reads and decides again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from mailer.domain import lifecycle
from mailer.domain.errors import DependencyError, NotSentError, Problem, RequestError, UnreadableError
from mailer.domain.events import provider_changed
from mailer.domain.onboarding import (
    Platform,
    PolicyDocument,
    iam_policy,
    onboarding_parameters,
    onboarding_template,
    quick_create_link,
    trust_policy,
)
from mailer.domain.provider import (
    AssumableRole,
    DecryptedConfig,
    Provider,
    ProviderConfig,
    ProviderStatus,
    ProviderType,
    Resumption,
    RoleConfig,
    SmtpConfig,
    StoredConfig,
    parse_config,
    parse_put,
)
from mailer.domain.remediation import Disclosed, add_remediation
from mailer.domain.statistics import NOTHING, Counts, floor
from mailer.ports import (
    Clock,
    ConfigCipher,
    ProviderFactory,
    ProviderPage,
    ProviderStore,
    StatisticsTable,
    Telemetry,
    TemplateStore,
    TrustProbe,
)

MAX_BODY = 16 * 1024
"""Characters of a config's JSON; the longest that the rules allow has about 5 000."""

_TRIES = 10
"""Tries before the caller gets too_many_requests; so many concurrent writes to one tenant's row are not normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDependencies:
    """What the provider API depends on."""

    store: ProviderStore
    statistics: StatisticsTable
    config_cipher: ConfigCipher
    provider_factory: ProviderFactory
    trust: TrustProbe
    clock: Clock
    telemetry: Telemetry
    new_external_id: Callable[[], str]
    """Makes a value that cannot be guessed."""
    platform: Platform
    templates: TemplateStore
    allow_smtp: bool


def put_config(tenant_id: str, body: str | bytes, deps: ProviderDependencies, *, by: str | None = None) -> Provider:
    """Store a config as the candidate; an active one stays active until the new one is verified.

    Raises:
        RequestError: names every faulty field; too_many_requests if others keep changing the row.
        DependencyError: KMS or DynamoDB did not do its part.
    """
    if len(body) > MAX_BODY:
        raise RequestError([Problem("", f"must have at most {MAX_BODY} characters")])
    provider_type, config = parse_put(body)
    _refuse_forbidden(config, deps)

    def decide(row: Provider | None) -> Provider:
        row = _reserved(tenant_id, row, deps)
        # Encrypted again for each try, because the ciphertext is bound to the version.
        whole = AssumableRole.of(config, _external_id(row, deps)) if isinstance(config, RoleConfig) else config
        ciphertext = deps.config_cipher.encrypt(tenant_id, provider_type, row.versions + 1, whole.plaintext())
        return lifecycle.store(row, _stored(provider_type, config, ciphertext, row), deps.clock.now())

    return change(tenant_id, deps, decide, by=by)


def _refuse_forbidden(config: ProviderConfig, deps: ProviderDependencies) -> None:
    if isinstance(config, SmtpConfig) and not deps.allow_smtp:
        problem = "must be 'ses': SMTP is for development stacks (template parameter AllowSmtp)"
        raise RequestError([Problem("provider", problem)])
    if not isinstance(config, RoleConfig):
        return
    if config.account == deps.platform.account:
        raise RequestError([Problem("config.roleArn", "must be a role of the tenant's own AWS account, not of this service's")])
    if config.partition != deps.platform.partition:
        problem = f"must be of this service's own AWS partition, arn:{deps.platform.partition}:…; for another, store an access key"
        raise RequestError([Problem("config.roleArn", problem)])


_EXTERNAL_ID = "external-id", 0
"""Provider and version under which a tenant's ExternalId is encrypted: those of no config, so that neither decrypts as the other."""


def _reserved(tenant_id: str, row: Provider | None, deps: ProviderDependencies) -> Provider:
    """Return the tenant's row with an ExternalId; a new or erased tenant gets one."""
    if row is not None and row.encrypted_external_id:
        return row
    ciphertext = deps.config_cipher.encrypt(tenant_id, *_EXTERNAL_ID, deps.new_external_id().encode())
    return replace(row, encrypted_external_id=ciphertext) if row else lifecycle.reserve(tenant_id, ciphertext, deps.clock.now())


def _external_id(row: Provider, deps: ProviderDependencies) -> str:
    try:
        return deps.config_cipher.decrypt(row.tenant_id, *_EXTERNAL_ID, row.encrypted_external_id).decode()
    except NotSentError as refusal:
        raise NotSentError(replace(refusal.error, remediation=_FOREIGN_EXTERNAL_ID)) from refusal


_FOREIGN_EXTERNAL_ID = (
    "Operator: the ExternalId in the tenant's row is damaged or another tenant's, which storing a config does not mend: look for who wrote"
    " the row, and restore it (docs/deploy.md)."
)


def _stored(provider_type: ProviderType, config: ProviderConfig, ciphertext: bytes, row: Provider) -> StoredConfig:
    ses = None if isinstance(config, SmtpConfig) else config
    return StoredConfig(
        provider=provider_type,
        version=row.versions + 1,
        ciphertext=ciphertext,
        region=ses.region if ses else "",
        from_address=config.from_address,
        from_name=config.from_name,
        credentials=config.shown(),
        configuration_set=ses.configuration_set if ses else None,
        max_send_rate=ses.max_send_rate if ses else None,
        account=config.account if isinstance(config, RoleConfig) else None,
    )


def get_provider(tenant_id: str, deps: ProviderDependencies) -> Provider:
    """Return a tenant's row.

    Raises:
        RequestError: not_found.
    """
    return lifecycle.existing(deps.store.get(tenant_id))


def list_providers(
    deps: ProviderDependencies, *, status: ProviderStatus | None = None, limit: int = 20, cursor: str | None = None
) -> ProviderPage:
    """Return a page of all tenants' rows, by status and then by tenant, as `withhold` shows them.

    Raises:
        RequestError: not_found: the cursor is not one of this list's.
    """
    try:
        page = deps.store.list(status=status, limit=limit, cursor=cursor)
    except KeyError:
        raise RequestError([Problem("cursor", "is not a cursor of this list")], "not_found") from None
    return replace(page, rows=[withhold(row) for row in page.rows])


def withhold(row: Provider) -> Provider:
    """Return the row as lists show it: errors with their remediation, nothing decrypted."""
    error = add_remediation(row.error, row.active) if row.error and row.active else row.error
    active, candidate = (config and _disclosed(config, None) for config in (row.active, row.candidate))
    return replace(row, active=active, candidate=candidate, error=error)


def disclose(row: Provider, deps: ProviderDependencies) -> Provider:
    """Return the row as the provider API shows it: roles with their ARN and ExternalId, errors with the remediation that names them.

    What cannot be decrypted is left out; the rest of the row is still shown.
    """
    roles = {config.version: role_of(row, config, deps) for config in (row.active, row.candidate) if config}
    error = add_remediation(row.error, row.active, roles[row.active.version]) if row.error and row.active else row.error
    active, candidate = (config and _disclosed(config, roles[config.version]) for config in (row.active, row.candidate))
    return replace(row, active=active, candidate=candidate, error=error)


def _disclosed(config: StoredConfig, disclosed: Disclosed | None) -> StoredConfig:
    shown = disclosed.role.disclosed() if disclosed else config.credentials
    return replace(config, credentials=shown, error=config.error and add_remediation(config.error, config, disclosed))


def role_of(row: Provider, config: StoredConfig, deps: ProviderDependencies) -> Disclosed | None:
    """Decrypt the role of a config; None if the config has no role, or cannot be decrypted."""
    if config.credentials["type"] != "role":
        return None
    try:
        role = decrypt_config(row, config, deps)
    except DependencyError as failure:
        deps.telemetry.failed("show role", row.tenant_id, failure)
        return None
    except NotSentError:
        return None
    return Disclosed(role, deps.platform) if isinstance(role, AssumableRole) else None


def decrypt_config(row: Provider, config: StoredConfig, deps: ProviderDependencies) -> DecryptedConfig:
    """Decrypt a config.

    Raises:
        NotSentError: config_unreadable.
        DependencyError: KMS did not do its part, or a later version wrote the config.
    """
    plaintext = deps.config_cipher.decrypt(row.tenant_id, config.provider, config.version, config.ciphertext)
    try:
        return parse_config(config.provider, plaintext)
    except RequestError:
        raise UnreadableError("providers table", row.tenant_id) from None


def disable_provider(tenant_id: str, deps: ProviderDependencies, *, by: str | None = None) -> Provider:
    """Stop sending, from the next batch on; mail waits.

    Raises:
        RequestError: not_found.
    """
    return change(tenant_id, deps, lambda row: lifecycle.disable(row, deps.clock.now()), by=by)


def enable_provider(tenant_id: str, deps: ProviderDependencies, *, by: str | None = None, resumption: Resumption | None = None) -> Provider:
    """Lift `disabled`, and with a resumption a suspension by the reputation guard; waiting mail goes out.

    Raises:
        RequestError: not_found; provider_not_active if a passing verify or a resumption is required.
        DependencyError: the counts so far could not be read, or the row not written.
    """
    if resumption is not None:
        resumption = replace(resumption, answered=_counted_by(tenant_id, resumption, deps))
    return change(tenant_id, deps, lambda row: lifecycle.enable(row, deps.clock.now(), resumption), by=by)


def _counted_by(tenant_id: str, resumption: Resumption, deps: ProviderDependencies) -> Counts:
    """Return what was counted before a resumption in its hour."""
    hour = floor(resumption.at)
    return deps.statistics.read(tenant_id, hour, hour + timedelta(hours=1)).get(hour, NOTHING)


def delete_provider(tenant_id: str, deps: ProviderDependencies, *, by: str | None = None) -> None:
    """Delete the config with its ciphertext; waiting mail fails."""
    if deps.store.get(tenant_id) is not None:
        change(tenant_id, deps, lambda row: lifecycle.delete(row or _reserved(tenant_id, None, deps), deps.clock.now()), by=by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarding:
    """What a tenant sets up in its own AWS account before it stores a config."""

    external_id: str
    iam_policy: PolicyDocument
    """For a user or role: the rights that sending needs, no more."""
    trust_policy: PolicyDocument
    """For a role."""
    template: str
    """CloudFormation, as JSON: makes the role with both policies, and the resources that send SES's events to us."""
    quick_create_link: str
    """Opens CloudFormation's console with that template and this tenant's parameters; expires within an hour."""


def onboard(tenant_id: str, deps: ProviderDependencies) -> Onboarding:
    """Return what the tenant sets up; its ExternalId is stored from now on, even if the tenant has no config yet.

    Raises:
        RequestError: too_many_requests if others keep changing the row.
        NotSentError: config_unreadable: the ExternalId is not this tenant's, or is damaged.
        DependencyError: KMS, DynamoDB or S3 did not do its part.
    """
    row = change(tenant_id, deps, lambda row: _reserved(tenant_id, row, deps))
    config, external_id = row.candidate or row.active, _external_id(row, deps)
    parameters = onboarding_parameters(tenant_id, external_id, config)
    published = deps.templates.publish(onboarding_template(deps.platform, {}))
    return Onboarding(
        external_id=external_id,
        iam_policy=iam_policy(config),
        trust_policy=trust_policy(deps.platform, external_id),
        template=onboarding_template(deps.platform, parameters, config),
        quick_create_link=quick_create_link(config.region if config and config.region else deps.platform.region, published, parameters),
    )


def change(tenant_id: str, deps: ProviderDependencies, decide: Callable[[Provider | None], Provider], *, by: str | None = None) -> Provider:
    """Replace a tenant's row by what `decide` makes of it; return the row after that.

    `by` is the ARN of the caller: row, log and event keep it.

    Raises:
        RequestError: what `decide` raises; too_many_requests where others keep changing the row.
    """
    for _ in range(_TRIES):
        row = deps.store.get(tenant_id)
        decided = decide(row)
        if decided is row:
            return decided
        decided = replace(decided, updated_by=by)
        if deps.store.replace(decided):
            if event := provider_changed("", row, decided):
                deps.telemetry.provider_changed(event)
            return replace(decided, revision=decided.revision + 1)
    raise RequestError([Problem("", "the provider is being changed by others")], "too_many_requests")
