"""The state machine of a send request: one table of transitions, shared by the store, the fakes and the model.

    ∅ ──queue──▶ queued ──begin──▶ sending ──accept──▶ sent
    ∅, queued, deferred ──defer──▶ deferred ──begin──▶ sending ──defer_attempt──▶ deferred
    queued, deferred ──cancel──▶ cancelled             sending ──fail_rejected──▶ failed
    ∅, queued, deferred ──fail_unsent──▶ failed        sending ──mark_unknown, time_out──▶ unknown ──resend──▶ queued (maybeSent)
    sending, unknown, queued, deferred ──confirm──▶ sent, by an event of SES about an attempt that was made

`begin` is the fence: the last write before SES is called. Nothing may take over `sending`, so safety needs no clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from mailer.domain.errors import ErrorInfo
from mailer.domain.facts import FeedbackCounts

OnUnknown = Literal["hold", "resend"]

RECORD_RETENTION = timedelta(days=35)
"""How long the record of an ended request, and with it the idempotency key, is kept."""

OVERDUE_AFTER = timedelta(minutes=30)
"""An open record this long past its due time counts as overdue: its message was lost."""

WORKER_DEAD_MARGIN = timedelta(seconds=60)
"""Added to the deadline and the function's timeout before a worker counts as dead, because clocks differ."""


class Status(StrEnum):
    """The status of a send request; the last four are ends."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


END_STATUSES = frozenset({Status.SENT, Status.FAILED, Status.UNKNOWN, Status.CANCELLED})


NEEDS_NEW_ID = "To send it again use a new requestId: this one belongs to the request that failed."


SENT_AGAIN = "Nobody: SES may have accepted it, but it is sent again at dueAt, as onUnknown: resend asks."


class WaitsFor(StrEnum):
    """What a deferred request waits for."""

    TIME = "time"  # its dueAt
    PROVIDER = "provider"  # the tenant's provider to be verified or enabled again: released at once then


@dataclass(frozen=True, slots=True)
class Sent:
    """SES accepted the message."""

    message_id: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """SES provably did not accept the message; the error's class says what follows."""

    error: ErrorInfo
    retry_after: timedelta | None = None
    """The least time to wait, if the provider named one."""


@dataclass(frozen=True, slots=True)
class MaybeSent:
    """The message was handed over, and nobody can know whether it was accepted."""

    error: ErrorInfo


Outcome = Sent | NotSent | MaybeSent


@dataclass(frozen=True, slots=True)
class Resolution:
    """How an operator resolved an `unknown`."""

    outcome: Literal["sent", "resend"]
    by: str
    why: str
    at: datetime
    principal: str | None = None
    """The ARN of the IAM identity that made the call; `by` may name someone else."""


MAX_EARLIER_ATTEMPTS = 10
"""Earlier attempts that a record keeps: the latest ones. A request with `resend` may have more; of those no event is taken any more."""


