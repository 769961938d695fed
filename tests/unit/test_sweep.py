"""The sweeper ends overdue attempts and expired requests, requeues parked bodies and releases the mail of resumed tenants."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import OVERDUE_AFTER, Change, Delivery, Status, WaitsFor
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.pacing import AccountRate
from mailer.ports import Stage, Trial
from mailer.services.sending.jobs import Received
from mailer.services.sweeping import sweep as sweeping
from mailer.services.sweeping.sweep import LOOK_AGAIN, SweepStats, sweep
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.sending import Bench, FakeReleases, a_body, a_queue_message, a_record, attempted

KEY = "parked/acme/r1/1.json"
MINUTE = timedelta(minutes=1)


def run(bench: Bench, time_left: timedelta = MINUTE) -> SweepStats:
    return sweep(bench.sweep_deps, ends_at=bench.clock.now() + time_left)


def releases(bench: Bench, *tenants: str) -> FakeReleases:
    """Mark tenants whose mail is to be released."""
    marks = bench.sweep_deps.releases
    assert isinstance(marks, FakeReleases)
    marks.marked += tenants
    return marks


def waiting(request_id: str = "r1", **fields: Any) -> Delivery:
    """Make a parked record that was due at noon."""
    waiting = {"due_at": NOON, "sweep_at": NOON, "waits_for": WaitsFor.TIME, "parked": f"parked/acme/{request_id}/1.json", "generation": 1}
    return a_record(Status.DEFERRED, request_id, **{**waiting, **fields})


def for_provider(request_id: str = "r1", **fields: Any) -> Delivery:
    """Make a parked record that waits for its provider."""
    expires_at = NOON + timedelta(hours=24)
    return waiting(request_id, **{"waits_for": WaitsFor.PROVIDER, "due_at": expires_at, "sweep_at": expires_at, **fields})


def failing(*rules: str) -> Any:
    def fail(change: Change) -> None:
        if change.rule.name in rules:
            raise DependencyError("DynamoDB", "UpdateItem")

    return fail


# -- ends ----------------------------------------------------------------------------------------------------------------


def test_an_attempt_past_its_deadline_is_unknown() -> None:
    """Its worker did not record an outcome."""
    bench = Bench(attempted(sweep_at=NOON + timedelta(seconds=20)))
    bench.clock.advance(timedelta(seconds=21))
    run(bench)
    record = bench.record()
    assert (record.status, record.error and record.error.code, record.sweep_at) == (Status.UNKNOWN, "outcome_unknown", None)


def test_an_attempt_before_its_deadline_does_not_change() -> None:
    """A sweeper with a fast clock is rejected."""
    bench = Bench(attempted(sweep_at=NOON))
    run(bench)
    assert bench.record().status is Status.SENDING


def test_a_request_that_was_deferred_again_keeps_its_own_time() -> None:
    """Its newer message set the time after the sweeper had read that it was due."""
    bench = Bench(waiting(parked=None, sweep_at=NOON))

    def defer_again(change: Change) -> None:
        if change.rule.name == "reschedule":
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=2, sweep_at=NOON + 10 * MINUTE)

    bench.messages.before = defer_again
    run(bench)
    assert bench.record().sweep_at == NOON + 10 * MINUTE


@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED])
def test_an_expired_request_fails_and_its_body_is_deleted(status: Status) -> None:
    """This is so also without a message that could end it."""
    bench = Bench(a_record(status, expires_at=NOON, sweep_at=NOON, parked=KEY))
    bench.parked.bodies[KEY] = a_body()
    run(bench)
    assert (bench.record().status, bench.record().error and bench.record().error.code) == (Status.FAILED, "expired")
    assert bench.parked.bodies == {}


def test_a_maybe_sent_request_that_expires_is_unknown_and_keeps_its_body() -> None:
    """An operator may resend it."""
    bench = Bench(a_record(Status.DEFERRED, expires_at=NOON, sweep_at=NOON, parked=KEY, maybe_sent=True, attempt=1, owner="w"))
    bench.parked.bodies[KEY] = a_body()
    run(bench)
    assert (bench.record().status, bench.record().ended, list(bench.parked.bodies)) == (Status.UNKNOWN, True, [KEY])


# -- parked bodies -------------------------------------------------------------------------------------------------------


def test_a_pointer_is_queued_for_a_due_parked_body() -> None:
    """The pointer has the ids and the key of the body, nothing of the mail."""
    bench = Bench(waiting(correlation_id="c"))
    assert run(bench).moved == 1
    queue_message, delay = bench.take()
    assert (queue_message.body, queue_message.parked, queue_message.generation, queue_message.correlation_id) == (
        '{"tenantId": "acme", "requestId": "r1"}',
        KEY,
        1,
        "c",
    )
    assert (queue_message.created_at, queue_message.expires_at, delay) == (NOON, NOON + timedelta(hours=24), timedelta())
    assert bench.record().sweep_at == NOON + OVERDUE_AFTER


def test_no_second_pointer_is_sent_while_the_intake_is_paused() -> None:
    """The first is still on the queue."""
    bench = Bench(waiting())
    run(bench)
    bench.event_source.since = None
    for _ in range(6):
        bench.clock.advance(OVERDUE_AFTER)
        run(bench)
    assert len(bench.queue.sent) == 1
    assert bench.record().sweep_at == bench.clock.now() + OVERDUE_AFTER


def test_after_a_pause_a_pointer_has_time_before_it_counts_as_lost() -> None:
    """A lost one is sent again between half an hour and an hour after the resume."""
    bench = Bench(waiting())
    run(bench)
    bench.queue.sent.clear()  # lost
    bench.clock.advance(10 * OVERDUE_AFTER)
    bench.event_source.since = bench.clock.now() - MINUTE
    run(bench)
    assert bench.queue.sent == []
    bench.clock.advance(OVERDUE_AFTER)
    run(bench)
    assert [queue_message.parked for queue_message in bench.queue.messages] == [KEY]


def test_a_first_pointer_is_sent_whether_or_not_the_intake_is_paused() -> None:
    """It is on the queue when the intake is resumed; Lambda is not called."""
    bench = Bench(waiting())
    bench.event_source.since = None
    run(bench)
    assert (len(bench.queue.sent), bench.event_source.calls) == (1, 0)


def test_without_a_response_of_lambda_a_pointer_still_counts_as_lost() -> None:
    """A superfluous pointer is rejected by its generation; a missing one would leave the request waiting."""
    bench = Bench(waiting())
    run(bench)
    bench.event_source.broken = True
    bench.clock.advance(OVERDUE_AFTER)
    run(bench)
    assert len(bench.queue.sent) == 2


def test_lambda_is_called_once_per_run() -> None:
    """The number of overdue requests does not matter."""
    bench = Bench(*(waiting(f"r{n}", sweep_at=NOON + MINUTE) for n in range(250)))
    bench.event_source.since = None
    bench.clock.advance(2 * MINUTE)
    run(bench)
    assert (bench.event_source.calls, bench.queue.sent) == (1, [])


def test_a_paused_request_still_expires() -> None:
    """`expiresAt` applies also while the intake is paused."""
    bench = Bench(waiting(sweep_at=NOON + MINUTE, expires_at=NOON + 2 * MINUTE))
    bench.event_source.since = None
    bench.clock.advance(2 * MINUTE)
    run(bench)
    assert bench.record().status is Status.FAILED


def test_a_parked_request_is_sent_by_its_pointer() -> None:
    """It is parked, due, requeued and sent, and nothing is left in the bucket."""
    bench = Bench(waiting())
    bench.parked.bodies[KEY] = a_body()
    run(bench)
    bench.receive(bench.take()[0])
    assert (bench.record().status, bench.parked.bodies) == (Status.SENT, {})


def test_a_request_that_is_not_due_stays_parked() -> None:
    """The sweeper does nothing for it."""
    bench = Bench(waiting(sweep_at=NOON + MINUTE))
    assert run(bench).moved == 0
    assert bench.queue.sent == []


def test_a_second_run_queues_no_second_pointer() -> None:
    """A requeued request is checked half an hour later."""
    bench = Bench(waiting())
    run(bench)
    run(bench)
    assert len(bench.queue.sent) == 1


def test_a_rejected_pointer_is_queued_by_the_next_run() -> None:
    """The record is changed only after the pointer is queued."""
    bench = Bench(waiting())
    bench.queue.broken = True
    run(bench)
    assert bench.record().sweep_at == NOON
    bench.queue.broken = False
    run(bench)
    assert len(bench.queue.sent) == 1


def test_a_crash_between_pointer_and_record_queues_one_more() -> None:
    """Two pointers send one mail."""
    bench = Bench(waiting())
    bench.parked.bodies[KEY] = a_body()
    bench.messages.before = failing("reschedule")
    run(bench)
    bench.messages.before = lambda _: None
    run(bench)
    queue_messages = bench.queue.messages
    bench.queue.sent.clear()
    bench.receive(*queue_messages)
    assert (len(queue_messages), len(bench.provider.mails), bench.record().status) == (2, 1, Status.SENT)


# -- overdue -------------------------------------------------------------------------------------------------------------


def test_an_overdue_request_is_counted_and_rescheduled() -> None:
    """Its message is lost or the queue is far behind: this raises an alarm but sends no second mail."""
    bench = Bench(a_record(sweep_at=NOON + OVERDUE_AFTER))
    bench.clock.advance(OVERDUE_AFTER + MINUTE)
    stats = run(bench)
    assert (stats.overdue, stats.lag, bench.queue.sent) == (1, MINUTE, [])
    assert bench.record().sweep_at == NOON + 2 * OVERDUE_AFTER + MINUTE
    assert bench.events("swept") == [(1, MINUTE)]


def test_a_parked_request_that_is_just_due_is_not_overdue() -> None:
    """It waited until its due time."""
    assert run(Bench(waiting())).overdue == 0


def test_the_lag_is_that_of_the_longest_overdue() -> None:
    """One number shows how late the sweeper is."""
    bench = Bench(waiting("r1"), waiting("r2", sweep_at=NOON - 3 * MINUTE))
    assert run(bench).lag == 3 * MINUTE


# -- bounded and robust --------------------------------------------------------------------------------------------------


def test_a_run_continues_until_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads page by page."""
    monkeypatch.setattr(sweeping, "PAGE", 2)
    bench = Bench(*(waiting(f"r{n}") for n in range(7)))
    assert run(bench).moved == 7


