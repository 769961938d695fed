"""SQS calls SendFunction with a batch of send requests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mailer import wiring
from mailer.adapters.send_queue import from_attributes
from mailer.services.mailroom import Received
from mailer.services.send import send_batch


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Send a batch; answer which of its messages SQS must hand out again."""
    ends_at = wiring.clock().now() + timedelta(milliseconds=context.get_remaining_time_in_millis())
    try:
        returned = send_batch([_received(record) for record in event["Records"]], wiring.mailroom(), ends_at=ends_at)
    finally:
        wiring.journal().flush()
    return {"batchItemFailures": [{"itemIdentifier": receipt} for receipt in returned]}


def _received(record: Mapping[str, Any]) -> Received:
    attributes = record.get("attributes", {})
    papers = {name: value.get("stringValue") or "" for name, value in record.get("messageAttributes", {}).items()}
    stamp = attributes.get("SentTimestamp")  # events written by hand have none
    sent_at = datetime.fromtimestamp(int(stamp) / 1000, UTC) if stamp else datetime.now(UTC)
    copy = from_attributes(record["body"], papers, sent_at=sent_at, tenant_id=attributes.get("MessageGroupId"))
    return Received(record["messageId"], copy, int(attributes.get("ApproximateReceiveCount", 1)), sent_at)
