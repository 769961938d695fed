"""The part of a parked backlog that is released at once: as much as the account's rate allows, without delaying others."""

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
CAPACITY = round(RATE * HEADROOM * HORIZON)
"""Slots within the horizon of an idle account at RATE: 87."""


def a_backlog(tenant_id: str, count: int, **fields: Any) -> list[Delivery]:
    """Make parked records that wait for their provider."""
    expires_at = NOON + timedelta(hours=24)
    waiting = {"waits_for": WaitsFor.PROVIDER, "due_at": expires_at, "sweep_at": expires_at, "generation": 1}
    records = (a_record(Status.DEFERRED, f"r{n:05}", **{**waiting, **fields}) for n in range(count))
    return [replace(r, tenant_id=tenant_id, parked=f"parked/{tenant_id}/{r.request_id}/1.json") for r in records]


def due(records: list[Delivery]) -> list[Delivery]:
    return [replace(record, waits_for=WaitsFor.TIME, due_at=NOON, sweep_at=NOON) for record in records]


def a_bench(*records: Delivery, account: str | None = "123456789012", marked: tuple[str, ...] = ()) -> Bench:
    """Return a bench with acme and beta on one account, gamma on another; all send at RATE."""
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


def released(bench: Bench, tenant_id: str) -> int:
    return sum(queue_message.tenant_id == tenant_id for queue_message in bench.queue.messages)


# -- a resumed tenant ----------------------------------------------------------------------------------------------------


def test_a_backlog_is_released_up_to_the_free_slots() -> None:
    """The rest does not change, and the tenant stays on the list."""
    bench = a_bench(*a_backlog("acme", 150), marked=("acme",))
    assert run(bench).moved == CAPACITY
    left = [record for record in bench.messages.records.values() if record.waits_for is WaitsFor.PROVIDER]
    assert (len(left), len(bench.messages.changes), marks(bench).marked) == (150 - CAPACITY, CAPACITY, ["acme"])


def test_the_release_continues_as_slots_become_free() -> None:
    """Each run releases as much as was sent since the last, until nothing is left."""
    bench = a_bench(*a_backlog("acme", 100), marked=("acme",))
    pacing = Pacing(bench.account_rates, functions=1)
    run(bench)
    source = RateSource(configured=RATE)
    pacing.reserve(ACCOUNT, source, [1] * CAPACITY, [None] * CAPACITY, bench.clock.now())
    run(bench)
    assert released(bench, "acme") <= CAPACITY + 1
    bench.clock.advance(3 * MINUTE)
    run(bench)
    run(bench)
    assert (released(bench, "acme"), marks(bench).marked) == (100, [])


def test_a_backlog_counts_recipients() -> None:
    """A mail to ten recipients takes ten slots."""
    bench = a_bench(*a_backlog("acme", 20, recipients=10), marked=("acme",))
    assert run(bench).moved == 9


def test_nothing_is_released_for_an_account_with_a_used_up_quota() -> None:
    """Released mail would only be parked again."""
    bench = a_bench(*a_backlog("acme", 3), marked=("acme",))
    backed_off = AccountRate.initial(RateSource(configured=RATE), NOON.timestamp()).quota_exhausted(NOON.timestamp())
    assert backed_off is not None
    bench.account_rates.account_rates[ACCOUNT] = backed_off
    assert (run(bench).moved, bench.messages.changes, marks(bench).marked) == (0, [], ["acme"])


