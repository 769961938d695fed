"""Creating a tenant's provider: its config is decrypted once, cached for a minute by version and ciphertext, and never logged."""

import gc
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.config_cache import UncachedConfigs
from mailer.adapters.providers.credentials import AssumedRoles, RoleCredentials
from mailer.adapters.providers.provider_factory import KEPT_FOR, PROVIDER_BYTES, TenantProviderFactory
from mailer.adapters.providers.ses import SesProvider
from mailer.adapters.providers.smtp import SmtpProvider
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError, UnreadableError
from mailer.domain.mime import Sender
from mailer.domain.provider import ProviderConfig, StoredConfig
from mailer.ports import EmailProvider
from support import tenants

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    time = NOON

    def now(self) -> datetime:
        return self.time

    def wait_until(self, moment: datetime) -> None:
        self.time = max(self.time, moment)


class ConfigCipher:
    """Returns given plaintexts, and counts the calls."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str, int]] = []
        self.plaintexts: dict[tuple[str, int], bytes] = {}
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def encrypt(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:
        raise NotImplementedError

    def decrypt(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:
        assert ciphertext.startswith(b"sealed")
        with self._lock:
            self.opened.append((tenant_id, provider, version))
        if self.failure:
            raise self.failure
        return self.plaintexts[tenant_id, version]


class Roles(AssumedRoles):
    """Every role can be assumed; the requests are kept."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(self._client, own_account="1" * 12, platform="P", clock=clock)  # type: ignore[arg-type]
        self.calls: list[dict[str, Any]] = []
        self.failure: Exception | None = None

    def _client(self) -> "Roles":
        return self

    def assume_role(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call)
        if self.failure:
            raise self.failure
        ends = NOON + timedelta(hours=1)
        return {"Credentials": {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": ends}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config_cipher() -> ConfigCipher:
    return ConfigCipher()


@pytest.fixture
def roles(clock: Clock) -> Roles:
    return Roles(clock)


Factory = Callable[..., TenantProviderFactory]


@pytest.fixture(scope="module")
def clients() -> TenantClients:
    return TenantClients(width=1)


@pytest.fixture
def provider_factory(config_cipher: ConfigCipher, roles: Roles, clients: TenantClients, clock: Clock) -> Factory:
    configs = UncachedConfigs(config_cipher)
    return lambda *, allow_smtp=False: TenantProviderFactory(configs, roles, clients, clients, allow_smtp=allow_smtp, clock=clock)


def stored(config_cipher: ConfigCipher, config: ProviderConfig, tenant_id: str = "acme", version: int = 1, **more: Any) -> StoredConfig:
    """Return the row of a config that the cipher can decrypt; its fields in clear are deliberately wrong."""
    config_cipher.plaintexts[tenant_id, version] = config.plaintext()
    row = StoredConfig(
        provider="ses",
        version=version,
        ciphertext=b"sealed",
        region="xx-wrong-1",
        from_address="wrong@x.example",
        from_name="Wrong",
        credentials={"type": "role"},
    )
    return replace(row, **more)


def test_a_provider_is_made_from_the_encrypted_config(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """A writer of the row without the key changes nothing that is sent: of the clear fields none is used for it."""
    provider = provider_factory().create("acme", stored(config_cipher, tenants.access_key()))
    assert isinstance(provider, SesProvider)
    assert (provider.name, provider.region, provider.sender) == ("ses", tenants.REGION, Sender(tenants.FROM, "Acme"))
    assert provider.credentials.current().secret_key == tenants.SECRET


def test_a_batch_decrypts_a_config_once(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """32 threads with mail of one tenant: one KMS call."""
    subject, row = provider_factory(), stored(config_cipher, tenants.access_key())
    with ThreadPoolExecutor(32) as pool:
        providers = list(pool.map(lambda _: subject.create("acme", row), range(100)))
    assert config_cipher.opened == [("acme", "ses", 1)]
    assert all(provider is providers[0] for provider in providers)


def test_it_is_reported_whether_a_config_was_cached(
    config_cipher: ConfigCipher, roles: Roles, clients: TenantClients, clock: Clock
) -> None:
    """The metric shows the share of creations that cost a KMS call."""
    reported: list[bool] = []
    configs = UncachedConfigs(config_cipher)
    provider_factory = TenantProviderFactory(configs, roles, clients, clients, allow_smtp=False, clock=clock, report=reported.append)
    config = stored(config_cipher, tenants.access_key())
    for _ in range(3):
        provider_factory.create("acme", config)
    assert reported == [False, True, True]


def test_a_decrypted_config_is_cached_for_a_minute(config_cipher: ConfigCipher, provider_factory: Factory, clock: Clock) -> None:
    """Then it is decrypted again, so that a revoked key takes effect."""
    subject, row = provider_factory(), stored(config_cipher, tenants.access_key())
    for passed in (timedelta(), KEPT_FOR - timedelta(microseconds=1), KEPT_FOR):
        clock.time = NOON + passed
        subject.create("acme", row)
    assert len(config_cipher.opened) == 2


def test_a_new_version_takes_effect_at_once(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """No cache delays a rotation, and another tenant's config is another entry."""
    subject = provider_factory()
    old = stored(config_cipher, tenants.access_key("AKIAOLD0000000000001"))
    new = stored(config_cipher, tenants.access_key("AKIANEW0000000000002"), version=2)
    other = stored(config_cipher, tenants.access_key("AKIAOTHER00000000003"), tenant_id="other")
    keys = [subject.create(tenant_id, row) for tenant_id, row in (("acme", old), ("acme", new), ("other", other), ("acme", old))]
    assert [provider.credentials.current().access_key for provider in keys if isinstance(provider, SesProvider)] == [
        "AKIAOLD0000000000001",
        "AKIANEW0000000000002",
        "AKIAOTHER00000000003",
        "AKIAOLD0000000000001",
    ]


def test_a_row_of_the_same_version_with_another_ciphertext_is_decrypted(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """It was restored or tampered with: the cached config is not used for it."""
    subject, row = provider_factory(), stored(config_cipher, tenants.access_key())
    subject.create("acme", row)
    subject.create("acme", replace(row, ciphertext=b"sealed otherwise"))
    assert len(config_cipher.opened) == 2


@pytest.mark.parametrize(
    "failure", [DependencyError("KMS", "Decrypt"), NotSentError(ErrorInfo("config_unreadable", "x"))], ids=["kms", "unreadable"]
)
def test_a_failure_is_raised_and_not_cached(config_cipher: ConfigCipher, provider_factory: Factory, failure: Exception) -> None:
    """When KMS is available again, the next message is sent."""
    subject, row = provider_factory(), stored(config_cipher, tenants.access_key())
    config_cipher.failure = failure
    with pytest.raises(type(failure)):
        subject.create("acme", row)
    config_cipher.failure = None
    assert subject.create("acme", row).name == "ses"


OF_A_LATER_VERSION = b'{"newField":"canary-AKIA",' + tenants.access_key().plaintext()[1:]


@pytest.mark.parametrize("plaintext", [b"", b"{}", b"not json", b'{"accessKeyId":"canary-AKIA","region":7}', OF_A_LATER_VERSION])
def test_a_config_that_this_version_does_not_know_is_not_the_tenants_fault(
    config_cipher: ConfigCipher, provider_factory: Factory, plaintext: bytes
) -> None:
    """It was decrypted, so one of our functions wrote it: its mail waits, and the tenant is not suspended. Nothing of it is shown."""
    row = stored(config_cipher, tenants.access_key())
    config_cipher.plaintexts["acme", 1] = plaintext
    with pytest.raises(UnreadableError, match="providers table has of acme") as error:
        provider_factory().create("acme", row)
    assert "canary" not in f"{error.value} {error.value.__cause__}"


def test_a_role_is_assumed_when_its_provider_is_created(config_cipher: ConfigCipher, provider_factory: Factory, roles: Roles) -> None:
    """So a refusing trust policy fails before the message counts as handed over; the ExternalId is the tenant's."""
    provider = provider_factory().create("acme", stored(config_cipher, tenants.role()))
    assert isinstance(provider, SesProvider)
    assert isinstance(provider.credentials, RoleCredentials)
    assert provider.questions.account == "222222222222"
    assert roles.calls[0]["ExternalId"] == "external-id-of-acme"


def test_a_verify_ends_the_use_of_earlier_sessions(config_cipher: ConfigCipher, provider_factory: Factory, roles: Roles) -> None:
    """The account's owner may have revoked them; until the next verify one session serves all mail."""
    factory, config = provider_factory(), stored(config_cipher, tenants.role())
    for verified_at, assumed in ((None, 1), (NOON, 2), (NOON, 2), (NOON + timedelta(hours=1), 3)):
        factory.create("acme", config, verified_at)
        assert len(roles.calls) == assumed


def test_a_verify_costs_a_tenant_with_an_access_key_nothing(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """It has no session that could have been revoked: the decrypted config is used until it is replaced."""
    factory, config = provider_factory(), stored(config_cipher, tenants.access_key(), credentials={"type": "accessKey"})
    for verified_at in (None, NOON, NOON + timedelta(hours=1)):
        factory.create("acme", config, verified_at)
    assert len(config_cipher.opened) == 1


def test_a_session_that_expires_soon_is_renewed_when_the_provider_is_created(
    config_cipher: ConfigCipher, provider_factory: Factory, roles: Roles, clock: Clock
) -> None:
    """Before the message counts as handed over; afterwards the existing session is used."""
    subject, row = provider_factory(), stored(config_cipher, tenants.role())
    subject.create("acme", row)
    clock.time = NOON + timedelta(minutes=54)
    provider = subject.create("acme", row)
    assert len(roles.calls) == 2
    assert isinstance(provider, SesProvider)
    provider.credentials.current()
    assert len(roles.calls) == 2


def test_a_cached_config_still_needs_a_session(config_cipher: ConfigCipher, provider_factory: Factory, roles: Roles, clock: Clock) -> None:
    """The session has expired and STS is unavailable: that fails before the message counts as handed over."""
    subject, row = provider_factory(), stored(config_cipher, tenants.role())
    subject.create("acme", row)
    roles.failure = DependencyError("STS", "AssumeRole")
    clock.time = NOON + timedelta(minutes=56)
    with pytest.raises(DependencyError):
        subject.create("acme", row)


def test_smtp_is_only_for_development_stacks(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """Elsewhere it is refused without decryption."""
    row = stored(config_cipher, tenants.smtp(), provider="smtp")
    assert isinstance(provider_factory(allow_smtp=True).create("acme", row), SmtpProvider)
    config_cipher.opened.clear()
    with pytest.raises(NotSentError) as refusal:
        provider_factory().create("acme", row)
    assert "AllowSmtp" in refusal.value.error.hint
    assert config_cipher.opened == []


def test_no_secret_is_in_a_repr(config_cipher: ConfigCipher, provider_factory: Factory) -> None:
    """Not in the provider's, the provider factory's or the cache's."""
    subject = provider_factory(allow_smtp=True)
    configs: list[tuple[str, ProviderConfig]] = [
        ("ses", tenants.access_key()),
        ("smtp", tenants.smtp(username="jo", password=tenants.SECRET)),
    ]
    for version, (provider, config) in enumerate(configs):
        opened: EmailProvider = subject.create("acme", stored(config_cipher, config, version=version, provider=provider))
        assert tenants.SECRET not in f"{opened!r} {opened.__class__} {vars(subject)}"


def test_cached_providers_are_bounded_by_memory(config_cipher: ConfigCipher, provider_factory: Factory, roles: Roles) -> None:
    """More tenants than fit take no more memory: the least recently used is evicted; the bound is in real bytes."""
    subject, sealed = provider_factory(), b"sealed" * 150
    kinds = (tenants.access_key(), tenants.role())
    rows = [
        (f"tenant-{n}", stored(config_cipher, kinds[n % 2], tenant_id=f"tenant-{n}", ciphertext=sealed + b"%05d" % n)) for n in range(4000)
    ]
    subject.create("first", stored(config_cipher, kinds[0], tenant_id="first"))
    roles._sessions._size = 0  # only the providers
    gc.collect()
    tracemalloc.start()
    for tenant_id, row in rows:
        subject.create(tenant_id, row)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert PROVIDER_BYTES - 10_000 < subject._cache.weight <= PROVIDER_BYTES
    assert 0.5 < held / subject._cache.weight <= 1
    config_cipher.opened.clear()
    subject.create(*rows[-1])
    subject.create(*rows[0])
    assert config_cipher.opened == [("tenant-0", "ses", 1)]
