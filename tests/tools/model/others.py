"""Moves of the API, the caller, the sweeper, an operator and SES's events; other moves may come between their reads and writes."""

from collections.abc import Iterator

from mailer.domain.delivery import Status
from tools.model.records import Record, Write
from tools.model.state import OPEN, Move, MoveKind, Pending, QueueMessage, Setup, State, about_to, late, queued, written


def others(setup: Setup, state: State) -> Iterator[Move]:
    """Yield all moves that are not a worker's."""
    if state.is_unrecorded:
        known = state._replace(is_unrecorded=False)
        yield "the API crashes", known, MoveKind.FAULT
        yield "the API records it", written(setup, known, Write("queue", setup.contents[0], setup.on_unknown))[0], MoveKind.PROGRESS
    if (record := state.record) is None:
        return
    yield from _confirm(setup, state, record)
    after, answer = written(setup, state, _about(setup, "cancel", record))
    if answer.is_done:
        yield "its caller cancels", after, MoveKind.ABANDON
    if all(pending.queue_message is not None for pending in state.pending):
        yield from _sweep(state, record)
        yield from _resolve(setup, state, record)


def _about(setup: Setup, operation: str, record: Record) -> Write:
    return Write(operation, record.content, setup.on_unknown, record.generation)


def _sweep(state: State, record: Record) -> Iterator[Move]:
    """Model `services.sweep`."""
    if record.status is Status.SENDING:
        yield late(state, about_to(state, "time out", None, is_latest=True), "the sweeper treats its worker as dead")
    if record.status in OPEN:
        yield "the sweeper is about to end it", about_to(state, "fail unsent", None), MoveKind.ABANDON
        if record.is_parked:
            kind = MoveKind.FAULT if state.queue or state.pending else MoveKind.PROGRESS
            yield "the sweeper requeues it", queued(state, QueueMessage(record.content, record.generation)), kind


def _resolve(setup: Setup, state: State, record: Record) -> Iterator[Move]:
    """Model `services.resolve`: read, send the message, write."""
    if record.status is not Status.UNKNOWN or not state.resolutions:
        return
    said = state._replace(resolutions=state.resolutions - 1)
    if record.is_parked:
        copied = queued(said, QueueMessage(record.content, record.generation + 1))
        yield late(state, about_to(copied, "resolve: resend", None, is_latest=True), "an operator is about to resend it")
    if state.accepted:
        yield "an operator resolves it as sent", written(setup, said, _about(setup, "resolve: sent", record))[0], MoveKind.PROGRESS


def _confirm(setup: Setup, state: State, record: Record) -> Iterator[Move]:
    """Model `services.feedback`: at any time after SES accepted a mail, any number of times, of the latest attempt or an earlier one.

    An event of an attempt that was never made may be forged too.
    """
    attempts = [("confirm", True), ("confirm", False)] if state.accepted else []
    for operation, is_latest in [*attempts, ("confirm an attempt to come", True)]:
        after, answer = written(setup, state, _about(setup, operation, record)._replace(is_latest=is_latest))
        if answer.is_done:
            yield f"an SES event: {operation}", after._replace(confirmed=len(state.accepted)), MoveKind.EVENT


def write(setup: Setup, state: State, pending: Pending) -> Iterator[Move]:
    """Yield the results of the sweeper's or the operator's write; a lost response makes no difference."""
    if (record := state.record) is None:
        yield "finds nothing any more", state, MoveKind.PROGRESS
        return
    wish = Write(pending.operation, record.content, setup.on_unknown, pending.generation, pending.is_latest)
    after, answer = written(setup, state, wish)
    if pending.operation == "fail unsent" and not answer.is_done and record.maybe_sent:
        after = about_to(after, "give up", None)
    yield f"{'writes' if answer.is_done else 'may not write'} {pending.operation}", after, MoveKind.PROGRESS
