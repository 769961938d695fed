"""Opening a tenant's provider: decrypted once, kept for five minutes, by version, and never in sight."""

import gc
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import tenants
from mailer.adapters.acting import TenantClients
from mailer.adapters.credentials import AssumedRoles, RoleKeys
from mailer.adapters.opening import KEPT_AT_MOST, KEPT_FOR, TenantProviderOpener
from mailer.adapters.ses import SesProvider
from mailer.adapters.smtp import SmtpProvider
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError
from mailer.domain.mime import Sender
from mailer.domain.provider import ProviderConfig, StoredConfig
from mailer.ports import EmailProvider

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    time = NOON

    def now(self) -> datetime:
        return self.time

    def wait_until(self, moment: datetime) -> None:
        self.time = max(self.time, moment)


class Vault:
    """Gives back what it was told to, and counts."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str, int]] = []
        self.plaintexts: dict[tuple[str, int], bytes] = {}
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def seal(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:
        raise NotImplementedError

    def open(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:
        assert ciphertext == b"sealed"
        with self._lock:
            self.opened.append((tenant_id, provider, version))
        if self.failure:
            raise self.failure
        return self.plaintexts[tenant_id, version]


class Roles(AssumedRoles):
    """Every role lets us in; what was asked for is kept."""

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
def vault() -> Vault:
    return Vault()


@pytest.fixture
def roles(clock: Clock) -> Roles:
    return Roles(clock)


Opener = Callable[..., TenantProviderOpener]


@pytest.fixture(scope="module")
def clients() -> TenantClients:
    return TenantClients(width=1)


@pytest.fixture
def opener(vault: Vault, roles: Roles, clients: TenantClients, clock: Clock) -> Opener:
    return lambda *, allow_smtp=False: TenantProviderOpener(vault, roles, clients, clients, allow_smtp=allow_smtp, clock=clock)


def stored(vault: Vault, config: ProviderConfig, tenant_id: str = "acme", version: int = 1, **more: Any) -> StoredConfig:
    """The row of a config that the vault knows; what it shows in clear is wrong on purpose."""
    vault.plaintexts[tenant_id, version] = config.plaintext()
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


def test_a_provider_is_made_of_what_was_sealed(vault: Vault, opener: Opener) -> None:
    """Who can write the row but not the vault changes nothing: the clear fields are for show."""
    provider = opener().open("acme", stored(vault, tenants.access_key()))
    assert isinstance(provider, SesProvider)
    assert (provider.name, provider.region, provider.sender) == ("ses", tenants.REGION, Sender(tenants.FROM, "Acme"))
    assert provider.keys.current().secret_key == tenants.SECRET


def test_a_batch_decrypts_once(vault: Vault, opener: Opener) -> None:
    """32 threads with mail of one tenant: one call to KMS."""
    subject, row = opener(), stored(vault, tenants.access_key())
    with ThreadPoolExecutor(32) as pool:
        providers = list(pool.map(lambda _: subject.open("acme", row), range(100)))
    assert vault.opened == [("acme", "ses", 1)]
    assert all(provider is providers[0] for provider in providers)


def test_it_is_told_whether_a_config_was_still_open(vault: Vault, roles: Roles, clients: TenantClients, clock: Clock) -> None:
    """Operators see what share of the opens costs a call of KMS."""
    told: list[bool] = []
    opener = TenantProviderOpener(vault, roles, clients, clients, allow_smtp=False, clock=clock, report=told.append)
    config = stored(vault, tenants.access_key())
    for _ in range(3):
        opener.open("acme", config)
    assert told == [False, True, True]


def test_a_decrypted_config_is_kept_five_minutes(vault: Vault, opener: Opener, clock: Clock) -> None:
    """After that it is decrypted again: a key that KMS no longer gives stops working."""
    subject, row = opener(), stored(vault, tenants.access_key())
    for passed in (timedelta(), KEPT_FOR - timedelta(microseconds=1), KEPT_FOR):
        clock.time = NOON + passed
        subject.open("acme", row)
    assert len(vault.opened) == 2


def test_a_new_version_takes_effect_at_once(vault: Vault, opener: Opener) -> None:
    """Rotation waits for no cache, and another tenant's config is another entry."""
    subject = opener()
    old = stored(vault, tenants.access_key("AKIAOLD0000000000001"))
    new = stored(vault, tenants.access_key("AKIANEW0000000000002"), version=2)
    other = stored(vault, tenants.access_key("AKIAOTHER00000000003"), tenant_id="other")
    keys = [subject.open(tenant_id, row) for tenant_id, row in (("acme", old), ("acme", new), ("other", other), ("acme", old))]
    assert [provider.keys.current().access_key for provider in keys if isinstance(provider, SesProvider)] == [
        "AKIAOLD0000000000001",
        "AKIANEW0000000000002",
        "AKIAOTHER00000000003",
        "AKIAOLD0000000000001",
    ]


