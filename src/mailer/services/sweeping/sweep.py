"""Sweep the open records: end expired requests, requeue parked bodies that are due, release the mail of resumed tenants.

Bounded per run and idempotent: the next run does what a run has left, and corrects what a crash made it do twice. Where much is due, a run
has further invocations do part of it (`parts`).
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import batched, chain, islice

from mailer.domain import changes
from mailer.domain.delivery import OVERDUE_AFTER, Change, Delivery, Status, WaitsFor
from mailer.domain.errors import EXPIRED, DependencyError, UnreadableError
from mailer.domain.provider import Blocked
from mailer.ports import RefusedError, SweepPart
from mailer.services.requests.ending import WORKER_LOST, end_unsent
from mailer.services.requests.parked_bodies import discard
from mailer.services.requests.queue_messages import pointer_to
from mailer.services.sweeping.dependencies import PAGE, SweepDependencies
from mailer.services.sweeping.parts import due_since, leased, share_out
from mailer.services.sweeping.release_budgets import ReleaseBudget, ReleaseBudgets

SENT_TOGETHER = 10
"""Pointers in one call of the queue: SQS's limit of a batch; the calls run concurrently."""

SHARDS_TOGETHER = 8
"""Shards of one step, a page of each: 800 records take at most half of the time that the handler reserves for a step's end."""

LOOK_AGAIN = timedelta(minutes=5)
"""When a released record is swept again: long after SendFunction has normally taken its pointer, which changes that time; soon enough for
the few pointers that a crash of the sweeper has lost."""


@dataclass(slots=True)
class SweepStats:
    """What one run did; `lag` is how late the longest overdue record was swept."""

    moved: int = 0
    overdue: int = 0
    lag: timedelta = timedelta()


def sweep(deps: SweepDependencies, *, ends_at: datetime) -> SweepStats:
    """Do the run of a minute, until nothing is due or the time is up; where much is due, a part of it."""
    kept, share = share_out(_read_pages(deps, range(deps.shards)), deps, ends_at)
    stats, budgets = SweepStats(), ReleaseBudgets(deps, share)
    _sweep_shards(kept, budgets, deps, stats, ends_at)
    # This run alone releases the mail of resumed tenants, so it has all of what their accounts can send.
    _release_all(budgets if share == 1 else ReleaseBudgets(deps), deps, stats, ends_at)
    deps.telemetry.swept(overdue=stats.overdue, lag=stats.lag)
    return stats


def sweep_part(deps: SweepDependencies, part: SweepPart) -> SweepStats:
    """Do a part of a run, until nothing is due in its shards or the time is up."""
    stats = SweepStats()
    if deps.clock.now() < part.ends_at:
        _sweep_shards(_read_pages(deps, part.shards), ReleaseBudgets(deps, part.share), deps, stats, part.ends_at)
    deps.telemetry.swept(overdue=stats.overdue, lag=stats.lag)
    return stats


def _sweep_shards(
    pages: Mapping[int, Sequence[Delivery]], budgets: ReleaseBudgets, deps: SweepDependencies, stats: SweepStats, ends_at: datetime
) -> None:
    """Move on what is due in the shards that no other run sweeps, some shards and a page of each at a time; `pages` are read already."""
    is_consumed = cache(lambda: _is_consumed(deps))
    with leased([shard for shard, page in pages.items() if page], deps, ends_at) as shards:
        pages = {shard: pages[shard] for shard in sorted(shards, key=lambda shard: due_since(pages[shard]))}
        while pages and deps.clock.now() < ends_at:
            step = dict(islice(pages.items(), SHARDS_TOGETHER))
            moved = _move(list(chain.from_iterable(step.values())), budgets, is_consumed, deps, stats)
            # If nothing of a page could be moved, the same page would come again.
            left = [shard for shard, page in step.items() if len(page) == PAGE and not moved.isdisjoint(map(_key, page))]
            pages = {**{shard: page for shard, page in pages.items() if shard not in step}, **_read_pages(deps, left)}


def _read_pages(deps: SweepDependencies, shards: Collection[int]) -> Mapping[int, Sequence[Delivery]]:
    return dict(zip(shards, deps.workers.map(lambda shard: _read_due(deps, shard), shards), strict=True))


def _read_due(deps: SweepDependencies, shard: int) -> Sequence[Delivery]:
    try:
        return deps.messages.due(shard, deps.clock.now(), PAGE)
    except DependencyError as failure:
        deps.telemetry.failed("sweep", None, failure)
        return []


