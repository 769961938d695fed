"""Build a request's timeline from its record, its log lines and SES's events."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mailer.domain.delivery import Status
from mailer_ops.operations.request_log import LoggedState

type Json = Mapping[str, Any]

ENDS = frozenset({"sent", "failed", "unknown", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One past or upcoming event; `kind` is the status of a request or a recipient."""

    at: datetime
    kind: str
    title: str
    text: str = ""
    who: str = ""
    hint: str = ""
    times: int = 1
    ahead: bool = False


_TITLES = {
    "queued": "Queued again",
    "deferred": "Deferred",
    "sending": "Handed to SES",
    "sent": "SES accepted it",
    "failed": "Failed",
    "unknown": "SES may have accepted it",
    "cancelled": "Cancelled",
}
_RECIPIENTS = {
    "delivered": "Delivered",
    "delayed": "Delivery is delayed",
    "bounced": "Bounced",
    "soft_bounced": "Soft bounce",
    "complained": "Marked as spam",
    "rejected": "Rejected by SES",
}


def timeline(record: Json, states: Iterable[LoggedState], recipients: Sequence[Json]) -> list[Event]:
    """Return past events, oldest first, then upcoming ones."""
    logged = [_logged(state) for state in _deduplicate(states)]
    happened = [_accepted(record), *logged, *_recorded(record, {event.kind for event in logged}), *map(_recipient_event, recipients)]
    happened.sort(key=lambda event: (event.at, event.kind != "queued"))
    return [*_merge_repeats(happened), *_upcoming(record)]


def _deduplicate(states: Iterable[LoggedState]) -> Iterator[LoggedState]:
    """Drop states that were logged twice: once for SES's response, once for the record."""
    seen: set[tuple[Status, int]] = set()
    for state in states:
        known = (state.status, state.attempt)
        if state.status is Status.DEFERRED or known not in seen:
            yield state
        seen.add(known)


def _accepted(record: Json) -> Event:
    recipients = record["recipients"]
    text = f"{recipients} recipient{'' if recipients == 1 else 's'}"
    if record.get("suppressed"):
        text += f"; {record['suppressed']} suppressed"
    return Event(at=_moment(record["createdAt"]), kind="queued", title="Accepted", text=text)


def _logged(state: LoggedState) -> Event:
    text = state.code or ""
    if state.status is Status.SENT and state.message_id:
        text = state.message_id
    if state.status is Status.DEFERRED and not state.code:
        text = "until its sendAt or its slot"
    return Event(at=state.at, kind=state.status, title=_TITLES[state.status], text=text, hint=state.hint or "")


def _recorded(record: Json, known: set[str]) -> list[Event]:
    """Return events of the record that are not in the log, which may be expired, denied or late."""
    status, error = record["status"], record["error"] or {}
    events = []
    at = record["sentAt"] if status == "sent" else record["updatedAt"]
    if status not in known and status != "queued":
        text = (record["messageId"] or "") if status == "sent" else ": ".join(filter(None, (error.get("code"), error.get("message"))))
        events.append(Event(at=_moment(at), kind=status, title=_TITLES[status], text=text, hint=error.get("hint", "")))
    if resolution := record.get("resolution"):
        title = "Resolved: it was sent" if resolution["outcome"] == "sent" else "Resolved: send it again"
        who = f"{resolution['by']} ({resolution['principal']})" if resolution.get("principal") else resolution["by"]
        events.append(Event(at=_moment(resolution["at"]), kind="resolved", title=title, text=resolution["why"], who=who))
    if record.get("cancelledBy"):
        events.append(Event(at=_moment(record["updatedAt"]), kind="cancelled", title="Cancelled by", who=record["cancelledBy"]))
    return events


def _recipient_event(recipient: Json) -> Event:
    text = " ".join(filter(None, (recipient.get("smtpStatus"), recipient.get("diagnostic"))))
    title = _RECIPIENTS.get(recipient["status"], str(recipient["status"]))
    return Event(at=_moment(recipient["at"]), kind=recipient["status"], title=title, who=recipient["email"], text=text)


def _merge_repeats(events: Sequence[Event]) -> list[Event]:
    """Merge consecutive repeats of an event into one."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if last and (last.kind, last.title, last.text, last.who) == (event.kind, event.title, event.text, event.who):
            merged[-1] = replace(event, times=last.times + 1)
        else:
            merged.append(event)
    return merged


def _upcoming(record: Json) -> list[Event]:
    if record.get("dueAt") and record["status"] in ("deferred", "unknown"):
        title = "Retry" if record["status"] == "deferred" else "Resend, by onUnknown"
        return [Event(at=_moment(record["dueAt"]), kind="ahead", title=title, ahead=True)]
    return []


def _moment(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def is_open(record: Json) -> bool:
    """Return whether the request may still change without an operator; its page then refreshes."""
    return record["status"] not in ENDS or bool(record.get("dueAt"))
