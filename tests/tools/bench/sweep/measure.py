"""Sweep one part of the due requests, in one process, against the fake AWS: 5 ms for DynamoDB, 10 ms for SQS.

python -m tools.bench.sweep.measure part RESULT '{"shards": 4, "records": 4000, "turn": 0}'
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from itertools import count, islice

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import sweep_shard
from mailer.domain import changes
from mailer.domain.message import content_hash, parse_request
from mailer.ports import SweepPart
from mailer.services.sweeping.sweep import sweep_part
from support.fakes.sending import a_body
from tools.bench.send.timing import measured, run_named
from tools.bench.send.workload import EVERYONE

PARTS = 16
WARM_UP = 200


def part(*, shards: int, records: int, turn: int) -> dict[str, float]:
    """Measure a part after one to warm up; return CPU and wall time per record, in seconds."""
    due = _due(shards, turn)
    figures = []
    for size in (WARM_UP, records):
        list(wiring.workers().map(_park, islice(due, size)))
        figures.append(measured(partial(_sweep, shards, size)))
    return {"cpu": figures[-1].cpu / records, "wall": figures[-1].wall / records}


def _sweep(shards: int, wanted: int) -> None:
    ends_at = wiring.clock().now() + timedelta(minutes=5)
    assert sweep_part(wiring.sweep_dependencies(), SweepPart(shards=range(shards), share=1 / PARTS, ends_at=ends_at)).moved == wanted


def _due(shards: int, turn: int) -> Iterator[tuple[str, str]]:
    """Yield ids of requests in the first shards."""
    for number in count():
        tenant_id, request_id = EVERYONE[number % len(EVERYONE)].tenant_id, f"turn-{turn}-{number}"
        if int(sweep_shard(tenant_id, request_id)) < shards:
            yield tenant_id, request_id


def _park(of: tuple[str, str]) -> None:
    """Write the record of a request that was due a minute ago."""
    tenant_id, request_id = of
    body = parse_request(a_body(request_id, tenant_id))
    due = wiring.clock().now() - timedelta(minutes=1)
    request = changes.Request(
        tenant_id=tenant_id,
        request_id=request_id,
        content_hash=content_hash(body),
        created_at=due - timedelta(days=1),
        expires_at=due + timedelta(days=1),
        recipients=1,
    )
    deferral = changes.Deferral(until=due, generation=1, parked=f"parked/{tenant_id}/{request_id}/1.json", on_queue=False)
    wiring.messages_table().apply(changes.defer(request, due - timedelta(days=1), deferral))


if __name__ == "__main__":
    run_named(part)