_Key = tuple[str, str]


def _key(of: Delivery | Change) -> _Key:
    return of.tenant_id, of.request_id


def _move(
    records: Sequence[Delivery], budgets: ReleaseBudgets, is_consumed: Callable[[], bool], deps: SweepDependencies, stats: SweepStats
) -> set[_Key]:
    """Move each record on; return the keys of those that were."""
    now = deps.clock.now()
    for record in records:
        stats.lag = max(stats.lag, now - (record.sweep_at or now))
        stats.overdue += is_overdue(record, now)
    ended = [record for record in records if must_end(record, now)]
    waiting = [record for record in records if not must_end(record, now)]
    parked = [record for record in waiting if record.parked]
    left = [record for record in parked if was_requeued(record)]
    if left and is_consumed():
        left = []
    kept = set(map(_key, left))
    moved = {_key(record) for record, is_ended in zip(ended, deps.workers.map(lambda r: _end(r, deps), ended), strict=True) if is_ended}
    moved |= _requeue_within_budget([record for record in parked if _key(record) not in kept], budgets, deps)
    moved |= _apply_all([changes.reschedule(record, now) for record in waiting if not record.parked or _key(record) in kept], deps)
    stats.moved += len(moved)
    return moved


def is_overdue(record: Delivery, now: datetime) -> bool:
    """Return whether an open record's message has not arrived in time: it is lost, or the queue is far behind."""
    return record.status in (Status.QUEUED, Status.DEFERRED) and (record.due_at or record.created_at) + OVERDUE_AFTER <= now


def was_requeued(record: Delivery) -> bool:
    """Return whether a pointer of a due, parked request was sent before: the record's sweepAt is later than its dueAt then."""
    return record.due_at is None or (record.sweep_at is not None and record.sweep_at > record.due_at)


def _is_consumed(deps: SweepDependencies) -> bool:
    """Return whether the event source has run for half an hour, so that older messages are consumed; True if it is not known."""
    try:
        since = deps.event_source.running_since()
    except DependencyError as failure:
        deps.telemetry.failed("look at the event source", None, failure)
        return True
    return since is not None and since + OVERDUE_AFTER <= deps.clock.now()


def must_end(record: Delivery, now: datetime) -> bool:
    """Return whether a due record is ended now instead of tried again."""
    return record.status is Status.SENDING or record.expires_at <= now


def _end(record: Delivery, deps: SweepDependencies) -> bool:
    if record.status is Status.SENDING:
        lost = _applied(changes.time_out(record, deps.clock.now(), WORKER_LOST), deps)
        if lost is not None:
            deps.telemetry.recorded(lost)
        return lost is not None
    try:
        ended = end_unsent(changes.request_of(record), deps, EXPIRED)
        if ended.status is Status.FAILED:
            discard(ended.parked, deps)
    except RefusedError:
        return False
    except DependencyError as failure:
        deps.telemetry.failed("sweep", record.tenant_id, failure)
        return False
    return True


def _requeue_within_budget(records: Sequence[Delivery], budgets: ReleaseBudgets, deps: SweepDependencies) -> set[_Key]:
    """Requeue what the accounts can send; reschedule the rest, which would only be received and parked again."""
    try:
        budget_of = budgets.of({record.tenant_id for record in records})
    except DependencyError as failure:
        deps.telemetry.failed("sweep", None, failure)
        return set()
    for tenant_id, budget in budget_of.items():
        if isinstance(budget, DependencyError):
            deps.telemetry.failed("sweep", tenant_id, budget)
    now = deps.clock.now()
    within, over = [], []
    for record in records:
        match budget_of[record.tenant_id]:
            case ReleaseBudget() as budget if not budget.take(record.recipients):
                at = budget.retry_at(record.recipients, now)
                over.append(changes.reschedule(record, now, due_at=at, sweep_at=min(at, record.expires_at)))
            case UnreadableError():  # it lasts, and other records must not wait behind it
                over.append(changes.reschedule(record, now, sweep_at=min(now + LOOK_AGAIN, record.expires_at)))
            case DependencyError():
                pass
            case _:
                within.append(record)
    return _requeue_parked(within, deps) | _apply_all(over, deps)


def _requeue_parked(records: Sequence[Delivery], deps: SweepDependencies) -> set[_Key]:
    """Send a pointer to each parked body, then reschedule its record: after a crash in between a duplicate is sent, and dropped later."""
    missed = _send_pointers(records, deps)
    return _apply_all([changes.reschedule(record, deps.clock.now()) for record in records if record not in missed], deps)


