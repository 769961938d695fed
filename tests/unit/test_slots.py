"""How a batch takes its turns: who is reserved for together, who waits where, and what the pacing learns from SES's answers."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Sent, Status
from mailer.domain.pacing import FORGIVEN, LONGEST_WAIT, RetryAt, Slot
from mailer.domain.provider import Provider, StoredConfig
from mailer.ports import AccountFacts, Cleared, QueueMessage
from mailer.services.pacing.pacing import Pacing
from mailer.services.sending.send import CALL_SPAN
from support.fakes.pacing import FakePacingTable
from support.fakes.ports import NOON, FakeClock, a_config, a_provider
from support.fakes.sending import QUOTA, REJECTED, THROTTLED, Bench, ScriptedProvider, a_body, a_queue_message
from support.fakes.telemetry import a_telemetry

SECOND = timedelta(seconds=1)
ACCOUNT = "123456789012/eu-west-1"


def a_tenant(tenant_id: str, **config: Any) -> Provider:
    return a_provider(tenant_id, active=a_config(**config))


def of(tenant_id: str, request_id: str, *, recipients: int = 1, **attributes: Any) -> QueueMessage:
    """Make a message of a tenant's request to so many recipients."""
    body = json.loads(a_body(request_id, tenant_id))
    body["message"]["to"] = [{"email": f"jo{number}@example.com"} for number in range(recipients)]
    return replace(a_queue_message(), body=json.dumps(body), tenant_id=tenant_id, **attributes)


@pytest.fixture
def bench() -> Bench:
    """Have tenants acme and beta on one AWS account, gamma on one that nobody knows, and delta on SMTP."""
    bench = Bench()
    rows = (
        a_tenant("acme", account="123456789012", max_send_rate=14.0),
        a_tenant("beta", account="123456789012", max_send_rate=5.0),
        a_tenant("gamma"),
        a_tenant("delta", provider="smtp", region=""),
    )
    bench.providers.rows = {row.tenant_id: row for row in rows}
    return bench


# -- reserving -----------------------------------------------------------------------------------------------------------


def test_each_account_is_asked_once_for_all_its_messages(bench: Bench) -> None:
    """Whichever tenants they are of; weighed by recipients, with the slots that they bring along."""
    bench.receive(of("acme", "r1", recipients=3), of("gamma", "r2"), of("beta", "r3", slot=7.5))
    asked = [(account, weights, carried) for account, _, weights, carried in bench.pacer.requests]
    assert asked == [(ACCOUNT, [3, 1], [None, 7.5]), ("tenant/gamma/eu-west-1", [1], [None])]


def test_of_tenants_on_one_account_the_lowest_rate_counts(bench: Bench) -> None:
    """Who sets five a second must not be overrun by who shares the account."""
    bench.receive(of("acme", "r1"), of("beta", "r2"))
    [(_, source, _, _)] = bench.pacer.requests
    assert source.configured == 5.0


def test_ses_is_asked_for_its_quota_only_where_it_told_verify(bench: Bench) -> None:
    """A call that the tenant's policy denies would be one for nothing, again and again."""

    class Telling(ScriptedProvider):
        def clear_suppression(self, email: str) -> Cleared:
            raise NotImplementedError

        def account_facts(self) -> AccountFacts:
            return AccountFacts(max_send_rate=50.0)

    bench.provider_factory.provider = Telling()
    bench.providers.rows["gamma"] = a_tenant("gamma", quota_rate=14.0)
    bench.receive(of("acme", "r1"), of("gamma", "r2"))
    [acme, gamma] = [source for _, source, _, _ in bench.pacer.requests]
    assert (acme.quota, acme.ask) == (None, None)
    assert gamma.quota == 14.0
    assert gamma.ask is not None
    assert gamma.ask() == 50.0


def test_smtp_is_not_paced(bench: Bench) -> None:
    """No quota of SES is at stake on a development stack; a refusal slows nobody down."""
    bench.provider.outcomes = [THROTTLED]
    bench.receive(of("delta", "r1"))
    assert (bench.pacer.requests, bench.pacer.paced, len(bench.provider.mails)) == ([], [], 1)


