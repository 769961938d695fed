"""Explore all reachable states, and find violated invariants."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailer.domain.delivery import END_STATUSES, Status
from tools.model.moves import moves
from tools.model.state import MoveKind, Setup, State, canonical


@dataclass(frozen=True, slots=True)
class Walk:
    """Result of an exploration: number of states, and the shortest path to the first violation."""

    states: int
    moves: int
    violation: str | None = None
    path: tuple[str, ...] = ()


Came = list[tuple[int, str]]
"""Predecessor and move by which each state was reached first."""


def walk(setup: Setup) -> Walk:
    """Explore breadth first, which yields shortest paths; stop at the first violation."""
    start = canonical(setup.start)
    numbers, states, came, before = {start: 0}, [start], [(0, "")], [list[int]()]
    made = 0
    for number, state in enumerate(states):
        if violation := next(_violations(state), None):
            return Walk(len(states), made, violation, _path(came, number))
        for name, after, kind in moves(setup, state):
            made += 1
            reached = numbers.setdefault(after, len(states))
            if reached == len(states):
                states.append(after)
                came.append((number, name))
                before.append([])
            if kind is MoveKind.PROGRESS:
                before[reached].append(number)
    if (stuck := _first_stuck(states, before)) is not None:
        return Walk(len(states), made, "it can end only by a fault, an expiry or a cancel", _path(came, stuck))
    return Walk(len(states), made)


def _violations(state: State) -> Iterator[str]:
    """Yield the invariants that a state violates."""
    if len(state.accepted) > 1 + state.resent:
        yield "accepted twice"
    if state.confirmed and len(state.accepted) > state.confirmed:
        yield "accepted again after an event of the first was recorded"
    if (record := state.record) is None:
        return
    if any(content != record.content for content in state.accepted):
        yield "accepted with other content than the record's"
    if record.status in (Status.FAILED, Status.CANCELLED) and (state.accepted or record.maybe_sent):
        yield f"{record.status} although it was, or may have been, accepted"
    if record.status is Status.SENT and not state.accepted:
        yield "sent although it was never accepted"
    if record.status is Status.UNKNOWN and not state.is_excused:
        yield "unknown without a fault of its call or of the write of its result"
    if record.status is Status.UNKNOWN and _is_idle(state) and not record.is_parked:
        yield "unknown, and its body is not parked for an operator"


def _is_idle(state: State) -> bool:
    return not (state.pending or state.queue or state.is_unrecorded)


def _has_ended(state: State) -> bool:
    """Return whether nothing is pending and the record has ended."""
    return _is_idle(state) and state.record is not None and state.record.status in END_STATUSES


def _path(came: Came, number: int) -> tuple[str, ...]:
    steps: list[str] = []
    while number:
        number, name = came[number]
        steps.append(name)
    return tuple(reversed(steps))


def _first_stuck(states: Sequence[State], before: Sequence[Sequence[int]]) -> int | None:
    """Return a state without a path to an end, except by a fault, an expiry or a cancel."""
    todo = [number for number, state in enumerate(states) if _has_ended(state)]
    reaches = set(todo)
    while todo:
        fresh = [earlier for earlier in before[todo.pop()] if earlier not in reaches]
        reaches.update(fresh)
        todo += fresh
    return next((number for number in range(len(states)) if number not in reaches), None)
