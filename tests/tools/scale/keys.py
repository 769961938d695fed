"""Count the KMS decryptions and STS AssumeRole calls per mail, by the number of tenants.

The warm sandboxes of SendFunction have the real provider factory with its caches; clock, KMS, STS and the table are counting fakes. Mail
arrives in batches, each at a random sandbox, as with Lambda; a tenant's mail is spread randomly over time, the worst case for caches.
Concurrency, batch size and memory are the template's. One of `SCALE` tenants is simulated, with that fraction of the load and of the
caches' size, because a cache's hit rate depends only on their ratio. The head of a Zipf load, its first `SCALE` tenants, is one tenant.
Calls that a sandbox makes for all of its tenants are counted as that fraction of a call.
"""

import argparse
import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate
from typing import Any
from unittest.mock import patch

from mailer.adapters.providers import provider_factory
from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.cache_keys import CacheKeys
from mailer.adapters.providers.config_cache import ConfigCache, OpenedConfig, _context
from mailer.adapters.providers.credentials import AssumedRoles
from mailer.adapters.providers.provider_factory import TenantProviderFactory
from mailer.adapters.providers.shared_cache import SharedCache
from mailer.adapters.sealed_entry import SealedEntry
from mailer.domain.provider import AssumableRole, RoleConfig, StoredConfig
from mailer.settings import CacheSizes
from support import tenants
from support.aws import tables

SCALES = {1_000: 100, 10_000: 200}
SCALE = 400
"""Tenants per simulated tenant."""
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A_DAY = 100_000_000 / 86_400
"""Mails a second of 100 million a day."""
LIFE = timedelta(hours=2)
"""Lifetime of a busy sandbox, an assumption: AWS documents none."""
WARM_UP, MEASURED = LIFE, LIFE
TENANTS = (1_000, 10_000, 100_000, 1_000_000)
FUNCTION = tables.template()["Resources"]["SendFunction"]["Properties"]
SIZES = CacheSizes.of(FUNCTION["MemorySize"])
STS_QUOTA = 600
"""AssumeRole calls per second, AWS's default."""
MEASURED_ENTRIES = 2_000

Weights = Callable[[int, int], Sequence[float]]
LOADS: dict[str, Weights] = {
    "flat": lambda count, _: [1.0] * count,
    "Zipf": lambda count, scale: [
        sum(1 / rank for rank in range(1, scale + 1)) / scale,
        *(1 / ((n + 0.5) * scale) for n in range(1, count)),
    ],
}


class Clock:
    time = NOON

    def now(self) -> datetime:
        return self.time

    def wait_until(self, moment: datetime) -> None:
        self.time = max(self.time, moment)


class Kms:
    """Decrypts every config and counts the calls; the ciphertext is the plaintext."""

    decrypted = derived = 0
    renewed = 0
    """Decryptions of cached configs, made to check that KMS still decrypts."""

    def generate_mac(self, *, Message: bytes, **_: Any) -> dict[str, bytes]:  # noqa: N803  # KMS's name
        self.derived += 1
        return {"Mac": sha256(Message).digest()}

    def encrypt(self, tenant_id: str, provider: str, version: int, plaintext: bytes) -> bytes:  # noqa: ARG002  # the Protocol's
        return plaintext

    def decrypt(self, tenant_id: str, provider: str, version: int, ciphertext: bytes) -> bytes:  # noqa: ARG002  # the Protocol's
        self.decrypted += 1
        return bytes(ciphertext[:-1]) + ciphertext[-1:]  # a new object, as KMS's response is


class Sts:
    """Assumes every role and counts the calls."""

    assumed = 0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def assume_role(self, **_: Any) -> dict[str, Any]:
        self.assumed += 1
        ends = self._clock.now() + timedelta(hours=1)
        token = f"{self.assumed:0900}"  # as long as AWS's with a session policy
        begun = {"AccessKeyId": f"ASIA{self.assumed:016}", "SecretAccessKey": f"{self.assumed:040}", "SessionToken": token}
        return {"Credentials": begun | {"Expiration": ends}}


class Table:
    """Stores the entries that the sandboxes share, and counts the calls."""

    reads = writes = 0

    def __init__(self) -> None:
        self._entries: dict[str, SealedEntry] = {}

    def find(self, name: str) -> SealedEntry | None:
        self.reads += 1
        return self._entries.get(name)

    def keep(self, name: str, entry: SealedEntry) -> None:
        self.writes += 1
        self._entries[name] = entry

    def clear(self) -> None:
        self._entries.clear()


class CountedCache(ConfigCache):
    """The cache, with the KMS calls that only renew counted separately."""

    def open(self, tenant_id: str, config: StoredConfig) -> OpenedConfig:
        is_cached = self._sealed.find(_context(tenant_id, config)) is not None
        opened = super().open(tenant_id, config)
        self._cipher.renewed += opened.by_kms and is_cached  # type: ignore[attr-defined]  # the fake's
        return opened


