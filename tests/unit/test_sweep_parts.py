"""With much due mail several invocations of the sweeper share a run: each shard is swept by one of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest

from mailer.domain.delivery import Change, Delivery, Status, WaitsFor
from mailer.domain.pacing import HEADROOM, HORIZON
from mailer.ports import SweepPart
from mailer.services.sweeping import parts
from mailer.services.sweeping import sweep as sweeping
from mailer.services.sweeping.sweep import SweepStats, sweep, sweep_part
from support.fakes.ports import NOON, a_config, a_provider, do_nothing
from support.fakes.sending import Bench, FakeReleases, a_body, a_record

SHARDS = 8
RUN = timedelta(seconds=50)
SMTP = a_provider(active=a_config(provider="smtp", region=""))  # its mail is not paced


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ten due records of a shard a full page."""
    for module in (parts, sweeping):
        monkeypatch.setattr(module, "PAGE", 10)


def due(shard: int, count: int, *, since: timedelta = timedelta()) -> list[Delivery]:
    """Make due parked records of a shard."""
    at = NOON - since
    records = [
        a_record(Status.DEFERRED, f"{shard}-{n}", due_at=at, sweep_at=at, waits_for=WaitsFor.TIME, generation=1) for n in range(count)
    ]
    return [replace(record, parked=f"parked/acme/{record.request_id}/1.json") for record in records]


def a_bench(*records: Delivery, concurrency: int = 4, **ports: Any) -> Bench:
    bench = Bench(*records)
    bench.providers.rows["acme"] = SMTP
    bench.messages.shard_of = lambda record: int(record.request_id.partition("-")[0])
    bench.sweep_deps = replace(bench.sweep_deps, shards=SHARDS, concurrency=concurrency, **ports)
    return bench


def run(bench: Bench) -> SweepStats:
    return sweep(bench.sweep_deps, ends_at=bench.clock.now() + RUN)


def requeued(bench: Bench) -> Sequence[str]:
    """Return the shards of the requeued requests, one for each pointer."""
    return [str(message.parked).split("/")[2].partition("-")[0] for message in bench.queue.messages]


# -- sharing a run -------------------------------------------------------------------------------------------------------


def test_a_run_without_full_shards_is_not_shared() -> None:
    """One run handles them quickly."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 9)))
    assert (run(bench).moved, bench.invocations.begun) == (72, [])


def test_a_run_with_one_full_shard_is_not_shared() -> None:
    """A shard is swept by one run in any case."""
    bench = a_bench(*due(3, 25))
    assert (run(bench).moved, bench.invocations.begun) == (25, [])


def test_full_shards_are_divided_up_to_the_concurrency() -> None:
    """Each shard is swept by one run; the scheduled run keeps its share and the shards that are not full."""
    bench = a_bench(*(record for shard in range(7) for record in due(shard, 15)), *due(7, 3), concurrency=3)
    assert run(bench).moved == 3 * 15 + 3
    shard_groups = [part.shards for part in bench.invocations.begun]
    assert [len(shards) for shards in shard_groups] == [2, 2]
    assert sorted([*map(int, set(requeued(bench))), *shard_groups[0], *shard_groups[1]]) == list(range(8))
    assert {(part.share, part.ends_at) for part in bench.invocations.begun} == {(2 / 7, NOON + RUN)}


def test_the_started_parts_sweep_the_rest() -> None:
    """Its invocations sweep the other shards, and every request is requeued once."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 25)))
    moved = run(bench).moved + sum(sweep_part(bench.sweep_deps, part).moved for part in bench.invocations.begun)
    assert moved == len(set(bench.queue.messages)) == len(bench.queue.messages) == 8 * 25


def test_the_longest_due_shards_stay_with_the_scheduled_run() -> None:
    """If no other invocation can run, the longest due mail is still requeued."""
    late = [record for shard in range(SHARDS) for record in due(shard, 10, since=timedelta(minutes=1 + (shard - 5) % SHARDS))]
    bench = a_bench(*late, concurrency=8)
    run(bench)
    assert set(requeued(bench)) == {"4"}


def test_parts_that_cannot_be_started_are_swept_by_the_run_itself() -> None:
    """They are late, but not lost."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 10)))
    bench.invocations.refuses = lambda part: 2 in part.shards
    run(bench)
    [*_, refused] = [arguments for event, arguments in bench.telemetry.entries if event == "failed"]
    assert refused[0] == "sweep"
    assert "2" in requeued(bench)
    assert sum(len(part.shards) for part in bench.invocations.begun) + len(set(requeued(bench))) == SHARDS


def test_with_a_concurrency_of_one_a_run_is_not_shared() -> None:
    """The parameter sets the concurrency."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 25)), concurrency=1)
    assert (run(bench).moved, bench.invocations.begun) == (8 * 25, [])


