"""The world of the model at one moment, and the form in which equal worlds are equal."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import NamedTuple

from mailer.domain.delivery import OnUnknown, Status
from model.records import Answer, Machine, Record, Write

OPEN = (Status.QUEUED, Status.DEFERRED)
FINAL = (Status.SENT, Status.FAILED, Status.CANCELLED)
RESULTS = frozenset({"accept", "reject", "postpone", "postpone parked", "postpone here", "lose", "lose for good"})
"""Writes of what became of a call."""


class Kind(Enum):
    """What a move needs; nothing may rely on the last two to happen."""

    GOES_ON = "goes on"
    FAULT = "a crash, a lost reply, a clock that is wrong, a copy handed out twice"
    QUITS = "the caller cancels, or it expires"


class Copy(NamedTuple):
    """A copy on the queue; `proof` is the result that it carries, of the record's latest attempt or of another."""

    content: str
    hop: int = 0
    proof: str = ""
    is_latest: bool = False


class Pending(NamedTuple):
    """A write that somebody is about to make; without a copy it is the sweeper's or the operator's."""

    deed: str
    copy: Copy | None
    hop: int
    is_latest: bool = False

    @property
    def is_window(self) -> bool:
        """Whether it is the result of the record's latest call, which nobody else knows yet."""
        return self.is_latest and self.deed in RESULTS and self.copy is not None and not self.copy.proof


class World(NamedTuple):
    """Everything that is, at one moment."""

    record: Record | None = None
    pending: tuple[Pending, ...] = ()
    queue: tuple[Copy, ...] = ()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One world to walk, and how far: so many workers, copies at once, and times that rule 6 is passed; any number of faults."""

    contents: tuple[str, ...] = ("v1:a",)
    on_unknown: OnUnknown = "hold"
    workers: int = 2
    copies: int = 1
    resends: int = 1
    words: int = 0
    ahead: int = 1
    """Hops that a copy may be ahead of the record."""
    machine: Machine = field(default_factory=Machine)

    @property
    def start(self) -> World:
        """Return the world in which the copies are on the queue and nothing is recorded."""
        return World(queue=tuple(Copy(content) for content in self.contents), words=self.words, is_unrecorded=True)


Move = tuple[str, World, Kind]
"""What happens, the world after it, and what it needs."""


# -- equal worlds --------------------------------------------------------------------------------------------------------------

STALE = 1
"""Copies that are so far behind the record's hop, or further, are all the same."""


def canonical(world: World) -> World:
    """Bring a world into the form in which equal worlds are equal: sorted, hops counted from the record's, without what is past."""
    record = world.record
    if record is None:
        return world._replace(pending=tuple(sorted(world.pending, key=_order)), queue=tuple(sorted(world.queue)))
    is_final = record.status in FINAL
    base = FAR if is_final else record.hop - STALE
    counted = World(
        record if record.hop == STALE else record._replace(hop=STALE),
        tuple(sorted([_pending_at(base, write) for write in world.pending], key=_order)),
        tuple(sorted([_at(base, copy) for copy in world.queue])),
        world.accepted,
        world.resent,
        world.words,
        is_unrecorded=False,
        is_excused=world.is_excused and not is_final,
    )
    return _close_up(counted)


FAR = 1000
"""Of a request that has ended hops decide nothing any more, so all are behind this one."""

GAP = 3
"""Copies whose hops lie further apart are taken to be so far apart: they come closer by one at a time."""


def _hops(pending: Iterable[Pending], queue: Iterable[Copy]) -> set[int]:
    return {write.hop for write in pending} | {copy.hop for copy in (*queue, *(write.copy for write in pending if write.copy))}


def _closer(hops: set[int]) -> dict[int, int]:
    """Map each hop to one that is as close to the next lower one as makes a difference."""
    closer = {STALE: STALE}
    for hop in sorted(hops - {STALE}):
        lower = max((known for known in closer if known < hop), default=None)
        closer[hop] = hop if lower is None else closer[lower] + min(hop - lower, GAP)
    return closer


def _close_up(world: World) -> World:
    hops = _hops(world.pending, world.queue)
    if max(hops, default=0) <= STALE + GAP:
        return world
    at = _closer(hops)
    pending = [
        write._replace(hop=at[write.hop], copy=write.copy and write.copy._replace(hop=at[write.copy.hop])) for write in world.pending
    ]
    return world._replace(pending=tuple(sorted(pending, key=_order)), queue=tuple(copy._replace(hop=at[copy.hop]) for copy in world.queue))


@cache
def _order(write: Pending) -> tuple[object, ...]:
    return (write.deed, write.copy or (), *write[2:])


@cache
def _pending_at(base: int, write: Pending) -> Pending:
    return write._replace(hop=max(write.hop - base, 0), copy=write.copy and _at(base, write.copy))


@cache
def _at(base: int, copy: Copy) -> Copy:
    """Count a copy's hop from a base, and drop a proof that has become worthless."""
    content, hop, proof, is_latest = copy
    if proof and not is_latest and proof != "accept":
        proof = ""
    return Copy(content, max(hop - base, 0), proof, is_latest)


# -- small changes -------------------------------------------------------------------------------------------------------------


def queued(world: World, *copies: Copy) -> World:
    return world._replace(queue=(*world.queue, *copies))


def handed_back(world: World, copy: Copy | None) -> World:
    return queued(world, copy) if copy else world


def without_copy(world: World, copy: Copy) -> World:
    number = world.queue.index(copy)
    return world._replace(queue=world.queue[:number] + world.queue[number + 1 :])


def without_write(world: World, write: Pending) -> World:
    number = world.pending.index(write)
    return world._replace(pending=world.pending[:number] + world.pending[number + 1 :])


def about_to(world: World, deed: str, copy: Copy | None, **fields: bool) -> World:
    """Let somebody be about to write; without a copy in hand it is about the record as it stands."""
    hop = copy.hop if copy and deed not in ("park", "hold") else world.record.hop if world.record else 0
    return world._replace(pending=(*world.pending, Pending(deed, copy, hop, **fields)))


def excused(world: World, write: Pending) -> World:
    return world._replace(is_excused=True) if write.is_window else world


def next_copy(copy: Copy, proof: str = "", *, is_latest: bool = False) -> Copy:
    return Copy(copy.content, copy.hop + 1, proof, is_latest)


def all_earlier(world: World) -> World:
    """Make every fence that somebody holds one of an earlier attempt."""
    pending = tuple(p._replace(is_latest=False, copy=p.copy and p.copy._replace(is_latest=False)) for p in world.pending)
    return world._replace(pending=pending, queue=tuple(copy._replace(is_latest=False) for copy in world.queue))


def written(setup: Setup, world: World, write: Write) -> tuple[World, Answer]:
    """Make a write; whoever sends an unknown again has passed rule 6."""
    answer = setup.machine.apply(write, world.record)
    if answer.record is None:
        return all_earlier(world._replace(record=None)), answer
    is_resent = world.record is not None and (world.record.status, answer.record.status) == (Status.UNKNOWN, Status.QUEUED)
    return world._replace(record=answer.record, resent=world.resent + is_resent), answer


def late(before: World, after: World, name: str) -> Move:
    """Let a deadline have passed: while the worker of the attempt is still at it, that is a fault of some clock."""
    is_early = any(write.is_window for write in before.pending)
    return (f"{name} too early", after._replace(is_excused=True), Kind.FAULT) if is_early else (name, after, Kind.GOES_ON)
