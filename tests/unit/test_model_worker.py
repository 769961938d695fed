"""The model's worker is equivalent to the real services: every result of theirs is one of the model's, and the model has no others.

The real send path runs on fakes with one received message, from each kind of record, through each course of an attempt;
its result (the record, the queue, what SES accepted) must be the result of some path of the model, and without faults also
vice versa. The message has no proof: a proof is written first, and the message then handled like any other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from mailer.domain.delivery import Change, Delivery, NotSent, Outcome, Sent, Status
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.message import content_hash, parse_request
from mailer.domain.proof import from_json
from mailer.domain.provider import ProviderStatus
from mailer.ports import QueueMessage
from support.fakes.ports import NOON, a_delivery, a_provider
from support.fakes.sending import QUOTA, REJECTED, THROTTLED, VANISHED, Bench, a_body, a_queue_message
from tools.model import worker
from tools.model.records import Record
from tools.model.state import Move, MoveKind, Setup, State, canonical, redelivered, without_message, without_write
from tools.model.state import QueueMessage as ModelMessage

MINE = content_hash(parse_request(a_body()))
OTHER = MINE[:-1] + ("0" if MINE[-1] != "0" else "1")
CONTENTS = {MINE: "v1:a", OTHER: "v1:b"}
LATEST = "the latest"
GENERATION = 1
DEADLINE = timedelta(seconds=20)

LONGEST = 3
"""Maximum of messages on the queue in a path: one that is requeued by each failure would add one each time."""


# ── records and messages ────────────────────────────────────────────────────────────────────────────────────────────────


def _records() -> Iterator[Record | None]:
    yield None
    for generation in (0, GENERATION, GENERATION + 1):
        for content in CONTENTS.values():
            yield Record(Status.QUEUED, content, "hold", generation)
            yield Record(Status.DEFERRED, content, "hold", generation, is_due_later=True)
            yield Record(Status.DEFERRED, content, "hold", generation, has_begun=True, is_due_later=True, is_parked=True)
            yield Record(Status.QUEUED, content, "resend", generation, has_begun=True, maybe_sent=True)
            for on_unknown in ("hold", "resend"):
                yield Record(Status.SENDING, content, on_unknown, generation, has_begun=True, has_deadline=True)
                yield Record(Status.UNKNOWN, content, on_unknown, generation, has_begun=True, has_deadline=True)
            yield Record(Status.UNKNOWN, content, "hold", generation, has_begun=True, has_deadline=True, is_parked=True)
            for status in (Status.SENT, Status.FAILED, Status.CANCELLED):
                yield Record(status, content, "hold", generation, has_begun=True)


RECORDS = list(_records())

PROOFS: Mapping[str, Outcome] = {
    "accept": Sent("m-1"),
    "fail rejected": REJECTED,
    "defer attempt": THROTTLED,
    "mark unknown": VANISHED,
}

MESSAGE = ModelMessage("v1:a", GENERATION)


def _stored(record: Record) -> Delivery:
    [content] = [real for real, model in CONTENTS.items() if model == record.content]
    return a_delivery(
        status=record.status,
        content_hash=content,
        on_unknown=record.on_unknown,
        generation=record.generation,
        attempt=2 if record.has_begun else 0,
        owner=LATEST if record.has_begun else None,
        deadline=NOON + DEADLINE if record.has_deadline else None,
        due_at=NOON + timedelta(minutes=1) if record.is_due_later else None,
        maybe_sent=record.maybe_sent,
        parked="parked/acme/r1/0.json" if record.is_parked else None,
        expires_at=NOON + timedelta(days=1),
        error=ErrorInfo("throttled", "before"),
    )


# ── results of the services ─────────────────────────────────────────────────────────────────────────────────────────────


ACCEPTED = Sent("m1")


@dataclass(frozen=True)
class Course:
    """A course of an attempt: the provider's outcome, and the faults."""

    outcome: Outcome = ACCEPTED
    prepare: Callable[[Bench], None] = lambda _: None
    at: timedelta = timedelta(hours=1)
    time_left: timedelta = timedelta(seconds=60)


def _losing(number: int, *, reply: bool) -> Callable[[Bench], None]:
    """Lose one write of the table, or the reply to it."""

    def prepare(bench: Bench) -> None:
        writes: list[Change] = []

        def lose(change: Change) -> None:
            writes.append(change)
            if len(writes) == number:
                raise DependencyError("DynamoDB", "UpdateItem")

        if reply:
            bench.messages.after = lose
        else:
            bench.messages.before = lose

    return prepare


def _blocked(status: ProviderStatus) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        bench.providers.rows["acme"] = a_provider(status=status)

    return prepare


def _without(port: str, then: Callable[[Bench], None] = lambda _: None) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        getattr(bench, port).broken = True
        then(bench)

    return prepare


def _both(*steps: Callable[[Bench], None]) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        for step in steps:
            step(bench)

    return prepare


OUTCOMES = {"accepted": ACCEPTED, "rejected": REJECTED, "throttled": THROTTLED, "parked": QUOTA, "vanished": VANISHED}

