"""Create a tenant's provider: decrypt its config and get its credentials, each once, and cache both."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import AssumedRoles, CredentialSource, RoleAssumption, RoleCredentials, StaticCredentials
from mailer.adapters.providers.ses import SesProvider
from mailer.adapters.providers.ses_account import AccountQuestions
from mailer.adapters.providers.smtp import SmtpProvider
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.domain.errors import ErrorInfo, NotSentError, RequestError
from mailer.domain.mime import Sender
from mailer.domain.provider import AccessKeyConfig, AssumableRole, DecryptedConfig, SmtpConfig, StoredConfig, parse_config
from mailer.ports import Clock, ConfigCipher, EmailProvider

KEPT_FOR = timedelta(minutes=5)
"""How long a decrypted config stays in memory. A new version still takes effect at once, because it has another cache key."""

KEPT_AT_MOST = 1000
"""Decrypted configs in memory, of about 5 KB each."""


@dataclass(frozen=True, slots=True)
class _Key:
    tenant_id: str
    provider: str
    version: int


@dataclass(frozen=True, slots=True)
class _CachedProvider:
    provider: EmailProvider
    cached_at: datetime


class TenantProviderFactory:
    """`ports.ProviderFactory`; versions, and so the keys of its cache, are never reused."""

    def __init__(
        self,
        config_cipher: ConfigCipher,
        roles: AssumedRoles,
        clients: TenantClients,
        inquiries: TenantClients,
        *,
        allow_smtp: bool,
        clock: Clock,
        report: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`clients` send; `inquiries` query accounts, with shorter timeouts; `report` is told whether a config was cached."""
        self._config_cipher = config_cipher
        self._roles = roles
        self._clients = clients
        self._inquiries = inquiries
        self._allow_smtp = allow_smtp
        self._clock = clock
        self._report = report
        self._cache: SingleFlightCache[_Key, _CachedProvider] = SingleFlightCache(KEPT_AT_MOST, clock.now)

    def create(self, tenant_id: str, config: StoredConfig) -> EmailProvider:
        """Create the provider of one version of a tenant's config, ready to send: with its client, and its role assumed.

        Raises:
            NotSentError: config_unreadable, role_not_assumable; provider_not_active for SMTP where it is not allowed.
            DependencyError: KMS or STS did not do its part.
        """
        if config.provider == "smtp" and not self._allow_smtp:
            raise NotSentError(ErrorInfo("provider_not_active", "this stack sends through SES only", _NO_SMTP))
        key = _Key(tenant_id, config.provider, config.version)
        is_kept = True

        def make() -> _CachedProvider:
            nonlocal is_kept
            is_kept = False
            return self._create(key, config)

        provider = self._cache.get(key, make, lambda cached: cached.cached_at + KEPT_FOR).provider
        self._report(is_kept)
        if isinstance(provider, SesProvider):
            provider.credentials.current()
        return provider

    def _create(self, key: _Key, config: StoredConfig) -> _CachedProvider:
        plaintext = self._config_cipher.decrypt(key.tenant_id, key.provider, key.version, config.ciphertext)
        try:
            parsed = parse_config(config.provider, plaintext)
        except RequestError:
            raise NotSentError(ErrorInfo("config_unreadable", "what was stored is no config")) from None
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
        return RoleCredentials(self._roles, RoleAssumption(key.tenant_id, key.version, config.role_arn, config.external_id))


_NO_SMTP = "Tenant: store an SES config; SMTP is for development stacks (template parameter AllowSmtp)."
