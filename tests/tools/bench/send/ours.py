"""What we measure of ourselves: the handler with what `wiring` builds for it, and nothing replaced but the addresses of AWS."""

import cProfile
import json
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import urllib3

from mailer import wiring
from mailer.domain.message import parse_request
from mailer.domain.mime import compose
from mailer.domain.provider import StoredConfig
from mailer.handlers.send import handler
from support.fakes.ports import AtOnce
from tools.bench.send.shares import shares
from tools.bench.send.timing import Handle, answer, batches, clocked, repeated
from tools.bench.send.workload import BATCH, EVERYONE, LARGE, LARGEST_FILE, TENANTS, Requests, Tenant, event, message, octets, uploaded


class Context:
    """What Lambda tells a function of its invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def function() -> Handle:
    """Return SendFunction, which must answer that nothing is to be handed out again."""

    def handle(batch: Mapping[str, Any]) -> None:
        assert handler(batch, Context()) == {"batchItemFailures": []}

    return handle


def batch(*, count: int = 5, size: int = BATCH) -> dict[str, float]:
    """Hand batches to the function's own handler."""
    return batches(function(), count, size=size)


def first_message() -> dict[str, float]:
    """Send a process's first message after its imports, then a batch, which opens the other connections; give the wall of each."""
    handle, requests = function(), Requests(f"{os.getpid()}")
    single, many = event(requests.take(EVERYONE, 1)), event(requests.take(EVERYONE))
    return {"first": clocked(lambda: handle(single)).wall, "batch": clocked(lambda: handle(many)).wall}


def send_only(*, count: int = 5) -> dict[str, float]:
    """Render and send with the function's own opened providers and threads, without fence and record."""
    deps = wiring.send_dependencies()
    configs = active_configs(EVERYONE)

    def send(record: Mapping[str, Any]) -> None:
        request = parse_request(record["body"])
        provider = deps.provider_factory.create(request.tenant_id, configs[request.tenant_id])
        provider.send(compose(request.message, provider.sender, date=datetime.now(UTC), load=None), tags={})

    return batches(lambda batch: list(deps.workers.map(send, batch["Records"])), count)


def active_configs(tenants: Sequence[Tenant]) -> dict[str, StoredConfig]:
    """Read what the tenants have stored."""
    rows = wiring.providers_table().get_many([tenant.tenant_id for tenant in tenants])
    return {tenant_id: row.active for tenant_id, row in rows.items() if row.active}


def many_tenants(*, tenants: int, sends: int) -> dict[str, float]:
    """Send so many messages for so many tenants, from the process's first on, then as many again; give what one message asks of AWS."""
    handle, requests, everyone = function(), Requests(f"{os.getpid()}"), [Tenant(n) for n in range(tenants)]
    counted = [asked()]
    for _ in range(2):
        for start in range(0, sends, BATCH):
            handle(event(requests.take(everyone[start % tenants :] + everyone[: start % tenants])))
        counted.append(asked())
    first, steady = (Counter(later) - Counter(earlier) for earlier, later in pairwise(counted))
    return {
        "handshakes": first["ses.handshakes"],
        "writes": (steady["dynamodb.UpdateItem"] + steady["dynamodb.PutItem"]) / sends,
        "reads": (steady["dynamodb.BatchGetItem"] + steady["dynamodb.GetItem"]) / sends,
        "kms": steady["kms.Decrypt"] / sends,
    }


def asked() -> dict[str, int]:
    """Return what was asked of the little AWS so far."""
    counts: dict[str, int] = json.loads(urllib3.request("GET", os.environ["CONTROL"]).data)
    return counts


def new_tenants(*, count: int) -> dict[str, float]:
    """Send a message for each of some tenants that the process has never seen, then another; give the CPU of each, and of a decrypt."""
    handle, requests = function(), Requests(f"{os.getpid()}")
    handle(event(requests.take(EVERYONE)))
    strangers = [Tenant(TENANTS + n) for n in range(count)]
    first, nth = (statistics.median(_one(handle, requests, tenant) for tenant in strangers) for _ in range(2))
    decrypts = [_decrypt(tenant_id, config) for tenant_id, config in active_configs(strangers).items()]
    return {"first": first, "nth": nth, "decrypt": statistics.median(decrypts)}


def _one(handle: Handle, requests: Requests, tenant: Tenant) -> float:
    single = event(requests.take([tenant], 1))
    return clocked(lambda: handle(single)).cpu


def _decrypt(tenant_id: str, config: StoredConfig) -> float:
    return clocked(lambda: wiring.config_cipher().decrypt(tenant_id, "ses", 1, config.ciphertext)).cpu


def memory_of_tenants(*, tenants: int) -> dict[str, float]:
    """Give the bytes by which the process grows when it has sent for so many more tenants."""
    handle, requests, everyone = function(), Requests(f"{os.getpid()}"), [Tenant(n) for n in range(TENANTS, TENANTS + tenants)]
    for _ in range(3):
        handle(event(requests.take(EVERYONE)))
    before = resident()
    for start in range(0, tenants, BATCH):
        handle(event(requests.take(everyone[start : start + BATCH])))
    return {"bytes": resident() - before}


def largest(*, count: int, file: int = LARGEST_FILE) -> dict[str, float]:
    """Send one batch of so many messages with a file; give the peak of the process's memory, and what it had before."""
    handle, requests = function(), Requests(f"{os.getpid()}")
    handle(event(requests.take(EVERYONE)))
    before = resident()
    batch = [{**one, "message": message(uploaded(one["tenantId"], file))} for one in requests.take(EVERYONE, count)]
    taken = clocked(lambda: handle(event(batch)))
    return {"before": before, "peak": resident("VmHWM"), "wall": taken.wall}


def resident(field: str = "VmRSS") -> int:
    """Give the bytes of memory that the process has (Linux), or had at its peak (`VmHWM`)."""
    [line] = [line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def profile(*, count: int = 3) -> dict[str, float]:
    """Run batches in one thread under Python's profiler; give each package's share of the time that is not spent waiting."""
    handle, requests, deps = function(), Requests(f"{os.getpid()}"), wiring.send_dependencies()
    profiler = cProfile.Profile()
    with patch.object(wiring, "send_dependencies", return_value=replace(deps, workers=AtOnce())):
        handle(event(requests.take(EVERYONE)))
        for _ in range(count):
            profiler.runcall(handle, event(requests.take(EVERYONE, TENANTS)))
    return shares(profiler)


def large(*, count: int = 7, size: int = LARGE) -> dict[str, float]:
    """Render and send a message with a file that is in memory, as those of S3 are."""
    deps, file = wiring.send_dependencies(), octets(size)
    [request] = Requests("large").take(EVERYONE, 1, message(uploaded("tenant-0", size)))
    parsed = parse_request(json.dumps(request))
    provider = deps.provider_factory.create(parsed.tenant_id, active_configs(EVERYONE)[parsed.tenant_id])
    return repeated(
        lambda: provider.send(compose(parsed.message, provider.sender, date=datetime.now(UTC), load=lambda _: file), tags={}), count
    )


if __name__ == "__main__":
    answer(batch, first_message, send_only, large, many_tenants, new_tenants, memory_of_tenants, largest, profile)
