"""Sweep the open records: end expired requests, requeue parked bodies that are due, release the mail of resumed tenants.

Bounded per run and idempotent: the next run does what a run has left, and corrects what a crash made it do twice.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import batched, chain

from mailer.domain import changes
from mailer.domain.delivery import OVERDUE_AFTER, Change, Delivery, Status, WaitsFor
from mailer.domain.errors import EXPIRED, DependencyError, UnreadableError
from mailer.domain.provider import Blocked
from mailer.ports import (
    AccountRates,
    Clock,
    EventSource,
    MessagesTable,
    ParkedBodies,
    ProvidersTable,
    RefusedError,
    Releases,
    SendQueue,
    Telemetry,
)
from mailer.services.requests.ending import WORKER_LOST, end_unsent
from mailer.services.requests.parked_bodies import discard
from mailer.services.requests.queue_messages import pointer_to
from mailer.services.sweeping.release_budgets import ReleaseBudget, ReleaseBudgets

PAGE = 100
"""Records read at once from one shard of the index, or of one tenant whose mail is released."""

SENT_TOGETHER = 10
"""Pointers in one call of the queue: SQS's limit of a batch; the calls run concurrently."""

LOOK_AGAIN = timedelta(minutes=5)
"""When a released record is swept again: long after SendFunction has normally taken its pointer, which changes that time; soon enough for
the few pointers that a crash of the sweeper has lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepDependencies:
    """What the sweeper depends on."""

    releases: Releases
    providers: ProvidersTable
    account_rates: AccountRates
    messages: MessagesTable
    queue: SendQueue
    event_source: EventSource
    parked: ParkedBodies
    telemetry: Telemetry
    clock: Clock
    workers: Executor
    shards: int
    """Partitions of the sweep index."""


@dataclass(slots=True)
class SweepStats:
    """What one run did; `lag` is how late the longest overdue record was swept."""

    moved: int = 0
    overdue: int = 0
    lag: timedelta = timedelta()


def sweep(deps: SweepDependencies, *, ends_at: datetime) -> SweepStats:
    """Do one run, until nothing is due or the time is up."""
    stats, budgets, is_consumed = SweepStats(), ReleaseBudgets(deps), cache(lambda: _is_consumed(deps))
    shards = set(range(deps.shards))
    while shards and deps.clock.now() < ends_at:
        pages = dict(zip(shards, deps.workers.map(lambda shard: _read_due(deps, shard), shards), strict=True))
        shards = {shard for shard, page in pages.items() if _move(page, budgets, is_consumed, deps, stats) and len(page) == PAGE}
    _release_all(budgets, deps, stats, ends_at)
    deps.telemetry.swept(overdue=stats.overdue, lag=stats.lag)
    return stats


def _read_due(deps: SweepDependencies, shard: int) -> Sequence[Delivery]:
    try:
        return deps.messages.due(shard, deps.clock.now(), PAGE)
    except DependencyError as failure:
        deps.telemetry.failed("sweep", None, failure)
        return []


def _move(
    page: Sequence[Delivery], budgets: ReleaseBudgets, is_consumed: Callable[[], bool], deps: SweepDependencies, stats: SweepStats
) -> bool:
    """Move each record of a page on; False if none could be, because the same page would come again then."""
    now = deps.clock.now()
    for record in page:
        stats.lag = max(stats.lag, now - (record.sweep_at or now))
        stats.overdue += is_overdue(record, now)
    ended = [record for record in page if must_end(record, now)]
    waiting = [record for record in page if not must_end(record, now)]
    moved = sum(deps.workers.map(lambda record: _end(record, deps), ended))
    parked = [record for record in waiting if record.parked]
    on_queue = [record for record in parked if was_requeued(record)]
    left = on_queue if on_queue and not is_consumed() else []
    moved += _requeue_within_budget([record for record in parked if record not in left], budgets, deps)
    moved += _apply_all([changes.reschedule(record, now) for record in waiting if not record.parked or record in left], deps)
    stats.moved += moved
    return moved > 0


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


def _requeue_within_budget(records: Sequence[Delivery], budgets: ReleaseBudgets, deps: SweepDependencies) -> int:
    """Requeue what the accounts can send; reschedule the rest, which would only be received and parked again."""
    try:
        budget_of = budgets.of({record.tenant_id for record in records})
    except DependencyError as failure:
        deps.telemetry.failed("sweep", None, failure)
        return 0
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
    return _requeue_parked(within, deps) + _apply_all(over, deps)


def _requeue_parked(records: Sequence[Delivery], deps: SweepDependencies) -> int:
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


def _apply_all(wanted: Sequence[Change], deps: SweepDependencies) -> int:
    return sum(deps.workers.map(lambda change: _applied(change, deps) is not None, wanted))


def _applied(change: Change, deps: SweepDependencies) -> Delivery | None:
    """Apply a change; None if the record's state has changed, or the table did not answer."""
    try:
        return deps.messages.apply(change)
    except (RefusedError, DependencyError) as failure:
        if isinstance(failure, DependencyError):
            deps.telemetry.failed("sweep", change.tenant_id, failure)
        return None