COURSES: Mapping[str, Course] = {
    **{name: Course(outcome) for name, outcome in OUTCOMES.items()},
    **{f"{name}, at once": Course(outcome, at=timedelta(seconds=1)) for name, outcome in OUTCOMES.items()},
    **{f"{name}, before the worker is dead": Course(outcome, at=2 * DEADLINE) for name, outcome in OUTCOMES.items()},
    "no time left": Course(time_left=timedelta(seconds=1)),
    "no time left, at once": Course(at=timedelta(seconds=1), time_left=timedelta(seconds=1)),
    "disabled": Course(prepare=_blocked(ProviderStatus.DISABLED)),
    "disabled, before the worker is dead": Course(prepare=_blocked(ProviderStatus.DISABLED), at=2 * DEADLINE),
    "disabled, at once": Course(prepare=_blocked(ProviderStatus.DISABLED), at=timedelta(seconds=1)),
    "disabled, and no bucket": Course(prepare=_without("parked", _blocked(ProviderStatus.DISABLED))),
    "deleted": Course(prepare=_blocked(ProviderStatus.DELETED)),
    "expired": Course(at=timedelta(days=2)),
    **{f"{name}, no queue": Course(outcome, _without("queue")) for name, outcome in OUTCOMES.items()},
    **{
        f"{name}, {'reply' if reply else 'write'} {number} lost": Course(outcome, _losing(number, reply=reply))
        for name, outcome in OUTCOMES.items()
        for number in (1, 2, 3)
        for reply in (False, True)
    },
    **{
        f"{name}, {'reply' if reply else 'write'} {number} lost": Course(prepare=_both(_losing(number, reply=reply), _blocked(status)))
        for name, status in (("disabled", ProviderStatus.DISABLED), ("deleted", ProviderStatus.DELETED))
        for number in (1, 2)
        for reply in (False, True)
    },
}


def results_of_services(record: Record | None, course: Course) -> State:
    """Run the real send path; return its result as a state of the model."""
    bench = Bench(*([_stored(record)] if record else []), outcomes=[course.outcome])
    bench.clock.advance(course.at)
    course.prepare(bench)
    received = a_queue_message(generation=GENERATION)
    returned = bench.receive(received, time_left=course.time_left)
    left = bench.messages.records.get(("acme", "r1"))
    queue = [*bench.queue.messages, *([received] if returned else [])]
    return canonical(
        State(
            record=_reduced(left) if left else None,
            queue=tuple(_reduced_message(queued, left) for queued in queue),
            accepted=("v1:a",) * (len(bench.provider.mails) if isinstance(course.outcome, Sent) else 0),
        )
    )


def _reduced(left: Delivery) -> Record:
    return Record(
        status=left.status,
        content=CONTENTS[left.content_hash],
        on_unknown=left.on_unknown,
        generation=left.generation,
        has_begun=left.attempt > 0,
        has_deadline=left.deadline is not None,
        is_due_later=left.due_at is not None,
        maybe_sent=left.maybe_sent,
        is_parked=left.parked is not None,
    )


def _reduced_message(queued: QueueMessage, left: Delivery | None) -> ModelMessage:
    proven = from_json(queued.proof) if queued.proof else None
    if proven is None:
        return ModelMessage("v1:a", queued.generation)
    fence, outcome = proven
    proof = next(name for name, known in PROOFS.items() if _class_of(known) == _class_of(outcome))
    return ModelMessage("v1:a", queued.generation, proof, left is not None and fence.owner == left.owner)


def _class_of(outcome: Outcome) -> Any:
    return outcome.error.error_class if isinstance(outcome, NotSent) and outcome.error.code == "recipient_rejected" else type(outcome)


# ── results of the model ────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def results_of_model(record: Record | None, *, faults: bool = True) -> Mapping[State, str]:
    """Walk every path of one worker with one message to its final states; return these states, each with a path.

    Whether there is time for another resend is a number in the model; both values are walked.
    """
    todo = [(_setup(record, resends), State(record=record, queue=(MESSAGE,)), "is received") for resends in (0, 1)]
    seen: set[tuple[int, State]] = set()
    finals: dict[State, str] = {}
    while todo:
        setup, state, path = todo.pop()
        if (setup.resends, state) in seen or len(state.queue) > LONGEST:
            continue
        seen.add((setup.resends, state))
        if not state.pending and (faults or MESSAGE not in state.queue):
            finals.setdefault(_final(state), path)
        for pending in state.pending if faults else ():  # redelivered if no write succeeded, as after a crash
            finals.setdefault(_final(redelivered(without_write(state, pending), pending.queue_message)), f"{path} → is redelivered")
        todo += [(setup, after, f"{path} → {name}") for name, after, kind in _next(setup, state) if faults or kind is not MoveKind.FAULT]
    return finals


@cache
def _setup(record: Record | None, resends: int) -> Setup:
    return Setup(contents=("v1:a", "v1:b"), on_unknown=record.on_unknown if record else "hold", resends=resends)


def _final(state: State) -> State:
    return canonical(state._replace(resent=0, is_excused=False))


def _next(setup: Setup, state: State) -> Iterator[Move]:
    """Yield the worker's next writes; a message that it continues with is the received one, on the queue."""
    for pending in dict.fromkeys(state.pending):
        assert pending.queue_message is not None
        yield from worker.write(setup, without_write(state, pending), pending, pending.queue_message)
    if not state.pending:
        for queued in {queued for queued in state.queue if queued.generation == GENERATION}:
            yield from worker.receive(setup, without_message(state, queued), queued)


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_every_result_of_the_services_is_in_the_model(record: Record | None) -> None:
    """Every course of an attempt is run, with every fault."""
    known = results_of_model(record)
    missing = {name: left for name, course in COURSES.items() if (left := results_of_services(record, course)) not in known}
    assert not missing


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_every_result_of_the_model_is_of_some_course(record: Record | None) -> None:
    """Without faults each final state of the model is the result of some course."""
    seen = {results_of_services(record, course) for course in COURSES.values()}
    assert not {path for state, path in results_of_model(record, faults=False).items() if state not in seen}