# -- leases --------------------------------------------------------------------------------------------------------------


def test_a_run_stops_in_time_however_many_shards_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves on the records of a few shards before it looks at the clock again."""
    monkeypatch.setattr(sweeping, "SHARDS_TOGETHER", 2)
    bench = a_bench(*(record for shard in range(4) for record in due(shard, 10)), concurrency=1)
    bench.messages.before = lambda _: bench.clock.advance(RUN)
    assert run(bench).moved == 20


def test_the_longest_due_shards_are_swept_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if no run gets to all of them, none is passed over for ever, and the lag is seen."""
    monkeypatch.setattr(sweeping, "SHARDS_TOGETHER", 2)
    full = [record for shard in (0, 1) for record in due(shard, 30)]
    bench = a_bench(*full, *due(3, 10, since=timedelta(minutes=20)), concurrency=1)
    bench.messages.before = lambda _: bench.clock.advance(RUN)
    assert run(bench).lag == timedelta(minutes=20)
    assert "3" in requeued(bench)


def test_the_shards_of_a_run_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard with much due mail does not keep the others waiting."""
    monkeypatch.setattr(sweeping, "SHARDS_TOGETHER", 2)
    bench = a_bench(*(record for shard in range(4) for record in due(shard, 12)), concurrency=1)
    assert run(bench).moved == 48
    assert [name for name, _ in groupby(requeued(bench))] == ["0", "1", "2", "3", "0", "1", "2", "3"]


def test_an_invocation_that_is_started_twice_sweeps_its_shards_once() -> None:
    """Lambda and EventBridge deliver at least once."""
    bench = a_bench(*due(1, 25), *due(2, 25))
    part = SweepPart(shards=[1, 2], share=0.5, ends_at=NOON + RUN)
    second_run: list[int] = []

    def start_again(_: Change) -> None:
        bench.messages.before = do_nothing
        second_run.append(sweep_part(bench.sweep_deps, part).moved)

    bench.messages.before = start_again
    assert (sweep_part(bench.sweep_deps, part).moved, second_run, len(bench.queue.sent)) == (50, [0], 50)


def test_two_runs_in_one_shard_send_one_mail() -> None:
    """A lost lease costs only work: the fence rejects one of two pointers."""
    bench = a_bench(*due(1, 1))
    bench.parked.bodies["parked/acme/1-0/1.json"] = a_body("1-0")
    part = SweepPart(shards=[1], share=0.5, ends_at=NOON + RUN)

    def start_again(_: Change) -> None:
        bench.messages.before = do_nothing
        bench.leases.taken.clear()
        sweep_part(bench.sweep_deps, part)

    bench.messages.before = start_again
    sweep_part(bench.sweep_deps, part)
    pointers = bench.queue.messages
    bench.receive(*pointers)
    assert (len(pointers), len(bench.provider.mails), bench.record("1-0").status) == (2, 1, Status.SENT)


def test_the_lease_of_a_dead_run_ends_before_the_next_run() -> None:
    """A lease ends with its run's time."""
    bench = a_bench(*due(1, 5))
    bench.leases.taken[1] = "dead", NOON + RUN
    assert run(bench).moved == 0
    bench.clock.advance(timedelta(minutes=1))
    assert run(bench).moved == 5


def test_a_lease_with_a_too_late_end_is_invalid() -> None:
    """Its owner's clock was wrong; the shard does not wait for it."""
    bench = a_bench(*due(1, 5))
    bench.leases.taken[1] = "tomorrow's", NOON + timedelta(days=1)
    assert run(bench).moved == 5


def test_a_run_releases_its_leases() -> None:
    """The next run may start at once."""
    bench = a_bench(*due(1, 5), *due(2, 5))
    run(bench)
    assert (bench.leases.taken_shards, bench.leases.taken) == ([1, 2], {})


def test_shards_whose_lease_cannot_be_taken_are_left_to_the_next_run() -> None:
    """During the outage nothing could be written either."""
    bench = a_bench(*due(1, 5))
    bench.leases.broken = True
    assert (run(bench).moved, len(bench.queue.sent), len(bench.events("failed"))) == (0, 0, 1)