def test_smtp_misses_no_slot(bench: Bench) -> None:
    """However long its turn takes to come."""

    def slow() -> Sent:
        bench.clock.advance(10 * FORGIVEN * SECOND)
        return Sent("m1")

    bench.provider.outcomes = [slow]
    bench.receive(of("delta", "r1"), of("delta", "r2"))
    assert (bench.pacer.requests, len(bench.provider.mails)) == ([], 2)


def test_of_the_quotas_that_tenants_of_one_account_were_told_the_lowest_counts(bench: Bench) -> None:
    """One of them is older; too low a rate corrects itself, because SES is asked again."""
    for tenant_id, quota in (("acme", 50.0), ("beta", 14.0)):
        bench.providers.rows[tenant_id] = a_tenant(tenant_id, account="123456789012", quota_rate=quota)
    bench.receive(of("acme", "r1"), of("beta", "r2"))
    [(_, source, _, _)] = bench.pacer.requests
    assert source.quota == 14.0


def test_nothing_is_reserved_for_what_cannot_be_sent(bench: Bench) -> None:
    """A tenant that is switched off holds no slots."""
    bench.providers.rows = {}
    bench.receive(of("acme", "r1"))
    assert bench.pacer.requests == []


def test_nothing_is_reserved_with_too_little_time(bench: Bench) -> None:
    """A slot that the function has not the time to use would be wasted; the message comes back at once."""
    bench.receive(of("acme", "r1"), time_left=CALL_SPAN - SECOND)
    assert bench.pacer.requests == []
    assert (bench.record().status, bench.record().due_at, bench.take()[1]) == (Status.DEFERRED, NOON, timedelta())


# -- waiting -------------------------------------------------------------------------------------------------------------


def test_a_slot_that_is_near_is_waited_for(bench: Bench) -> None:
    """The fence is passed and SES called when it has come, not before."""
    at = NOON + LONGEST_WAIT * SECOND
    bench.pacer.plans = [Slot(at)]
    called: list[Any] = []

    def note() -> Sent:
        called.append((bench.clock.now(), bench.record().updated_at))
        return Sent("m1")

    bench.provider.outcomes = [note]
    bench.receive(of("acme", "r1"))
    assert called == [(at, at)]
    assert bench.events("paced") == [(LONGEST_WAIT * SECOND,)]


def test_messages_are_begun_in_the_order_of_their_slots(bench: Bench) -> None:
    """Whose slot has come stands behind nobody who waits, of whichever account."""
    bench.pacer.plans = [Slot(NOON + 0.9 * SECOND), Slot(NOON + 0.4 * SECOND)]
    bench.receive(of("acme", "r1", recipients=1), of("acme", "r2", recipients=2), of("gamma", "r3", recipients=3))
    assert [len(mail.recipients) for mail in bench.provider.mails] == [3, 2, 1]


def test_messages_are_made_between_those_whose_time_has_come_and_those_who_wait(bench: Bench) -> None:
    """A flood's messages hold up no quiet tenant, and need not wait for threads that hold out for a slot."""
    bench.pacer.plans = [RetryAt(NOON + 60 * SECOND, 9.0), Slot(NOON + 0.5 * SECOND), Slot(NOON)]
    done: list[str] = []

    def note() -> Sent:
        done.append(f"sent to {len(bench.provider.mails[-1].recipients)}")
        return Sent("m1")

    bench.provider.outcomes = [note, note]
    bench.queue.refuses = lambda queue_message: bool(done.append("requeued")) if queue_message.slot else True
    bench.receive(of("acme", "r1"), of("acme", "r2", recipients=2), of("gamma", "r3", recipients=3))
    assert list(dict.fromkeys(done)) == ["sent to 3", "requeued", "sent to 2"]


