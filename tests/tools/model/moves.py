"""Everything that anybody may do next."""

from collections.abc import Iterator

from tools.model import others, worker
from tools.model.world import Move, MoveKind, Setup, World, canonical, excused, handed_back, queued, without_copy, without_write


def moves(setup: Setup, world: World) -> Iterator[Move]:
    """Yield every move that leads into a world of the setup's size."""
    for name, after, kind in _moves(setup, world):
        if kind is not MoveKind.FAULT or _is_small(setup, after):
            yield name, canonical(after), kind


def _moves(setup: Setup, world: World) -> Iterator[Move]:
    is_worker_free = sum(pending.queue_message is not None for pending in world.pending) < setup.workers
    for queue_message in dict.fromkeys(world.queue):
        if is_worker_free:
            yield from worker.receive(setup, without_copy(world, queue_message), queue_message)
        yield "a message is delivered twice", queued(world, queue_message), MoveKind.FAULT
    for pending in dict.fromkeys(world.pending):
        rest = without_write(world, pending)
        yield f"dies before it writes {pending.deed}", excused(handed_back(rest, pending.queue_message), pending), MoveKind.FAULT
        if pending.queue_message is None:
            yield from others.write(setup, rest, pending)
        else:
            yield from worker.write(setup, rest, pending, pending.queue_message)
    yield from others.others(setup, world)


def _is_small(setup: Setup, world: World) -> bool:
    """Keep the walk finite: faults breed no more messages, and lead no message further ahead of the record, than the setup allows."""
    held = [pending.queue_message for pending in world.pending if pending.queue_message is not None]
    generation = world.record.generation if world.record else 0
    return len(world.queue) + len(held) <= setup.queue_messages and all(
        queue_message.generation <= generation + setup.ahead for queue_message in (*world.queue, *held)
    )