def test_a_run_ends_in_time() -> None:
    """The next run continues."""
    bench = Bench(waiting())
    assert run(bench, timedelta()).moved == 0
    assert bench.queue.sent == []


def test_a_page_that_cannot_be_changed_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run would loop over the same records."""
    monkeypatch.setattr(sweeping, "PAGE", 1)
    bench = Bench(waiting())
    bench.queue.broken = True
    reads = 0
    due = bench.messages.due

    def count(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return due(*arguments)

    bench.messages.due = count  # type: ignore[method-assign]  # counts
    run(bench)
    assert reads == 1


@pytest.mark.parametrize("rule", ["time_out", "fail_unsent", "reschedule"])
def test_an_outage_of_the_table_leaves_the_rest_to_the_next_run(rule: str) -> None:
    """Each record fails separately; the run does not fail."""
    bench = Bench(
        attempted(request_id="r1", sweep_at=NOON, deadline=NOON - MINUTE),
        a_record(request_id="r2", expires_at=NOON, sweep_at=NOON),
        waiting("r3"),
    )
    bench.messages.before = failing(rule)
    assert run(bench).moved == 2
    bench.messages.before = lambda _: None
    assert run(bench).moved == 1


def test_an_outage_of_the_index_ends_the_run_without_an_error() -> None:
    """The failure is reported, and the next run starts in a minute."""
    bench = Bench(waiting())

    def fail(*_: Any) -> Any:
        raise DependencyError("DynamoDB", "Query")

    bench.messages.due = fail  # type: ignore[method-assign]  # the port fails
    assert run(bench).moved == 0
    assert [step for step, _, _ in bench.events("failed")] == ["sweep"]


@pytest.mark.parametrize("status", [Status.SENT, Status.CANCELLED])
def test_a_request_that_ended_meanwhile_is_not_requeued(status: Status) -> None:
    """The index may be stale; the condition of the write is not."""
    bench = Bench(a_record(expires_at=NOON, sweep_at=NOON))

    def finish(change: Change) -> None:
        if change.rule.name == "fail_unsent":
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=status)

    bench.messages.before = finish
    assert run(bench).moved == 0
    assert bench.record().status is status


# -- the mail of resumed tenants -----------------------------------------------------------------------------------------


def test_a_resumed_tenant_s_mail_is_released_at_once() -> None:
    """It is due now and requeued, and the tenant is removed from the list."""
    bench = Bench(for_provider("r1"), for_provider("r2"))
    marks = releases(bench, "acme")
    assert run(bench).moved == 2
    assert {queue_message.parked for queue_message in bench.queue.messages} == {KEY, "parked/acme/r2/1.json"}
    assert (bench.record().due_at, bench.record().waits_for, marks.marked) == (NOON, WaitsFor.TIME, [])


def test_scheduled_mail_is_not_released() -> None:
    """Mail with a later sendAt waits for that time."""
    bench = Bench(waiting(due_at=NOON + 9 * MINUTE, sweep_at=NOON + 9 * MINUTE))
    releases(bench, "acme")
    run(bench)
    assert bench.queue.sent == []


def test_a_released_pointer_is_due_for_its_worker() -> None:
    """The worker sends it instead of waiting for the old time."""
    bench = Bench(for_provider())
    bench.parked.bodies[KEY] = a_body()
    releases(bench, "acme")
    run(bench)
    bench.receive(bench.take()[0])
    assert bench.record().status is Status.SENT


def test_a_pointer_that_was_rejected_on_release_is_queued_by_the_next_run() -> None:
    """The record is due for the sweeper."""
    bench = Bench(for_provider())
    releases(bench, "acme")
    bench.queue.broken = True
    run(bench)
    bench.queue.broken = False
    run(bench)
    assert len(bench.queue.sent) == 1


def test_a_tenant_stays_on_the_list_while_a_record_could_not_be_released() -> None:
    """Otherwise that record would wait until it expires."""
    bench = Bench(for_provider())
    marks = releases(bench, "acme")
    bench.messages.before = failing("reschedule")
    run(bench)
    assert marks.marked == ["acme"]
    bench.messages.before = lambda _: None
    run(bench)
    assert (marks.marked, len(bench.queue.sent)) == ([], 1)


def test_a_young_mark_keeps_the_tenant_on_the_list() -> None:
    """A batch that read the row before may still park mail."""
    bench = Bench()
    marks = releases(bench, "acme")
    marks.young = True
    run(bench)
    bench.messages.records["acme", "r1"] = for_provider()
    run(bench)
    assert (len(bench.queue.sent), marks.marked) == (1, ["acme"])


def test_a_release_without_enough_time_continues_in_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 000 parked requests need more than one run."""
    monkeypatch.setattr(sweeping, "PAGE", 2)
    bench = Bench(*(for_provider(f"r{n}") for n in range(5)))
    marks = releases(bench, "acme")

    def slow(change: Change) -> None:
        if change.rule.name == "reschedule":
            bench.clock.advance(timedelta(seconds=20))

    bench.messages.after = slow
    run(bench)
    assert (0 < len(bench.queue.sent) < 5, marks.marked) == (True, ["acme"])
    bench.messages.after = lambda _: None
    run(bench)
    run(bench)
    assert ({queue_message.parked for queue_message in bench.queue.messages}, marks.marked) == (
        {f"parked/acme/r{n}/1.json" for n in range(5)},
        [],
    )


