"""The tables' streams call PublishFunction with what was written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailer import wiring
from mailer.adapters.dynamodb.table_stream import event_of, tenant_of
from mailer.domain.events import Event
from mailer.services.events.publish import publish


def handler(event: Mapping[str, Any], _context: Any) -> Mapping[str, int]:
    """Publish the events of a batch of writes; where the bus does not take all, the error makes the stream deliver the batch again."""
    events = list(_events(event["Records"]))
    try:
        publish(events, wiring.event_bus())
    finally:
        wiring.telemetry().flush()
    return {"published": len(events)}


def _events(records: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
    for record in records:
        try:
            event = event_of(record)
        except Exception as error:  # noqa: BLE001  # an unreadable record must not hold up those behind it for a day
            wiring.telemetry().failed("publish", tenant_of(record), error)
            continue
        if event is not None:
            yield event
