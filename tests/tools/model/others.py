"""What the API, the caller, the sweeper, an operator and SES's events may do next; what they read and what they write may lie apart."""

from collections.abc import Iterator

from mailer.domain.delivery import Status
from tools.model.records import Record, Write
from tools.model.world import OPEN, Move, MoveKind, Pending, QueueMessage, Setup, World, about_to, late, queued, written


def others(setup: Setup, world: World) -> Iterator[Move]:
    """Yield what anybody but a worker may do."""
    if world.is_unrecorded:
        known = world._replace(is_unrecorded=False)
        yield "the API dies", known, MoveKind.FAULT
        yield "the API records it", written(setup, known, Write("queue", setup.contents[0], setup.on_unknown))[0], MoveKind.GOES_ON
    if (record := world.record) is None:
        return
    yield from _tell(setup, world, record)
    after, answer = written(setup, world, _about(setup, "cancel", record))
    if answer.is_done:
        yield "its caller cancels", after, MoveKind.QUITS
    if all(pending.queue_message is not None for pending in world.pending):
        yield from _sweep(world, record)
        yield from _resolve(setup, world, record)


def _about(setup: Setup, deed: str, record: Record) -> Write:
    return Write(deed, record.content, setup.on_unknown, record.generation)


def _sweep(world: World, record: Record) -> Iterator[Move]:
    """Do as `services.sweep`."""
    if record.status is Status.SENDING:
        yield late(world, about_to(world, "time out", None, is_latest=True), "the sweeper takes it for dead")
    if record.status in OPEN:
        yield "the sweeper is to end it", about_to(world, "fail unsent", None), MoveKind.QUITS
        if record.is_parked:
            kind = MoveKind.FAULT if world.queue or world.pending else MoveKind.GOES_ON
            yield "the sweeper feeds it back", queued(world, QueueMessage(record.content, record.generation)), kind


def _resolve(setup: Setup, world: World, record: Record) -> Iterator[Move]:
    """Do as `services.resolve`: read, send the message, write."""
    if record.status is not Status.UNKNOWN or not world.words:
        return
    said = world._replace(words=world.words - 1)
    if record.is_parked:
        copied = queued(said, QueueMessage(record.content, record.generation + 1))
        yield late(world, about_to(copied, "resolve: resend", None, is_latest=True), "an operator is to send it again")
    if world.accepted:
        yield "an operator knows that it was sent", written(setup, said, _about(setup, "resolve: sent", record))[0], MoveKind.GOES_ON


def _tell(setup: Setup, world: World, record: Record) -> Iterator[Move]:
    """Do as `services.feedback`: at any time after SES accepted a mail, any number of times, of the last attempt or of one before.

    Somebody may also make up an event of an attempt that was never made.
    """
    attempts = [("confirm", True), ("confirm", False)] if world.accepted else []
    for deed, is_latest in [*attempts, ("confirm an attempt to come", True)]:
        after, answer = written(setup, world, _about(setup, deed, record)._replace(is_latest=is_latest))
        if answer.is_done:
            yield f"SES tells of it: {deed}", after._replace(told=len(world.accepted)), MoveKind.TOLD


def write(setup: Setup, world: World, pending: Pending) -> Iterator[Move]:
    """Yield what comes of the sweeper's or the operator's write; whether they hear of it is all the same."""
    if (record := world.record) is None:
        yield "finds nothing any more", world, MoveKind.GOES_ON
        return
    wish = Write(pending.deed, record.content, setup.on_unknown, pending.generation, pending.is_latest)
    after, answer = written(setup, world, wish)
    if pending.deed == "fail unsent" and not answer.is_done and record.maybe_sent:
        after = about_to(after, "give up", None)
    yield f"{'writes' if answer.is_done else 'may not write'} {pending.deed}", after, MoveKind.GOES_ON
