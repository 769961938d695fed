"""Every rule of the delivery state machine against records that satisfy its guards, and records that break one each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from mailer.domain import changes
from mailer.domain.changes import Deferral, Fence, Request, SentBy
from mailer.domain.delivery import (
    ERASED_CONTENT,
    RULES,
    WORKER_DEAD_MARGIN,
    Change,
    Delivery,
    EarlierAttempt,
    Guard,
    Resolution,
    Rule,
    Status,
    WaitsFor,
)
from mailer.domain.errors import ErrorInfo
from mailer.domain.facts import FeedbackCounts
from support.fakes.ports import NOON, a_delivery

MS = timedelta(milliseconds=1)
TIMEOUT = timedelta(seconds=60)
DEAD = NOON - TIMEOUT - WORKER_DEAD_MARGIN
"""A worker with an earlier deadline counts as dead at noon."""

ERROR = ErrorInfo("throttled", "Maximum sending rate exceeded.")
LOST = ErrorInfo("outcome_unknown", "the outcome is not known", "look it up")
FENCE = Fence(2, "w2")
DEFERRAL = Deferral(
    until=NOON + timedelta(hours=3), generation=4, error=ERROR, waits_for=WaitsFor.PROVIDER, parked="parked/acme/r1/1.json", on_queue=False
)
RESOLUTION = Resolution("resend", "ops", "the tenant asked", NOON)
REQUEST = Request(
    tenant_id="acme",
    request_id="r1",
    content_hash="sha256-v1:aa",
    created_at=NOON,
    expires_at=NOON + timedelta(hours=24),
    recipients=2,
    on_unknown="resend",
    generation=3,
    correlation_id="c-1",
)

COUNTS = FeedbackCounts(delivered=1, bounced=1, first_at=NOON, last_at=NOON + timedelta(hours=1), rank=8)
LESS = replace(COUNTS, delivered=0, rank=5, first_at=NOON + MS, last_at=NOON + timedelta(hours=1) - MS)
"""An earlier state of the same feedback."""

CHANGES: Mapping[str, Callable[[Delivery], Change]] = {
    "queue": lambda _: changes.queue(REQUEST, NOON),
    "defer": lambda _: changes.defer(REQUEST, NOON, DEFERRAL),
    "fail_unsent": lambda _: changes.fail_unsent(REQUEST, NOON, ERROR),
    "give_up": lambda _: changes.give_up(REQUEST, NOON, LOST),
    "begin": lambda _: changes.begin(
        REQUEST,
        NOON,
        owner="w3",
        deadline=NOON + timedelta(seconds=20),
        sent_by=SentBy("ses", 7, "111122223333", "eu-west-1"),
        suppressed=1,
    ),
    "accept": lambda _: changes.accept(REQUEST, NOON, FENCE, "m-1"),
    "defer_attempt": lambda _: changes.defer_attempt(REQUEST, NOON, FENCE, DEFERRAL),
    "fail_rejected": lambda _: changes.fail_rejected(REQUEST, NOON, FENCE, ERROR),
    "mark_unknown": lambda _: changes.mark_unknown(REQUEST, NOON, FENCE, LOST),
    "time_out": lambda seen: changes.time_out(seen, NOON, LOST),
    "resend": lambda seen: changes.resend(seen, NOON, TIMEOUT),
    "resolve_resend": lambda seen: changes.resolve_resend(seen, NOON, TIMEOUT, RESOLUTION, NOON + timedelta(hours=24)),
    "confirm": lambda seen: changes.confirm(seen, NOON, attempt=2, message_id="m-1", accepted_at=NOON - MS, by="e-1"),
    "cancel": lambda seen: changes.cancel(seen, NOON),
    "annotate": lambda _: changes.annotate(REQUEST, NOON, generation=4, parked="parked/acme/r1/2.json"),
    "reschedule": lambda seen: changes.reschedule(seen, NOON, due_at=NOON),
    "note_feedback": lambda seen: changes.note_feedback(seen, NOON, COUNTS),
}
"""How to create each rule's change; some need the record as it was read."""

