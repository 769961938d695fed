"""PublishFunction, called by the tables' streams."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailer import wiring
from mailer.adapters.dynamodb.table_stream import read_write, tenant_of
from mailer.domain.events import Event, RequestWritten, Write, events_of
from mailer.services.events.publish import publish
from mailer.services.events.silence import note_sent


def handler(event: Mapping[str, Any], _context: Any) -> Mapping[str, int]:
    """Publish the events of a batch of writes; if the bus does not accept all, the error makes the stream redeliver the batch."""
    read = list(_read(event["Records"]))
    events = [event for _, events in read for event in events]
    try:
        publish(events, wiring.event_bus())
        sent = (write.new for write, _ in read if isinstance(write, RequestWritten) and write.sent)
        note_sent(sent, wiring.provider_feedback(), wiring.telemetry())
    finally:
        wiring.telemetry().flush()
    return {"published": len(events)}


def _read(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Write, Sequence[Event]]]:
    """Yield each write with its events."""
    for record in records:
        try:
            write = read_write(record)
            yield write, events_of(write)
        except Exception as error:  # noqa: BLE001  # an unreadable record must not block its shard for a day
            wiring.telemetry().failed("publish", tenant_of(record), error)
