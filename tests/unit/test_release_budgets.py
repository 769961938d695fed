"""How much of a parked backlog goes back to the queue at once: what the rate of its account can take, and never at others' cost."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Change, Delivery, Status, WaitsFor
from mailer.domain.errors import DependencyError
from mailer.domain.pacing import HEADROOM, HORIZON, PARKED_EARLY, AccountRate, RateSource
from mailer.domain.provider import ProviderStatus
from mailer.services.pacing.pacing import Pacing
from mailer.services.sweeping import sweep as sweeping
from mailer.services.sweeping.sweep import LOOK_AGAIN, SweepStats, sweep
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.sending import Bench, FakeReleases, a_record

MINUTE = timedelta(minutes=1)
ACCOUNT = "123456789012/eu-west-1"
RATE = 0.1
ROOM = round(RATE * HEADROOM * HORIZON)
"""Recipients that find a slot on the idle rate of an account at RATE: 87."""


def a_backlog(tenant_id: str, count: int, **fields: Any) -> list[Delivery]:
    """Make parked records that wait for their provider."""
    expires_at = NOON + timedelta(hours=24)
    waiting = {"waits_for": WaitsFor.PROVIDER, "due_at": expires_at, "sweep_at": expires_at, "generation": 1}
    records = (a_record(Status.DEFERRED, f"r{n:05}", **{**waiting, **fields}) for n in range(count))
    return [replace(r, tenant_id=tenant_id, parked=f"parked/{tenant_id}/{r.request_id}/1.json") for r in records]


def due(records: list[Delivery]) -> list[Delivery]:
    return [replace(record, waits_for=WaitsFor.TIME, due_at=NOON, sweep_at=NOON) for record in records]


def a_bench(*records: Delivery, account: str | None = "123456789012", marked: tuple[str, ...] = ()) -> Bench:
    """Have acme and beta on one account, gamma on another; all send at RATE."""
    bench = Bench(*records)
    rows = [a_provider(name, active=a_config(account=account, max_send_rate=RATE)) for name in ("acme", "beta")]
    rows.append(a_provider("gamma", active=a_config(max_send_rate=RATE)))
    bench.providers.rows = {row.tenant_id: row for row in rows}
    marks(bench).marked += marked
    return bench


def marks(bench: Bench) -> FakeReleases:
    assert isinstance(bench.sweep_deps.releases, FakeReleases)
    return bench.sweep_deps.releases


def run(bench: Bench, time_left: timedelta = MINUTE) -> SweepStats:
    return sweep(bench.sweep_deps, ends_at=bench.clock.now() + time_left)


def sent_for(bench: Bench, tenant_id: str) -> int:
    return sum(queue_message.tenant_id == tenant_id for queue_message in bench.queue.messages)


# -- a resumed tenant ----------------------------------------------------------------------------------------------------


def test_a_backlog_comes_back_as_far_as_it_finds_slots() -> None:
    """What is left is not touched, and the tenant stays on the list for it."""
    bench = a_bench(*a_backlog("acme", 150), marked=("acme",))
    assert run(bench).moved == ROOM
    left = [record for record in bench.messages.records.values() if record.waits_for is WaitsFor.PROVIDER]
    assert (len(left), len(bench.messages.changes), marks(bench).marked) == (150 - ROOM, ROOM, ["acme"])


def test_it_goes_on_as_the_line_moves_on() -> None:
    """Each run sends for what was sent since the last, until nothing is left."""
    bench = a_bench(*a_backlog("acme", 100), marked=("acme",))
    pacing = Pacing(bench.account_rates, functions=1)
    run(bench)
    source = RateSource(configured=RATE)
    pacing.reserve(ACCOUNT, source, [1] * ROOM, [None] * ROOM, bench.clock.now())
    run(bench)
    assert sent_for(bench, "acme") <= ROOM + 1
    bench.clock.advance(3 * MINUTE)
    run(bench)
    run(bench)
    assert (sent_for(bench, "acme"), marks(bench).marked) == (100, [])


def test_a_backlog_counts_recipients() -> None:
    """A mail to ten takes the slots of ten."""
    bench = a_bench(*a_backlog("acme", 20, recipients=10), marked=("acme",))
    assert run(bench).moved == 9


def test_a_resting_account_gets_nothing_back() -> None:
    """Its daily quota is used up: what came back would only be parked again."""
    bench = a_bench(*a_backlog("acme", 3), marked=("acme",))
    backed_off = AccountRate.initial(RateSource(configured=RATE), NOON.timestamp()).quota_exhausted(NOON.timestamp())
    assert backed_off is not None
    bench.account_rates.account_rates[ACCOUNT] = backed_off
    assert (run(bench).moved, bench.messages.changes, marks(bench).marked) == (0, [], ["acme"])


def test_tenants_on_one_account_share_its_slots() -> None:
    """Page by page in turn: a small backlog does not stand behind a large one."""
    bench = a_bench(*a_backlog("acme", 150), *a_backlog("beta", 5), marked=("acme", "beta"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "PAGE", 10)
        assert run(bench).moved == ROOM
    assert (sent_for(bench, "beta"), marks(bench).marked) == (5, ["acme"])


def test_a_backlog_without_room_holds_up_no_other_account() -> None:
    """Each account has its own line."""
    bench = a_bench(*a_backlog("acme", 150), *a_backlog("gamma", 5), marked=("acme", "gamma"))
    run(bench)
    assert (sent_for(bench, "gamma"), marks(bench).marked) == (5, ["acme"])


def test_mail_for_smtp_comes_back_at_once() -> None:
    """Nobody counts it."""
    bench = a_bench(*a_backlog("acme", 150), marked=("acme",))
    bench.providers.rows["acme"] = a_provider(active=a_config(provider="smtp", region=""))
    assert run(bench).moved == 150


def test_a_tenant_that_was_switched_off_again_keeps_its_mail_parked() -> None:
    """It comes off the list; the next time it is switched on puts it back."""
    bench = a_bench(*a_backlog("acme", 3), marked=("acme",))
    bench.providers.rows["acme"] = replace(bench.providers.rows["acme"], status=ProviderStatus.SUSPENDED)
    assert (run(bench).moved, bench.messages.changes, marks(bench).marked) == (0, [], [])


def test_a_record_that_cannot_be_freed_holds_up_no_other_tenant() -> None:
    """Its own tenant stays on the list."""
    bench = a_bench(*a_backlog("acme", 3), *a_backlog("gamma", 3), marked=("acme", "gamma"))

    def fail(change: Change) -> None:
        if change.tenant_id == "acme":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    run(bench)
    assert (sent_for(bench, "acme"), sent_for(bench, "gamma"), marks(bench).marked) == (0, 3, ["acme"])


def test_a_record_that_cannot_be_freed_holds_up_no_other_of_its_page() -> None:
    """They are sent for at once; the tenant stays on the list for the one."""
    bench = a_bench(*a_backlog("acme", 3), marked=("acme",))

    def fail(change: Change) -> None:
        if change.request_id == "r00001":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    run(bench)
    assert (sent_for(bench, "acme"), marks(bench).marked) == (2, ["acme"])


def test_what_was_set_free_is_looked_at_again() -> None:
    """Should the run die before it has sent for the body."""
    bench = a_bench(*a_backlog("acme", 1), marked=("acme",))
    run(bench)
    assert bench.record("r00000").sweep_at == NOON + LOOK_AGAIN
    bench.queue.sent.clear()
    bench.clock.advance(LOOK_AGAIN)
    run(bench)
    assert sent_for(bench, "acme") == 1


# -- what is due ---------------------------------------------------------------------------------------------------------


def test_of_what_is_due_as_much_is_sent_for_as_finds_slots() -> None:
    """The rest is put off by one write each, spread as the account can take it: it is not received to be parked again."""
    bench = a_bench(*due(a_backlog("acme", 150)))
    assert run(bench).moved == 150
    assert sent_for(bench, "acme") == ROOM
    late = sorted(d.due_at for d in bench.messages.records.values() if d.due_at and d.due_at > NOON)
    assert len(late) == 150 - ROOM
    assert late[0] - NOON == pytest.approx(timedelta(seconds=HORIZON - PARKED_EARLY), abs=timedelta(seconds=11))
    assert late[-1] - late[0] == pytest.approx(timedelta(seconds=(150 - ROOM - 1) / RATE / HEADROOM), rel=0.1)
    assert all(d.sweep_at == d.due_at for d in bench.messages.records.values() if d.due_at and d.due_at > NOON)


def test_nobody_is_put_off_past_the_end() -> None:
    """The sweeper ends what expires."""
    bench = a_bench(*due(a_backlog("acme", 150, expires_at=NOON + 10 * MINUTE)))
    run(bench)
    assert max(d.sweep_at for d in bench.messages.records.values() if d.sweep_at) <= NOON + 30 * MINUTE
    assert all(d.sweep_at <= d.expires_at for d in bench.messages.records.values() if d.sweep_at)


def test_each_account_is_looked_up_once_in_a_run() -> None:
    """However many pages its mail fills."""
    bench = a_bench(*due(a_backlog("acme", 250)), *due(a_backlog("beta", 10)), marked=("acme",))
    run(bench)
    assert bench.account_rates.reads == 1
    assert [list(read) for read in bench.providers.reads] == [["acme"], ["beta"]]


def test_lines_that_cannot_be_read_leave_what_is_due_to_the_next_run() -> None:
    """Nothing is lost; it is noted."""
    bench = a_bench(*due(a_backlog("acme", 3)))

    def fail(_: str) -> None:
        raise DependencyError("DynamoDB", "GetItem")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.account_rates, "get", fail)
        assert run(bench).moved == 0
    assert [step for step, _, _ in bench.events("failed")] == ["sweep"]
    assert run(bench).moved == 3
