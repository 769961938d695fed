"""Simulate one tenant that sends at a rate, with the real writes of its messages, against a DynamoDB that throttles by partition.

The writes are compiled by the messages table's own code; cost and partition of each follow from the template's keys and indexes. Time is
simulated: a message is accepted, started 0.2 s later, sent 0.1 s after that, and reported as delivered after another 2 s.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from random import Random
from typing import Any
from unittest.mock import patch

from mailer.adapters.dynamodb import messages_table
from mailer.domain import changes
from mailer.domain.changes import Fence, Request, SentBy
from mailer.domain.delivery import Change, Delivery, Status
from mailer.domain.facts import FeedbackCounts
from mailer.domain.pacing import RateSource
from mailer.services.pacing.pacing import Pacing
from support.aws.tables import template
from support.aws.write_units import PartitionWrite, partition_writes
from support.fakes.pacing import FakePacingTable
from support.throttling import Partitions
from tools.bench.send.aws import Tables

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
TABLE: Any = template()["Resources"]["MessagesTable"]["Properties"]
SECONDS = 4.0
TRIES = 3
"""Tries of each write, as botocore makes them."""
BACKOFF = 0.05
"""Longest wait before the second try, in seconds; it doubles with each."""

PATHS = {
    "from SQS": ("begin", "accept"),
    "from the API": ("queue", "begin", "accept"),
    "from the API, with feedback": ("queue", "begin", "accept", "delivered"),
}
"""The writes of a message, by its path."""

AFTER = {"queue": 0.0, "begin": 0.2, "accept": 0.3, "delivered": 2.3}
"""Seconds after the message was accepted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The share of a tenant's writes that were throttled at the first try, and the share that failed after all tries."""

    throttled: float
    failed: float


def writes_of(tenant_id: str, request_id: str, path: str) -> Sequence[tuple[float, Sequence[PartitionWrite]]]:
    """Return the writes of a message: the seconds after its acceptance, and the units of each partition."""
    tables, made = Tables(), []
    item: dict[str, Any] = {}
    for name in PATHS[path]:
        change = _change(name, tenant_id, request_id)
        before, key = dict(item), messages_table.record_key(tenant_id, request_id)
        item = tables.update_item({"TableName": "messages", "Key": key, "ReturnValues": "ALL_NEW", **messages_table.expressions(change)})
        item = dict(item["Attributes"])
        made.append((AFTER[name], tuple(partition_writes(TABLE, before, item))))
    return made


def units_of(path: str) -> int:
    """Return the write units of a message."""
    return sum(write.units for _, writes in writes_of("acme", "invoice-2026-0001", path) for write in writes)


def _change(name: str, tenant_id: str, request_id: str) -> Change:
    request = Request(
        tenant_id=tenant_id,
        request_id=request_id,
        content_hash=f"sha256-v1:{'0' * 64}",
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
        recipients=1,
        correlation_id="0" * 32,
    )
    match name:
        case "queue":
            return changes.queue(request, NOW)
        case "begin":
            return changes.begin(request, NOW, owner="0" * 32, deadline=NOW, sent_by=SentBy("ses", 1, "123456789012", "eu-central-1"))
        case "accept":
            return changes.accept(request, NOW, Fence(1, "0" * 32), f"{'0' * 16}-00000000-0000-0000-0000-000000000000-000000")
    record = Delivery(
        **{n: getattr(request, n) for n in ("tenant_id", "request_id", "content_hash", "created_at", "expires_at", "recipients")},
        status=Status.SENT,
        updated_at=NOW,
    )
    return changes.note_feedback(record, NOW, FeedbackCounts(delivered=1, rank=1, first_at=NOW, last_at=NOW))


def simulate(rate: int, path: str, *, shards: int, shared: int | None = None, others: int = 0) -> dict[str, Outcome]:
    """Let one tenant send at a rate, and others one message a second each; return the outcome of their writes."""
    with patch.object(messages_table, "TENANT_SHARDS", shards):
        mail = [("acme", number / rate) for number in range(int(rate * SECONDS))]
        mail += [(f"quiet-{other}", second + other / max(others, 1)) for other in range(others) for second in range(int(SECONDS))]
        pending = [
            (at + after, sequence, 1, tenant_id, writes)
            for sequence, (tenant_id, at) in enumerate(mail)
            for after, writes in _of_shard(tenant_id, sequence, path, shards)
        ]
    return _run(pending, Partitions(shared))


def _of_shard(tenant_id: str, sequence: int, path: str, shards: int) -> Sequence[tuple[float, Sequence[PartitionWrite]]]:
    """Return the writes of a message in one of the tenant's shards; its bySweep shard differs from message to message."""
    made = _sample(tenant_id, Random(sequence).randrange(shards), path, shards)  # noqa: S311  # no secret
    sweep = str(sequence % messages_table.SWEEP_SHARDS)
    return [(at, tuple(replace(write, partition=sweep) if write.index == "bySweep" else write for write in writes)) for at, writes in made]


@cache
def _sample(tenant_id: str, shard: int, path: str, shards: int) -> Sequence[tuple[float, Sequence[PartitionWrite]]]:
    ids = (f"invoice-2026-{number:06}" for number in count())
    partition = f"{tenant_id}#{shard}"
    assert shards == messages_table.TENANT_SHARDS
    return writes_of(tenant_id, next(r for r in ids if messages_table.tenant_shard(tenant_id, r) == partition), path)


def _run(pending: list[tuple[float, int, int, str, Sequence[PartitionWrite]]], partitions: Partitions) -> dict[str, Outcome]:
    heapq.heapify(pending)
    rng, tried, throttled, failed = Random(1), Counter[str](), Counter[str](), Counter[str]()  # noqa: S311  # no secret
    while pending:
        now, sequence, number, tenant_id, writes = heapq.heappop(pending)
        who = "acme" if tenant_id == "acme" else "others"
        tried[who] += number == 1
        if partitions.write(writes, now):
            continue
        throttled[who] += number == 1
        failed[who] += number == TRIES
        if number < TRIES:
            heapq.heappush(pending, (now + rng.uniform(0, BACKOFF * 2 ** (number - 1)), sequence, number + 1, tenant_id, writes))
    return {who: Outcome(throttled[who] / tried[who], failed[who] / tried[who]) for who in tried}


def bookings(rate: int, batch: int, functions: int) -> float:
    """Return the writes per second of an account's item, for batches of a size and several functions at the account's rate."""
    table = FakePacingTable()
    pacers = [Pacing(table, functions=functions) for _ in range(functions)]
    for number in range(int(rate * SECONDS) // batch):
        now = NOW + timedelta(seconds=number * batch / rate)
        pacers[number % functions].reserve("123456789012/eu-central-1", RateSource(configured=rate), [1] * batch, [None] * batch, now)
    return table.writes / SECONDS