def _send_pointers(records: Sequence[Delivery], deps: SweepDependencies) -> Collection[Delivery]:
    """Send a pointer to each record's parked body; return those that the queue did not take."""
    pointers = {pointer_to(record): record for record in records}
    refused = deps.workers.map(
        lambda some: deps.queue.send([(pointer, timedelta()) for pointer in some]), batched(pointers, SENT_TOGETHER, strict=False)
    )
    return {pointers[pointer] for pointer in chain.from_iterable(refused)}


# -- the mail of resumed tenants -----------------------------------------------------------------------------------------


def _release_all(budgets: ReleaseBudgets, deps: SweepDependencies, stats: SweepStats, ends_at: datetime) -> None:
    """Release of each tenant's mail what its account can send, page by page in rotation: no tenant waits behind a large backlog."""
    try:
        tenants = deps.releases.releasing()
        budget_of = budgets.of(tenants)
    except DependencyError as failure:
        deps.telemetry.failed("release", None, failure)
        return
    rotation = deque((tenant_id, _pages(tenant_id, deps)) for tenant_id in tenants)
    while rotation and deps.clock.now() < ends_at:
        tenant_id, pages = rotation.popleft()
        try:
            if _release(tenant_id, pages, budget_of[tenant_id], deps, stats):
                rotation.append((tenant_id, pages))
        except DependencyError as failure:
            deps.telemetry.failed("release", tenant_id, failure)


def _pages(tenant_id: str, deps: SweepDependencies) -> Iterator[Sequence[Delivery]]:
    return batched(deps.messages.waiting_for_provider(tenant_id), PAGE, strict=False)


def _release(
    tenant_id: str,
    pages: Iterator[Sequence[Delivery]],
    budget: ReleaseBudget | Blocked | DependencyError | None,
    deps: SweepDependencies,
    stats: SweepStats,
) -> bool:
    """Release the next page of a tenant's mail; False if no more is released in this run. While some is left the tenant stays on the list.

    Raises:
        DependencyError: a table did not answer: not all of the tenant's mail is released yet.
    """
    if isinstance(budget, DependencyError):
        raise budget
    if isinstance(budget, ReleaseBudget) and budget.remaining <= 0:
        return False
    page = next(pages, ())
    # If the provider was switched off again, its mail stays parked; the tenant is listed again when the provider is back.
    if not page or isinstance(budget, Blocked):
        deps.releases.released(tenant_id, deps.clock.now())
        return False
    free = [record for record in page if budget is None or budget.take(record.recipients)]
    # First the record: a pointer that arrived before the old dueAt would have to wait for it.
    freed = list(deps.workers.map(lambda record: _make_due(record, deps), free))
    due = [record for record in freed if isinstance(record, Delivery)]
    missed = _send_pointers(due, deps)
    _apply_all([changes.reschedule(record, deps.clock.now(), sweep_at=deps.clock.now()) for record in missed], deps)
    stats.moved += len(due) - len(missed)
    for failure in freed:
        if isinstance(failure, DependencyError):
            raise failure
    return len(free) == len(page)


def _make_due(record: Delivery, deps: SweepDependencies) -> Delivery | DependencyError | None:
    """Make a record due, and schedule a sweep in case this run does not send its pointer; None if its state has changed."""
    now = deps.clock.now()
    look = min(now + LOOK_AGAIN, record.expires_at)
    try:
        return deps.messages.apply(changes.reschedule(record, now, due_at=now, waits_for=WaitsFor.TIME, sweep_at=look))
    except DependencyError as failure:
        return failure
    except RefusedError:
        return None


# -- writes --------------------------------------------------------------------------------------------------------------


def _apply_all(wanted: Sequence[Change], deps: SweepDependencies) -> set[_Key]:
    """Apply changes; return the keys of the records that have changed."""
    applied = deps.workers.map(lambda change: _applied(change, deps), wanted)
    return {_key(record) for record in applied if record is not None}


def _applied(change: Change, deps: SweepDependencies) -> Delivery | None:
    """Apply a change; None if the record's state has changed, or the table did not answer."""
    try:
        return deps.messages.apply(change)
    except (RefusedError, DependencyError) as failure:
        if isinstance(failure, DependencyError):
            deps.telemetry.failed("sweep", change.tenant_id, failure)
        return None
