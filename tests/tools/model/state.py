"""A state of the model, and its canonical form."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import NamedTuple

from mailer.domain.delivery import OnUnknown, Status
from tools.model.records import Answer, Machine, Record, Write

OPEN = (Status.QUEUED, Status.DEFERRED)
FINAL = (Status.SENT, Status.FAILED, Status.CANCELLED)
RESULTS = frozenset(
    {"accept", "fail rejected", "defer attempt", "defer attempt parked", "defer attempt here", "mark unknown", "mark unknown for good"}
)
"""Writes of a call's result."""


class MoveKind(Enum):
    """Cause of a move; correctness may rely on the first kind only."""

    PROGRESS = "normal progress"
    FAULT = "a crash, a lost response, clock skew, a message delivered twice"
    ABANDON = "the caller cancels, or it expires"
    EVENT = "an SES event of an accepted mail, which may also be lost"


class QueueMessage(NamedTuple):
    """A message on the queue; `proof` is the result that it carries, of the latest attempt or an earlier one."""

    content: str
    generation: int = 0
    proof: str = ""
    is_latest: bool = False


class Pending(NamedTuple):
    """A pending write; without a message it is the sweeper's or the operator's."""

    operation: str
    queue_message: QueueMessage | None
    generation: int
    is_latest: bool = False

    @property
    def is_window(self) -> bool:
        """Return whether it is the result of the latest call, which is stored nowhere else yet."""
        return self.is_latest and self.operation in RESULTS and self.queue_message is not None and not self.queue_message.proof


class State(NamedTuple):
    """One state."""

    record: Record | None = None
    pending: tuple[Pending, ...] = ()
    queue: tuple[QueueMessage, ...] = ()
    accepted: tuple[str, ...] = ()
    """Contents of the mails that SES accepted."""
    resent: int = 0
    """Count of applications of rule 6 (resend)."""
    resolutions: int = 0
    """Remaining resolutions by an operator."""
    is_unrecorded: bool = False
    """Whether the API has enqueued it and not written its record yet."""
    is_excused: bool = False
    """Whether a call or the write of its result had a fault."""
    confirmed: int = 0
    """Number of accepted mails when an event of one was recorded; 0: none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One model with its bounds: workers, messages at once, resends; any number of faults."""

    contents: tuple[str, ...] = ("v1:a",)
    on_unknown: OnUnknown = "hold"
    workers: int = 2
    queue_messages: int = 1
    resends: int = 1
    resolutions: int = 0
    ahead: int = 1
    """Most generations by which a message may be ahead of the record."""
    machine: Machine = field(default_factory=Machine)

    @property
    def start(self) -> State:
        """Return the initial state: the messages are on the queue, and there is no record."""
        return State(queue=tuple(QueueMessage(content) for content in self.contents), resolutions=self.resolutions, is_unrecorded=True)


Move = tuple[str, State, MoveKind]
"""Name of a move, the state after it, and its kind."""


# -- equal states --------------------------------------------------------------------------------------------------------------

STALE = 1
"""Messages that many generations behind the record, or more, are equivalent."""


def canonical(state: State) -> State:
    """Return the canonical form of a state: sorted, with generations relative to the record's, without data that no longer matters."""
    record = state.record
    if record is None:
        return state._replace(pending=tuple(sorted(state.pending, key=_order)), queue=tuple(sorted(state.queue)))
    is_final = record.status in FINAL
    base = FAR if is_final else record.generation - STALE
    counted = State(
        record if record.generation == STALE else record._replace(generation=STALE),
        tuple(sorted([_pending_at(base, write) for write in state.pending], key=_order)),
        tuple(sorted([_at(base, queue_message) for queue_message in state.queue])),
        state.accepted,
        state.resent,
        state.resolutions,
        is_unrecorded=False,
        is_excused=state.is_excused and not is_final,
        confirmed=state.confirmed,
    )
    return _close_up(counted)


FAR = 1000
"""Generations no longer matter once a request has ended, so all are behind this one."""

GAP = 3
"""Larger distances between generations are reduced to this one: messages get closer by one at a time."""


def _hops(pending: Iterable[Pending], queue: Iterable[QueueMessage]) -> set[int]:
    return {write.generation for write in pending} | {
        queue_message.generation for queue_message in (*queue, *(write.queue_message for write in pending if write.queue_message))
    }