@dataclass(frozen=True, slots=True)
class EarlierAttempt:
    """An attempt that SES may have accepted and after which the request was queued again."""

    number: int
    account: str | None
    region: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The record of one send request. Times are aware and UTC; `attempt` counts SES calls, `generation` queue messages."""

    tenant_id: str
    request_id: str
    status: Status
    content_hash: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    recipients: int
    on_unknown: OnUnknown = "hold"
    attempt: int = 0
    owner: str | None = None
    """A token of the one worker that passed the fence for this attempt."""
    deadline: datetime | None = None
    """Until when that worker may still write a result."""
    generation: int = 0
    redeliveries: int = 0
    """How often SQS had redelivered its messages when it was last deferred: messages that kill workers are found by it."""
    due_at: datetime | None = None
    waits_for: WaitsFor | None = None
    parked: str | None = None
    """The key of its parked body in the bucket; None while the body is on the queue."""
    maybe_sent: bool = False
    """An earlier attempt ended unknown and was sent again: it can end only as `sent` or `unknown`."""
    provider: str = "ses"
    provider_version: int | None = None
    account: str | None = None
    """The id of the AWS account that the attempt in hand, or the last one, sent from; None where that is not known, as with SMTP."""
    region: str | None = None
    """The AWS region of that."""
    earlier_attempts: tuple[EarlierAttempt, ...] = ()
    """Those before it that SES may have accepted, the oldest first; at most MAX_EARLIER_ATTEMPTS."""
    suppressed: int = 0
    """Suppressed recipients, left out of the mail."""
    message_id: str | None = None
    accepted_attempt: int | None = None
    """The attempt that `message_id` is of; None: the last one."""
    confirmed_by: str | None = None
    """The SQS message of the event that proved it sent; None where its worker or an operator said so."""
    sent_at: datetime | None = None
    feedback: FeedbackCounts | None = None
    """SES's reports of the sent mail."""
    error: ErrorInfo | None = None
    correlation_id: str | None = None
    resolution: Resolution | None = None
    cancelled_by: str | None = None
    """The ARN of the IAM identity that withdrew it."""
    sweep_at: datetime | None = None
    """When the sweeper must look at it; None once it has ended."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will be tried: an `unknown` has not ended if it will be sent again."""
        return self.status in END_STATUSES and not (self.status is Status.UNKNOWN and self.on_unknown == "resend")

    @property
    def erased(self) -> bool:
        """Whether only its ids and its status are left."""
        return self.content_hash == ERASED_CONTENT

    @property
    def shown_error(self) -> ErrorInfo | None:
        """The error as callers see it, with a hint that fits the status."""
        if self.error is not None and self.status is Status.FAILED:
            return replace(self.error, remediation=f"{self.error.hint} {NEEDS_NEW_ID}")
        if self.error is not None and self.status is Status.UNKNOWN and not self.ended:
            return replace(self.error, remediation=SENT_AGAIN)
        return self.error

    def next_try_at(self, send_timeout: timedelta) -> datetime | None:
        """When it is tried again; None if no time is set."""
        if self.status is Status.UNKNOWN and not self.ended:
            return self.worker_dead_at(send_timeout)
        return self.due_at

    def worker_dead_at(self, send_timeout: timedelta) -> datetime:
        """When the worker of this attempt cannot be alive any more."""
        return (self.deadline or self.updated_at) + send_timeout + WORKER_DEAD_MARGIN

    def sent_from(self, attempt: int) -> tuple[str | None, str | None] | None:
        """Return account and region that an attempt sent from, None for each that is not known; None where SES cannot have accepted it."""
        if 1 <= attempt == self.attempt:
            return self.account, self.region
        known = {earlier.number: (earlier.account, earlier.region) for earlier in self.earlier_attempts}
        is_forgotten = len(known) == MAX_EARLIER_ATTEMPTS and 1 <= attempt < min(known)
        return (None, None) if is_forgotten else known.get(attempt)

    def message_id_of(self, attempt: int) -> str | None:
        """Return SES's id of the mail of an attempt, where SES itself told it."""
        is_word = self.resolution is not None and self.resolution.outcome == "sent"
        return self.message_id if attempt == (self.accepted_attempt or self.attempt) and not is_word else None

    @property
    def principal(self) -> str | None:
        """The ARN of the IAM identity whose call brought it to its present status; None where no call did."""
        resolved = {"sent": Status.SENT, "resend": Status.QUEUED}
        if self.resolution and resolved[self.resolution.outcome] is self.status:
            return self.resolution.principal
        return self.cancelled_by

    @property
    def forget_at(self) -> datetime | None:
        """When the record may be deleted: only once it has ended."""
        return self.updated_at + RECORD_RETENTION if self.status in END_STATUSES else None


class Guard(StrEnum):
    """One condition on the current record; the store compiles each to a condition expression."""

    SAME_CONTENT = "the record's content hash, if of the same scheme, is the request's"
    NEWEST_GENERATION = "the record's generation is not above the queue message's"
    DUE = "a deferred record's dueAt has come"
    SAME_ATTEMPT = "attempt and owner are those of the caller"
    DEADLINE_PASSED = "the deadline has passed"
    WORKER_DEAD = "deadline + function timeout + margin has passed, or there is no deadline"
    NOT_MAYBE_SENT = "no earlier attempt may have been accepted"
    MAYBE_SENT = "an earlier attempt may have been accepted"
    RESEND_CHOSEN = "the caller chose onUnknown: resend"
    ATTEMPT_MADE = "the attempt was made: the record's is not below it"
    NEW_FEEDBACK = "the record's feedback is older"
    NOT_ERASED = "the request has not been erased"


