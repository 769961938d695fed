"""Pacing of a batch: reservations by account, waiting for slots, and feedback from SES's responses."""

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


def message_of(tenant_id: str, request_id: str, *, recipients: int = 1, **attributes: Any) -> QueueMessage:
    """Make a message of a tenant's request to some recipients."""
    body = json.loads(a_body(request_id, tenant_id))
    body["message"]["to"] = [{"email": f"jo{number}@example.com"} for number in range(recipients)]
    return replace(a_queue_message(), body=json.dumps(body), tenant_id=tenant_id, **attributes)


@pytest.fixture
def bench() -> Bench:
    """Return a bench with tenants acme and beta on one AWS account, gamma on an unknown one, and delta on SMTP."""
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


def test_slots_are_reserved_once_per_account(bench: Bench) -> None:
    """The reservation is for messages of all its tenants, weighed by recipients, with the slots that they carry."""
    bench.receive(message_of("acme", "r1", recipients=3), message_of("gamma", "r2"), message_of("beta", "r3", slot=7.5))
    reservations = [(account, weights, carried) for account, _, weights, carried in bench.pacer.requests]
    assert reservations == [(ACCOUNT, [3, 1], [None, 7.5]), ("tenant/gamma/eu-west-1", [1], [None])]


def test_the_lowest_rate_of_an_account_s_tenants_is_used(bench: Bench) -> None:
    """A tenant's lower rate must be respected by others of the account."""
    bench.receive(message_of("acme", "r1"), message_of("beta", "r2"))
    [(_, source, _, _)] = bench.pacer.requests
    assert source.configured == 5.0


def test_ses_s_quota_is_read_only_if_verify_could_read_it(bench: Bench) -> None:
    """Otherwise the tenant's policy would deny each call."""

    class ReadableProvider(ScriptedProvider):
        def clear_suppression(self, email: str) -> Cleared:
            raise NotImplementedError

        def account_facts(self) -> AccountFacts:
            return AccountFacts(max_send_rate=50.0)

    bench.provider_factory.provider = ReadableProvider()
    bench.providers.rows["gamma"] = a_tenant("gamma", quota_rate=14.0)
    bench.receive(message_of("acme", "r1"), message_of("gamma", "r2"))
    [acme, gamma] = [source for _, source, _, _ in bench.pacer.requests]
    assert (acme.quota, acme.ask) == (None, None)
    assert gamma.quota == 14.0
    assert gamma.ask is not None
    assert gamma.ask() == 50.0


def test_smtp_is_not_paced(bench: Bench) -> None:
    """SMTP has no quota; a rejection does not slow it down."""
    bench.provider.outcomes = [THROTTLED]
    bench.receive(message_of("delta", "r1"))
    assert (bench.pacer.requests, bench.pacer.paced, len(bench.provider.mails)) == ([], [], 1)


def test_smtp_mails_have_no_slot_to_miss(bench: Bench) -> None:
    """They are sent after any delay."""

    def slow() -> Sent:
        bench.clock.advance(10 * FORGIVEN * SECOND)
        return Sent("m1")

    bench.provider.outcomes = [slow]
    bench.receive(message_of("delta", "r1"), message_of("delta", "r2"))
    assert (bench.pacer.requests, len(bench.provider.mails)) == ([], 2)


def test_the_lowest_quota_of_an_account_s_tenants_is_used(bench: Bench) -> None:
    """One of them is older; a rate that is too low is corrected by the next read of the quota."""
    for tenant_id, quota in (("acme", 50.0), ("beta", 14.0)):
        bench.providers.rows[tenant_id] = a_tenant(tenant_id, account="123456789012", quota_rate=quota)
    bench.receive(message_of("acme", "r1"), message_of("beta", "r2"))
    [(_, source, _, _)] = bench.pacer.requests
    assert source.quota == 14.0


def test_nothing_is_reserved_for_an_inactive_provider(bench: Bench) -> None:
    """An inactive tenant must not use slots."""
    bench.providers.rows = {}
    bench.receive(message_of("acme", "r1"))
    assert bench.pacer.requests == []


def test_nothing_is_reserved_without_enough_time(bench: Bench) -> None:
    """A slot that the function cannot use in time would be wasted; the message is requeued at once."""
    bench.receive(message_of("acme", "r1"), time_left=CALL_SPAN - SECOND)
    assert bench.pacer.requests == []
    assert (bench.record().status, bench.record().due_at, bench.take()[1]) == (Status.DEFERRED, NOON, timedelta())


# -- waiting -------------------------------------------------------------------------------------------------------------


