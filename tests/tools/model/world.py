"""The world of the model at one moment, and the form in which equal worlds are equal."""

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
"""Writes of what became of a call."""


class MoveKind(Enum):
    """What a move needs; nothing may rely on any but the first to happen."""

    GOES_ON = "goes on"
    FAULT = "a crash, a lost reply, a clock that is wrong, a message delivered twice"
    QUITS = "the caller cancels, or it expires"
    TOLD = "SES tells of a mail that it accepted; or it does not, for events get lost"


class QueueMessage(NamedTuple):
    """A message on the queue; `proof` is the result that it carries, of the record's latest attempt or of another."""

    content: str
    generation: int = 0
    proof: str = ""
    is_latest: bool = False


class Pending(NamedTuple):
    """A write that somebody is about to make; without a message it is the sweeper's or the operator's."""

    deed: str
    queue_message: QueueMessage | None
    generation: int
    is_latest: bool = False

    @property
    def is_window(self) -> bool:
        """Whether it is the result of the record's latest call, which nobody else knows yet."""
        return self.is_latest and self.deed in RESULTS and self.queue_message is not None and not self.queue_message.proof


class World(NamedTuple):
    """Everything that is, at one moment."""

    record: Record | None = None
    pending: tuple[Pending, ...] = ()
    queue: tuple[QueueMessage, ...] = ()
    accepted: tuple[str, ...] = ()
    """What SES accepted, by content."""
    resent: int = 0
    """Rule 6 was passed so often."""
    words: int = 0
    """What an operator may still say."""
    is_unrecorded: bool = False
    """The API has put it on the queue and not written its record yet."""
    is_excused: bool = False
    """A fault hit a call, or the write of its result."""
    told: int = 0
    """How many mails SES had accepted when it was written down that it told of one; 0: it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One world to walk, and how far: so many workers, messages at once, and times that rule 6 is passed; any number of faults."""

    contents: tuple[str, ...] = ("v1:a",)
    on_unknown: OnUnknown = "hold"
    workers: int = 2
    queue_messages: int = 1
    resends: int = 1
    words: int = 0
    ahead: int = 1
    """Hops that a message may be ahead of the record."""
    machine: Machine = field(default_factory=Machine)

    @property
    def start(self) -> World:
        """Return the world in which the messages are on the queue and nothing is recorded."""
        return World(queue=tuple(QueueMessage(content) for content in self.contents), words=self.words, is_unrecorded=True)


Move = tuple[str, World, MoveKind]
"""What happens, the world after it, and what it needs."""


# -- equal worlds --------------------------------------------------------------------------------------------------------------

STALE = 1
"""Messages that are so far behind the record's generation, or further, are all the same."""


def canonical(world: World) -> World:
    """Bring a world into the form in which equal worlds are equal: sorted, generations counted from the record's, without what is past."""
    record = world.record
    if record is None:
        return world._replace(pending=tuple(sorted(world.pending, key=_order)), queue=tuple(sorted(world.queue)))
    is_final = record.status in FINAL
    base = FAR if is_final else record.generation - STALE
    counted = World(
        record if record.generation == STALE else record._replace(generation=STALE),
        tuple(sorted([_pending_at(base, write) for write in world.pending], key=_order)),
        tuple(sorted([_at(base, queue_message) for queue_message in world.queue])),
        world.accepted,
        world.resent,
        world.words,
        is_unrecorded=False,
        is_excused=world.is_excused and not is_final,
        told=world.told,
    )
    return _close_up(counted)


FAR = 1000
"""Of a request that has ended generations decide nothing any more, so all are behind this one."""

GAP = 3
"""Messages whose generations lie further apart are taken to be so far apart: they come closer by one at a time."""


def _hops(pending: Iterable[Pending], queue: Iterable[QueueMessage]) -> set[int]:
    return {write.generation for write in pending} | {
        queue_message.generation for queue_message in (*queue, *(write.queue_message for write in pending if write.queue_message))
    }


