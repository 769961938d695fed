"""The record of the model, and the real rules and changes applied to it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple

from mailer.domain import changes, delivery
from mailer.domain.changes import Deferral, Fence, Request, SentBy
from mailer.domain.delivery import RULES, Change, Delivery, OnUnknown, Resolution, Rule, Status
from mailer.domain.errors import ErrorInfo
from mailer.domain.facts import FeedbackCounts
from support.fakes.ports import NOON, a_delivery

LATE = NOON + timedelta(hours=1)
"""After every deadline and dueAt, when every worker counts as dead; noon is before all of them."""

SECONDS = timedelta(seconds=20)
DUE = NOON + timedelta(minutes=1)
KEY = "parked/acme/r1/1.json"
RESOLUTION = Resolution("resend", "ops", "asked", NOON)
ERROR = ErrorInfo("recipient_rejected", "no")
LATER = ErrorInfo("throttled", "later")
LOST = ErrorInfo("outcome_unknown", "nobody knows")
COUNTS = FeedbackCounts(delivered=1, first_at=NOON, last_at=NOON, rank=3)
TO_COME = 3
LATEST, EARLIER, NEXT = Fence(2, "w2"), Fence(1, "w1"), "w3"
"""Attempts are not numbered: it only matters whether a fence is the record's latest."""


class Record(NamedTuple):
    """The fields of a record that matter; times are reduced to whether they are set."""

    status: Status
    content: str
    on_unknown: OnUnknown
    generation: int = 0
    has_begun: bool = False
    has_deadline: bool = False
    is_due_later: bool = False
    maybe_sent: bool = False
    is_parked: bool = False


class Write(NamedTuple):
    """One conditional write; `generation` is that of the processed message, or of the record as it was read."""

    operation: str
    content: str
    on_unknown: OnUnknown
    generation: int = 0
    is_latest: bool = True
    is_late: bool = True

    @property
    def now(self) -> datetime:
        return LATE if self.is_late else NOON

    @property
    def fence(self) -> Fence:
        return LATEST if self.is_latest else EARLIER

    @property
    def request(self) -> Request:
        return Request(
            tenant_id="acme",
            request_id="r1",
            content_hash=self.content,
            created_at=NOON,
            expires_at=NOON + timedelta(days=1),
            recipients=1,
            on_unknown=self.on_unknown,
            generation=self.generation,
        )

    @property
    def seen(self) -> Delivery:
        """Return the record as its writer had read it."""
        request, fence = self.request, self.fence
        fields = {name: getattr(request, name) for name in ("content_hash", "on_unknown", "generation", "expires_at")}
        return a_delivery(status=Status.UNKNOWN, attempt=fence.attempt, owner=fence.owner, deadline=NOON + SECONDS, **fields)

    def deferral(self, *, is_parked: bool = False, generation: int = 1) -> Deferral:
        return Deferral(
            until=DUE, generation=self.generation + generation, error=LATER, parked=KEY if is_parked else None, on_queue=not is_parked
        )


def _begin(write: Write) -> Change:
    return changes.begin(write.request, write.now, owner=NEXT, deadline=write.now + SECONDS, sent_by=SentBy("ses", 1))