def test_a_near_slot_is_waited_for(bench: Bench) -> None:
    """The fence is passed and SES called only at the slot."""
    at = NOON + LONGEST_WAIT * SECOND
    bench.pacer.plans = [Slot(at)]
    called: list[Any] = []

    def respond() -> Sent:
        called.append((bench.clock.now(), bench.record().updated_at))
        return Sent("m1")

    bench.provider.outcomes = [respond]
    bench.receive(message_of("acme", "r1"))
    assert called == [(at, at)]
    assert bench.events("paced") == [(LONGEST_WAIT * SECOND,)]


def test_messages_are_sent_in_the_order_of_their_slots(bench: Bench) -> None:
    """A message whose slot is due does not wait behind others, of any account."""
    bench.pacer.plans = [Slot(NOON + 0.9 * SECOND), Slot(NOON + 0.4 * SECOND)]
    bench.receive(message_of("acme", "r1", recipients=1), message_of("acme", "r2", recipients=2), message_of("gamma", "r3", recipients=3))
    assert [len(mail.recipients) for mail in bench.provider.mails] == [3, 2, 1]


def test_requeueing_is_after_due_slots_and_before_waiting_ones(bench: Bench) -> None:
    """Requeueing a flood delays no quiet tenant, and does not wait for threads that wait for a slot."""
    bench.pacer.plans = [RetryAt(NOON + 60 * SECOND, 9.0), Slot(NOON + 0.5 * SECOND), Slot(NOON)]
    done: list[str] = []

    def respond() -> Sent:
        done.append(f"sent to {len(bench.provider.mails[-1].recipients)}")
        return Sent("m1")

    bench.provider.outcomes = [respond, respond]
    bench.queue.refuses = lambda queue_message: bool(done.append("requeued")) if queue_message.slot else True
    bench.receive(message_of("acme", "r1"), message_of("acme", "r2", recipients=2), message_of("gamma", "r3", recipients=3))
    assert list(dict.fromkeys(done)) == ["sent to 3", "requeued", "sent to 2"]


def test_a_later_slot_is_carried_by_a_delayed_message(bench: Bench) -> None:
    """The mail is not composed and the fence not passed; the record has the due time."""
    at = NOON + 300 * SECOND
    bench.pacer.plans = [RetryAt(at, 412.5)]
    bench.receive(message_of("acme", "r1"))
    record = bench.record()
    assert (record.status, record.due_at, record.error, record.attempt) == (Status.DEFERRED, at, None, 0)
    queue_message, delay = bench.take()
    assert (queue_message.slot, queue_message.generation, delay) == (412.5, 1, 300 * SECOND)
    assert bench.provider.mails == []
    assert bench.events("paced") == [(300 * SECOND,)]


def test_a_message_without_a_slot_is_parked(bench: Bench) -> None:
    """It causes no receive until the account has capacity again."""
    at = NOON + 2000 * SECOND
    bench.pacer.plans = [RetryAt(at)]
    bench.receive(message_of("acme", "r1", slot=1.0))
    record = bench.record()
    assert (record.status, record.due_at, record.sweep_at, bench.queue.sent) == (Status.DEFERRED, at, at, [])
    assert record.parked in bench.parked.bodies


@pytest.mark.parametrize("outcome", [THROTTLED, QUOTA], ids=["throttled", "quota"])
def test_a_used_slot_is_not_carried_on(bench: Bench, outcome: Any) -> None:
    """A throttled message needs a new slot: two messages at one slot would be throttled again."""
    bench.provider.outcomes = [replace(outcome, retry_after=5 * SECOND)]
    bench.receive(message_of("acme", "r1", slot=7.5))
    assert bench.take()[0].slot is None


def test_a_slot_that_was_missed_in_the_function_is_replaced(bench: Bench) -> None:
    """The first of two messages of one thread took too long: SES tolerates one second, not ten."""
    bench.pacer.plans = [Slot(NOON), Slot(NOON), RetryAt(NOON + 60 * SECOND, 99.0)]

    def slow() -> Sent:
        bench.clock.advance(FORGIVEN * SECOND + timedelta(milliseconds=1))
        return Sent("m1")

    bench.provider.outcomes = [slow]
    bench.receive(message_of("acme", "r1"), message_of("acme", "r2", recipients=2, slot=3.0))
    assert [(weights, carried) for _, _, weights, carried in bench.pacer.requests] == [([1, 2], [None, 3.0]), ([2], [None])]
    assert len(bench.provider.mails) == 1
    assert bench.take()[0].slot == 99.0


def test_a_slot_that_is_slightly_past_is_used(bench: Bench) -> None:
    """A delay that SES tolerates costs no second reservation."""
    bench.pacer.plans = [Slot(NOON), Slot(NOON)]

    def slow() -> Sent:
        bench.clock.advance(FORGIVEN * SECOND)
        return Sent("m1")

    bench.provider.outcomes = [slow]
    bench.receive(message_of("acme", "r1"), message_of("acme", "r2"))
    assert (len(bench.pacer.requests), len(bench.provider.mails)) == (1, 2)