def test_a_later_slot_travels_with_a_delayed_message(bench: Bench) -> None:
    """Nothing is composed, the fence is not passed; the record tells when."""
    at = NOON + 300 * SECOND
    bench.pacer.plans = [RetryAt(at, 412.5)]
    bench.receive(of("acme", "r1"))
    record = bench.record()
    assert (record.status, record.due_at, record.error, record.attempt) == (Status.DEFERRED, at, None, 0)
    queue_message, delay = bench.take()
    assert (queue_message.slot, queue_message.generation, delay) == (412.5, 1, 300 * SECOND)
    assert bench.provider.mails == []
    assert bench.events("paced") == [(300 * SECOND,)]


def test_what_finds_no_slot_is_parked_without_one(bench: Bench) -> None:
    """It costs no receive until about when the account can take it."""
    at = NOON + 2000 * SECOND
    bench.pacer.plans = [RetryAt(at)]
    bench.receive(of("acme", "r1", slot=1.0))
    record = bench.record()
    assert (record.status, record.due_at, record.sweep_at, bench.queue.sent) == (Status.DEFERRED, at, at, [])
    assert record.parked in bench.parked.bodies


@pytest.mark.parametrize("outcome", [THROTTLED, QUOTA], ids=["throttled", "quota"])
def test_a_used_slot_goes_no_further(bench: Bench, outcome: Any) -> None:
    """The message of what SES refused takes a new one: two messages at one slot would be refused again."""
    bench.provider.outcomes = [replace(outcome, retry_after=5 * SECOND)]
    bench.receive(of("acme", "r1", slot=7.5))
    assert bench.take()[0].slot is None


def test_a_slot_that_was_missed_here_is_reserved_anew(bench: Bench) -> None:
    """Two messages for one thread, the first of which took too long: SES forgives one second, not ten."""
    bench.pacer.plans = [Slot(NOON), Slot(NOON), RetryAt(NOON + 60 * SECOND, 99.0)]

    def slow() -> Sent:
        bench.clock.advance(FORGIVEN * SECOND + timedelta(milliseconds=1))
        return Sent("m1")

    bench.provider.outcomes = [slow]
    bench.receive(of("acme", "r1"), of("acme", "r2", recipients=2, slot=3.0))
    assert [(weights, carried) for _, _, weights, carried in bench.pacer.requests] == [([1, 2], [None, 3.0]), ([2], [None])]
    assert len(bench.provider.mails) == 1
    assert bench.take()[0].slot == 99.0


def test_a_slot_that_is_a_little_past_is_used(bench: Bench) -> None:
    """What SES forgives costs no second reservation."""
    bench.pacer.plans = [Slot(NOON), Slot(NOON)]

    def slow() -> Sent:
        bench.clock.advance(FORGIVEN * SECOND)
        return Sent("m1")

    bench.provider.outcomes = [slow]
    bench.receive(of("acme", "r1"), of("acme", "r2"))
    assert (len(bench.pacer.requests), len(bench.provider.mails)) == (1, 2)


def test_a_mail_that_cannot_be_composed_ends_at_its_turn(bench: Bench) -> None:
    """Its slot is wasted, its neighbours are not held up."""
    attached = json.loads(a_body("r1"))
    attached["message"]["attachments"] = [{"filename": "a.pdf", "s3": {"key": "acme/0"}}]
    bench.receive(replace(a_queue_message(), body=json.dumps(attached)), of("acme", "r2"))
    assert [bench.record(r).status for r in ("r1", "r2")] == [Status.FAILED, Status.SENT]


def test_waits_are_a_metric_in_milliseconds() -> None:
    """A slot that is a little past was not waited for."""
    with a_telemetry() as (telemetry, written):
        telemetry.paced(1.5 * SECOND)
        telemetry.paced(-SECOND)
    assert written.values("PacingWait") == [1500.0, 0.0]


# -- when pacing fails ---------------------------------------------------------------------------------------------------


def test_an_outage_of_the_pacing_table_defers_and_loses_nothing(bench: Bench) -> None:
    """Without the line nobody knows how fast: its mail comes back by itself, other accounts' goes on, the telemetry tells operators."""
    bench.pacer.failing = {ACCOUNT}
    assert bench.receive(of("acme", "r1"), of("gamma", "r2")) == []
    record = bench.record("r1")
    assert (record.status, record.error and record.error.code) == (Status.DEFERRED, "dependency_unavailable")
    assert bench.messages.records["gamma", "r2"].status is Status.SENT
    assert [(step, tenant_id) for step, tenant_id, _ in bench.events("failed")] == [("deliver", "acme")]
    bench.pacer.failing.clear()
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert bench.record("r1").status is Status.SENT


