"""Build the changes of a delivery: the fields that each rule writes, and when the sweeper must look again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mailer.domain import delivery
from mailer.domain.delivery import (
    MAX_EARLIER_ATTEMPTS,
    OVERDUE_AFTER,
    Change,
    Delivery,
    EarlierAttempt,
    OnUnknown,
    Resolution,
    Rule,
    WaitsFor,
)
from mailer.domain.errors import ErrorInfo
from mailer.domain.facts import FeedbackCounts
from mailer.domain.message import SendRequest, content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a change needs to know of its request; `generation` is that of the queue message in hand."""

    tenant_id: str
    request_id: str
    content_hash: str
    created_at: datetime
    expires_at: datetime
    recipients: int
    on_unknown: OnUnknown = "hold"
    generation: int = 0
    correlation_id: str | None = None

    @classmethod
    def of(
        cls, send: SendRequest, *, created_at: datetime, expires_at: datetime, generation: int = 0, correlation_id: str | None = None
    ) -> "Request":
        """Return what the record needs of a parsed request."""
        return cls(
            tenant_id=send.tenant_id,
            request_id=send.request_id,
            content_hash=content_hash(send),
            created_at=created_at,
            expires_at=expires_at,
            recipients=len(send.message.recipients),
            on_unknown=send.on_unknown,
            generation=generation,
            correlation_id=correlation_id,
        )

    @property
    def initial_fields(self) -> Mapping[str, Any]:
        """Return the fields of a new record."""
        names = ("content_hash", "created_at", "expires_at", "recipients", "on_unknown", "correlation_id")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Fence:
    """The attempt that passed the fence, and its worker; every later change of the attempt must match both."""

    attempt: int
    owner: str


ATTEMPT_NOT_KNOWN = 0
"""The attempt in the proof of a worker that got no answer to `begin`: its owner token alone identifies it."""


@dataclass(frozen=True, slots=True)
class SentBy:
    """What an attempt is sent by: the provider, its config's version, and account and region, against which SES's events are held."""

    provider: str
    version: int
    account: str | None = None
    """The AWS account's id, where it is known."""
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """Where a request waits, until when, and for what."""

    until: datetime
    generation: int
    """The generation of the message that will try it again."""
    error: ErrorInfo | None = None
    waits_for: WaitsFor = WaitsFor.TIME
    parked: str | None = None
    """Where in the bucket its body is."""
    redeliveries: int = 0
    """How often SQS has redelivered its messages."""
    on_queue: bool = True
    """Whether a delayed message is on the queue; else the sweeper fetches the parked body when due."""

    def fields(self, request: Request) -> Mapping[str, Any]:
        """Return the record's fields."""
        look = self.until + OVERDUE_AFTER if self.on_queue else self.until
        fields: dict[str, Any] = {
            "due_at": self.until,
            "waits_for": self.waits_for,
            "error": self.error,
            "generation": self.generation,
            "sweep_at": min(look, request.expires_at),
        }
        if self.redeliveries:
            fields["redeliveries"] = self.redeliveries
        # A key that is known already stays: its body is deleted when the request ends.
        return fields | ({"parked": self.parked} if self.parked else {})


_NO_TIMERS: Mapping[str, Any] = {"sweep_at": None, "due_at": None, "waits_for": None, "deadline": None}

_HELD: Mapping[str, Any] = {"sweep_at": None, "on_unknown": "hold"}
"""Fields of an unknown that only an operator may send again."""


def _change(rule: Rule, request: Request, now: datetime, *, creates: bool = False, **fields: Any) -> Change:
    return Change(
        rule=rule,
        tenant_id=request.tenant_id,
        request_id=request.request_id,
        now=now,
        content_hash=request.content_hash,
        generation=request.generation,
        initial_fields=request.initial_fields if creates else None,
        **fields,
    )


def queue(request: Request, now: datetime) -> Change:
    """Record a request that the queue has taken."""
    look = min(now + OVERDUE_AFTER, request.expires_at)
    return _change(delivery.QUEUE, request, now, creates=True, sets={"sweep_at": look})