def test_tenants_on_one_account_share_its_slots() -> None:
    """Their pages alternate: a small backlog does not wait for a large one."""
    bench = a_bench(*a_backlog("acme", 150), *a_backlog("beta", 5), marked=("acme", "beta"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "PAGE", 10)
        assert run(bench).moved == CAPACITY
    assert (released(bench, "beta"), marks(bench).marked) == (5, ["acme"])


def test_a_backlog_without_slots_does_not_delay_other_accounts() -> None:
    """Each account has its own rate."""
    bench = a_bench(*a_backlog("acme", 150), *a_backlog("gamma", 5), marked=("acme", "gamma"))
    run(bench)
    assert (released(bench, "gamma"), marks(bench).marked) == (5, ["acme"])


def test_mail_for_smtp_is_released_at_once() -> None:
    """SMTP is not paced."""
    bench = a_bench(*a_backlog("acme", 150), marked=("acme",))
    bench.providers.rows["acme"] = a_provider(active=a_config(provider="smtp", region=""))
    assert run(bench).moved == 150


def test_the_mail_of_a_tenant_that_was_suspended_again_stays_parked() -> None:
    """The tenant is removed from the list until it is resumed again."""
    bench = a_bench(*a_backlog("acme", 3), marked=("acme",))
    bench.providers.rows["acme"] = replace(bench.providers.rows["acme"], status=ProviderStatus.SUSPENDED)
    assert (run(bench).moved, bench.messages.changes, marks(bench).marked) == (0, [], [])


def test_a_record_that_cannot_be_released_does_not_stop_other_tenants() -> None:
    """Its own tenant stays on the list."""
    bench = a_bench(*a_backlog("acme", 3), *a_backlog("gamma", 3), marked=("acme", "gamma"))

    def fail(change: Change) -> None:
        if change.tenant_id == "acme":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    run(bench)
    assert (released(bench, "acme"), released(bench, "gamma"), marks(bench).marked) == (0, 3, ["acme"])


def test_a_record_that_cannot_be_released_does_not_stop_its_page() -> None:
    """The others are released; the tenant stays on the list."""
    bench = a_bench(*a_backlog("acme", 3), marked=("acme",))

    def fail(change: Change) -> None:
        if change.request_id == "r00001":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    run(bench)
    assert (released(bench, "acme"), marks(bench).marked) == (2, ["acme"])


def test_a_released_record_is_swept_again_soon() -> None:
    """The run may crash before it has queued the message."""
    bench = a_bench(*a_backlog("acme", 1), marked=("acme",))
    run(bench)
    assert bench.record("r00000").sweep_at == NOON + LOOK_AGAIN
    bench.queue.sent.clear()
    bench.clock.advance(LOOK_AGAIN)
    run(bench)
    assert released(bench, "acme") == 1


# -- due mail ------------------------------------------------------------------------------------------------------------


def test_due_mail_is_released_up_to_the_free_slots() -> None:
    """The rest is postponed by one write each, spread at the account's rate, instead of being received and parked again."""
    bench = a_bench(*due(a_backlog("acme", 150)))
    assert run(bench).moved == 150
    assert released(bench, "acme") == CAPACITY
    late = sorted(d.due_at for d in bench.messages.records.values() if d.due_at and d.due_at > NOON)
    assert len(late) == 150 - CAPACITY
    assert late[0] - NOON == pytest.approx(timedelta(seconds=HORIZON - PARKED_EARLY), abs=timedelta(seconds=11))
    assert late[-1] - late[0] == pytest.approx(timedelta(seconds=(150 - CAPACITY - 1) / RATE / HEADROOM), rel=0.1)
    assert all(d.sweep_at == d.due_at for d in bench.messages.records.values() if d.due_at and d.due_at > NOON)


def test_due_mail_is_not_postponed_past_its_expiry() -> None:
    """The sweeper ends expired requests."""
    bench = a_bench(*due(a_backlog("acme", 150, expires_at=NOON + 10 * MINUTE)))
    run(bench)
    assert max(d.sweep_at for d in bench.messages.records.values() if d.sweep_at) <= NOON + 30 * MINUTE
    assert all(d.sweep_at <= d.expires_at for d in bench.messages.records.values() if d.sweep_at)


def test_each_account_is_read_once_in_a_run() -> None:
    """The number of pages does not matter."""
    bench = a_bench(*due(a_backlog("acme", 250)), *due(a_backlog("beta", 10)), marked=("acme",))
    run(bench)
    assert bench.account_rates.reads == 1
    assert [list(read) for read in bench.providers.reads] == [["acme"], ["beta"]]


def test_due_mail_with_an_unreadable_rate_is_left_to_the_next_run() -> None:
    """Nothing is lost, and the failure is reported."""
    bench = a_bench(*due(a_backlog("acme", 3)))

    def fail(_: str) -> None:
        raise DependencyError("DynamoDB", "GetItem")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.account_rates, "get", fail)
        assert run(bench).moved == 0
    assert [step for step, _, _ in bench.events("failed")] == ["sweep"]
    assert run(bench).moved == 3