def test_a_mail_that_cannot_be_composed_does_not_delay_others(bench: Bench) -> None:
    """Only its slot is wasted."""
    attached = json.loads(a_body("r1"))
    attached["message"]["attachments"] = [{"filename": "a.pdf", "s3": {"key": "acme/0"}}]
    bench.receive(replace(a_queue_message(), body=json.dumps(attached)), message_of("acme", "r2"))
    assert [bench.record(r).status for r in ("r1", "r2")] == [Status.FAILED, Status.SENT]


def test_waits_are_a_metric_in_milliseconds() -> None:
    """For a slot in the past the wait is 0."""
    with a_telemetry() as (telemetry, written):
        telemetry.paced(1.5 * SECOND)
        telemetry.paced(-SECOND)
    assert written.values("PacingWait") == [1500.0, 0.0]


# -- failures of pacing --------------------------------------------------------------------------------------------------


def test_an_outage_of_the_pacing_table_defers_and_loses_nothing(bench: Bench) -> None:
    """Without the account's rate its mail is requeued; other accounts' mail is sent, and the failure is reported."""
    bench.pacer.failing = {ACCOUNT}
    assert bench.receive(message_of("acme", "r1"), message_of("gamma", "r2")) == []
    record = bench.record("r1")
    assert (record.status, record.error and record.error.code) == (Status.DEFERRED, "dependency_unavailable")
    assert bench.messages.records["gamma", "r2"].status is Status.SENT
    assert [(step, tenant_id) for step, tenant_id, _ in bench.events("failed")] == [("deliver", "acme")]
    bench.pacer.failing.clear()
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert bench.record("r1").status is Status.SENT


def test_an_exception_in_pacing_returns_only_the_account_s_messages(bench: Bench) -> None:
    """SQS redelivers them; others are sent."""

    class Broken(FakePacingTable):
        def get(self, account: str) -> Any:
            return 1 / 0 if account == ACCOUNT else super().get(account)

    bench.deps = replace(bench.deps, pacer=Pacing(Broken(), functions=1))
    assert bench.receive(message_of("acme", "r1"), message_of("gamma", "r2"), message_of("beta", "r3")) == ["message-0", "message-2"]
    assert bench.messages.records["gamma", "r2"].status is Status.SENT


# -- responses of SES ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "calls"),
    [
        (THROTTLED, [("throttled", ACCOUNT)]),
        (QUOTA, [("quota exhausted", ACCOUNT)]),
        (REJECTED, []),
        (Sent("m1"), []),
    ],
    ids=["throttled", "quota", "rejected", "sent"],
)
def test_limits_of_the_account_are_reported_to_pacing(bench: Bench, outcome: Any, calls: list[tuple[str, str]]) -> None:
    """A throttle and a used-up quota are reported; no other outcome concerns the rate."""
    bench.provider.outcomes = [outcome]
    bench.receive(message_of("acme", "r1"))
    assert bench.pacer.paced == calls


def test_a_failed_report_to_pacing_does_not_affect_the_outcome(bench: Bench) -> None:
    """The outcome is written first."""

    def throttle() -> Any:
        bench.pacer.failing = {ACCOUNT}
        return THROTTLED

    bench.provider.outcomes = [throttle]
    assert bench.receive(message_of("acme", "r1")) == []
    assert bench.record().error == THROTTLED.error
    assert [step for step, _, _ in bench.events("failed")] == ["pace"]


# -- with the real pacing ------------------------------------------------------------------------------------------------


def play(bench: Bench, *queue_messages: QueueMessage) -> list[float]:
    """Receive messages and requeued ones until all are sent; return the seconds at which SES was called."""
    calls: list[float] = []

    def respond() -> Sent:
        calls.append((bench.clock.now() - NOON).total_seconds())
        return Sent(f"m{len(calls)}")

    bench.provider.outcomes = [respond for _ in queue_messages]
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
def test_a_flood_is_sent_at_the_account_s_rate(config: StoredConfig) -> None:
    """A hundred mails at ten per second take ten seconds; none is sent twice or early."""
    bench = Bench()
    bench.clock = FakeClock()
    bench.providers.rows["acme"] = a_provider(active=config)
    bench.deps = replace(bench.deps, clock=bench.clock, pacer=Pacing(FakePacingTable(), functions=1))
    calls = play(bench, *(a_queue_message(f"r{number}") for number in range(100)))
    assert len(calls) == len(bench.provider.mails) == 100
    assert calls == sorted(calls)
    assert calls[-1] == pytest.approx(10, abs=1.0)
    assert all(later - earlier >= 0.9 for earlier, later in zip(calls, calls[11:], strict=False))
