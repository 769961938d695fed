"""Where much is due, several invocations of the sweeper share a run: each shard is swept by one of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
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
SMTP = a_provider(active=a_config(provider="smtp", region=""))  # whose mail nobody counts


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ten due records of a shard too many for one run."""
    for module in (parts, sweeping):
        monkeypatch.setattr(module, "PAGE", 10)


def due(shard: int, count: int, *, since: timedelta = timedelta()) -> list[Delivery]:
    """Make parked records of a shard that are due."""
    at = NOON - since
    made = [a_record(Status.DEFERRED, f"{shard}-{n}", due_at=at, sweep_at=at, waits_for=WaitsFor.TIME, generation=1) for n in range(count)]
    return [replace(record, parked=f"parked/acme/{record.request_id}/1.json") for record in made]


def a_bench(*records: Delivery, concurrency: int = 4, **ports: Any) -> Bench:
    bench = Bench(*records)
    bench.providers.rows["acme"] = SMTP
    bench.messages.shard_of = lambda record: int(record.request_id.partition("-")[0])
    bench.sweep_deps = replace(bench.sweep_deps, shards=SHARDS, concurrency=concurrency, **ports)
    return bench


def run(bench: Bench) -> SweepStats:
    return sweep(bench.sweep_deps, ends_at=bench.clock.now() + RUN)


def sent_for(bench: Bench) -> Sequence[str]:
    """Return the shards whose requests were put back on the queue, one for each pointer."""
    return [str(message.parked).split("/")[2].partition("-")[0] for message in bench.queue.messages]


# -- sharing out ---------------------------------------------------------------------------------------------------------


def test_a_run_with_little_to_do_does_it_alone() -> None:
    """No invocation is started for what one run does in a moment."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 9)))
    assert (run(bench).moved, bench.invocations.begun) == (72, [])


def test_one_full_shard_is_no_reason_to_share() -> None:
    """It is swept by one run whoever does it."""
    bench = a_bench(*due(3, 25))
    assert (run(bench).moved, bench.invocations.begun) == (25, [])


def test_full_shards_are_dealt_out_among_as_many_runs_as_there_may_be() -> None:
    """Each shard to one of them; the run itself keeps its share, and what is not full."""
    bench = a_bench(*(record for shard in range(7) for record in due(shard, 15)), *due(7, 3), concurrency=3)
    assert run(bench).moved == 3 * 15 + 3
    given = [part.shards for part in bench.invocations.begun]
    assert [len(shards) for shards in given] == [2, 2]
    assert sorted([*map(int, set(sent_for(bench))), *given[0], *given[1]]) == list(range(8))
    assert {(part.share, part.ends_at) for part in bench.invocations.begun} == {(2 / 7, NOON + RUN)}


def test_the_parts_do_the_rest() -> None:
    """What the scheduled run has given away its invocations do, and every request is put back once."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 25)))
    moved = run(bench).moved + sum(sweep_part(bench.sweep_deps, part).moved for part in bench.invocations.begun)
    assert moved == len(set(bench.queue.messages)) == len(bench.queue.messages) == 8 * 25


def test_what_is_overdue_longest_is_not_given_away() -> None:
    """Where no other invocation finds room, the oldest goes on in any case."""
    late = [record for shard in range(SHARDS) for record in due(shard, 10, since=timedelta(minutes=1 + (shard - 5) % SHARDS))]
    bench = a_bench(*late, concurrency=8)
    run(bench)
    assert set(sent_for(bench)) == {"4"}


def test_what_lambda_does_not_take_is_done_by_the_run_itself() -> None:
    """It is late, not lost."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 10)))
    bench.invocations.refuses = lambda part: 2 in part.shards
    run(bench)
    [*_, refused] = [arguments for event, arguments in bench.telemetry.entries if event == "failed"]
    assert refused[0] == "sweep"
    assert "2" in sent_for(bench)
    assert sum(len(part.shards) for part in bench.invocations.begun) + len(set(sent_for(bench))) == SHARDS


def test_one_at_a_time_never_shares() -> None:
    """As the parameter says."""
    bench = a_bench(*(record for shard in range(SHARDS) for record in due(shard, 25)), concurrency=1)
    assert (run(bench).moved, bench.invocations.begun) == (8 * 25, [])


# -- each shard once -----------------------------------------------------------------------------------------------------


def test_an_invocation_that_is_started_twice_finds_its_shards_taken() -> None:
    """Lambda and EventBridge promise at least once."""
    bench = a_bench(*due(1, 25), *due(2, 25))
    part = SweepPart(shards=[1, 2], share=0.5, ends_at=NOON + RUN)
    twins: list[int] = []

    def start_again(_: Change) -> None:
        bench.messages.before = do_nothing
        twins.append(sweep_part(bench.sweep_deps, part).moved)

    bench.messages.before = start_again
    assert (sweep_part(bench.sweep_deps, part).moved, twins, len(bench.queue.sent)) == (50, [0], 50)


def test_two_runs_in_one_shard_send_one_mail() -> None:
    """A lease that is lost costs work: of two pointers the fence refuses one."""
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


def test_what_a_dead_run_had_taken_is_free_for_the_next_minute_s() -> None:
    """A lease ends with the time of the run that took it."""
    bench = a_bench(*due(1, 5))
    bench.leases.taken[1] = "dead", NOON + RUN
    assert run(bench).moved == 0
    bench.clock.advance(timedelta(minutes=1))
    assert run(bench).moved == 5


def test_a_lease_that_ends_too_late_is_none() -> None:
    """The clock of whoever took it was wrong; the shard does not wait for that."""
    bench = a_bench(*due(1, 5))
    bench.leases.taken[1] = "tomorrow's", NOON + timedelta(days=1)
    assert run(bench).moved == 5


def test_a_run_gives_back_its_shards() -> None:
    """Whatever becomes due a moment later is the next run's, however soon that comes."""
    bench = a_bench(*due(1, 5), *due(2, 5))
    run(bench)
    assert (bench.leases.taken_shards, bench.leases.taken) == ([1, 2], {})


