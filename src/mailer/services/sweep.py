"""Move on what waits or got stuck: end what is past its time, feed parked bodies back, release the mail of resumed tenants.

Bounded per run and idempotent: what a run leaves, or a crash makes it do twice, the next one puts right.
"""

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import batched

from mailer.domain import changes
from mailer.domain.delivery import OVERDUE_AFTER, Change, Delivery, Status, WaitsFor
from mailer.domain.errors import EXPIRED, DependencyError
from mailer.ports import Clock, Copy, Journal, MessagesTable, ParkedBodies, RefusedError, Releases, SendQueue
from mailer.services.ending import end_unsent
from mailer.services.redelivery import WORKER_LOST
from mailer.services.waiting import discard

PAGE = 100
"""Records read at once from one shard of the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRoom:
    """The ports of the sweeper."""

    releases: Releases
    messages: MessagesTable
    queue: SendQueue
    parked: ParkedBodies
    journal: Journal
    clock: Clock
    workers: Executor
    shards: int
    """Partitions of the sweep index."""


@dataclass(slots=True)
class Tally:
    """What one run did; `lag` is how late it came to the longest overdue record."""

    moved: int = 0
    overdue: int = 0
    lag: timedelta = timedelta()


def sweep(room: SweepRoom, *, ends_at: datetime) -> Tally:
    """Do one run, until nothing is due any more or the time is over."""
    tally = Tally()
    shards = set(range(room.shards))
    while shards and room.clock.now() < ends_at:
        pages = dict(zip(shards, room.workers.map(lambda shard: _look(room, shard), shards), strict=True))
        shards = {shard for shard, page in pages.items() if _move(page, room, tally) and len(page) == PAGE}
    _release_all(room, tally, ends_at)
    room.journal.swept(overdue=tally.overdue, lag=tally.lag)
    return tally


def _look(room: SweepRoom, shard: int) -> Sequence[Delivery]:
    try:
        return room.messages.due(shard, room.clock.now(), PAGE)
    except DependencyError as failure:
        room.journal.failed("sweep", None, failure)
        return []


def _move(page: Sequence[Delivery], room: SweepRoom, tally: Tally) -> bool:
    """Move each record of a page on; False when none could be, so that asking again at once would show the same page."""
    now = room.clock.now()
    for record in page:
        tally.lag = max(tally.lag, now - (record.sweep_at or now))
        tally.overdue += is_overdue(record, now)
    ended = [record for record in page if has_ended(record, now)]
    waiting = [record for record in page if not has_ended(record, now)]
    moved = sum(room.workers.map(lambda record: _end(record, room), ended))
    moved += _feed([record for record in waiting if record.parked], room)
    moved += _apply_all([changes.touch(record, now) for record in waiting if not record.parked], room)
    tally.moved += moved
    return moved > 0


def is_overdue(record: Delivery, now: datetime) -> bool:
    """Whether an open record that should come back by itself has not: its copy on the queue is lost, or the queue is far behind."""
    return record.status in (Status.QUEUED, Status.DEFERRED) and (record.due_at or record.created_at) + OVERDUE_AFTER <= now


def has_ended(record: Delivery, now: datetime) -> bool:
    """Whether a record that is due gets its end now, rather than another try."""
    return record.status is Status.SENDING or record.expires_at <= now


def _end(record: Delivery, room: SweepRoom) -> bool:
    if record.status is Status.SENDING:
        lost = _applied(changes.time_out(record, room.clock.now(), WORKER_LOST), room)
        if lost is not None:
            room.journal.recorded(lost)
        return lost is not None
    try:
        ended = end_unsent(changes.about(record), room, EXPIRED)
        if ended.status is Status.FAILED:
            discard(ended.parked, room)
    except RefusedError:
        return False
    except DependencyError as failure:
        room.journal.failed("sweep", record.tenant_id, failure)
        return False
    return True


def _feed(records: Sequence[Delivery], room: SweepRoom) -> int:
    """Send a pointer to each parked body, then note that it is on its way: a crash in between sends one more, which its hop stops."""
    fed = _point(records, room)
    return _apply_all([changes.touch(record, room.clock.now()) for record in fed], room)


def _point(records: Sequence[Delivery], room: SweepRoom) -> Sequence[Delivery]:
    """Send a pointer to each record's parked body; return those that the queue took."""
    pointers = [_pointer(record) for record in records]
    missed = set(room.queue.send([(pointer, timedelta()) for pointer in pointers]))
    return [record for record, pointer in zip(records, pointers, strict=True) if pointer not in missed]


def _pointer(record: Delivery) -> Copy:
    return Copy(
        body=json.dumps({"tenantId": record.tenant_id, "requestId": record.request_id}),
        tenant_id=record.tenant_id,
        created_at=record.created_at,
        hop=record.hop,
        parked=record.parked,
        expires_at=record.expires_at,
        correlation_id=record.correlation_id,
    )


# -- the mail of resumed tenants -----------------------------------------------------------------------------------------


def _release_all(room: SweepRoom, tally: Tally, ends_at: datetime) -> None:
    try:
        for tenant_id in room.releases.releasing():
            if _release(tenant_id, room, tally, ends_at):
                room.releases.released(tenant_id, room.clock.now())
    except DependencyError as failure:
        room.journal.failed("release", None, failure)


def _release(tenant_id: str, room: SweepRoom, tally: Tally, ends_at: datetime) -> bool:
    """Send for everything of a tenant that waits for its provider; True when nothing is left."""
    for records in batched(room.messages.waiting_for_provider(tenant_id), PAGE, strict=False):
        if room.clock.now() >= ends_at:
            return False
        # The record first: a pointer that came before its dueAt would have to wait for the old one.
        due = [record for record in room.workers.map(lambda record: _make_due(record, room), records) if record is not None]
        tally.moved += _feed(due, room)
    return True


def _make_due(record: Delivery, room: SweepRoom) -> Delivery | None:
    """Make a record due, also for the next run: should this one not get to send for its body.

    Raises:
        DependencyError: the table did not answer: the tenant's mail is not all set free yet.
    """
    now = room.clock.now()
    try:
        return room.messages.apply(changes.touch(record, now, due_at=now, waits_for=WaitsFor.TIME, sweep_at=now))
    except RefusedError:
        return None


# -- writes --------------------------------------------------------------------------------------------------------------


def _apply_all(wanted: Sequence[Change], room: SweepRoom) -> int:
    return sum(room.workers.map(lambda change: _applied(change, room) is not None, wanted))


def _applied(change: Change, room: SweepRoom) -> Delivery | None:
    """Apply a change; None where the record has gone on by itself, or the table did not answer."""
    try:
        return room.messages.apply(change)
    except (RefusedError, DependencyError) as failure:
        if isinstance(failure, DependencyError):
            room.journal.failed("sweep", change.tenant_id, failure)
        return None
