"""The cache of tenants' configs: encrypted, for exactly the row that was read, and only while KMS responds."""

import gc
import os
import threading
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from mailer.adapters.providers.cache_keys import ASK_AGAIN_AFTER, GOOD_FOR, RENEW_BEFORE, CacheKeys
from mailer.adapters.providers.config_cache import (
    _OVERHEAD,
    CHECK_AGAIN_AFTER,
    CHECK_BEFORE,
    IN_MEMORY_FOR,
    KMS_GOOD_FOR,
    SHARED_FOR,
    ConfigCache,
)
from mailer.adapters.providers.provider_factory import KEPT_FOR
from mailer.adapters.providers.shared_cache import ASK_AGAIN_AFTER as TABLE_AGAIN_AFTER
from mailer.adapters.providers.shared_cache import SharedCache
from mailer.adapters.sealed_entry import SealedEntry
from mailer.domain.errors import DependencyError
from mailer.domain.provider import StoredConfig
from support import tenants

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    time = NOON

    def __call__(self) -> datetime:
        return self.time


class Kms:
    """Decrypts configs by their ciphertext and derives keys; stores both calls."""

    def __init__(self) -> None:
        self.texts: dict[bytes, bytes] = {}
        self.decrypted: list[str] = []
        self.derived: list[bytes] = []
        self.fails = False
        self.derives = self.decrypts = True

    def encrypt(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:
        raise NotImplementedError

    def decrypt(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:
        self.decrypted.append(f"{tenant_id} {provider} {version}")
        if self.fails or not self.decrypts:
            raise DependencyError("KMS", "Decrypt")
        return self.texts[ciphertext]

    def generate_mac(self, **request: Any) -> Mapping[str, bytes]:
        self.derived.append(request["Message"])
        if self.fails or not self.derives:
            raise EndpointConnectionError(endpoint_url="https://kms")
        return {"Mac": sha256(request["KeyId"].encode() + request["Message"]).digest()}


class Table:
    """The shared entries of all sandboxes."""

    def __init__(self) -> None:
        self.entries: dict[str, SealedEntry] = {}
        self.fails = False
        self.reads = 0

    def find(self, name: str) -> SealedEntry | None:
        self.reads += 1
        if self.fails:
            raise DependencyError("DynamoDB", "GetItem")
        return self.entries.get(name)

    def keep(self, name: str, entry: SealedEntry) -> None:
        if self.fails:
            raise DependencyError("DynamoDB", "PutItem")
        self.entries[name] = entry


class SharedResources:
    """The resources that sandboxes share, and a method to start one."""

    def __init__(self) -> None:
        self.clock, self.kms, self.table = Clock(), Kms(), Table()
        self.reported: list[str] = []

    def keys(self, key: str = "key") -> CacheKeys:
        client: Any = self.kms
        return CacheKeys(lambda: client, key, self.clock)

    def sandbox(self, size: int = 1_000_000) -> ConfigCache:
        keys = self.keys()
        shared = SharedCache(self.table, keys, self.clock, self.report)
        return ConfigCache(self.kms, keys, self.clock, shared=shared, size=size, report=self.report)

    def warm(self, size: int = 1_000_000) -> ConfigCache:
        """Start a sandbox that has sent for another tenant: a process does not cache its first config."""
        sandbox = self.sandbox(size)
        sandbox.open("first", self.row(tenants.access_key(), "first"))
        self.kms.decrypted.clear()
        return sandbox

    def report(self, step: str, _: str | None, error: Exception) -> None:
        self.reported.append(f"{step}: {error}")

    def row(self, config: Any, name: str = "acme", version: int = 1) -> StoredConfig:
        ciphertext = f"{name} {version}".encode()
        self.kms.texts[ciphertext] = config.plaintext()
        shown = config.shown()
        return StoredConfig(
            provider="ses", version=version, ciphertext=ciphertext, region="", from_address="", from_name="", credentials=shown
        )


@pytest.fixture
def stack() -> SharedResources:
    return SharedResources()


def test_a_config_is_decrypted_once_while_kms_responds(stack: SharedResources) -> None:
    """Hours later all configs are still cached; KMS decrypts one config every few minutes."""
    sandbox, rows = stack.warm(), [(f"t{n}", stack.row(tenants.access_key(), f"t{n}")) for n in range(50)]
    for minute in range(120):
        stack.clock.time = NOON + timedelta(minutes=minute)
        for tenant_id, row in rows:
            assert sandbox.open(tenant_id, row).plaintext == stack.kms.texts[row.ciphertext]
    assert len(stack.kms.decrypted) == 50 + 120 // 3 - 1


def test_a_disabled_kms_key_takes_effect_within_five_minutes(stack: SharedResources) -> None:
    """No cached config is used after that, even with the cache's key in memory; a provider's minute is included."""
    sandbox, rows = stack.warm(), [("acme", stack.row(tenants.access_key())), ("globex", stack.row(tenants.role(), "globex"))]
    for tenant_id, row in rows:
        sandbox.open(tenant_id, row)
    stack.kms.decrypts = False
    stack.clock.time = NOON + KMS_GOOD_FOR - timedelta(microseconds=1)
    for tenant_id, row in rows:
        assert sandbox.open(tenant_id, row).plaintext
    stack.clock.time = NOON + KMS_GOOD_FOR
    for tenant_id, row in rows:
        with pytest.raises(DependencyError):
            sandbox.open(tenant_id, row)
    assert timedelta(minutes=5) >= KMS_GOOD_FOR + KEPT_FOR


def test_a_short_outage_of_kms_defers_no_mail(stack: SharedResources) -> None:
    """KMS is called a minute ahead, at intervals and by one mail, while the others are sent from the cache."""
    sandbox, rows = stack.warm(), [(f"t{n}", stack.row(tenants.access_key(), f"t{n}")) for n in range(20)]
    for tenant_id, row in rows:
        sandbox.open(tenant_id, row)
    stack.kms.decrypted.clear()
    stack.kms.fails = True
    for seconds in range(180, 240):
        stack.clock.time = NOON + timedelta(seconds=seconds)
        for tenant_id, row in rows:
            assert sandbox.open(tenant_id, row).plaintext
    assert len(stack.kms.decrypted) == 60 // 15
    stack.kms.fails = False
    sandbox.open(*rows[0])
    stack.clock.time += CHECK_AGAIN_AFTER
    sandbox.open(*rows[0])
    stack.kms.fails = True
    stack.clock.time += KMS_GOOD_FOR - CHECK_BEFORE - timedelta(seconds=1)
    assert not sandbox.open(*rows[1]).by_kms


def test_the_cache_s_key_expires_too(stack: SharedResources) -> None:
    """A process keeps it for minutes only: without KMS it cannot read its own cache."""
    sandbox, row = stack.warm(), stack.row(tenants.access_key())
    sandbox.open("acme", row)
    stack.kms.derives = False
    stack.clock.time = NOON + KMS_GOOD_FOR - CHECK_BEFORE
    sandbox.open("acme", row)  # KMS decrypts it again, but derives no key
    assert not sandbox.open("acme", row).by_kms
    stack.clock.time = NOON + GOOD_FOR
    assert sandbox.open("acme", row).by_kms


def test_the_cache_s_key_is_renewed_before_it_expires(stack: SharedResources) -> None:
    """It is renewed a minute early, so a short outage of KMS does not disable the cache."""
    sandbox, row = stack.warm(), stack.row(tenants.access_key())
    sandbox.open("acme", row)
    stack.clock.time = NOON + GOOD_FOR - RENEW_BEFORE
    sandbox.open("acme", row)
    assert len(stack.kms.derived) == 2
    stack.kms.derives = False
    stack.clock.time = NOON + GOOD_FOR
    assert not sandbox.open("acme", row).by_kms


@pytest.mark.parametrize(
    "changed",
    [{"version": 2}, {"ciphertext": b"other 1"}, {"provider": "smtp"}],
    ids=["version", "ciphertext", "provider"],
)
def test_a_changed_row_misses_the_cache(stack: SharedResources, changed: dict[str, Any]) -> None:
    """This holds for a new version, and for a row that was restored or tampered with under the same version."""
    sandbox, row = stack.warm(), stack.row(tenants.access_key())
    sandbox.open("acme", row)
    stack.kms.texts[b"other 1"] = b"another"
    assert not sandbox.open("acme", row).by_kms
    assert sandbox.open("acme", replace(row, **changed)).by_kms


def test_another_tenants_config_misses_the_cache(stack: SharedResources) -> None:
    """Also if its row has the same ciphertext: KMS is called with the other tenant's context."""
    sandbox, row = stack.warm(), stack.row(tenants.role())
    sandbox.open("acme", row)
    assert sandbox.open("globex", row).by_kms
    assert stack.kms.decrypted == ["acme ses 1", "globex ses 1"]


def test_configs_are_encrypted_in_memory(stack: SharedResources) -> None:
    """Neither the cache nor a representation has a secret."""
    sandbox, row = stack.warm(), stack.row(tenants.access_key())
    sandbox.open("acme", row)
    cached = b"".join(entry.value for entry in sandbox._sealed._kept.values())
    assert cached
    assert tenants.SECRET.encode() not in cached
    assert tenants.SECRET not in repr(sandbox.open("acme", row))


def test_a_cold_start_waits_for_one_kms_call(stack: SharedResources) -> None:
    """The first config of a process is decrypted without deriving a key or reading the table."""
    stack.sandbox().open("acme", stack.row(tenants.access_key()))
    assert (len(stack.kms.decrypted), stack.kms.derived, stack.table.reads) == (1, [], 0)


def test_the_cache_is_bounded_and_evicts_the_least_recently_used(stack: SharedResources) -> None:
    """The bound is in bytes, not in configs."""
    sandbox = stack.warm(size=10 * 800)
    rows = [(f"t{n}", stack.row(tenants.access_key(), f"t{n}")) for n in range(30)]
    for tenant_id, row in rows:
        sandbox.open(tenant_id, row)
    assert 5 * 800 < sandbox._sealed.weight <= 10 * 800
    assert not sandbox.open(*rows[-1]).by_kms
    assert sandbox.open(*rows[0]).by_kms


def test_an_entry_s_weight_is_its_memory(stack: SharedResources) -> None:
    """The memory allocated for ten thousand entries is their total weight or somewhat less."""
    cache = stack.warm(size=100_000_000)._sealed
    gc.collect()
    tracemalloc.start()
    before = cache.weight
    for _ in range(10_000):
        cache.keep(os.urandom(32), os.urandom(400))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.7 < taken / (cache.weight - before) <= 1
    assert cache.weight - before == 10_000 * (400 + _OVERHEAD)


def test_threads_share_one_call_for_the_key(stack: SharedResources) -> None:
    """A batch of new tenants derives the key once."""
    sandbox, barrier = stack.warm(), threading.Barrier(8)
    rows = [(f"t{n}", stack.row(tenants.access_key(), f"t{n}")) for n in range(8)]

    def open_config(one: tuple[str, StoredConfig]) -> bytes:
        barrier.wait()
        return sandbox.open(*one).plaintext

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(open_config, rows))
    assert len(stack.kms.derived) == 1


# ── what sandboxes share ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_role_s_config_is_shared_for_an_hour(stack: SharedResources) -> None:
    """The second sandbox decrypts only its first config by KMS and finds the other in the table."""
    row = stack.row(tenants.role())
    stack.warm().open("acme", row)
    second = stack.warm()
    assert second.open("acme", row).plaintext == stack.kms.texts[row.ciphertext]
    assert stack.kms.decrypted == []
    reads = stack.table.reads
    assert not second.open("acme", row).by_kms
    assert stack.table.reads == reads  # it is now in its own cache
    stack.clock.time = NOON + SHARED_FOR
    third = stack.warm()
    assert third.open("acme", row).by_kms


def test_an_access_key_is_never_shared(stack: SharedResources) -> None:
    """Also if its row claims a role: the decrypted config decides."""
    row = stack.row(tenants.access_key())
    sandbox = stack.warm()
    sandbox.open("acme", row)
    sandbox.open("globex", replace(row, credentials={"type": "role"}))
    assert stack.table.entries == {}
    before = stack.table.reads
    sandbox.open("initech", row)
    assert stack.table.reads == before


@pytest.mark.parametrize("text", [b"no json", b"[]", b'{"roleArn": "x", "secretAccessKey": "y"}'])
def test_an_invalid_role_config_is_not_shared(stack: SharedResources, text: bytes) -> None:
    """It is returned unchanged; its reader reports the error."""
    row = stack.row(tenants.role())
    stack.kms.texts[row.ciphertext] = text
    assert stack.warm().open("acme", row).plaintext == text
    assert stack.table.entries == {}


def test_a_shared_entry_is_bound_to_its_name_and_expiry(stack: SharedResources) -> None:
    """A writer to the table can neither swap, prolong nor forge entries."""
    row = stack.row(tenants.role())
    stack.warm().open("acme", row)
    [(name, entry)] = stack.table.entries.items()
    for forged in (
        {name: SealedEntry(entry.content, entry.until + timedelta(seconds=1))},
        {name: SealedEntry(entry.content[:-1] + bytes([entry.content[-1] ^ 1]), entry.until)},
        {name: SealedEntry(b"short", entry.until)},
    ):
        stack.table.entries = dict(forged)
        assert stack.warm().open("acme", row).by_kms
    shared = SharedCache(stack.table, stack.keys(), stack.clock)
    shared.keep("config", b"acme", b"text", NOON + SHARED_FOR)
    stack.table.entries["config#" + b"globex".hex()] = stack.table.entries["config#" + b"acme".hex()]
    assert shared.find("config", b"globex") is None
    assert shared.find("config", b"acme") is not None


def test_shared_entries_cannot_be_read_without_the_key(stack: SharedResources) -> None:
    """A copy of the table cannot be decrypted with another KMS key."""
    SharedCache(stack.table, stack.keys(), stack.clock).keep("config", b"acme", b"canary", NOON + SHARED_FOR)
    assert SharedCache(stack.table, stack.keys("another"), stack.clock).find("config", b"acme") is None
    assert b"canary" not in b"".join(entry.content for entry in stack.table.entries.values())


def test_each_hour_s_entries_have_their_own_key(stack: SharedResources) -> None:
    """A leaked key does not decrypt later entries."""
    shared = SharedCache(stack.table, stack.keys(), stack.clock)
    for hours in (1, 2, 3):
        shared.keep("session", str(hours).encode(), b"x", NOON + timedelta(hours=hours))
    assert len(set(stack.kms.derived)) == 3


def test_a_failing_table_is_not_called_for_a_while(stack: SharedResources) -> None:
    """It is neither read nor written: each call may take seconds, and a batch has many tenants."""
    shared = SharedCache(stack.table, stack.keys(), stack.clock, stack.report)
    stack.table.fails = True
    assert shared.find("session", b"acme") is None
    stack.table.fails = False
    shared.keep("session", b"acme", b"x", NOON + SHARED_FOR)
    assert shared.find("session", b"acme") is None
    assert (stack.table.reads, stack.table.entries, len(stack.reported)) == (1, {}, 1)
    stack.clock.time = NOON + TABLE_AGAIN_AFTER
    shared.keep("session", b"acme", b"x", NOON + SHARED_FOR)
    assert shared.find("session", b"acme") is not None


def test_a_failed_write_stops_reads_too(stack: SharedResources) -> None:
    """A failed write shows the outage like a failed read."""
    shared = SharedCache(stack.table, stack.keys(), stack.clock, stack.report)
    stack.table.fails = True
    shared.keep("session", b"acme", b"x", NOON + SHARED_FOR)
    assert shared.find("session", b"acme") is None
    assert (stack.table.reads, len(stack.reported)) == (0, 1)


def test_a_config_is_cached_for_two_hours(stack: SharedResources) -> None:
    """An access key that was replaced or erased does not stay for the rest of a sandbox's life."""
    row, sandbox = stack.row(tenants.access_key()), stack.warm()
    sandbox.open("acme", row)
    stack.clock.time = NOON + IN_MEMORY_FOR - timedelta(seconds=1)
    sandbox.open("other", stack.row(tenants.access_key(), "other"))  # KMS responds
    assert not sandbox.open("acme", row).by_kms
    stack.clock.time = NOON + IN_MEMORY_FOR
    assert sandbox.open("acme", row).by_kms


@pytest.mark.parametrize("broken", ["table", "key"])
def test_a_cache_failure_costs_a_kms_call_and_no_mail(stack: SharedResources, broken: str) -> None:
    """The failure is reported, and KMS decrypts the config."""
    sandbox, row = stack.warm(), stack.row(tenants.role())
    stack.table.fails, stack.kms.derives = broken == "table", broken != "key"
    assert sandbox.open("acme", row).plaintext == stack.kms.texts[row.ciphertext]
    assert stack.reported
    assert tenants.ROLE_ARN not in str(stack.reported)


@pytest.mark.parametrize("answer", [{}, {"Mac": b""}, {"Mac": None}, {"Mac": b"short"}])
def test_an_invalid_mac_counts_as_an_outage_of_kms(stack: SharedResources, answer: Any) -> None:
    """The config is decrypted by KMS instead."""
    sandbox, row = stack.warm(), stack.row(tenants.access_key())
    stack.kms.generate_mac = lambda **_: answer  # type: ignore[method-assign]
    assert sandbox.open("acme", row).plaintext == stack.kms.texts[row.ciphertext]
    assert stack.reported == ["cache config: KMS did not complete GenerateMac (unreadable answer)"]


def test_one_failed_key_derivation_is_not_repeated_by_each_mail(stack: SharedResources) -> None:
    """After a failure the key is derived again some seconds later."""
    sandbox = stack.warm()
    stack.kms.derives = False
    for number in range(10):
        sandbox.open(f"t{number}", stack.row(tenants.access_key(), f"t{number}"))
    assert len(stack.kms.derived) == 1
    stack.clock.time = NOON + ASK_AGAIN_AFTER
    stack.kms.derives = True
    last = stack.row(tenants.access_key(), "last")
    sandbox.open("last", last)
    assert not sandbox.open("last", last).by_kms
