"""Share a run out among invocations of the sweeper where more is due than one of them moves on in time.

One run a minute reads what is due. If several shards have a whole page due, it deals these shards into groups, keeps one group, and starts
an invocation for each of the others. All end together, before the next run begins. A lease keeps an invocation that Lambda starts twice
from sweeping a shard twice. It saves work and guards no mail: if two runs sweep one shard, each request gets two pointers, and the fence
refuses the second.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from mailer.domain.delivery import Delivery
from mailer.domain.errors import DependencyError
from mailer.ports import SweepPart
from mailer.services.sweeping.dependencies import PAGE, SweepDependencies

Pages = Mapping[int, Sequence[Delivery]]
"""What is due, by shard: at most a page of each."""


def share_out(pages: Pages, deps: SweepDependencies, ends_at: datetime) -> tuple[Pages, float]:
    """Start invocations for a part of the shards; return the pages of the others, and their share of what is due.

    What no invocation could be started for is among the others, and in their share.
    """
    busy = sorted((shard for shard, page in pages.items() if len(page) == PAGE), key=lambda shard: due_since(pages[shard]))
    parts = max(min(deps.concurrency, len(busy)), 1)
    dealt = [busy[number::parts] for number in range(1, parts)]
    given = [SweepPart(shards=shards, share=len(shards) / len(busy), ends_at=ends_at) for shards in dealt]
    begun = deps.workers.map(lambda part: _begin(part, deps), given)
    away = {shard for part, is_begun in zip(given, begun, strict=True) if is_begun for shard in part.shards}
    share = 1 - len(away) / len(busy) if away else 1.0
    return {shard: page for shard, page in pages.items() if shard not in away}, share


def due_since(page: Sequence[Delivery]) -> datetime:
    """Return since when the first record of a page is due: what waits longest is swept first, and by the scheduled run itself."""
    return page[0].sweep_at or page[0].updated_at


def _begin(part: SweepPart, deps: SweepDependencies) -> bool:
    try:
        deps.invocations.begin(part)
    except DependencyError as failure:
        deps.telemetry.failed("sweep", None, failure)
        return False
    return True


@contextmanager
def leased(shards: Collection[int], deps: SweepDependencies, ends_at: datetime) -> Iterator[Sequence[int]]:
    """Take shards for a run, and release them at its end; yield those that no other run has."""
    owner = deps.new_owner()
    taken = deps.workers.map(lambda shard: _take(shard, owner, deps, ends_at), shards)
    own = [shard for shard, is_taken in zip(shards, taken, strict=True) if is_taken]
    try:
        yield own
    finally:
        list(deps.workers.map(lambda shard: _release_lease(shard, owner, deps), own))


def _take(shard: int, owner: str, deps: SweepDependencies, until: datetime) -> bool:
    try:
        return deps.leases.take(shard, owner, deps.clock.now(), until)
    except DependencyError as failure:
        deps.telemetry.failed("sweep", None, failure)
        return False


def _release_lease(shard: int, owner: str, deps: SweepDependencies) -> None:
    with suppress(DependencyError):  # it ends by itself
        deps.leases.release(shard, owner)