@dataclass
class World:
    """The clock, the services and the table of all sandboxes."""

    clock: Clock
    kms: Kms
    sts: Sts
    table: Table
    clients: TenantClients

    def reset(self) -> None:
        """Reset the counts."""
        self.kms.decrypted = self.kms.derived = self.kms.renewed = self.sts.assumed = self.table.reads = self.table.writes = 0

    @classmethod
    def new(cls) -> "World":
        clock = Clock()
        return cls(clock, Kms(), Sts(clock), Table(), TenantClients(width=1))

    def sandbox(self, scale: int) -> TenantProviderFactory:
        """Start a sandbox: empty caches, with this fraction of their size."""
        sts: Any = self.sts
        kms: Any = self.kms
        keys = CacheKeys(lambda: kms, "key", self.clock.now)
        shared = SharedCache(self.table, keys, self.clock.now)
        roles = AssumedRoles(
            lambda: sts, own_account="1" * 12, platform="Example", clock=self.clock, shared=shared, size=SIZES.sessions // scale
        )
        configs = CountedCache(kms, keys, self.clock.now, shared=shared, size=SIZES.configs // scale)
        with patch.object(provider_factory, "PROVIDER_BYTES", provider_factory.PROVIDER_BYTES // scale):
            return TenantProviderFactory(configs, roles, self.clients, self.clients, allow_smtp=False, clock=self.clock)


def stored(number: int, kind: str) -> tuple[str, StoredConfig]:
    """Return a tenant and the active config of its row."""
    tenant_id, address = f"tenant-{number:08}", f"billing@tenant-{number:08}.example"
    config: Any = tenants.access_key(f"AKIA{number:016}", f"{number:040}", address)
    if kind == "roles":
        fields = {"roleArn": f"arn:aws:iam::{number + 2 * 10**11}:role/tenantmail", "region": tenants.REGION}
        sender = {"fromAddress": address, "fromName": f"Tenant {number}"}
        config = AssumableRole.of(RoleConfig.model_validate(fields | sender), f"{number:043}")
    row = StoredConfig(
        provider="ses",
        version=1,
        ciphertext=config.plaintext(),
        region=config.region,
        from_address=config.from_address,
        from_name=config.from_name,
        credentials=config.shown(),
    )
    return tenant_id, row


@dataclass
class Figures:
    """Calls per mail."""

    kms: float
    assumed: float
    reads: float
    writes: float


def run(count: int, load: Weights, kind: str, rate: float, batch: int, concurrency: int) -> Figures:
    """Send for some hours; count those after the warm-up."""
    random.seed(count)  # for the times of early renewals
    rng, world = random.Random(count), World.new()  # noqa: S311  # reproducible
    scale = SCALES.get(count, SCALE)
    rows = [stored(number, kind) for number in range(count // scale)]
    totals = list(accumulate(load(len(rows), scale)))
    sandboxes = [world.sandbox(scale) for _ in range(concurrency)]
    ends = [NOON + LIFE * (number + 1) / concurrency for number in range(concurrency)]
    some, mails, is_warm = max(1, batch // scale), 0, False
    for now in moments(some * scale / rate):
        world.clock.time = now
        if not is_warm and now >= NOON + WARM_UP:
            is_warm, mails = True, 0
            world.reset()
        chosen = rng.randrange(concurrency)
        if now >= ends[chosen]:
            sandboxes[chosen], ends[chosen] = world.sandbox(scale), now + LIFE
        for tenant_id, row in rng.choices(rows, cum_weights=totals, k=some):
            sandboxes[chosen].create(tenant_id, row)
        mails += some
    for_all = world.kms.renewed + world.kms.derived
    return Figures(
        (world.kms.decrypted - world.kms.renewed + for_all / scale) / mails,
        world.sts.assumed / mails,
        world.table.reads / mails,
        world.table.writes / mails,
    )


def moments(every: float) -> Iterator[datetime]:
    """Yield the times of the batches."""
    for number in range(int((WARM_UP + MEASURED).total_seconds() / every)):
        yield NOON + timedelta(seconds=number * every)


def bytes_of_a_tenant(kind: str) -> tuple[float, float]:
    """Return the bytes that a sandbox allocates per tenant: for a minute, and until the entry is evicted."""
    world = World.new()
    sandbox = world.sandbox(1)
    sandbox.create(*stored(0, kind))
    gc.collect()
    tracemalloc.start()
    for number in range(1, MEASURED_ENTRIES):
        sandbox.create(*stored(number, kind))
    world.table.clear()
    gc.collect()
    for_a_minute = tracemalloc.get_traced_memory()[0]
    sandbox._cache = None  # type: ignore[assignment]
    gc.collect()
    for_long = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (for_a_minute - for_long) / MEASURED_ENTRIES, for_long / MEASURED_ENTRIES


def main(arguments: Sequence[str]) -> None:
    """Simulate each size and load, and print a table."""
    source = FUNCTION["Events"]["SendQueue"]["Properties"]
    parser = argparse.ArgumentParser(prog="python -m tools.scale keys", description=__doc__)
    parser.add_argument("--mails-a-second", type=float, default=A_DAY)
    parser.add_argument("--concurrency", type=int, default=int(tables.template()["Parameters"]["SendConcurrency"]["Default"]))
    parser.add_argument("--tenants", type=int, nargs="*", default=TENANTS)
    asked = parser.parse_args(arguments)
    rate, batch = asked.mails_a_second, source["BatchSize"]
    print(f"{rate:.0f} mails a second, {asked.concurrency} sandboxes, batches of {batch}")
    for kind in KINDS:
        minute, long = bytes_of_a_tenant(kind)
        print(f"a tenant's memory in a sandbox, {kind}: {minute:.0f} bytes for a minute, {long:.0f} for long")
    print(HEAD)
    for count in asked.tenants:
        for name, load in LOADS.items():
            keys, roles = (run(count, load, kind, rate, batch, asked.concurrency) for kind in KINDS)
            calls = (keys.kms, roles.kms, roles.assumed)
            second = roles.assumed * rate
            cells = (f"{count:,}", name, *(f"{a_mail:.4f}" for a_mail in calls), f"{second:.1f}", f"{second / STS_QUOTA:.0%}")
            print(f"| {' | '.join(cells)} | {roles.reads:.3f} | {roles.writes:.3f} |", flush=True)


KINDS = ("access keys", "roles")
HEAD = """\
| tenants | load | KMS a mail, access keys | KMS a mail, roles | AssumeRole a mail | a second | of its quota | reads | writes |
| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""