def defer(request: Request, now: datetime, deferral: Deferral, **sets: Any) -> Change:
    """Defer a request that has not reached the fence."""
    return _change(delivery.DEFER, request, now, creates=True, sets={**deferral.fields(request), **sets})


def fail_unsent(request: Request, now: datetime, error: ErrorInfo, *, suppressed: int = 0) -> Change:
    """End a request that can never be sent, before the fence; `suppressed` recipients were left out of it, which were all."""
    left_out = {"suppressed": suppressed} if suppressed else {}
    return _change(delivery.FAIL_UNSENT, request, now, creates=True, sets={**_NO_TIMERS, "error": error, **left_out})


def give_up(request: Request, now: datetime, error: ErrorInfo) -> Change:
    """End a request that cannot be sent again but may have been accepted by an earlier attempt; a parked body stays for the operator."""
    return _change(delivery.GIVE_UP, request, now, sets={**_HELD, "due_at": None, "waits_for": None, "error": error})


def defer_for_operator(request: Request, now: datetime, error: ErrorInfo, parked: str | None) -> Change:
    """Leave a request to an operator: its next message is on the dead-letter queue. After a redrive it may go out at once."""
    deferral = Deferral(until=request.expires_at, generation=request.generation + 1, error=error, parked=parked)
    return defer(request, now, deferral, due_at=None)


def begin(request: Request, now: datetime, *, owner: str, deadline: datetime, sent_by: SentBy, suppressed: int = 0) -> Change:
    """Pass the fence: the last write before SES is called. `suppressed` recipients are left out."""
    sets = {
        "owner": owner,
        "deadline": deadline,
        "provider": sent_by.provider,
        "provider_version": sent_by.version,
        "account": sent_by.account,
        "region": sent_by.region,
        "suppressed": suppressed,
        "due_at": None,
        "waits_for": None,
        "error": None,
        "sweep_at": deadline,
    }
    return _change(delivery.BEGIN, request, now, creates=True, owner=owner, sets=sets)


def accept(request: Request, now: datetime, fence: Fence, message_id: str) -> Change:
    """Record that SES accepted the message."""
    sets = {**_NO_TIMERS, "message_id": message_id, "accepted_attempt": fence.attempt, "sent_at": now, "error": None}
    return _of_attempt(delivery.ACCEPT, request, now, fence, sets)


def defer_attempt(request: Request, now: datetime, fence: Fence, deferral: Deferral) -> Change:
    """Defer a request whose attempt is proven not sent."""
    return _of_attempt(delivery.DEFER_ATTEMPT, request, now, fence, {**deferral.fields(request), "deadline": None})


def fail_rejected(request: Request, now: datetime, fence: Fence, error: ErrorInfo) -> Change:
    """End a request that SES refused for good."""
    return _of_attempt(delivery.FAIL_REJECTED, request, now, fence, {**_NO_TIMERS, "error": error})


def mark_unknown(request: Request, now: datetime, fence: Fence, error: ErrorInfo, *, for_good: bool = False) -> Change:
    """Record that nobody can know whether SES accepted the message; the deadline stays, as it says when the worker is dead.

    `for_good`: it is not sent again, even if the caller chose `resend`.
    """
    held = _HELD if for_good else {"sweep_at": None}
    return _of_attempt(delivery.MARK_UNKNOWN, request, now, fence, {**held, "error": error})


def _of_attempt(rule: Rule, request: Request, now: datetime, fence: Fence, sets: Mapping[str, Any]) -> Change:
    return _change(rule, request, now, attempt=fence.attempt, owner=fence.owner, sets=sets)


# -- changes of a record that is read first ------------------------------------------------------------------------------


def request_of(record: Delivery) -> Request:
    """Return the request that a record stands for."""
    names = (
        "tenant_id",
        "request_id",
        "content_hash",
        "created_at",
        "expires_at",
        "recipients",
        "on_unknown",
        "generation",
        "correlation_id",
    )
    return Request(**{name: getattr(record, name) for name in names})


def _fence_of(record: Delivery) -> Fence:
    return Fence(record.attempt, record.owner or "")


