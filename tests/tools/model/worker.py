"""Moves of a worker: `services.send` and its calls, reduced to the writes and the steps between them.

A worker is modelled by its pending write. Its steps before that write (receive, read, call SES, send the next message) are part of the
move that leads there: sending earlier makes no difference to others, and a worker that crashes in between is one that never started. A lost
receipt is the same as an earlier second delivery of the message.
"""

from collections.abc import Iterator
from enum import Enum

from mailer.domain.delivery import Status
from tools.model.records import Answer, Write
from tools.model.state import (
    FINAL,
    OPEN,
    RESULTS,
    Move,
    MoveKind,
    Pending,
    QueueMessage,
    Setup,
    State,
    about_to,
    all_earlier,
    excused,
    late,
    next_message,
    queued,
    written,
)


def receive(setup: Setup, state: State, queue_message: QueueMessage) -> Iterator[Move]:
    """Yield the moves of a message that was just received."""
    if queue_message.proof:
        yield _settle_proof(state, queue_message)
        return
    yield from _begin(setup, state, queue_message)
    yield from _wait(setup, state, queue_message)
    yield from _end(setup, state, queue_message)


def _wish(setup: Setup, operation: str, queue_message: QueueMessage, *, is_late: bool = True) -> Write:
    return Write(operation, queue_message.content, setup.on_unknown, queue_message.generation, is_late=is_late)


def _settle_proof(state: State, queue_message: QueueMessage) -> Move:
    """Model `services.send._settle_proof` and `domain.proof.proven_outcome`."""
    record, plain = state.record, queue_message._replace(proof="", is_latest=False)
    is_open = record is not None and queue_message.is_latest and record.status in (Status.SENDING, Status.UNKNOWN)
    if record is None or (not is_open and (record.status is Status.SENT or queue_message.proof != "accept")):
        return "a proof does not apply", queued(state, plain), MoveKind.PROGRESS
    after = queued(state, next_message(queue_message)) if queue_message.proof == "defer attempt" else state
    return (
        f"applies the proof {queue_message.proof}",
        about_to(after, queue_message.proof, queue_message, is_latest=queue_message.is_latest),
        MoveKind.PROGRESS,
    )


def _begin(setup: Setup, state: State, queue_message: QueueMessage) -> Iterator[Move]:
    """Model `services.send._send_once`."""
    for is_late in (True, False) if state.record and state.record.is_due_later else (True,):
        after, answer = written(setup, state, _wish(setup, "begin", queue_message, is_late=is_late))
        if answer.is_done:
            yield from _call(_begun(after), queue_message)
        else:
            yield from _react(setup, state, queue_message, "is refused")
    yield "the response to begin is lost", queued(state, next_message(queue_message, "defer attempt")), MoveKind.FAULT


def _begun(state: State) -> State:
    """Pass the fence: a fault of an earlier attempt excuses this one only if that may have been accepted."""
    maybe_sent = state.record is not None and state.record.maybe_sent
    return all_earlier(state._replace(is_excused=state.is_excused and maybe_sent))


def _call(state: State, queue_message: QueueMessage) -> Iterator[Move]:
    taken = state._replace(accepted=tuple(sorted((*state.accepted, queue_message.content))))
    yield "begins and is accepted", _result(taken, "accept", queue_message), MoveKind.PROGRESS
    yield "begins and is rejected", _result(state, "fail rejected", queue_message), MoveKind.PROGRESS
    yield "begins and is throttled", _result(queued(state, next_message(queue_message)), "defer attempt", queue_message), MoveKind.PROGRESS
    yield "begins and has to park", _result(state, "defer attempt parked", queue_message), MoveKind.PROGRESS
    yield "begins, is throttled, and the queue fails", _result(state, "defer attempt here", queue_message), MoveKind.FAULT
    bad = state._replace(is_excused=True)
    yield (
        "begins, is accepted, and the response is lost",
        _result(taken._replace(is_excused=True), "mark unknown", queue_message),
        MoveKind.FAULT,
    )
    yield "begins and its call is lost", _result(bad, "mark unknown", queue_message), MoveKind.FAULT
    yield "begins and crashes", queued(bad, queue_message), MoveKind.FAULT
    yield "begins and its response is lost", queued(bad, next_message(queue_message, "defer attempt", is_latest=True)), MoveKind.FAULT


def _result(state: State, operation: str, queue_message: QueueMessage) -> State:
    return about_to(state, operation, queue_message, is_latest=True)


def _wait(setup: Setup, state: State, queue_message: QueueMessage) -> Iterator[Move]:
    """Model `services.send.defer`."""
    record = state.record
    if record and not (record.content == queue_message.content and record.generation <= queue_message.generation and record.status in OPEN):
        yield from _react(setup, state, queue_message, "must wait")
        return
    yield "must wait on the queue", about_to(queued(state, next_message(queue_message)), "defer", queue_message), MoveKind.PROGRESS
    yield "must wait, parked", about_to(state, "defer parked", queue_message), MoveKind.PROGRESS


