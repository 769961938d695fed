"""SendFunction, called by SQS with a batch of send requests."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from mailer import wiring
from mailer.adapters.sqs.send_queue import read_record
from mailer.adapters.sqs.signer import Signer
from mailer.domain.errors import DependencyError
from mailer.domain.retries import hidden_for
from mailer.services.sending.jobs import Received
from mailer.services.sending.send import send_batch


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Send a batch; return which of its messages SQS must redeliver."""
    ends_at = wiring.clock().now() + timedelta(milliseconds=context.get_remaining_time_in_millis())
    try:
        batch, unread = _read(event["Records"])
        returned = [*unread, *send_batch(batch, wiring.send_dependencies(), ends_at=ends_at)]
        _hide([record for record in event["Records"] if record["messageId"] in returned])
    finally:
        wiring.telemetry().flush()
    return {"batchItemFailures": [{"itemIdentifier": sqs_message_id} for sqs_message_id in returned]}


def _read(records: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Received], Sequence[str]]:
    """Read a batch; also return the SQS ids of messages whose attributes cannot be checked or read now."""
    batch, unread = [], []
    for record in records:
        try:
            batch.append(_received(record, wiring.signer()))
        except DependencyError as failure:
            wiring.telemetry().failed("receive", None, failure)
            unread.append(record["messageId"])
    return batch, unread


def _received(record: Mapping[str, Any], signer: Signer) -> Received:
    read = read_record(record["body"], record.get("messageAttributes", {}), record.get("attributes", {}), signer)
    return Received(record["messageId"], read.queue_message, read.receives, read.sent_at)


def _receives(record: Mapping[str, Any]) -> int:
    return int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))


def _hide(returned: Sequence[Mapping[str, Any]]) -> None:
    """Hide messages that went back to the queue several times, so that a long outage does not use up their receives."""
    waits = {record["receiptHandle"]: wait for record in returned if (wait := hidden_for(_receives(record)))}
    try:
        wiring.send_queue().hide(waits)
    except DependencyError as failure:
        wiring.telemetry().failed("hide", None, failure)
