"""Encode and decode DynamoDB attribute values, for all tables; times are epoch milliseconds, those of DynamoDB's TTL epoch seconds.

A reader raises one of `aws.UNREADABLE` if the attribute has another type.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from mailer.domain.errors import ErrorInfo
from mailer.domain.moments import from_millis, to_millis

Item = dict[str, Any]
"""Attribute values by name, or one of them."""


def encode(value: Any) -> Item:
    """Encode a value; collections recursively."""
    content: Any
    match value:
        case str():
            kind, content = "S", str(value)
        case bool():
            kind, content = "BOOL", value
        case int() | float():
            kind, content = "N", str(value)
        case datetime():
            kind, content = "N", str(to_millis(value))
        case bytes():
            kind, content = "B", value
        case Mapping():
            kind, content = "M", encode_all(value)
        case AbstractSet():
            kind, content = "SS", sorted(value)
        case _:
            kind, content = "L", [encode(entry) for entry in value]
    return {kind: content}


def encode_all(fields: Mapping[str, Any]) -> Item:
    """Encode values by name; None and empty sets are left out: DynamoDB takes no empty set, and a sparse index no null."""
    return {name: encode(value) for name, value in fields.items() if value is not None and value != frozenset()}


def operands(**values: Any) -> Item:
    """Encode the values of an expression's placeholders."""
    return {f":{name}": encode(value) for name, value in values.items()}


def expiry(moment: datetime) -> Item:
    """Encode the time at which DynamoDB deletes an item."""
    return {"N": str(int(moment.timestamp()))}


def optional[Value](item: Mapping[str, Any], name: str, read: Callable[[Item], Value]) -> Value | None:
    """Read an optional attribute."""
    return read(item[name]) if name in item else None


def text(value: Mapping[str, Any]) -> str:
    """Read a string."""
    read: str = value["S"]
    return read


def texts(value: Mapping[str, Any]) -> frozenset[str]:
    """Read a set of strings."""
    return frozenset(value["SS"])


def integer(value: Mapping[str, Any]) -> int:
    """Read a whole number."""
    return int(value["N"])


def number(value: Mapping[str, Any]) -> float:
    """Read a number."""
    return float(value["N"])


def positive(value: Mapping[str, Any]) -> float:
    """Read a number that is divided by."""
    if (read := number(value)) <= 0:
        raise ValueError("not positive")
    return read


def flag(value: Mapping[str, Any]) -> bool:
    """Read a boolean."""
    return bool(value["BOOL"])


_NO_LATER = datetime(9000, 1, 1, tzinfo=UTC)


def moment(value: Mapping[str, Any]) -> datetime:
    """Read a time of ours, to which a span can be added: beyond the year 9999 that raises."""
    if (read := any_moment(value)) > _NO_LATER:
        raise ValueError("too late")
    return read


def any_moment(value: Mapping[str, Any]) -> datetime:
    """Read a time that a caller chose."""
    return from_millis(integer(value))


def error_fields(value: ErrorInfo) -> Mapping[str, str]:
    """Return the stored fields of an error, to be encoded."""
    fields = {"code": value.code, "message": value.message, "remediation": value.remediation}
    return {name: content for name, content in fields.items() if content}


def error(value: Mapping[str, Any]) -> ErrorInfo:
    """Read an error."""
    fields = {name: text(content) for name, content in value["M"].items() if name in ("code", "message", "remediation")}
    return ErrorInfo(fields["code"], fields.get("message", ""), fields.get("remediation"))


def octets(value: Mapping[str, Any]) -> bytes:
    """Read bytes."""
    return bytes(value["B"])
