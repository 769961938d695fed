"""All moves from a state."""

from collections.abc import Iterator

from tools.model import others, worker
from tools.model.state import Move, MoveKind, Setup, State, canonical, excused, queued, redelivered, without_message, without_write


def moves(setup: Setup, state: State) -> Iterator[Move]:
    """Yield every move to a state within the bounds of the setup."""
    for name, after, kind in _moves(setup, state):
        if kind is not MoveKind.FAULT or _is_small(setup, after):
            yield name, canonical(after), kind


def _moves(setup: Setup, state: State) -> Iterator[Move]:
    is_worker_free = sum(pending.queue_message is not None for pending in state.pending) < setup.workers
    for queue_message in dict.fromkeys(state.queue):
        if is_worker_free:
            yield from worker.receive(setup, without_message(state, queue_message), queue_message)
        yield "a message is delivered twice", queued(state, queue_message), MoveKind.FAULT
    for pending in dict.fromkeys(state.pending):
        rest = without_write(state, pending)
        yield f"crashes before it writes {pending.operation}", excused(redelivered(rest, pending.queue_message), pending), MoveKind.FAULT
        if pending.queue_message is None:
            yield from others.write(setup, rest, pending)
        else:
            yield from worker.write(setup, rest, pending, pending.queue_message)
    yield from others.others(setup, state)


def _is_small(setup: Setup, state: State) -> bool:
    """Return whether a state is within the setup's bounds of messages and of generations ahead of the record."""
    held = [pending.queue_message for pending in state.pending if pending.queue_message is not None]
    generation = state.record.generation if state.record else 0
    return len(state.queue) + len(held) <= setup.queue_messages and all(
        queue_message.generation <= generation + setup.ahead for queue_message in (*state.queue, *held)
    )
