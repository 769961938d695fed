"""FeedbackFunction, called by SQS with SES's events of accepted mail."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from mailer import wiring
from mailer.domain.moments import from_millis
from mailer.services.feedback.receive import ReceivedEvent, receive_batch


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Record a batch of events; return which of its messages SQS must redeliver."""
    ends_at = wiring.clock().now() + timedelta(milliseconds=context.get_remaining_time_in_millis())
    batch = [_received(record) for record in event["Records"]]
    try:
        returned = receive_batch(batch, wiring.feedback_dependencies(), wiring.workers(), ends_at=ends_at)
    finally:
        wiring.telemetry().flush()
    return {"batchItemFailures": [{"itemIdentifier": sqs_message_id} for sqs_message_id in returned]}


def _received(record: Mapping[str, Any]) -> ReceivedEvent:
    return ReceivedEvent(record["messageId"], record["body"], from_millis(int(record["attributes"]["SentTimestamp"])))
