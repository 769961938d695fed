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
from mailer.domain.provider import Provider, StoredConfig
from mailer.handlers.send import handler
from support.fakes.ports import InlineExecutor
from tools.bench.send.shares import shares
from tools.bench.send.timing import Handle, batches, measured, repeated, run_named
from tools.bench.send.workload import BATCH, EVERYONE, LARGE, LARGEST_FILE, TENANTS, Requests, Tenant, event, message, octets, uploaded


class Context:
    """The Lambda context of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def function() -> Handle:
    """Return SendFunction; assert that it reports no batch item failures."""

    def handle(batch: Mapping[str, Any]) -> None:
        assert handler(batch, Context()) == {"batchItemFailures": []}

    return handle


def batch(*, count: int = 5, size: int = BATCH) -> dict[str, float]:
    """Invoke the function's own handler with batches."""
    return batches(function(), count, size=size)


def first_message() -> dict[str, float]:
    """Send a process's first message after its imports, then a batch, which opens the other connections; return the wall time of each."""
    handle, requests = function(), Requests(f"{os.getpid()}")
    single, many = event(requests.take(EVERYONE, 1)), event(requests.take(EVERYONE))
    return {"first": measured(lambda: handle(single)).wall, "batch": measured(lambda: handle(many)).wall}


def send_only(*, count: int = 5) -> dict[str, float]:
    """Compose and send with the function's own providers and threads, without fence and record."""
    deps = wiring.send_dependencies()
    configs = active_configs(EVERYONE)

    def send(record: Mapping[str, Any]) -> None:
        request = parse_request(record["body"])
        provider = deps.provider_factory.create(request.tenant_id, configs[request.tenant_id], None)
        provider.send(compose(request.message, provider.sender, date=datetime.now(UTC), load=None), tags={})

    return batches(lambda batch: list(deps.workers.map(send, batch["Records"])), count)


def active_configs(tenants: Sequence[Tenant]) -> dict[str, StoredConfig]:
    """Read the tenants' active configs."""
    rows = wiring.providers_table().get_many([tenant.tenant_id for tenant in tenants])
    return {tenant_id: row.active for tenant_id, row in rows.items() if isinstance(row, Provider) and row.active}


def many_tenants(*, tenants: int, sends: int) -> dict[str, float]:
    """Send `sends` messages for `tenants` tenants in a new process, then as many again; return the AWS calls per message."""
    handle, requests, everyone = function(), Requests(f"{os.getpid()}"), [Tenant(n) for n in range(tenants)]
    counted = [call_counts()]
    for _ in range(2):
        for start in range(0, sends, BATCH):
            handle(event(requests.take(everyone[start % tenants :] + everyone[: start % tenants])))
        counted.append(call_counts())
    first, steady = (Counter(later) - Counter(earlier) for earlier, later in pairwise(counted))
    return {
        "handshakes": first["ses.handshakes"],
        "writes": (steady["dynamodb.UpdateItem"] + steady["dynamodb.PutItem"]) / sends,
        "reads": (steady["dynamodb.BatchGetItem"] + steady["dynamodb.GetItem"]) / sends,
        "kms": steady["kms.Decrypt"] / sends,
    }


def call_counts() -> dict[str, int]:
    """Return the calls to the fake AWS so far, by operation."""
    counts: dict[str, int] = json.loads(urllib3.request("GET", os.environ["CONTROL"]).data)
    return counts


def new_tenants(*, count: int) -> dict[str, float]:
    """Send two messages for each of `count` tenants new to the process, and decrypt its config.

    Return the CPU of a decrypt in seconds, and that of the first message beyond it as a multiple of the second's. Both are taken tenant by
    tenant, so that the machine's speed is the same for all three.
    """
    handle, requests = function(), Requests(f"{os.getpid()}")
    handle(event(requests.take(EVERYONE)))
    newcomers = [Tenant(TENANTS + n) for n in range(count)]
    configs = active_configs(newcomers)
    took = [(*(_one(handle, requests, one) for _ in range(2)), _decrypt(one.tenant_id, configs[one.tenant_id])) for one in newcomers]
    return {
        "ratio": statistics.median((first - decrypt) / second for first, second, decrypt in took),
        "decrypt": statistics.median(decrypt for _, _, decrypt in took),
    }


def _one(handle: Handle, requests: Requests, tenant: Tenant) -> float:
    single = event(requests.take([tenant], 1))
    return measured(lambda: handle(single)).cpu


def _decrypt(tenant_id: str, config: StoredConfig) -> float:
    return measured(lambda: wiring.config_cipher().decrypt(tenant_id, "ses", 1, config.ciphertext)).cpu


def memory_of_tenants(*, tenants: int) -> dict[str, float]:
    """Return the bytes by which the process grows after sending for `tenants` more tenants."""
    handle, requests, everyone = function(), Requests(f"{os.getpid()}"), [Tenant(n) for n in range(TENANTS, TENANTS + tenants)]
    for _ in range(3):
        handle(event(requests.take(EVERYONE)))
    before = resident()
    for start in range(0, tenants, BATCH):
        handle(event(requests.take(everyone[start : start + BATCH])))
    return {"bytes": resident() - before}


def largest(*, count: int, file: int = LARGEST_FILE) -> dict[str, float]:
    """Send one batch of `count` messages with a file; return the peak of the process's memory, and its memory before."""
    handle, requests = function(), Requests(f"{os.getpid()}")
    handle(event(requests.take(EVERYONE)))
    before = resident()
    batch = [{**one, "message": message(uploaded(one["tenantId"], file))} for one in requests.take(EVERYONE, count)]
    taken = measured(lambda: handle(event(batch)))
    return {"before": before, "peak": resident("VmHWM"), "wall": taken.wall}


def resident(field: str = "VmRSS") -> int:
    """Return the bytes of memory that the process has (Linux), or had at its peak (`VmHWM`)."""
    [line] = [line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def profile(*, count: int = 3) -> dict[str, float]:
    """Run batches in one thread under Python's profiler; return each package's share of the time that is not spent waiting."""
    handle, requests, deps = function(), Requests(f"{os.getpid()}"), wiring.send_dependencies()
    profiler = cProfile.Profile()
    with patch.object(wiring, "send_dependencies", return_value=replace(deps, workers=InlineExecutor())):
        handle(event(requests.take(EVERYONE)))
        for _ in range(count):
            profiler.runcall(handle, event(requests.take(EVERYONE, TENANTS)))
    return shares(profiler)


def large(*, count: int = 7, size: int = LARGE) -> dict[str, float]:
    """Compose and send a message with a file that is in memory, as if loaded from S3."""
    deps, file = wiring.send_dependencies(), octets(size)
    [request] = Requests("large").take(EVERYONE, 1, message(uploaded("tenant-0", size)))
    parsed = parse_request(json.dumps(request))
    provider = deps.provider_factory.create(parsed.tenant_id, active_configs(EVERYONE)[parsed.tenant_id], None)
    return repeated(
        lambda: provider.send(compose(parsed.message, provider.sender, date=datetime.now(UTC), load=lambda _: file), tags={}), count
    )


if __name__ == "__main__":
    run_named(batch, first_message, send_only, large, many_tenants, new_tenants, memory_of_tenants, largest, profile)