def _closer(generations: set[int]) -> dict[int, int]:
    """Map each generation to one with its distance to the next lower one reduced to GAP."""
    closer = {STALE: STALE}
    for generation in sorted(generations - {STALE}):
        lower = max((known for known in closer if known < generation), default=None)
        closer[generation] = generation if lower is None else closer[lower] + min(generation - lower, GAP)
    return closer


def _close_up(state: State) -> State:
    generations = _hops(state.pending, state.queue)
    if max(generations, default=0) <= STALE + GAP:
        return state
    at = _closer(generations)
    pending = [
        write._replace(
            generation=at[write.generation],
            queue_message=write.queue_message and write.queue_message._replace(generation=at[write.queue_message.generation]),
        )
        for write in state.pending
    ]
    return state._replace(
        pending=tuple(sorted(pending, key=_order)),
        queue=tuple(queue_message._replace(generation=at[queue_message.generation]) for queue_message in state.queue),
    )


@cache
def _order(write: Pending) -> tuple[object, ...]:
    return (write.operation, write.queue_message or (), *write[2:])


@cache
def _pending_at(base: int, write: Pending) -> Pending:
    return write._replace(generation=max(write.generation - base, 0), queue_message=write.queue_message and _at(base, write.queue_message))


@cache
def _at(base: int, queue_message: QueueMessage) -> QueueMessage:
    """Return a message with its generation relative to a base, without a proof that no longer applies."""
    content, generation, proof, is_latest = queue_message
    if proof and not is_latest and proof != "accept":
        proof = ""
    return QueueMessage(content, max(generation - base, 0), proof, is_latest)


# -- small changes -------------------------------------------------------------------------------------------------------------


def queued(state: State, *queue_messages: QueueMessage) -> State:
    return state._replace(queue=(*state.queue, *queue_messages))


def redelivered(state: State, queue_message: QueueMessage | None) -> State:
    return queued(state, queue_message) if queue_message else state


def without_message(state: State, queue_message: QueueMessage) -> State:
    number = state.queue.index(queue_message)
    return state._replace(queue=state.queue[:number] + state.queue[number + 1 :])


def without_write(state: State, write: Pending) -> State:
    number = state.pending.index(write)
    return state._replace(pending=state.pending[:number] + state.pending[number + 1 :])


def about_to(state: State, operation: str, queue_message: QueueMessage | None, **fields: bool) -> State:
    """Add a pending write; without a message it is based on the current record."""
    generation = (
        queue_message.generation if queue_message and operation not in ("park", "hold") else state.record.generation if state.record else 0
    )
    return state._replace(pending=(*state.pending, Pending(operation, queue_message, generation, **fields)))


def excused(state: State, write: Pending) -> State:
    return state._replace(is_excused=True) if write.is_window else state


def next_message(queue_message: QueueMessage, proof: str = "", *, is_latest: bool = False) -> QueueMessage:
    return QueueMessage(queue_message.content, queue_message.generation + 1, proof, is_latest)


def all_earlier(state: State) -> State:
    """Mark every fence in use as one of an earlier attempt."""
    pending = tuple(
        p._replace(is_latest=False, queue_message=p.queue_message and p.queue_message._replace(is_latest=False)) for p in state.pending
    )
    return state._replace(pending=pending, queue=tuple(queue_message._replace(is_latest=False) for queue_message in state.queue))


def written(setup: Setup, state: State, write: Write) -> tuple[State, Answer]:
    """Make a write; count a resend of an unknown."""
    answer = setup.machine.apply(write, state.record)
    if answer.record is None:
        return all_earlier(state._replace(record=None)), answer
    is_resent = state.record is not None and (state.record.status, answer.record.status) == (Status.UNKNOWN, Status.QUEUED)
    return state._replace(record=answer.record, resent=state.resent + is_resent), answer


def late(before: State, after: State, name: str) -> Move:
    """Let a deadline pass; while the attempt's worker is still running, that is a fault of a clock."""
    is_early = any(write.is_window for write in before.pending)
    return (f"{name} too early", after._replace(is_excused=True), MoveKind.FAULT) if is_early else (name, after, MoveKind.PROGRESS)