def test_a_bug_in_pacing_hands_only_its_account_s_messages_out_again(bench: Bench) -> None:
    """SQS keeps them; no neighbour is taken along."""

    class Broken(FakePacingTable):
        def get(self, account: str) -> Any:
            return 1 / 0 if account == ACCOUNT else super().get(account)

    bench.deps = replace(bench.deps, pacer=Pacing(Broken(), functions=1))
    assert bench.receive(of("acme", "r1"), of("gamma", "r2"), of("beta", "r3")) == ["message-0", "message-2"]
    assert bench.messages.records["gamma", "r2"].status is Status.SENT


# -- what SES answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (THROTTLED, [("throttled", ACCOUNT)]),
        (QUOTA, [("quota exhausted", ACCOUNT)]),
        (REJECTED, []),
        (Sent("m1"), []),
    ],
    ids=["throttled", "quota", "rejected", "sent"],
)
def test_the_line_is_told_what_limits_the_account(bench: Bench, outcome: Any, told: list[tuple[str, str]]) -> None:
    """A throttle slows the account down, a used-up quota lets it rest; nothing else is about its rate."""
    bench.provider.outcomes = [outcome]
    bench.receive(of("acme", "r1"))
    assert bench.pacer.paced == told


def test_a_line_that_cannot_be_told_holds_up_nobody(bench: Bench) -> None:
    """The outcome is written first, and stays."""

    def throttle() -> Any:
        bench.pacer.failing = {ACCOUNT}
        return THROTTLED

    bench.provider.outcomes = [throttle]
    assert bench.receive(of("acme", "r1")) == []
    assert bench.record().error == THROTTLED.error
    assert [step for step, _, _ in bench.events("failed")] == ["pace"]


# -- with the real line --------------------------------------------------------------------------------------------------


def play(bench: Bench, *queue_messages: QueueMessage) -> list[float]:
    """Receive messages, and their messages when they are visible, until all are sent; return when SES was called, in seconds."""
    calls: list[float] = []

    def note() -> Sent:
        calls.append((bench.clock.now() - NOON).total_seconds())
        return Sent(f"m{len(calls)}")

    bench.provider.outcomes = [note for _ in queue_messages]
    waiting = [(NOON, queue_message) for queue_message in queue_messages]
    while waiting:
        visible = min(at for at, _ in waiting)
        bench.clock.time = max(bench.clock.time, visible)
        bench.receive(*(queue_message for at, queue_message in waiting if at == visible))
        waiting = [(at, queue_message) for at, queue_message in waiting if at != visible]
        waiting += [
            (bench.clock.now() + timedelta(seconds=-(-delay.total_seconds() // 1)), queue_message)
            for queue_message, delay in bench.queue.sent
        ]
        bench.queue.sent.clear()
    return calls


@pytest.mark.parametrize("config", [a_config(max_send_rate=10.0), a_config(quota_rate=10.0)], ids=["configured", "quota"])
def test_a_flood_leaves_at_the_account_s_rate(config: StoredConfig) -> None:
    """A hundred at once go out over ten seconds, none twice, none early."""
    bench = Bench()
    bench.clock = FakeClock()
    bench.providers.rows["acme"] = a_provider(active=config)
    bench.deps = replace(bench.deps, clock=bench.clock, pacer=Pacing(FakePacingTable(), functions=1))
    calls = play(bench, *(a_queue_message(f"r{number}") for number in range(100)))
    assert len(calls) == len(bench.provider.mails) == 100
    assert calls == sorted(calls)
    assert calls[-1] == pytest.approx(10, abs=1.0)
    assert all(later - earlier >= 0.9 for earlier, later in zip(calls, calls[11:], strict=False))