Source = Status | None
"""None: there is no record yet."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the transition table; with a target of None the status does not change."""

    name: str
    sources: frozenset[Source]
    target: Status | None
    guards: frozenset[Guard] = frozenset()
    sets_updated_at: bool = True


def _rule(name: str, sources: set[Source], target: Status | None, *guards: Guard, sets_updated_at: bool = True) -> Rule:
    return Rule(name, frozenset(sources), target, frozenset(guards), sets_updated_at)


_OPEN: set[Source] = {Status.QUEUED, Status.DEFERRED}
_NEW_OR_OPEN: set[Source] = {None, *_OPEN}

QUEUE = _rule("queue", {None}, Status.QUEUED)
DEFER = _rule("defer", _NEW_OR_OPEN, Status.DEFERRED, Guard.SAME_CONTENT, Guard.NEWEST_GENERATION)
FAIL_UNSENT = _rule("fail_unsent", _NEW_OR_OPEN, Status.FAILED, Guard.SAME_CONTENT, Guard.NEWEST_GENERATION, Guard.NOT_MAYBE_SENT)
GIVE_UP = _rule("give_up", _OPEN, Status.UNKNOWN, Guard.SAME_CONTENT, Guard.NEWEST_GENERATION, Guard.MAYBE_SENT)
BEGIN = _rule("begin", _NEW_OR_OPEN, Status.SENDING, Guard.SAME_CONTENT, Guard.NEWEST_GENERATION, Guard.DUE)
ACCEPT = _rule("accept", {s for s in Status if s is not Status.SENT}, Status.SENT)
DEFER_ATTEMPT = _rule("defer_attempt", {Status.SENDING, Status.UNKNOWN}, Status.DEFERRED, Guard.SAME_ATTEMPT)
FAIL_REJECTED = _rule("fail_rejected", {Status.SENDING, Status.UNKNOWN}, Status.FAILED, Guard.SAME_ATTEMPT, Guard.NOT_MAYBE_SENT)
MARK_UNKNOWN = _rule("mark_unknown", {Status.SENDING}, Status.UNKNOWN, Guard.SAME_ATTEMPT)
TIME_OUT = _rule("time_out", {Status.SENDING}, Status.UNKNOWN, Guard.SAME_ATTEMPT, Guard.DEADLINE_PASSED)
RESEND = _rule("resend", {Status.UNKNOWN}, Status.QUEUED, Guard.SAME_ATTEMPT, Guard.WORKER_DEAD, Guard.RESEND_CHOSEN)
RESOLVE_RESEND = _rule("resolve_resend", {Status.UNKNOWN}, Status.QUEUED, Guard.SAME_ATTEMPT, Guard.WORKER_DEAD)
CONFIRM = _rule("confirm", {*_OPEN, Status.SENDING, Status.UNKNOWN}, Status.SENT, Guard.ATTEMPT_MADE, Guard.NOT_ERASED)
CANCEL = _rule("cancel", _OPEN, Status.CANCELLED, Guard.NOT_MAYBE_SENT)
# These two leave the status alone: the newest generation, where the body is parked, when the sweeper looks again.
ANNOTATE = _rule("annotate", {*_OPEN, Status.SENDING, Status.UNKNOWN}, None, Guard.SAME_CONTENT, Guard.NEWEST_GENERATION)
RESCHEDULE = _rule("reschedule", _OPEN, None, Guard.NEWEST_GENERATION)
# The time of the end stays, so that the same events give the same record whenever they come.
NOTE_FEEDBACK = _rule("note_feedback", {Status.SENT}, None, Guard.NEW_FEEDBACK, Guard.NOT_ERASED, sets_updated_at=False)

RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        QUEUE,
        DEFER,
        FAIL_UNSENT,
        GIVE_UP,
        BEGIN,
        ACCEPT,
        DEFER_ATTEMPT,
        FAIL_REJECTED,
        MARK_UNKNOWN,
        TIME_OUT,
        RESEND,
        RESOLVE_RESEND,
        CONFIRM,
        CANCEL,
        ANNOTATE,
        RESCHEDULE,
        NOTE_FEEDBACK,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One conditional write: the rule, what its guards compare with, and the fields it sets (None removes one)."""

    rule: Rule
    tenant_id: str
    request_id: str
    now: datetime
    content_hash: str | None = None
    generation: int = 0
    attempt: int | None = None
    owner: str | None = None
    send_timeout: timedelta = timedelta()
    sets: Mapping[str, Any] = field(default_factory=dict)
    feedback: FeedbackCounts | None = None
    initial_fields: Mapping[str, Any] | None = None
    """Fields of a new record, used only where it has none; None where the rule never makes one."""

    @property
    def written(self) -> Mapping[str, Any]:
        """Return the fields that it sets, with those that follow from the rule."""
        fields = {**self.sets, "updated_at": self.now} if self.rule.sets_updated_at else dict(self.sets)
        return fields if self.rule.target is None else {**fields, "status": self.rule.target}


def allows(change: Change, current: Delivery | None) -> bool:
    """Return whether the rule allows this change to the current record."""
    source = current.status if current else None
    return source in change.rule.sources and (current is None or all(HOLDS[guard](change, current) for guard in change.rule.guards))


def same_content(one: str | None, other: str | None) -> bool:
    """Compare two content hashes; hashes of different schemes cannot be compared and count as equal."""
    if one is None or other is None:
        return True
    return one.partition(":")[0] != other.partition(":")[0] or one == other


LOST_CONTENT = "lost-v1:"
"""The content hash of a request whose content a restored table has lost. Its scheme is not that of requests, so it equals any content."""


ERASED_CONTENT = "erased-v1:"
"""The content hash of an erased request; with its own scheme, as LOST_CONTENT."""


def _is_due(change: Change, current: Delivery) -> bool:
    return current.status is not Status.DEFERRED or current.due_at is None or current.due_at <= change.now


def _worker_is_dead(change: Change, current: Delivery) -> bool:
    return current.deadline is None or current.worker_dead_at(change.send_timeout) < change.now


HOLDS: Mapping[Guard, Callable[[Change, Delivery], bool]] = {
    Guard.SAME_CONTENT: lambda change, current: same_content(change.content_hash, current.content_hash),
    Guard.NEWEST_GENERATION: lambda change, current: current.generation <= change.generation,
    Guard.DUE: _is_due,
    Guard.SAME_ATTEMPT: lambda change, current: (current.attempt, current.owner) == (change.attempt, change.owner),
    Guard.DEADLINE_PASSED: lambda change, current: current.deadline is not None and current.deadline < change.now,
    Guard.WORKER_DEAD: _worker_is_dead,
    Guard.NOT_MAYBE_SENT: lambda _, current: not current.maybe_sent,
    Guard.MAYBE_SENT: lambda _, current: current.maybe_sent,
    Guard.RESEND_CHOSEN: lambda _, current: current.on_unknown == "resend",
    Guard.ATTEMPT_MADE: lambda change, current: current.attempt >= (change.attempt or 0),
    Guard.NEW_FEEDBACK: lambda change, current: change.feedback is not None and change.feedback.replaces(current.feedback),
    Guard.NOT_ERASED: lambda _, current: not current.erased,
}
"""The condition of each guard."""


def apply(change: Change, current: Delivery | None) -> Delivery:
    """Return the record after the change; `allows` must have said yes."""
    sets = dict(change.written)
    if change.rule is BEGIN:
        sets["attempt"] = (current.attempt if current else 0) + 1
    initial_fields = change.initial_fields or {}
    if current is None:
        return Delivery(tenant_id=change.tenant_id, request_id=change.request_id, **{**initial_fields, **sets})
    return replace(current, **{name: value for name, value in initial_fields.items() if getattr(current, name) is None}, **sets)


def already_done(change: Change, current: Delivery | None) -> bool:
    """Return whether the record shows that this change was made before: its reply was lost, or the SDK sent it twice."""
    if current is None or current.status is not change.rule.target:
        return False
    if change.rule is BEGIN:
        return current.owner == change.owner
    if change.rule is CONFIRM or current.confirmed_by is not None:
        # An event's proof was written by no worker, even if the attempt is this worker's.
        return change.rule is CONFIRM and current.confirmed_by == change.sets["confirmed_by"]
    return change.owner is not None and (current.attempt, current.owner) == (change.attempt, change.owner)
