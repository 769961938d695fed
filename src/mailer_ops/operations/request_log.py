"""Read the log lines about requests' states; of each request the newest counts.

`observability.LogTelemetry` writes them, at every LogLevel.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mailer.domain.delivery import Status
from mailer_ops.ports import FinalOutcome

Ids = tuple[str, str]
"""tenantId and requestId."""

STATE_MESSAGES = ("provider answered", "request recorded")
"""Messages of the log lines about a request's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedState:
    """One log line about a request: the state that it reached."""

    tenant_id: str
    request_id: str
    status: Status
    at: datetime
    attempt: int = 0
    generation: int = 0
    message_id: str | None = None
    account: str | None = None
    region: str | None = None
    code: str | None = None
    hint: str | None = None
    parked: str | None = None
    maybe_sent: bool = False
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def outcome(self) -> FinalOutcome:
        """Return it as a final outcome."""
        names = ("tenant_id", "request_id", "status", "at", "attempt", "message_id", "account", "region", "code")
        return FinalOutcome(**{name: getattr(self, name) for name in names})


@dataclass(slots=True)
class RequestLog:
    """The newest state of each request in a log, and how many of its lines could not be read."""

    newest: dict[Ids, LoggedState] = field(default_factory=dict)
    unreadable: int = 0


def read_log(lines: Iterable[str]) -> RequestLog:
    """Return the newest state of each request; if SES accepted it, it is sent, whatever was logged later."""
    log = RequestLog()
    for line in lines:
        try:
            logged = parse_line(line)
        except (KeyError, TypeError, ValueError):
            log.unreadable += 1
            continue
        if logged:
            ids = logged.tenant_id, logged.request_id
            log.newest[ids] = _newest(logged, log.newest.get(ids))
    return log


def _newest(logged: LoggedState, known: LoggedState | None) -> LoggedState:
    """Return the newer of two states; where they are of one attempt, with the account that only one of the lines names."""
    if known is None:
        return logged
    newer, older = (logged, known) if _rank(logged) >= _rank(known) else (known, logged)
    if newer.attempt != older.attempt or newer.account:
        return newer
    return replace(newer, account=older.account, region=older.region)


def _rank(logged: LoggedState) -> tuple[bool, int, int, datetime]:
    """Order states: attempts and generations only grow, and a slow worker may write its line after the next one's."""
    return logged.status is Status.SENT, logged.attempt, logged.generation, logged.at


def parse_line(line: str) -> LoggedState | None:
    """Parse a line about SES's answer or a recorded state; None for any other line."""
    try:
        shown: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(shown, dict) or shown.get("message") not in STATE_MESSAGES:
        return None
    status = shown.get("status") or _ANSWERS.get(shown["outcome"])
    if status is None:
        return None
    return LoggedState(
        tenant_id=shown["tenant_id"],
        request_id=shown["request_id"],
        status=Status(status),
        at=datetime.strptime(shown["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").astimezone(UTC),
        attempt=shown.get("attempt", 0),
        generation=shown.get("generation", 0),
        message_id=shown.get("message_id"),
        account=shown.get("account"),
        region=shown.get("region"),
        code=shown.get("code"),
        hint=shown.get("hint"),
        parked=shown.get("parked"),
        maybe_sent=shown.get("maybe_sent", False),
        created_at=_moment(shown.get("created_at")),
        expires_at=_moment(shown.get("expires_at")),
    )


_ANSWERS = {"sent": Status.SENT, "unknown": Status.UNKNOWN}
"""Outcomes of "provider answered" as statuses; what was not sent goes on as its record says.

That SES accepted a mail is said there alone: `LogTelemetry.recorded` adds no line to it.
"""


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