def test_idle_shards_are_not_leased() -> None:
    """An idle minute causes no writes."""
    bench = a_bench(*due(1, 1))
    run(bench)
    assert bench.leases.taken_shards == [1]


def test_a_part_that_starts_too_late_does_nothing() -> None:
    """Its shards belong to the next run."""
    bench = a_bench(*due(1, 25))
    part = SweepPart(shards=[1], share=0.5, ends_at=NOON)
    assert (sweep_part(bench.sweep_deps, part).moved, bench.leases.taken_shards) == (0, [])


def test_a_part_does_not_release_tenants() -> None:
    """Only the scheduled run does."""
    bench = a_bench(*due(1, 1))
    assert isinstance(bench.sweep_deps.releases, FakeReleases)
    bench.sweep_deps.releases.marked.append("acme")
    sweep_part(bench.sweep_deps, SweepPart(shards=[1], share=0.5, ends_at=NOON + RUN))
    assert bench.sweep_deps.releases.marked == ["acme"]
    run(bench)
    assert bench.sweep_deps.releases.marked == []


# -- the account's capacity ----------------------------------------------------------------------------------------------

RATE = 1.0
CAPACITY = round(RATE * HEADROOM * HORIZON)


def paced(bench: Bench) -> Bench:
    bench.providers.rows["acme"] = a_provider(active=a_config(account="123456789012", max_send_rate=RATE))
    return bench


def test_all_parts_together_requeue_the_account_s_capacity() -> None:
    """Each requeues its share, so nothing is received without a slot."""
    bench = paced(a_bench(*(record for shard in range(SHARDS) for record in due(shard, 200))))
    run(bench)
    for part in bench.invocations.begun:
        sweep_part(bench.sweep_deps, part)
    assert CAPACITY <= len(bench.queue.sent) <= CAPACITY + len(bench.invocations.begun)


@pytest.mark.parametrize("refused", [1, 3])
def test_a_run_with_more_shards_has_a_larger_share_of_the_capacity(refused: int) -> None:
    """Otherwise mail of parts that could not be started would be postponed past its expiry."""
    bench = paced(a_bench(*(record for shard in range(SHARDS) for record in due(shard, 200))))
    refusals = iter([True] * refused + [False] * SHARDS)
    bench.invocations.refuses = lambda _: next(refusals)
    run(bench)
    own = len(bench.queue.sent)
    share = 1 - len(bench.invocations.begun) / 4
    assert share * CAPACITY <= own <= share * CAPACITY + 1


def test_a_shared_run_releases_a_resumed_tenant_with_the_full_capacity() -> None:
    """No other part releases tenants, so a share would be too little."""
    backlog = [
        replace(record, tenant_id="beta", waits_for=WaitsFor.PROVIDER, due_at=record.expires_at, sweep_at=record.expires_at)
        for record in due(0, 100)
    ]
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 10)), *backlog)
    bench.providers.rows["beta"] = a_provider("beta", active=a_config(account="123456789012", max_send_rate=0.1))
    assert isinstance(bench.sweep_deps.releases, FakeReleases)
    bench.sweep_deps.releases.marked.append("beta")
    run(bench)
    assert len(bench.invocations.begun) == 3
    assert sum(message.tenant_id == "beta" for message in bench.queue.messages) == round(0.1 * HEADROOM * HORIZON)


def test_a_share_of_the_capacity_is_at_least_one_message() -> None:
    """Otherwise no part would requeue a slow account's mail."""
    bench = paced(a_bench(*due(1, 3)))
    bench.providers.rows["acme"] = a_provider(active=a_config(account="123456789012", max_send_rate=0.005))
    assert sweep_part(bench.sweep_deps, SweepPart(shards=[1], share=0.0625, ends_at=NOON + RUN)).moved == 3
    assert len(bench.queue.sent) == 1


def test_mail_without_a_slot_is_spread_by_the_rate_of_all_parts_together() -> None:
    """If sixteen parts used only their own mail, all of it would return sixteen times too early."""
    times = []
    for many in (1, 16):
        bench = paced(a_bench(*due(1, 1200)))
        sweep_part(bench.sweep_deps, SweepPart(shards=[1], share=1 / many, ends_at=NOON + RUN))
        times.append(max(record.sweep_at for record in bench.messages.records.values() if record.sweep_at) - NOON)
    alone, shared = times
    assert shared > 12 * alone / 2