def _closer(generations: set[int]) -> dict[int, int]:
    """Map each generation to one that is as close to the next lower one as makes a difference."""
    closer = {STALE: STALE}
    for generation in sorted(generations - {STALE}):
        lower = max((known for known in closer if known < generation), default=None)
        closer[generation] = generation if lower is None else closer[lower] + min(generation - lower, GAP)
    return closer


def _close_up(world: World) -> World:
    generations = _hops(world.pending, world.queue)
    if max(generations, default=0) <= STALE + GAP:
        return world
    at = _closer(generations)
    pending = [
        write._replace(
            generation=at[write.generation],
            queue_message=write.queue_message and write.queue_message._replace(generation=at[write.queue_message.generation]),
        )
        for write in world.pending
    ]
    return world._replace(
        pending=tuple(sorted(pending, key=_order)),
        queue=tuple(queue_message._replace(generation=at[queue_message.generation]) for queue_message in world.queue),
    )


@cache
def _order(write: Pending) -> tuple[object, ...]:
    return (write.deed, write.queue_message or (), *write[2:])


@cache
def _pending_at(base: int, write: Pending) -> Pending:
    return write._replace(generation=max(write.generation - base, 0), queue_message=write.queue_message and _at(base, write.queue_message))


@cache
def _at(base: int, queue_message: QueueMessage) -> QueueMessage:
    """Count a message's generation from a base, and drop a proof that has become worthless."""
    content, generation, proof, is_latest = queue_message
    if proof and not is_latest and proof != "accept":
        proof = ""
    return QueueMessage(content, max(generation - base, 0), proof, is_latest)


# -- small changes -------------------------------------------------------------------------------------------------------------


def queued(world: World, *queue_messages: QueueMessage) -> World:
    return world._replace(queue=(*world.queue, *queue_messages))


def handed_back(world: World, queue_message: QueueMessage | None) -> World:
    return queued(world, queue_message) if queue_message else world


def without_copy(world: World, queue_message: QueueMessage) -> World:
    number = world.queue.index(queue_message)
    return world._replace(queue=world.queue[:number] + world.queue[number + 1 :])


def without_write(world: World, write: Pending) -> World:
    number = world.pending.index(write)
    return world._replace(pending=world.pending[:number] + world.pending[number + 1 :])


def about_to(world: World, deed: str, queue_message: QueueMessage | None, **fields: bool) -> World:
    """Let somebody be about to write; without a message in hand it is about the record as it stands."""
    generation = (
        queue_message.generation if queue_message and deed not in ("park", "hold") else world.record.generation if world.record else 0
    )
    return world._replace(pending=(*world.pending, Pending(deed, queue_message, generation, **fields)))


def excused(world: World, write: Pending) -> World:
    return world._replace(is_excused=True) if write.is_window else world


def next_message(queue_message: QueueMessage, proof: str = "", *, is_latest: bool = False) -> QueueMessage:
    return QueueMessage(queue_message.content, queue_message.generation + 1, proof, is_latest)


def all_earlier(world: World) -> World:
    """Make every fence that somebody holds one of an earlier attempt."""
    pending = tuple(
        p._replace(is_latest=False, queue_message=p.queue_message and p.queue_message._replace(is_latest=False)) for p in world.pending
    )
    return world._replace(pending=pending, queue=tuple(queue_message._replace(is_latest=False) for queue_message in world.queue))


def written(setup: Setup, world: World, write: Write) -> tuple[World, Answer]:
    """Make a write; a worker that sends an unknown again has passed rule 6."""
    answer = setup.machine.apply(write, world.record)
    if answer.record is None:
        return all_earlier(world._replace(record=None)), answer
    is_resent = world.record is not None and (world.record.status, answer.record.status) == (Status.UNKNOWN, Status.QUEUED)
    return world._replace(record=answer.record, resent=world.resent + is_resent), answer


def late(before: World, after: World, name: str) -> Move:
    """Let a deadline have passed: while the worker of the attempt is still at it, that is a fault of some clock."""
    is_early = any(write.is_window for write in before.pending)
    return (f"{name} too early", after._replace(is_excused=True), MoveKind.FAULT) if is_early else (name, after, MoveKind.GOES_ON)
