"""Read the stream records of our tables."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from mailer.adapters.aws import UNREADABLE
from mailer.adapters.dynamodb import messages_table, providers_table, suppressions_table
from mailer.domain.events import EntryWritten, RequestWritten, RowWritten, Write
from mailer.ports import RecordWrite


def read_write(record: Mapping[str, Any]) -> Write:
    """Parse a stream record as Lambda passes it, of the messages, providers or suppressions table.

    Raises:
        Exception: of any type, if our own code did not write the record.
    """
    written = record["dynamodb"]
    new, old = _image(written["NewImage"]), _image(written.get("OldImage", {}))
    if "requestId" in written["Keys"]:
        return RequestWritten(record["eventID"], _before(messages_table.from_item, old), messages_table.from_item(new))
    if "email" in written["Keys"]:
        return EntryWritten(record["eventID"], _before(suppressions_table.from_item, old), suppressions_table.from_item(new))
    return RowWritten(record["eventID"], _before(providers_table.from_item, old), providers_table.from_item(new))


def record_write(record: Mapping[str, Any]) -> RecordWrite:
    """Parse a stream record of the messages table as Lambda passes it.

    Raises:
        Exception: of any type, if our own code did not write the record.
    """
    written = record["dynamodb"]
    old, new = _image(written.get("OldImage", {})), _image(written["NewImage"])
    return RecordWrite(written["SequenceNumber"], messages_table.from_item(old) if old else None, messages_table.from_item(new))


def _before[Written](read: Callable[[dict[str, Any]], Written], old: dict[str, Any]) -> Written | None:
    """Read the old image; None if it cannot be read, so that the new image still makes an event."""
    try:
        return read(old) if old else None
    except UNREADABLE:
        return None


def tenant_of(record: Mapping[str, Any]) -> str | None:
    """Return the tenant of a stream record, if it is known."""
    written = record.get("dynamodb", {})
    whole = {**written.get("NewImage", {}), **written.get("Keys", {})}
    tenant_id: str | None = whole.get("tenantId", {}).get("S")
    return tenant_id


def _image(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in item.items()}


def _value(value: Mapping[str, Any]) -> dict[str, Any]:
    """Decode a value: Lambda delivers binary values in base64."""
    [(kind, content)] = value.items()
    match kind:
        case "B":
            return {"B": base64.b64decode(content)}
        case "M":
            return {"M": _image(content)}
        case "L":
            return {"L": [_value(entry) for entry in content]}
        case _:
            return {kind: content}
