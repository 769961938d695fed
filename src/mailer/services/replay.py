"""Tell a restored status table the ends that it has lost, from the log lines that told them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mailer.domain.delivery import ENDS, Status
from mailer.ports import End, LostEnds


def replay(lines: Iterable[str], ends: LostEnds) -> Counter[str]:
    """Write back every end that the lines tell; return how many of each status, and how many the table knew.

    A crash on the way does no harm: the same lines may be replayed again.
    """
    done: Counter[str] = Counter()
    for end in read_ends(lines).values():
        done[end.status if ends.write(end) else "known"] += 1
    return done


def read_ends(lines: Iterable[str]) -> Mapping[tuple[str, str], End]:
    """Return the last end of each request; what SES accepted is sent, whatever was told after it."""
    found: dict[tuple[str, str], End] = {}
    for line in lines:
        end = _end(line)
        known = found.get((end.tenant_id, end.request_id)) if end else None
        if end and not (known and known.status is Status.SENT):
            found[end.tenant_id, end.request_id] = end
    return found


def _end(line: str) -> End | None:
    """Read what SES answered, or what was recorded; None where a line tells no end."""
    try:
        told: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("message") not in _TELLING:
        return None
    status = told.get("status") or told.get("outcome")
    if status not in ENDS:
        return None
    try:
        return End(
            tenant_id=told["tenant_id"],
            request_id=told["request_id"],
            status=Status(status),
            at=datetime.strptime(told["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").astimezone(UTC),
            attempt=int(told.get("attempt", 0)),
            message_id=told.get("message_id"),
            code=told.get("code"),
        )
    except (KeyError, TypeError, ValueError):  # cut off, or written by another version
        return None


_TELLING = ("provider answered", "request recorded")
"""Messages of `observability.LogJournal` that tell of an end."""
