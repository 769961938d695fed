"""Measure FeedbackFunction against the fake AWS of the sending benchmark: CPU and writes per event, events per second of one function.

Each mail has two events, as most mail does: SES accepted it, and it was delivered to its one recipient.
"""

import json
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import urllib3

from mailer import wiring
from mailer.domain import changes
from mailer.domain.changes import Fence, Request, SentBy
from mailer.domain.tags import tagged
from mailer.handlers import feedback
from support.aws.api_calls import Context
from support.ses_events import ACCOUNT, REGION, envelopes
from tools.bench.send.stage import staged
from tools.bench.send.timing import measured
from tools.local_aws.ses_events import RecipientOutcome

MAILS, BATCHES = 50, 20
"""Mails of one batch of a hundred events; batches after a first one that opens connections and loads caches."""

REQUEST = Request(
    tenant_id="acme",
    request_id="-",
    content_hash="sha256-v1:0",
    created_at=datetime.now(UTC),
    expires_at=datetime.now(UTC) + timedelta(days=1),
    recipients=1,
)


def send(number: int) -> list[dict[str, Any]]:
    """Create the record of a sent mail; return SES's events of it."""
    now, request = datetime.now(UTC), replace(REQUEST, request_id=f"invoice-{number}")
    sent_by = SentBy("ses", 1, ACCOUNT, REGION)
    wiring.messages_table().apply(changes.begin(request, now, owner="w", deadline=now, sent_by=sent_by))
    wiring.messages_table().apply(changes.accept(request, now, Fence(1, "w"), f"0100-{number}"))
    tags = tagged({}, tenant_id="acme", request_id=request.request_id, attempt=1)
    return envelopes({"jo@example.com": RecipientOutcome.DELIVERED}, message_id=f"0100-{number}", tags=tags, accepted_at=now.timestamp())


def batch_of(start: int) -> Mapping[str, Any]:
    """Return a batch in the form of a Lambda event."""
    bodies = [json.dumps(envelope) for number in range(start, start + MAILS) for envelope in send(number)]
    sent_at = str(int(datetime.now(UTC).timestamp() * 1000))
    return {"Records": [{"messageId": f"{n}", "body": body, "attributes": {"SentTimestamp": sent_at}} for n, body in enumerate(bodies)]}


def call_counts(control: str) -> Counter[str]:
    """Return the calls to the fake AWS so far, by operation."""
    return Counter(json.loads(urllib3.request("GET", control).data))


def handle(batch: Mapping[str, Any]) -> None:
    """Invoke the function with a batch; discard its log lines."""
    with redirect_stdout(StringIO()):
        assert feedback.handler(batch, Context()) == {"batchItemFailures": []}


def measure(control: str) -> Mapping[str, float]:
    """Return the figures per event: seconds of CPU and of wall time, writes and reads."""
    batches: Sequence[Mapping[str, Any]] = [batch_of(MAILS * number) for number in range(BATCHES + 1)]
    handle(batches[0])
    before = call_counts(control)
    taken = [measured(lambda batch=batch: handle(batch)) for batch in batches[1:]]  # type: ignore[misc]  # bound now
    calls, events = call_counts(control) - before, 2 * MAILS
    return {
        "cpu": statistics.median(one.cpu for one in taken) / events,
        "wall": statistics.median(one.wall for one in taken) / events,
        "writes": (calls["dynamodb.UpdateItem"] + calls["dynamodb.PutItem"]) / events / BATCHES,
        "reads": calls["dynamodb.GetItem"] / events / BATCHES,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder)) as stage:
        os.environ.update({**stage.environment, "FEEDBACK_TABLE": "feedback"})
        figures = measure(stage.control)
    print(
        f"per event: {figures['cpu'] * 1000:.2f} ms of CPU, {figures['writes']:.2f} DynamoDB writes and {figures['reads']:.2f} reads;"
        f" {1 / figures['wall']:.0f} events per second of one function with one CPU, DynamoDB at 5 ms"
    )


if __name__ == "__main__":
    main()
