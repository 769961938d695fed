"""Everything that anybody may do next."""

from collections.abc import Iterator

from model import others, worker
from model.world import Kind, Move, Setup, World, canonical, excused, handed_back, queued, without_copy, without_write


def moves(setup: Setup, world: World) -> Iterator[Move]:
    """Yield every move that leads into a world of the setup's size."""
    for name, after, kind in _moves(setup, world):
        if kind is not Kind.FAULT or _is_small(setup, after):
            yield name, canonical(after), kind


def _moves(setup: Setup, world: World) -> Iterator[Move]:
    is_worker_free = sum(pending.copy is not None for pending in world.pending) < setup.workers
    for copy in dict.fromkeys(world.queue):
        if is_worker_free:
            yield from worker.receive(setup, without_copy(world, copy), copy)
        yield "a copy is handed out twice", queued(world, copy), Kind.FAULT
    for pending in dict.fromkeys(world.pending):
        rest = without_write(world, pending)
        yield f"dies before it writes {pending.deed}", excused(handed_back(rest, pending.copy), pending), Kind.FAULT
        if pending.copy is None:
            yield from others.write(setup, rest, pending)
        else:
            yield from worker.write(setup, rest, pending, pending.copy)
    yield from others.others(setup, world)


def _is_small(setup: Setup, world: World) -> bool:
    """Keep the walk finite: faults breed no more copies, and lead no copy further ahead of the record, than the setup allows."""
    held = [pending.copy for pending in world.pending if pending.copy is not None]
    hop = world.record.hop if world.record else 0
    return len(world.queue) + len(held) <= setup.copies and all(copy.hop <= hop + setup.ahead for copy in (*world.queue, *held))