def test_a_deleted_provider_s_mail_is_released_to_fail() -> None:
    """It ends with the reason when its pointer is received."""
    bench = Bench(for_provider())
    bench.parked.bodies[KEY] = a_body()
    bench.providers.rows = {}
    releases(bench, "acme")
    run(bench)
    bench.receive(bench.take()[0])
    assert (bench.record().status, bench.parked.bodies) == (Status.FAILED, {})


def test_a_request_that_waits_for_an_operator_is_not_requeued() -> None:
    """A poison message is not retried every half hour; its request fails when it expires."""
    bench = Bench(a_record())
    bench.trials.marks["last"] = Trial(Stage.SENDING, "gone", NOON - timedelta(minutes=6))
    bench.receive(Received("last", a_queue_message(), 4))
    bench.clock.advance(timedelta(hours=23))
    run(bench)
    assert bench.queue.sent == []
    bench.clock.advance(timedelta(hours=1))
    run(bench)
    assert bench.record().status is Status.FAILED


# -- unreadable rows -----------------------------------------------------------------------------------------------------


def bench_with_an_unreadable_row(*records: Delivery) -> Bench:
    """Return a bench in which the provider row of tenant bad is unreadable."""
    bench = Bench(*records)
    bench.providers.rows["bad"] = a_provider("bad")
    bench.providers.unreadable["bad"] = UnreadableError("providers table", "bad")
    for record in records:
        bench.parked.bodies[record.parked or ""] = a_body()
    return bench


