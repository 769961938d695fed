"""Read the log lines back that tell what became of requests: of each request what was told last.

`observability.LogTelemetry` writes them, at every LogLevel.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mailer.domain.delivery import Status
from mailer.ports import End

Ids = tuple[str, str]
"""tenantId and requestId."""

TELLING = ("provider answered", "request recorded")
"""Messages of the lines that tell what became of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One log line about a request: the state that it reached."""

    tenant_id: str
    request_id: str
    status: Status
    at: datetime
    attempt: int = 0
    generation: int = 0
    message_id: str | None = None
    code: str | None = None
    hint: str | None = None
    parked: str | None = None
    maybe_sent: bool = False
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def end(self) -> End:
        """Return it as an end."""
        names = ("tenant_id", "request_id", "status", "at", "attempt", "message_id", "code")
        return End(**{name: getattr(self, name) for name in names})


@dataclass(slots=True)
class Log:
    """What a log tells: of each request the newest state, and how many lines of ours could not be read."""

    newest: dict[Ids, Told] = field(default_factory=dict)
    unreadable: int = 0


def read_log(lines: Iterable[str]) -> Log:
    """Return what was told last of each request; what SES accepted is sent, whatever was told after it."""
    log = Log()
    for line in lines:
        try:
            told = _told(line)
        except (KeyError, TypeError, ValueError):
            log.unreadable += 1
            continue
        known = log.newest.get((told.tenant_id, told.request_id)) if told else None
        if told and (known is None or _rank(told) >= _rank(known)):
            log.newest[told.tenant_id, told.request_id] = told
    return log


def _rank(told: Told) -> tuple[bool, int, int, datetime]:
    """Order what was told: attempts and generations only grow, and a slow worker may write its line after the next one's."""
    return told.status is Status.SENT, told.attempt, told.generation, told.at


def _told(line: str) -> Told | None:
    """Read what SES answered, or what was recorded; None where a line tells neither."""
    try:
        shown: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(shown, dict) or shown.get("message") not in TELLING:
        return None
    status = shown.get("status") or _ANSWERS.get(shown["outcome"])
    if status is None:
        return None
    return Told(
        tenant_id=shown["tenant_id"],
        request_id=shown["request_id"],
        status=Status(status),
        at=datetime.strptime(shown["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").astimezone(UTC),
        attempt=shown.get("attempt", 0),
        generation=shown.get("generation", 0),
        message_id=shown.get("message_id"),
        code=shown.get("code"),
        hint=shown.get("hint"),
        parked=shown.get("parked"),
        maybe_sent=shown.get("maybe_sent", False),
        created_at=_moment(shown.get("created_at")),
        expires_at=_moment(shown.get("expires_at")),
    )


_ANSWERS = {"sent": Status.SENT, "unknown": Status.UNKNOWN}
"""Outcomes of "provider answered" that a record follows; one that was not sent goes on as the record says."""


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
