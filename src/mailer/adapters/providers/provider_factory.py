"""Create a tenant's provider, ready to send: with its config decrypted and its role assumed; cached for a minute."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.config_cache import ConfigReader
from mailer.adapters.providers.credentials import AssumedRoles, CredentialSource, RoleAssumption, RoleCredentials, StaticCredentials
from mailer.adapters.providers.ses import SesProvider
from mailer.adapters.providers.ses_account import AccountQuestions
from mailer.adapters.providers.smtp import SmtpProvider
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.domain.errors import ErrorInfo, NotSentError, RequestError, UnreadableError
from mailer.domain.mime import Sender
from mailer.domain.provider import AccessKeyConfig, AssumableRole, DecryptedConfig, SmtpConfig, StoredConfig, parse_config
from mailer.ports import Clock, EmailProvider

KEPT_FOR = timedelta(minutes=1)
"""How long a decrypted config stays in memory. A new version takes effect at once all the same, because it has another cache key."""

PROVIDER_BYTES = 8 * 1024 * 1024
"""Memory for decrypted configs and what is made of them: of some 2 000 tenants, for to make one anew from a cached config costs little."""

_OVERHEAD = 3000
"""Bytes of one of them besides the row's ciphertext, which finds it. A test measures it."""


@dataclass(frozen=True, slots=True)
class _Key:
    tenant_id: str
    provider: str
    version: int
    since: datetime | None
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _CachedProvider:
    provider: EmailProvider
    cached_at: datetime


def _weigh(key: _Key, _: _CachedProvider) -> int:
    return _OVERHEAD + len(key.ciphertext)


class TenantProviderFactory:
    """`ports.ProviderFactory`."""

    def __init__(
        self,
        configs: ConfigReader,
        roles: AssumedRoles,
        clients: TenantClients,
        inquiries: TenantClients,
        *,
        allow_smtp: bool,
        clock: Clock,
        report: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`clients` send; `inquiries` query accounts, with shorter timeouts; `report` is told whether a config was cached."""
        self._configs = configs
        self._roles = roles
        self._clients = clients
        self._inquiries = inquiries
        self._allow_smtp = allow_smtp
        self._clock = clock
        self._report = report
        self._cache: SingleFlightCache[_Key, _CachedProvider] = SingleFlightCache(PROVIDER_BYTES, clock.now, _weigh)

    def create(self, tenant_id: str, config: StoredConfig, since: datetime | None = None) -> EmailProvider:
        """Create the provider of one version of a tenant's config, ready to send: with its client, and its role assumed after `since`.

        Raises:
            NotSentError: config_unreadable, role_not_assumable; provider_not_active for SMTP where it is not allowed.
            DependencyError: KMS or STS did not do its part, or a later version wrote the config.
        """
        if config.provider == "smtp" and not self._allow_smtp:
            raise NotSentError(ErrorInfo("provider_not_active", "this stack sends through SES only", _NO_SMTP))
        of_role = config.credentials.get("type") == "role"
        key = _Key(tenant_id, config.provider, config.version, since if of_role else None, config.ciphertext)
        asked_kms = False

        def make() -> _CachedProvider:
            nonlocal asked_kms
            opened = self._configs.open(tenant_id, config)
            asked_kms = opened.by_kms
            return self._create(key, config, opened.plaintext)

        provider = self._cache.get(key, make, lambda cached: cached.cached_at + KEPT_FOR).provider
        self._report(not asked_kms)
        if isinstance(provider, SesProvider):
            provider.credentials.prepare()
        return provider

    def _create(self, key: _Key, config: StoredConfig, plaintext: bytes) -> _CachedProvider:
        try:
            parsed = parse_config(config.provider, plaintext)
        except RequestError:  # KMS has shown that it is as one of our functions stored it, so the tenant is not at fault
            raise UnreadableError("providers table", key.tenant_id) from None
        return _CachedProvider(self._provider(key, parsed), self._clock.now())

    def _provider(self, key: _Key, config: DecryptedConfig) -> EmailProvider:
        sender = Sender(config.from_address, config.from_name)
        if isinstance(config, SmtpConfig):
            return SmtpProvider(sender=sender, config=config)
        self._clients.ses(config.region)  # made before the fence: it takes 50 ms
        return SesProvider(
            sender=sender,
            region=config.region,
            configuration_set=config.configuration_set,
            credentials=self._credentials(key, config),
            clients=self._clients,
            questions=AccountQuestions(self._inquiries, config.region, config.account if isinstance(config, AssumableRole) else None),
        )

    def _credentials(self, key: _Key, config: AccessKeyConfig | AssumableRole) -> CredentialSource:
        if isinstance(config, AccessKeyConfig):
            return StaticCredentials(config)
        return RoleCredentials(self._roles, RoleAssumption(key.tenant_id, key.version, config.role_arn, config.external_id, key.since))


_NO_SMTP = "Tenant: store an SES config; SMTP is for development stacks (template parameter AllowSmtp)."