def test_the_mail_of_a_provider_with_an_unreadable_row_stays_parked() -> None:
    """It is checked again some minutes later; other tenants' mail is requeued."""
    bench = bench_with_an_unreadable_row(waiting("r1", tenant_id="bad"), waiting("r2"))
    run(bench)
    assert [queue_message.tenant_id for queue_message in bench.queue.messages] == ["acme"]
    left = bench.messages.records["bad", "r1"]
    assert (left.status, left.sweep_at) == (Status.DEFERRED, NOON + LOOK_AGAIN)


def test_an_unreadable_row_does_not_stop_the_release_of_others() -> None:
    """The tenant stays on the list until its row is readable."""
    bench = bench_with_an_unreadable_row(for_provider("r1", tenant_id="bad"), for_provider("r2"))
    marks = releases(bench, "bad", "acme")
    run(bench)
    run(bench)
    assert ([queue_message.tenant_id for queue_message in bench.queue.messages], marks.marked) == (["acme"], ["bad"])


def test_an_account_with_an_unreadable_rate_does_not_stop_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mail stays parked, that of the other account is requeued."""
    bench = Bench(waiting("r1", tenant_id="bad"), waiting("r2"))
    bench.providers.rows |= {t: a_provider(t, active=a_config(account=t)) for t in ("bad", "acme")}
    known = bench.account_rates.get

    def get(account: str) -> AccountRate | None:
        if account.startswith("bad"):
            raise UnreadableError("pacing table", account)
        return known(account)

    monkeypatch.setattr(bench.account_rates, "get", get)
    run(bench)
    assert [queue_message.tenant_id for queue_message in bench.queue.messages] == ["acme"]
