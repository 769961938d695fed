"""Walk every world that can be reached, and say which promise of the machine is broken where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailer.domain.delivery import END_STATUSES, Status
from tools.model.moves import moves
from tools.model.world import MoveKind, Setup, World, canonical


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk found: how many worlds there are, and the shortest way to the first broken promise."""

    worlds: int
    moves: int
    broken: str | None = None
    way: tuple[str, ...] = ()


Came = list[tuple[int, str]]
"""From which world, and by which move, each was reached first."""


def walk(setup: Setup) -> Walk:
    """Walk breadth first, so that what is found is found by its shortest way; stop at the first broken promise."""
    start = canonical(setup.start)
    numbers, worlds, came, before = {start: 0}, [start], [(0, "")], [list[int]()]
    made = 0
    for number, world in enumerate(worlds):
        if broken := next(_broken(world), None):
            return Walk(len(worlds), made, broken, _way(came, number))
        for name, after, kind in moves(setup, world):
            made += 1
            reached = numbers.setdefault(after, len(worlds))
            if reached == len(worlds):
                worlds.append(after)
                came.append((number, name))
                before.append([])
            if kind is MoveKind.GOES_ON:
                before[reached].append(number)
    if (stuck := _first_stuck(worlds, before)) is not None:
        return Walk(len(worlds), made, "it can end only by being given up", _way(came, stuck))
    return Walk(len(worlds), made)


def _broken(world: World) -> Iterator[str]:
    """Yield the promises that a world breaks."""
    if len(world.accepted) > 1 + world.resent:
        yield "accepted twice"
    if world.told and len(world.accepted) > world.told:
        yield "accepted again after it was written down that SES had told of the first"
    if (record := world.record) is None:
        return
    if any(content != record.content for content in world.accepted):
        yield "accepted with other content than the record's"
    if record.status in (Status.FAILED, Status.CANCELLED) and (world.accepted or record.maybe_sent):
        yield f"{record.status} though it was, or may have been, accepted"
    if record.status is Status.SENT and not world.accepted:
        yield "sent though it was never accepted"
    if record.status is Status.UNKNOWN and not world.is_excused:
        yield "unknown though no fault hit its call or the write of its result"
    if record.status is Status.UNKNOWN and _rests(world) and not record.is_parked:
        yield "unknown, and its body is not kept for an operator"


def _rests(world: World) -> bool:
    return not (world.pending or world.queue or world.is_unrecorded)


def _has_ended(world: World) -> bool:
    """Whether all is done: nothing is on its way, and the record says how it ended."""
    return _rests(world) and world.record is not None and world.record.status in END_STATUSES


def _way(came: Came, number: int) -> tuple[str, ...]:
    steps: list[str] = []
    while number:
        number, name = came[number]
        steps.append(name)
    return tuple(reversed(steps))


def _first_stuck(worlds: Sequence[World], before: Sequence[Sequence[int]]) -> int | None:
    """Return a world from which no way leads to an end without a fault, an expiry or a cancel."""
    todo = [number for number, world in enumerate(worlds) if _has_ended(world)]
    reaches = set(todo)
    while todo:
        fresh = [earlier for earlier in before[todo.pop()] if earlier not in reaches]
        reaches.update(fresh)
        todo += fresh
    return next((number for number in range(len(worlds)) if number not in reaches), None)