@pytest.mark.parametrize(
    "failure", [DependencyError("KMS", "Decrypt"), NotSentError(ErrorInfo("config_unreadable", "x"))], ids=["kms", "unreadable"]
)
def test_a_failure_passes_through_and_is_not_kept(vault: Vault, opener: Opener, failure: Exception) -> None:
    """KMS comes back: the next message goes out."""
    subject, row = opener(), stored(vault, tenants.access_key())
    vault.failure = failure
    with pytest.raises(type(failure)):
        subject.open("acme", row)
    vault.failure = None
    assert subject.open("acme", row).name == "ses"


@pytest.mark.parametrize("plaintext", [b"", b"{}", b"not json", b'{"accessKeyId":"canary-AKIA","region":7}'])
def test_what_is_no_config_is_unreadable_and_shows_nothing(vault: Vault, opener: Opener, plaintext: bytes) -> None:
    """A sealed text that is no config is the one error, without a word of its content."""
    row = stored(vault, tenants.access_key())
    vault.plaintexts["acme", 1] = plaintext
    with pytest.raises(NotSentError) as refusal:
        opener().open("acme", row)
    assert refusal.value.error.code == "config_unreadable"
    assert "canary" not in f"{refusal.value} {refusal.value.__cause__}"


def test_a_role_is_assumed_when_the_provider_is_opened(vault: Vault, opener: Opener, roles: Roles) -> None:
    """So that a trust policy that refuses us is met before the message counts as handed over; the ExternalId is the tenant's."""
    provider = opener().open("acme", stored(vault, tenants.role()))
    assert isinstance(provider, SesProvider)
    assert isinstance(provider.keys, RoleKeys)
    assert provider.questions.account == "222222222222"
    assert roles.calls[0]["ExternalId"] == "external-id-of-acme"


def test_a_cached_provider_still_needs_a_session(vault: Vault, opener: Opener, roles: Roles, clock: Clock) -> None:
    """The config is cached, the session has ended, STS is away: it is said before the message counts as handed over."""
    subject, row = opener(), stored(vault, tenants.role())
    subject.open("acme", row)
    roles.failure = DependencyError("STS", "AssumeRole")
    clock.time = NOON + timedelta(minutes=56)
    with pytest.raises(DependencyError):
        subject.open("acme", row)


def test_smtp_is_for_development_stacks(vault: Vault, opener: Opener) -> None:
    """Elsewhere it is refused without a look at what was sealed."""
    row = stored(vault, tenants.smtp(), provider="smtp")
    assert isinstance(opener(allow_smtp=True).open("acme", row), SmtpProvider)
    vault.opened.clear()
    with pytest.raises(NotSentError) as refusal:
        opener().open("acme", row)
    assert "AllowSmtp" in refusal.value.error.hint
    assert vault.opened == []


def test_no_secret_shows(vault: Vault, opener: Opener) -> None:
    """Not in the provider's, the opener's or the cache's repr."""
    subject = opener(allow_smtp=True)
    configs: list[tuple[str, ProviderConfig]] = [
        ("ses", tenants.access_key()),
        ("smtp", tenants.smtp(username="jo", password=tenants.SECRET)),
    ]
    for version, (provider, config) in enumerate(configs):
        opened: EmailProvider = subject.open("acme", stored(vault, config, version=version, provider=provider))
        assert tenants.SECRET not in f"{opened!r} {opened.__class__} {vars(subject)}"


def test_a_thousand_tenants_fit_into_twenty_megabytes(vault: Vault, opener: Opener) -> None:
    """And more than the bound of them take no more: the least recently used goes."""
    subject = opener()
    rows = [(f"tenant-{n}", stored(vault, tenants.access_key(), tenant_id=f"tenant-{n}")) for n in range(KEPT_AT_MOST + 50)]
    gc.collect()
    tracemalloc.start()
    for tenant_id, row in rows:
        subject.open(tenant_id, row)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 20_000_000
    assert len(subject._opened._kept) == KEPT_AT_MOST
    vault.opened.clear()
    subject.open(*rows[0])
    assert vault.opened == [("tenant-0", "ses", 1)]
