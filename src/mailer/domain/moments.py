"""Convert times to and from milliseconds since 1970, and to RFC 3339."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_millis(moment: datetime) -> int:
    """Return the milliseconds since 1970, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def from_millis(millis: int) -> datetime:
    """Return the moment, in UTC."""
    return _EPOCH + millis * _MILLISECOND


def rfc3339(moment: datetime) -> str:
    """Write a moment in UTC as API and events show it: `2026-11-24T08:00:00.000Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_hour(text: str) -> datetime:
    """Read an hour as `2026-11-24T12`."""
    return datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC)