BREAKS: Mapping[str, tuple[Mapping[str, Any], frozenset[Guard]]] = {
    "unchanged": ({}, frozenset()),
    "other content": ({"content_hash": "sha256-v1:bb"}, frozenset({Guard.SAME_CONTENT})),
    "content hashed by another scheme": ({"content_hash": "sha256-v0:bb"}, frozenset()),
    "an older generation": ({"generation": 2}, frozenset()),
    "a newer generation": ({"generation": 4}, frozenset({Guard.NEWEST_GENERATION})),
    "due this moment": ({"due_at": NOON}, frozenset()),
    "due a moment later": ({"due_at": NOON + MS}, frozenset({Guard.DUE})),
    "without a due time": ({"due_at": None}, frozenset()),
    "another attempt": ({"attempt": 1}, frozenset({Guard.SAME_ATTEMPT, Guard.ATTEMPT_MADE})),
    "a later attempt": ({"attempt": 3}, frozenset({Guard.SAME_ATTEMPT})),
    "another owner": ({"owner": "w1"}, frozenset({Guard.SAME_ATTEMPT})),
    "no deadline": ({"deadline": None}, frozenset({Guard.DEADLINE_PASSED})),
    "a deadline this moment": ({"deadline": NOON}, frozenset({Guard.DEADLINE_PASSED, Guard.WORKER_DEAD})),
    "a deadline a moment ago": ({"deadline": NOON - MS}, frozenset({Guard.WORKER_DEAD})),
    "a worker that may still run": ({"deadline": DEAD}, frozenset({Guard.WORKER_DEAD})),
    "a worker that has just died": ({"deadline": DEAD - MS}, frozenset()),
    "maybe sent before": ({"maybe_sent": True}, frozenset({Guard.NOT_MAYBE_SENT})),
    "not sent before": ({"maybe_sent": False}, frozenset({Guard.MAYBE_SENT})),
    "onUnknown hold": ({"on_unknown": "hold"}, frozenset({Guard.RESEND_CHOSEN})),
    "no feedback yet": ({"feedback": None}, frozenset()),
    "the same feedback": ({"feedback": COUNTS}, frozenset({Guard.NEW_FEEDBACK})),
    "newer feedback": (
        {"feedback": replace(COUNTS, rank=9, first_at=NOON - MS, last_at=COUNTS.last_at + MS)},
        frozenset({Guard.NEW_FEEDBACK}),
    ),
    "erased": ({"content_hash": ERASED_CONTENT}, frozenset({Guard.NOT_ERASED})),
    "older feedback with the same times": ({"feedback": replace(COUNTS, delivered=0, rank=5)}, frozenset()),
    "the same feedback, last event a moment earlier": ({"feedback": replace(COUNTS, last_at=COUNTS.last_at - MS)}, frozenset()),
    "the same feedback, first event a moment later": ({"feedback": replace(COUNTS, first_at=NOON + MS)}, frozenset()),
}
"""Differences of the stored record from one that satisfies every guard, and the guards that each breaks."""


@dataclass(frozen=True, slots=True)
class Case:
    """One change applied to one record."""

    rule: Rule
    change: Change
    record: Delivery | None
    broken: frozenset[Guard]

    @property
    def allowed(self) -> bool:
        """Whether the rule allows it, by the tables in this module."""
        source = self.record.status if self.record else None
        holds = self.record is None or not self.broken & self.rule.guards
        return source in self.rule.sources and (holds or _is_due_anyway(self))


def _is_due_anyway(case: Case) -> bool:
    """Return whether only `dueAt` breaks it, which applies to deferred records only."""
    return case.broken == {Guard.DUE} and case.record is not None and case.record.status is not Status.DEFERRED


def seen(rule: Rule, status: Status) -> Delivery:
    """Return a record that satisfies every guard of a rule, at noon."""
    return a_delivery(
        status=status,
        content_hash=REQUEST.content_hash,
        on_unknown="resend",
        generation=3,
        attempt=2,
        owner="w2",
        deadline=NOON - timedelta(hours=1),
        due_at=NOON - MS,
        waits_for=WaitsFor.TIME,
        parked="parked/acme/r1/0.json",
        maybe_sent=Guard.MAYBE_SENT in rule.guards,
        error=ERROR,
        account="444455556666",
        region="us-east-1",
        earlier_attempts=(EarlierAttempt(1, "111122223333", "eu-west-1"),),
        feedback=LESS,
        sweep_at=NOON - MS,
        expires_at=NOON + timedelta(hours=24),
    )


def cases() -> Iterator[tuple[str, Case]]:
    """Yield each rule with no record, and with each status and each difference."""
    for name, rule in RULES.items():
        source = next(s for s in sorted(rule.sources, key=str) if s is not None or rule.sources == {None})
        change = CHANGES[name](seen(rule, source or Status.QUEUED))
        yield f"{name}: no record", Case(rule, change, None, frozenset())
        for status in Status:
            stored = seen(rule, status)
            for difference, (fields, broken) in BREAKS.items():
                if difference == "unchanged" or status in rule.sources:
                    yield f"{name}: {status}, {difference}", Case(rule, change, replace(stored, **fields), broken)
