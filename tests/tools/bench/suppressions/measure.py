"""Look up the recipients of batches, in one process, against the fake DynamoDB with a latency of 5 ms.

python -m tools.bench.suppressions.measure look_ups RESULT '{"recipients": 1, "listed": 10}'
"""

import json
import os
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import urllib3

from mailer import wiring
from mailer.adapters.dynamodb.suppressions_table import to_item
from mailer.domain.changes import Request
from mailer.domain.message import parse_request
from mailer.domain.suppressions import Entry, Reason, Suppression
from mailer.ports import QueueMessage
from mailer.services.sending.jobs import Job, Received
from mailer.services.sending.suppressed import look_up, suppressed_of
from support.fakes.ports import a_provider
from tools.bench.send.timing import measured, run_named

BATCH, TURNS = 100, 15
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def look_ups(*, recipients: int, listed: int) -> dict[str, float]:
    """Measure batches after one to warm up; return the CPU per message and the wall time per batch, in seconds, and the calls per batch."""
    deps = Mock(suppressions=wiring.suppressions_table(), workers=wiring.workers())
    _list(listed)
    rows = {"acme": a_provider(has_suppressions=bool(listed))}
    jobs = [_job(number, recipients) for number in range(BATCH)]

    def once() -> None:
        entries = look_up(jobs, rows, deps)
        found = sum(len(suppressed_of(job, entries, NOW)) for job in jobs)
        assert found == min(listed, BATCH * recipients // 10)

    once()
    before = _calls()
    figures = [measured(once) for _ in range(TURNS)]
    return {
        "cpu": statistics.median(figure.cpu for figure in figures) / BATCH,
        "wall": statistics.median(figure.wall for figure in figures),
        "calls": (_calls() - before) / TURNS,
    }


def _list(count: int) -> None:
    """Let the fake list `count` addresses: every tenth number, so that a tenth of a batch is suppressed."""
    suppression = Suppression(reason=Reason.HARD_BOUNCE, at=NOW, request_id="earlier")
    item = to_item(Entry(tenant_id="acme", email=_address(0), suppression=suppression))
    wanted = {"item": item, "pattern": "somebody-{}@example.com", "step": 10, "count": count}
    assert urllib3.request("POST", os.environ["CONTROL"], json=wanted, timeout=60).status == 200


def _address(number: int) -> str:
    return f"somebody-{number}@example.com"


def _job(number: int, recipients: int) -> Job:
    """Return a message; a tenth of the batch's recipients is suppressed, if the list is long enough."""
    to = [{"email": _address(number * recipients + at)} for at in range(recipients)]
    body: dict[str, Any] = {"tenantId": "acme", "requestId": f"r{number}", "message": {"to": to, "subject": "Hi", "text": "Hello."}}
    send = parse_request(json.dumps(body))
    request = Request.of(send, created_at=NOW, expires_at=NOW + timedelta(days=1))
    return Job(Received(f"m{number}", QueueMessage(body=json.dumps(body), tenant_id="acme", created_at=NOW), 1), send, request, NOW)


def _calls() -> int:
    counts: dict[str, int] = json.loads(urllib3.request("GET", os.environ["CONTROL"]).data)
    return counts.get("dynamodb.BatchGetItem", 0)


if __name__ == "__main__":
    run_named(look_ups)