def time_out(record: Delivery, now: datetime, error: ErrorInfo) -> Change:
    """Record an attempt as unknown because its worker's deadline has passed."""
    return _of_attempt(delivery.TIME_OUT, request_of(record), now, _fence_of(record), {"error": error, "sweep_at": None})


def resend(record: Delivery, now: datetime, send_timeout: timedelta) -> Change:
    """Queue an unknown again, as its caller chose, once its worker is dead."""
    sets = {"maybe_sent": True, "sweep_at": min(now + OVERDUE_AFTER, record.expires_at)}
    return _resend(delivery.RESEND, record, now, send_timeout, sets)


def resolve_resend(record: Delivery, now: datetime, send_timeout: timedelta, resolution: Resolution, expires_at: datetime) -> Change:
    """Queue an unknown again on an operator's word, with a new expiry."""
    sets = {
        "maybe_sent": True,
        "resolution": resolution,
        "expires_at": expires_at,
        "generation": record.generation + 1,
        "sweep_at": min(now + OVERDUE_AFTER, expires_at),
    }
    return _resend(delivery.RESOLVE_RESEND, record, now, send_timeout, sets)


def _resend(rule: Rule, record: Delivery, now: datetime, send_timeout: timedelta, sets: Mapping[str, Any]) -> Change:
    fence = _fence_of(record)
    sets = {**sets, "earlier_attempts": _with_last_attempt(record)}
    return _change(rule, request_of(record), now, attempt=fence.attempt, owner=fence.owner, send_timeout=send_timeout, sets=sets)


def _with_last_attempt(record: Delivery) -> tuple[EarlierAttempt, ...]:
    """Return the attempts that SES may have accepted once the record's own is one of them."""
    earlier = tuple(attempt for attempt in record.earlier_attempts if attempt.number != record.attempt)
    return (*earlier, EarlierAttempt(record.attempt, record.account, record.region))[-MAX_EARLIER_ATTEMPTS:]


def confirm(record: Delivery, now: datetime, *, attempt: int, message_id: str, accepted_at: datetime, by: str) -> Change:
    """Record that SES accepted an attempt, as its own event shows; `accepted_at` is SES's time, `by` the event's SQS message."""
    sets = {
        **_NO_TIMERS,
        "message_id": message_id,
        "accepted_attempt": attempt,
        "sent_at": accepted_at,
        "error": None,
        "confirmed_by": by,
    }
    return _change(delivery.CONFIRM, request_of(record), now, attempt=attempt, sets=sets)


def note_feedback(record: Delivery, now: datetime, counts: FeedbackCounts) -> Change:
    """Write a mail's feedback counts, unless the record has newer ones."""
    return _change(delivery.NOTE_FEEDBACK, request_of(record), now, feedback=counts, sets={"feedback": counts})


def resolve_sent(record: Delivery, now: datetime, message_id: str | None, resolution: Resolution) -> Change:
    """Record an operator's word that SES accepted the message."""
    attempt = record.attempt if message_id else None
    sets = {
        **_NO_TIMERS,
        "message_id": message_id,
        "accepted_attempt": attempt,
        "sent_at": now,
        "error": None,
        "resolution": resolution,
    }
    return _of_attempt(delivery.ACCEPT, request_of(record), now, _fence_of(record), sets)


def cancel(record: Delivery, now: datetime, by: str | None = None) -> Change:
    """Withdraw a request; `by` is the ARN of who asked for it."""
    return _change(delivery.CANCEL, request_of(record), now, sets={**_NO_TIMERS, "cancelled_by": by})


def hold(record: Delivery, now: datetime, parked: str) -> Change:
    """Hold an unknown for an operator, and note where its body is."""
    return annotate(request_of(record), now, parked=parked, on_unknown="hold")


def annotate(request: Request, now: datetime, **sets: Any) -> Change:
    """Set fields of a record and leave its status as it is."""
    return _change(delivery.ANNOTATE, request, now, sets=sets)


def reschedule(record: Delivery, now: datetime, **sets: Any) -> Change:
    """Change when a waiting request is tried or swept."""
    return _change(delivery.RESCHEDULE, request_of(record), now, sets={"sweep_at": min(now + OVERDUE_AFTER, record.expires_at), **sets})