def test_shards_whose_lease_nobody_answers_for_are_left_to_the_next_run() -> None:
    """Without a table nothing could be written there either."""
    bench = a_bench(*due(1, 5))
    bench.leases.broken = True
    assert (run(bench).moved, len(bench.queue.sent), len(bench.events("failed"))) == (0, 0, 1)


def test_idle_shards_are_not_leased() -> None:
    """A quiet minute writes nothing."""
    bench = a_bench(*due(1, 1))
    run(bench)
    assert bench.leases.taken_shards == [1]


def test_a_part_that_comes_too_late_does_nothing() -> None:
    """Its shards belong to the next run."""
    bench = a_bench(*due(1, 25))
    part = SweepPart(shards=[1], share=0.5, ends_at=NOON)
    assert (sweep_part(bench.sweep_deps, part).moved, bench.leases.taken_shards) == (0, [])


def test_a_part_releases_no_tenant_s_mail() -> None:
    """The scheduled run alone does."""
    bench = a_bench(*due(1, 1))
    assert isinstance(bench.sweep_deps.releases, FakeReleases)
    bench.sweep_deps.releases.marked.append("acme")
    sweep_part(bench.sweep_deps, SweepPart(shards=[1], share=0.5, ends_at=NOON + RUN))
    assert bench.sweep_deps.releases.marked == ["acme"]
    run(bench)
    assert bench.sweep_deps.releases.marked == []


# -- what an account can take --------------------------------------------------------------------------------------------

RATE = 1.0
ROOM = round(RATE * HEADROOM * HORIZON)


def paced(bench: Bench) -> Bench:
    bench.providers.rows["acme"] = a_provider(active=a_config(account="123456789012", max_send_rate=RATE))
    return bench


def test_all_parts_together_release_what_the_account_can_send() -> None:
    """Each its share: nothing is received that finds no slot."""
    bench = paced(a_bench(*(record for shard in range(SHARDS) for record in due(shard, 200))))
    run(bench)
    for part in bench.invocations.begun:
        sweep_part(bench.sweep_deps, part)
    assert ROOM <= len(bench.queue.sent) <= ROOM + len(bench.invocations.begun)


@pytest.mark.parametrize("refused", [1, 3])
def test_a_run_that_must_do_more_itself_has_more_of_what_the_account_can_send(refused: int) -> None:
    """Else it would put off for days what no invocation could be started for, beyond its end."""
    bench = paced(a_bench(*(record for shard in range(SHARDS) for record in due(shard, 200))))
    refusals = iter([True] * refused + [False] * SHARDS)
    bench.invocations.refuses = lambda _: next(refusals)
    run(bench)
    own = len(bench.queue.sent)
    share = 1 - len(bench.invocations.begun) / 4
    assert share * ROOM <= own <= share * ROOM + 1


def test_a_run_that_is_shared_releases_a_resumed_tenant_as_one_that_is_not() -> None:
    """No other part does, so a share of what the account can send would be too little."""
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


def test_a_slow_account_is_released_by_some_part() -> None:
    """A share is one message at least."""
    bench = paced(a_bench(*due(1, 3)))
    bench.providers.rows["acme"] = a_provider(active=a_config(account="123456789012", max_send_rate=0.005))
    assert sweep_part(bench.sweep_deps, SweepPart(shards=[1], share=0.0625, ends_at=NOON + RUN)).moved == 3
    assert len(bench.queue.sent) == 1


def test_what_finds_no_slot_is_spread_as_all_parts_together_can_send_it() -> None:
    """Sixteen parts that each count their own would have all of it back sixteen times too soon."""
    times = []
    for many in (1, 16):
        bench = paced(a_bench(*due(1, 1200)))
        sweep_part(bench.sweep_deps, SweepPart(shards=[1], share=1 / many, ends_at=NOON + RUN))
        times.append(max(record.sweep_at for record in bench.messages.records.values() if record.sweep_at) - NOON)
    alone, shared = times
    assert shared > 12 * alone / 2