CHANGES: Mapping[str, Callable[[Write], Change]] = {
    "queue": lambda w: changes.queue(w.request, w.now),
    "defer": lambda w: changes.defer(w.request, w.now, w.deferral()),
    "defer parked": lambda w: changes.defer(w.request, w.now, w.deferral(is_parked=True)),
    "fail unsent": lambda w: changes.fail_unsent(w.request, w.now, ERROR),
    "give up": lambda w: changes.give_up(w.request, w.now, LOST),
    "begin": _begin,
    "accept": lambda w: changes.accept(w.request, w.now, w.fence, "m-1"),
    "fail rejected": lambda w: changes.fail_rejected(w.request, w.now, w.fence, ERROR),
    "defer attempt": lambda w: changes.defer_attempt(w.request, w.now, w.fence, w.deferral()),
    "defer attempt parked": lambda w: changes.defer_attempt(w.request, w.now, w.fence, w.deferral(is_parked=True)),
    "defer attempt here": lambda w: changes.defer_attempt(w.request, w.now, w.fence, w.deferral(generation=0)),
    "mark unknown": lambda w: changes.mark_unknown(w.request, w.now, w.fence, LOST),
    "mark unknown for good": lambda w: changes.mark_unknown(w.request, w.now, w.fence, LOST, for_good=True),
    "time out": lambda w: changes.time_out(w.seen, w.now, LOST),
    "resend": lambda w: changes.resend(w.seen, w.now, SECONDS),
    "resolve: resend": lambda w: changes.resolve_resend(w.seen, w.now, SECONDS, RESOLUTION, NOON + timedelta(days=1)),
    "resolve: sent": lambda w: changes.resolve_sent(w.seen, w.now, "m-1", RESOLUTION),
    "confirm": lambda w: changes.confirm(w.seen, w.now, attempt=w.fence.attempt, message_id="m-1", accepted_at=NOON, by="e-1"),
    "confirm an attempt to come": lambda w: changes.confirm(w.seen, w.now, attempt=TO_COME, message_id="m-1", accepted_at=NOON, by="e-1"),
    "note feedback": lambda w: changes.note_feedback(w.seen, w.now, COUNTS),
    "cancel": lambda w: changes.cancel(w.seen, w.now),
    "annotate": lambda w: changes.annotate(w.request, w.now, generation=w.generation + 1),
    "park": lambda w: changes.annotate(w.request, w.now, parked=KEY),
    "hold": lambda w: changes.hold(w.seen, w.now, KEY),
    "reschedule": lambda w: changes.reschedule(w.seen, w.now, due_at=w.now),
}
"""Every write of the services, created by their own builders."""


class Answer(NamedTuple):
    """The table's response: the record after the write, and whether the change was made."""

    record: Record | None
    is_done: bool


class Machine:
    """The delivery state machine; a wrong one has other rules than `domain.delivery.RULES`, or deletes its record on some of them."""

    def __init__(self, rules: Mapping[str, Rule] = RULES, *, forgets: frozenset[str] = frozenset()) -> None:
        self._rules = rules
        self._forgets = forgets
        self.apply = cache(self._apply)

    def _apply(self, write: Write, record: Record | None) -> Answer:
        current = _delivery(record) if record else None
        change = CHANGES[write.operation](write)
        rule = self._rules[change.rule.name]
        if not delivery.allows(replace(change, rule=rule), current):
            return Answer(record, is_done=delivery.already_done(change, current))
        if rule.target is not change.rule.target:
            change = replace(change, rule=rule)
        after = delivery.apply(change, current)
        assert after.error or after.status not in (Status.FAILED, Status.UNKNOWN), "an end without a reason"
        return Answer(None if change.rule.name in self._forgets else _record(after), is_done=True)


def _delivery(record: Record) -> Delivery:
    return a_delivery(
        status=record.status,
        content_hash=record.content,
        on_unknown=record.on_unknown,
        attempt=LATEST.attempt if record.has_begun else 0,
        owner=LATEST.owner if record.has_begun else None,
        generation=record.generation,
        deadline=NOON + SECONDS if record.has_deadline else None,
        due_at=DUE if record.is_due_later else None,
        maybe_sent=record.maybe_sent,
        parked=KEY if record.is_parked else None,
        expires_at=NOON + timedelta(days=1),
        error=LATER,
    )


def _record(after: Delivery) -> Record:
    return Record(
        status=after.status,
        content=after.content_hash,
        on_unknown=after.on_unknown,
        generation=after.generation,
        has_begun=after.attempt > 0,
        has_deadline=after.deadline is not None,
        is_due_later=after.due_at == DUE,
        maybe_sent=after.maybe_sent,
        is_parked=after.parked is not None,
    )