def _end(setup: Setup, state: State, queue_message: QueueMessage) -> Iterator[Move]:
    """Model `services.send.end`."""
    after, answer = written(setup, state, _wish(setup, "fail unsent", queue_message))
    if answer.is_done:
        yield "ends it", after, MoveKind.ABANDON
    elif answer.record is not None and answer.record.maybe_sent:
        yield "cannot end it as failed", about_to(state, "give up", queue_message), MoveKind.ABANDON
    else:
        yield from _react(setup, state, queue_message, "cannot end it")


def _react(setup: Setup, state: State, queue_message: QueueMessage, why: str) -> Iterator[Move]:
    """Model `services.reconcile.reconcile` with the current record."""
    record = state.record
    if record is None:
        yield f"{why}; starts again", queued(state, queue_message), MoveKind.PROGRESS
    elif record.content != queue_message.content or record.status in FINAL or record.generation > queue_message.generation:
        yield f"{why}; leaves it {record.status}", state, MoveKind.PROGRESS
    elif record.status is Status.UNKNOWN and (record.on_unknown == "hold" or state.resent >= setup.resends):
        yield (
            f"{why}; holds it",
            state if record.is_parked and record.on_unknown == "hold" else about_to(state, "hold", queue_message),
            MoveKind.PROGRESS,
        )
        if not record.is_parked:  # the bucket fails
            yield f"{why}; cannot hold it", about_to(queued(state, next_message(queue_message)), "annotate", queue_message), MoveKind.FAULT
    else:
        yield f"{why}; is requeued", about_to(queued(state, next_message(queue_message)), "annotate", queue_message), MoveKind.PROGRESS
        if record.status not in OPEN:
            operation = "time out" if record.status is Status.SENDING else "resend"
            yield late(state, about_to(state, operation, queue_message, is_latest=True), f"{why}; treats its worker as dead")


def write(setup: Setup, others: State, pending: Pending, queue_message: QueueMessage) -> Iterator[Move]:
    """Yield the possible results of a worker's write; `others` is the state without it."""
    wish = Write(pending.operation, queue_message.content, setup.on_unknown, pending.generation, pending.is_latest)
    after, answer = written(setup, others, wish)
    name = f"writes {pending.operation}" if answer.is_done else f"may not write {pending.operation}"
    yield from _after(setup, after, pending, queue_message, _then(pending, answer), name)
    for state in dict.fromkeys((others, after)):
        for lost in _lost_response(state, pending, queue_message):
            yield f"the response is lost to {pending.operation}", excused(lost, pending), MoveKind.FAULT


class Then(Enum):
    """A worker's next step after the response to a write."""

    DONE = "the message is done"
    RECONCILE = "the message is reconciled with the record"
    RESTART = "it starts again with the same message"
    ANNOTATE = "the record is annotated with the body parked for a stale message"
    LOST = "it cannot be failed, so it is marked unknown for good"


ALWAYS = {
    "annotate": Then.DONE,
    "defer": Then.DONE,
    "time out": Then.RECONCILE,
    "give up": Then.RECONCILE,
    "defer attempt here": Then.RESTART,
}


def _then(pending: Pending, answer: Answer) -> Then:
    record, is_done = answer
    status = record.status if record else None
    match pending.operation:
        case operation if operation in ALWAYS:
            return ALWAYS[operation]
        case "defer parked" if record and record.generation > pending.generation:  # services.send._went_on
            return Then.DONE if record.is_parked else Then.ANNOTATE
        case "park" | "hold" | "defer parked":  # services.reconcile._hold, services.send._went_on
            return Then.DONE if is_done else Then.RECONCILE
        case "resend":  # services.reconcile._meanwhile
            return Then.RESTART if is_done or status is Status.QUEUED else Then.RECONCILE
        case "fail rejected" if record and record.maybe_sent and not is_done:  # services.outcomes._rejected
            return Then.LOST
        case _:  # services.outcomes.settle
            return Then.RECONCILE if pending.is_latest and status is Status.UNKNOWN else Then.DONE


def _after(setup: Setup, state: State, pending: Pending, queue_message: QueueMessage, then: Then, name: str) -> Iterator[Move]:
    match then:
        case Then.DONE:
            yield name, state, MoveKind.PROGRESS
        case Then.RECONCILE:
            yield from _react(setup, state, queue_message, name)
        case Then.RESTART:
            yield name, queued(state, queue_message), MoveKind.PROGRESS
        case Then.ANNOTATE:
            yield name, about_to(state, "park", queue_message), MoveKind.PROGRESS
        case Then.LOST:
            yield name, about_to(state, "mark unknown for good", queue_message, is_latest=pending.is_latest), MoveKind.PROGRESS


def _lost_response(state: State, pending: Pending, queue_message: QueueMessage) -> Iterator[State]:
    """Model the services without a response of the table: requeue with the proof, or let SQS redeliver the message."""
    if pending.operation in ("annotate", "defer"):
        yield state
    elif pending.operation == "defer parked":
        yield queued(state, next_message(queue_message))
    else:
        yield queued(state, queue_message)
        if pending.operation in RESULTS - {"defer attempt here"}:
            proof = {"mark unknown for good": "fail rejected", "defer attempt parked": "defer attempt"}.get(
                pending.operation, pending.operation
            )
            yield queued(state, next_message(queue_message, proof, is_latest=pending.is_latest))
