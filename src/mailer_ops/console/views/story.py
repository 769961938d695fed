"""Tell a request's story: what its record, its log lines and SES's events say, in the order in which it happened."""

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
    """One thing that happened, or will; `kind` is a status, of a request or of a recipient."""

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
    "cancelled": "Withdrawn",
}
_RECIPIENTS = {
    "delivered": "Delivered",
    "delayed": "Delivery is delayed",
    "bounced": "Bounced",
    "soft_bounced": "Bounced for now",
    "complained": "Marked as spam",
    "rejected": "Rejected by SES",
}


def tell(record: Json, states: Iterable[LoggedState], recipients: Sequence[Json]) -> list[Event]:
    """Return what happened, oldest first, and last what is still to come."""
    logged = [_logged(state) for state in _once(states)]
    happened = [_accepted(record), *logged, *_recorded(record, {event.kind for event in logged}), *map(_heard, recipients)]
    happened.sort(key=lambda event: (event.at, event.kind != "queued"))
    return [*_together(happened), *_ahead(record)]


def _once(states: Iterable[LoggedState]) -> Iterator[LoggedState]:
    """Leave out what was logged twice: SES's answer, and the record that says the same."""
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
        text += f"; {record['suppressed']} of them left out: suppressed"
    return Event(at=_moment(record["createdAt"]), kind="queued", title="Accepted", text=text)


def _logged(state: LoggedState) -> Event:
    text = state.code or ""
    if state.status is Status.SENT and state.message_id:
        text = state.message_id
    if state.status is Status.DEFERRED and not state.code:
        text = "for its time to be sent, or for its slot"
    return Event(at=state.at, kind=state.status, title=_TITLES[state.status], text=text, hint=state.hint or "")


def _recorded(record: Json, known: set[str]) -> list[Event]:
    """Tell what the record says that no log line does: the log may be gone, denied, or not there yet."""
    status, error = record["status"], record["error"] or {}
    events = []
    at = record["sentAt"] if status == "sent" else record["updatedAt"]
    if status not in known and status != "queued":
        text = (record["messageId"] or "") if status == "sent" else ": ".join(filter(None, (error.get("code"), error.get("message"))))
        events.append(Event(at=_moment(at), kind=status, title=_TITLES[status], text=text, hint=error.get("hint", "")))
    if word := record.get("resolution"):
        title = "Resolved: it was sent" if word["outcome"] == "sent" else "Resolved: send it again"
        who = f"{word['by']} ({word['principal']})" if word.get("principal") else word["by"]
        events.append(Event(at=_moment(word["at"]), kind="resolved", title=title, text=word["why"], who=who))
    if record.get("cancelledBy"):
        events.append(Event(at=_moment(record["updatedAt"]), kind="cancelled", title="Withdrawn by", who=record["cancelledBy"]))
    return events


def _heard(recipient: Json) -> Event:
    text = " ".join(filter(None, (recipient.get("smtpStatus"), recipient.get("diagnostic"))))
    title = _RECIPIENTS.get(recipient["status"], str(recipient["status"]))
    return Event(at=_moment(recipient["at"]), kind=recipient["status"], title=title, who=recipient["email"], text=text)


def _together(events: Sequence[Event]) -> list[Event]:
    """Count what happened again and again as one."""
    told: list[Event] = []
    for event in events:
        last = told[-1] if told else None
        if last and (last.kind, last.title, last.text, last.who) == (event.kind, event.title, event.text, event.who):
            told[-1] = replace(event, times=last.times + 1)
        else:
            told.append(event)
    return told


def _ahead(record: Json) -> list[Event]:
    if record.get("dueAt") and record["status"] in ("deferred", "unknown"):
        title = "It is tried again" if record["status"] == "deferred" else "It is sent again, as onUnknown asks"
        return [Event(at=_moment(record["dueAt"]), kind="ahead", title=title, ahead=True)]
    return []


def _moment(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def is_open(record: Json) -> bool:
    """Tell whether more becomes of a request by itself: its page then looks again."""
    return record["status"] not in ENDS or bool(record.get("dueAt"))
