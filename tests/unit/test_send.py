"""The send path from the queue to the provider and back, on the real services with fakes around them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Change, MaybeSent, NotSent, Outcome, Sent, Status, WaitsFor
from mailer.domain.errors import CODES, DependencyError, ErrorInfo, NotSentError
from mailer.domain.message import canonical_json, parse_request
from mailer.domain.provider import ProviderStatus
from mailer.ports import QueueMessage
from mailer.services.sending.jobs import Received
from mailer.services.sending.send import CALL_SPAN
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.sending import (
    QUOTA,
    REJECTED,
    SEND_TIMEOUT,
    THROTTLED,
    UNVERIFIED,
    VANISHED,
    Bench,
    a_body,
    a_queue_message,
    a_record,
    attempted,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def down(service: str, *rules: str) -> Any:
    """Make a hook of the table that fails for the rules named, or for all."""

    def fail(change: Change) -> None:
        if not rules or change.rule.name in rules:
            raise DependencyError(service, "UpdateItem")

    return fail


# -- the fence and the call ----------------------------------------------------------------------------------------------


def test_a_first_message_is_sent_once_and_its_record_says_so() -> None:
    """The plain way: no record yet, one call, `sent` with the messageId, nothing left on the queue."""
    bench = Bench()
    assert bench.receive(a_queue_message()) == []
    record = bench.record()
    assert (record.status, record.message_id, record.attempt, record.error) == (Status.SENT, "m1", 1, None)
    assert len(bench.provider.mails) == 1
    assert bench.queue.sent == []
    assert record.sweep_at is None


def test_the_fence_is_passed_before_the_provider_is_called() -> None:
    """Whoever looks while the call is under way finds `sending`, its owner, its deadline and the config's version."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(active=a_config(version=7))
    seen: list[Any] = []

    def look() -> Outcome:
        seen.append(bench.record())
        return Sent("m1")

    bench.provider.outcomes = [look]
    bench.receive(a_queue_message())
    [record] = seen
    assert (record.status, record.attempt, record.owner, record.provider_version) == (Status.SENDING, 1, "worker-1", 7)
    assert record.deadline == record.sweep_at == NOON + CALL_SPAN


def test_each_attempt_is_tagged_with_what_finds_its_record() -> None:
    """An event of SES names the tenant, the request and the attempt, beside the caller's own tags."""
    bench = Bench(outcomes=[THROTTLED])
    bench.receive(
        a_queue_message("a.1", message={"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello.", "tags": {"campaign": "x"}})
    )
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    own = {"campaign": "x", "tenantmail-tenant": "acme", "tenantmail-request": "a_d1"}
    assert bench.provider.tags == [{**own, "tenantmail-attempt": attempt} for attempt in ("1", "2")]


def test_an_answer_is_in_the_journal_before_it_is_in_the_table() -> None:
    """An `unknown` can be resolved from the log."""
    bench = Bench()
    bench.messages.before = down("DynamoDB", "accept")
    bench.receive(a_queue_message())
    [(tenant_id, request_id, fence, outcome, _)] = bench.events("answered")
    assert (tenant_id, request_id, fence.owner, outcome) == ("acme", "r1", "worker-1", Sent("m1"))
    assert bench.events("recorded") == []


def test_the_record_of_the_api_is_the_one_that_is_sent() -> None:
    """A request that the API recorded as queued goes on in the same record."""
    bench = Bench(a_record(created_at=NOON - MINUTE))
    bench.receive(a_queue_message())
    assert (bench.record().status, bench.record().created_at) == (Status.SENT, NOON - MINUTE)


def test_two_messages_in_one_batch_are_one_mail() -> None:
    """A producer's duplicate meets the record of the first."""
    bench = Bench()
    assert bench.receive(a_queue_message(), a_queue_message()) == []
    assert len(bench.provider.mails) == 1


def test_the_mail_is_from_the_provider_s_sender_to_the_request_s_recipients() -> None:
    """The envelope is the tenant's config and the request, nothing of the queue."""
    bench = Bench()
    bench.receive(a_queue_message())
    [mail] = bench.provider.mails
    assert (mail.mail_from, mail.recipients) == ("hello@acme.example", ("jo@example.com",))


# -- what an outcome leads to --------------------------------------------------------------------------------------------


def test_a_throttled_request_waits_as_a_delayed_message() -> None:
    """Up to 15 minutes wait on the queue: a new message of the next generation, the record says when and why."""
    bench = Bench(outcomes=[THROTTLED])
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.due_at, record.generation) == (Status.DEFERRED, NOON + timedelta(seconds=5), 1)
    assert record.error is not None
    assert record.error.code == "throttled"
    assert record.deadline is None
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.body, delay) == (1, a_body(), timedelta(seconds=5))


def test_a_message_that_comes_back_is_sent_as_the_next_attempt() -> None:
    """A deferral is proof that nothing was accepted: another attempt is allowed."""
    bench = Bench(outcomes=[THROTTLED])
    bench.receive(a_queue_message())
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt) == (Status.SENT, 2)


def test_a_used_up_quota_parks_the_body_until_it_may_be_tried() -> None:
    """Longer waits keep no message on the queue: one object and one record that the sweeper finds when it is due."""
    bench = Bench(outcomes=[QUOTA])
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.due_at, record.sweep_at) == (Status.DEFERRED, NOON + 3 * HOUR, NOON + 3 * HOUR)
    assert record.waits_for is WaitsFor.TIME
    assert bench.queue.sent == []
    assert bench.parked.bodies == {record.parked: canonical_json(parse_request(a_body()))}


def test_a_rejected_request_fails_for_good() -> None:
    """What SES will never take is not tried again."""
    bench = Bench(outcomes=[REJECTED])
    bench.receive(a_queue_message())
    record = bench.record()
    assert record.status is Status.FAILED
    assert record.error == REJECTED.error
    assert (bench.queue.sent, record.sweep_at, record.forget_at) == ([], None, NOON + timedelta(days=35))


def test_a_fault_of_the_tenant_s_account_lets_the_request_wait_a_minute() -> None:
    """The first faults are retried, and counted against the version."""
    bench = Bench(outcomes=[UNVERIFIED])
    bench.receive(a_queue_message())
    assert (bench.record().status, bench.take()[1]) == (Status.DEFERRED, MINUTE)
    assert bench.providers.rows["acme"].faulty_requests == {"r1"}


def test_the_fault_that_suspends_the_provider_parks_its_request() -> None:
    """A suspended tenant's mail waits for the provider, not for a time."""
    bench = Bench(outcomes=[UNVERIFIED] * 3)
    bench.receive(a_queue_message("r1"), a_queue_message("r2"), a_queue_message("r3"))
    record = bench.record("r3")
    assert bench.providers.rows["acme"].status is ProviderStatus.SUSPENDED
    assert (record.waits_for, record.due_at, record.sweep_at) == (WaitsFor.PROVIDER, record.expires_at, record.expires_at)
    assert record.parked in bench.parked.bodies
    [(tenant_id, version, error)] = bench.events("suspended")
    assert (tenant_id, version, error.code) == ("acme", 1, UNVERIFIED.error.code)


def test_large_mails_that_the_account_denies_suspend_nobody() -> None:
    """Smaller ones do not take that right: they go on, and the large ones wait for it, each with what to attach."""
    denied = NotSent(ErrorInfo("credentials_denied", "AWS denied ses:SendEmail", rights=("ses:SendEmail",)), HOUR)
    bench = Bench(outcomes=[denied] * 4)
    for request_id in ("r1", "r2", "r3", "r4"):
        bench.receive(a_queue_message(request_id))
    record = bench.record("r4")
    assert bench.providers.rows["acme"].status is ProviderStatus.ACTIVE
    assert (record.status, record.due_at, bench.providers.rows["acme"].faulty_requests) == (Status.DEFERRED, NOON + HOUR, frozenset())
    assert record.error is not None
    assert '"ses:SendEmail"' in record.error.hint


def test_one_request_that_fails_again_and_again_suspends_nobody() -> None:
    """Only distinct requests count."""
    bench = Bench(outcomes=[UNVERIFIED] * 4)
    bench.receive(a_queue_message())
    for _ in range(3):
        queue_message, delay = bench.take()
        bench.clock.advance(delay)
        bench.receive(queue_message)
    assert bench.providers.rows["acme"].status is ProviderStatus.ACTIVE


def test_an_unknown_outcome_is_held_with_its_body() -> None:
    """Nobody sends it again; an operator may, from the parked body."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error, record.sweep_at) == (Status.UNKNOWN, VANISHED.error, None)
    assert bench.parked.bodies == {record.parked: canonical_json(parse_request(a_body()))}
    assert bench.queue.sent == []


def test_success_clears_the_faults_of_the_tenant() -> None:
    """Three faults in a month do not suspend a tenant whose mail goes out."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(faulty_requests=frozenset({"r0"}))
    bench.receive(a_queue_message())
    assert bench.providers.rows["acme"].faulty_requests == frozenset()


# -- onUnknown: resend ---------------------------------------------------------------------------------------------------


def resending(**fields: Any) -> QueueMessage:
    return a_queue_message(onUnknown="resend", **fields)


def test_a_resend_waits_until_the_worker_cannot_be_alive() -> None:
    """Deadline, the function's timeout and a minute for clocks that differ; not before."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(resending())
    queue_message, delay = bench.take()
    assert bench.record().status is Status.UNKNOWN
    assert delay == CALL_SPAN + SEND_TIMEOUT + MINUTE
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert bench.record().status is Status.UNKNOWN  # to the second: still not
    queue_message, _ = bench.take()
    bench.clock.advance(timedelta(seconds=1))
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt, bench.record().maybe_sent) == (Status.SENT, 2, True)


@pytest.fixture
def resent() -> tuple[Bench, QueueMessage]:
    """Bring a request of `resend` to where its second attempt may begin."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(resending())
    queue_message, delay = bench.take()
    bench.clock.advance(delay + timedelta(seconds=1))
    return bench, queue_message


def test_a_resent_request_that_is_rejected_ends_as_unknown(resent: tuple[Bench, QueueMessage]) -> None:
    """The first attempt may have been accepted: `failed` would be a lie. It is not tried again, whatever its caller chose."""
    bench, queue_message = resent
    bench.provider.outcomes = [REJECTED]
    bench.receive(queue_message)
    record = bench.record()
    assert (record.status, record.ended) == (Status.UNKNOWN, True)
    assert record.error is not None
    assert "recipient_rejected" in record.error.message
    assert bench.queue.sent == []
    assert record.parked in bench.parked.bodies


def test_a_resent_request_that_cannot_go_on_ends_as_unknown(resent: tuple[Bench, QueueMessage]) -> None:
    """Expired while its second attempt waited: unknown, held with its body."""
    bench, queue_message = resent
    bench.provider.outcomes = [THROTTLED]
    bench.receive(queue_message)
    queue_message, _ = bench.take()
    bench.clock.advance(timedelta(days=2))
    bench.receive(queue_message)
    record = bench.record()
    assert (record.status, record.ended, record.sweep_at) == (Status.UNKNOWN, True, None)
    assert record.error is not None
    assert record.error.code == "outcome_unknown"
    assert record.parked in bench.parked.bodies


def test_a_resend_that_is_given_up_while_its_body_is_parked_can_be_sent_by_an_operator(resent: tuple[Bench, QueueMessage]) -> None:
    """The record says where the body is: there is no message that would bring it again."""
    bench, queue_message = resent
    bench.provider_factory.error = NotSentError(ErrorInfo("config_unreadable", "the ciphertext is another's"))
    bench.providers.rows["acme"] = a_provider(faulty_requests=frozenset({"r8", "r9"}))

    def give_up(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.UNKNOWN, on_unknown="hold")

    bench.messages.before = give_up
    bench.receive(queue_message)
    assert (bench.record().status, bench.queue.sent) == (Status.UNKNOWN, [])
    assert bench.record().parked in bench.parked.bodies


def test_a_message_whose_request_was_begun_while_its_body_was_parked_comes_back() -> None:
    """It may be the newest one: should the worker that began die, nobody else would look after the request."""
    bench, tomorrow = Bench(), (NOON + timedelta(days=1)).isoformat()

    def begun(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = attempted(body=a_body(sendAt=tomorrow))

    bench.messages.before = begun
    bench.receive(a_queue_message(sendAt=tomorrow))
    assert (bench.take()[0].generation, bench.record().status) == (1, Status.SENDING)


@pytest.mark.parametrize("status", [Status.DEFERRED, Status.SENT])
@pytest.mark.parametrize("attributes", [{}, {"parked": "parked/acme/r1/own.json"}])
def test_a_request_whose_id_was_taken_while_its_body_was_parked_keeps_one_body(attributes: dict[str, Any], status: Status) -> None:
    """Its dead letter has the body in itself, or names the one in the bucket that it came with."""
    bench, tomorrow = Bench(), (NOON + timedelta(days=1)).isoformat()
    bench.parked.bodies = dict.fromkeys(attributes.values(), a_body(sendAt=tomorrow))

    def taken(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = a_record(status)

    bench.messages.before = taken
    bench.receive(a_queue_message(sendAt=tomorrow, attributes=attributes))
    [dead_letter] = bench.queue.dead_letters
    assert (dead_letter.reason, dead_letter.queue_message.parked, list(bench.parked.bodies)) == (
        "request_id_reused",
        attributes.get("parked"),
        list(attributes.values()),
    )


def test_an_unknown_that_expires_before_its_resend_is_held() -> None:
    """After expiresAt nothing is sent; the body is kept for the operator."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(resending())
    queue_message, _ = bench.take()
    bench.clock.advance(timedelta(days=2))
    bench.receive(queue_message)
    assert (bench.record().status, bench.queue.sent) == (Status.UNKNOWN, [])
    assert bench.record().parked in bench.parked.bodies


def test_a_resend_is_not_begun_with_too_little_time(resent: tuple[Bench, QueueMessage]) -> None:
    """The second attempt asks for the same time as the first."""
    bench, queue_message = resent
    bench.receive(queue_message, time_left=CALL_SPAN - timedelta(seconds=1))
    assert bench.record().status is Status.DEFERRED
    assert len(bench.provider.mails) == 1
    assert bench.take()[0].generation == queue_message.generation + 1


def test_a_resend_whose_provider_is_deleted_ends_as_unknown(resent: tuple[Bench, QueueMessage]) -> None:
    """Not as `failed: provider_deleted`: the first attempt may have been accepted."""
    bench, queue_message = resent
    bench.providers.rows = {}
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().ended, bench.queue.sent) == (Status.UNKNOWN, True, [])
    assert bench.record().parked in bench.parked.bodies


# -- what keeps a request from being tried -------------------------------------------------------------------------------


def test_an_expired_request_fails_without_a_call() -> None:
    """What nobody waits for any more is not sent."""
    bench = Bench()
    bench.clock.advance(timedelta(hours=24))
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error and record.error.code, bench.provider.mails) == (Status.FAILED, "expired", [])


def test_a_request_for_later_waits_on_the_queue_if_it_is_soon() -> None:
    """`sendAt` within 15 minutes is a delayed message."""
    bench = Bench()
    bench.receive(a_queue_message(sendAt="2026-11-24T12:10:00Z"))
    assert (bench.record().status, bench.record().due_at) == (Status.DEFERRED, NOON + 10 * MINUTE)
    assert bench.record().error is None
    assert bench.take()[1] == 10 * MINUTE


def test_a_request_for_next_week_costs_one_object_and_one_record() -> None:
    """`sendAt` further ahead is parked; the queue holds nothing of it."""
    bench = Bench()
    bench.receive(a_queue_message(sendAt="2026-12-01T12:00:00Z"))
    record = bench.record()
    assert (record.due_at, record.sweep_at, bench.queue.sent) == (NOON + timedelta(days=7), NOON + timedelta(days=7), [])
    assert list(bench.parked.bodies) == [record.parked]


@pytest.mark.parametrize("status", [ProviderStatus.SUSPENDED, ProviderStatus.DISABLED])
def test_mail_of_a_provider_that_is_off_waits_for_it(status: ProviderStatus) -> None:
    """It is parked until the provider is on again, or it expires."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(status=status)
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.waits_for, record.sweep_at) == (Status.DEFERRED, WaitsFor.PROVIDER, record.expires_at)
    assert record.parked in bench.parked.bodies
    assert (bench.provider_factory.opened, bench.queue.sent) == ([], [])


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (None, "provider_not_configured"),
        (a_provider(status=ProviderStatus.UNVERIFIED, active=None, candidate=a_config()), "provider_not_active"),
        (a_provider(status=ProviderStatus.DELETED, active=None, deleted_at=NOON), "provider_deleted"),
        (a_provider(deleted_at=NOON), "provider_deleted"),  # another was stored since
    ],
)
def test_mail_of_a_tenant_without_provider_fails_at_once(row: Any, code: str) -> None:
    """There is no default provider to fall back on."""
    bench = Bench()
    bench.providers.rows = {"acme": row} if row else {}
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, code)
    assert bench.provider.mails == []


def test_what_the_composer_refuses_fails_with_its_reason() -> None:
    """A missing attachment is found before the fence."""
    bench = Bench()
    gone = {"filename": "a.pdf", "s3": {"key": "acme/gone"}}
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello.", "attachments": [gone]}
    bench.receive(a_queue_message(message=message))
    record = bench.record()
    assert (record.status, record.error and record.error.code, record.attempt) == (Status.FAILED, "attachment_missing", 0)


@pytest.mark.parametrize(
    ("code", "status", "delay"),
    [
        ("config_unreadable", Status.DEFERRED, MINUTE),
        ("role_not_assumable", Status.DEFERRED, MINUTE),
        ("unclassified", Status.FAILED, None),
    ],
)
def test_a_config_that_cannot_be_used_keeps_the_mail_waiting(code: str, status: Status, delay: timedelta | None) -> None:
    """Whose fault it is decides: the tenant's mail waits, and the fault counts."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo(code, "so it is"))
    bench.receive(a_queue_message())
    error = bench.record().error
    assert error is not None
    assert (bench.record().status, error.code, error.message) == (status, code, "so it is")
    assert [d for _, d in bench.queue.sent] == ([delay] if delay else [])


def test_the_third_unusable_config_suspends_and_parks() -> None:
    """As after the provider's own refusals."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo("credentials_invalid", "so it is"))
    bench.receive(a_queue_message("r1"), a_queue_message("r2"), a_queue_message("r3"))
    assert [bench.record(r).waits_for for r in ("r1", "r2", "r3")] == [WaitsFor.TIME, WaitsFor.TIME, WaitsFor.PROVIDER]


MISSING_IN = "verify hello@acme.example or acme.example in SES in eu-west-1"
"""What a hint says that knows the config; the code's own hint knows no address and no region."""


def test_a_refused_mail_s_hint_names_what_its_config_lacks() -> None:
    """Whoever reads the record needs nothing else to act on it."""
    bench = Bench(outcomes=[UNVERIFIED])
    bench.receive(a_queue_message())
    assert MISSING_IN in hint_of(bench)


def test_an_unusable_role_s_hint_says_where_its_trust_policy_is() -> None:
    """The policy itself holds the tenant's ExternalId, which no record shows."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo("role_not_assumable", "so it is"))
    bench.receive(a_queue_message())
    assert hint_of(bench) == CODES["role_not_assumable"].hint


def test_mail_of_a_suspended_tenant_says_what_lifts_the_suspension() -> None:
    """As exactly as the mail that met the fault itself."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(status=ProviderStatus.SUSPENDED, error=UNVERIFIED.error)
    bench.receive(a_queue_message())
    assert MISSING_IN in hint_of(bench)


def hint_of(bench: Bench) -> str:
    error = bench.record().error
    assert error is not None
    return error.hint


def test_a_request_is_not_begun_when_the_function_s_time_runs_out() -> None:
    """It goes back as a new message, unharmed and with a record; being received again is for crashes alone."""
    bench = Bench()
    assert bench.receive(a_queue_message(), time_left=CALL_SPAN - timedelta(milliseconds=1)) == []
    assert (bench.provider.mails, bench.record().status, bench.record().due_at) == ([], Status.DEFERRED, NOON)
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay) == (1, timedelta())
    bench.receive(queue_message)
    assert bench.record().status is Status.SENT


def test_just_enough_time_is_enough() -> None:
    """The time an attempt may take, and no more, is asked for."""
    bench = Bench()
    bench.receive(a_queue_message(), time_left=CALL_SPAN)
    assert bench.record().status is Status.SENT


# -- services of ours that fail ------------------------------------------------------------------------------------------


def break_opener(bench: Bench) -> None:
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")


def break_rows(bench: Bench) -> None:
    def fail(_: Any) -> Any:
        raise DependencyError("DynamoDB", "BatchGetItem")

    bench.providers.get_many = fail  # type: ignore[method-assign]  # the port fails


def break_attachments(bench: Bench) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise DependencyError("S3", "GetObject")

    bench.attachments.fetch = fail  # type: ignore[method-assign]  # the port fails


WITH_UPLOAD = {
    "to": [{"email": "jo@example.com"}],
    "subject": "Hi",
    "text": "Hello.",
    "attachments": [{"filename": "a.pdf", "s3": {"key": "acme/a"}}],
}


@pytest.mark.parametrize("broken", [break_opener, break_rows, break_attachments])
def test_an_outage_of_ours_lets_the_request_wait_with_a_record(broken: Any) -> None:
    """It counts against nobody, and a first receive that does not reach the fence still makes a record."""
    bench = Bench()
    bench.attachments.files["acme/a"] = b"%PDF"
    broken(bench)
    assert bench.receive(a_queue_message(message=WITH_UPLOAD)) == []
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.DEFERRED, "dependency_unavailable")
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, record.due_at) == (1, timedelta(seconds=5), NOON + timedelta(seconds=5))
    assert bench.providers.rows["acme"].faulty_requests == frozenset()


def test_waits_grow_with_every_failure() -> None:
    """An outage of hours costs a few messages, not thousands."""
    bench = Bench()
    break_opener(bench)
    queue_message, delays = a_queue_message(), []
    for _ in range(10):
        bench.receive(queue_message)
        queue_message, delay = bench.take()
        delays.append(int(delay.total_seconds()))
        bench.clock.advance(delay)
    assert delays == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_messages_that_only_waited_do_not_lengthen_the_wait_after_a_failure() -> None:
    """A request that has stood in line for an hour is tried again at once like any other."""
    bench = Bench()
    break_opener(bench)
    bench.receive(a_queue_message(generation=40))
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.failures, delay) == (41, 1, timedelta(seconds=5))
    bench.clock.advance(delay)
    bench.provider_factory.error = None
    bench.receive(queue_message, time_left=timedelta())  # too late to begin: no failure
    queue_message, _ = bench.take()
    assert (queue_message.generation, queue_message.failures) == (42, 1)


def test_a_table_that_does_not_answer_keeps_the_message_alive() -> None:
    """Without a record the message waits alone."""
    bench = Bench()
    bench.messages.before = down("DynamoDB")
    break_opener(bench)
    assert bench.receive(a_queue_message()) == []
    assert bench.messages.records == {}
    assert bench.take()[0].generation == 1


def test_a_parked_body_without_a_record_also_travels_on_the_queue() -> None:
    """Nobody would fetch it: the sweeper knows records alone."""
    bench = Bench()
    bench.messages.before = down("DynamoDB")
    bench.providers.rows["acme"] = a_provider(status=ProviderStatus.SUSPENDED)
    bench.receive(a_queue_message())
    assert bench.take()[0].body == a_body()


def test_a_bucket_that_does_not_answer_leaves_the_body_on_the_queue() -> None:
    """Where it cannot be parked it comes back every 15 minutes."""
    bench = Bench(outcomes=[QUOTA])
    bench.parked.broken = True
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.parked, record.due_at, record.waits_for) == (None, NOON + 15 * MINUTE, WaitsFor.TIME)
    assert bench.take()[1] == 15 * MINUTE


@pytest.mark.parametrize("outcome", [THROTTLED, UNVERIFIED])
def test_a_queue_that_takes_nothing_gives_the_receipt_back(outcome: NotSent) -> None:
    """SQS hands this very message out again, to a record that may be tried."""
    bench = Bench(outcomes=[outcome])
    bench.queue.broken = True
    assert bench.receive(a_queue_message()) == ["message-0"]
    assert (bench.record().status, bench.record().due_at) == (Status.DEFERRED, NOON)
    bench.queue.broken = False
    assert bench.receive(Received("again", a_queue_message(), 2)) == []
    assert bench.record().status is Status.SENT


def test_a_queue_that_takes_nothing_gives_back_what_was_not_begun() -> None:
    """Neither time nor queue is left: SQS must redeliver it."""
    bench = Bench()
    bench.queue.broken = True
    assert bench.receive(a_queue_message(), time_left=timedelta(seconds=1)) == ["message-0"]


# -- an outcome that cannot be written -----------------------------------------------------------------------------------

OUTCOMES: dict[str, tuple[Outcome, Status]] = {
    "accept": (Sent("m1"), Status.SENT),
    "fail_rejected": (REJECTED, Status.FAILED),
    "defer_attempt": (THROTTLED, Status.DEFERRED),
    "mark_unknown": (VANISHED, Status.UNKNOWN),
}


def last_copy(bench: Bench) -> QueueMessage:
    queue_message = bench.queue.messages[-1]
    bench.queue.sent.clear()
    return queue_message


@pytest.mark.parametrize("rule", OUTCOMES)
def test_an_outcome_that_the_table_did_not_take_travels_as_a_proof(rule: str) -> None:
    """It is written when the message comes back, and nothing is sent again."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.before = down("DynamoDB", rule)
    assert bench.receive(a_queue_message()) == []
    assert bench.record().status is Status.SENDING
    queue_message = last_copy(bench)
    bench.messages.before = lambda _: None
    bench.clock.advance(timedelta(seconds=10))
    assert bench.receive(queue_message) == []
    assert bench.record().status is status
    assert len(bench.provider.mails) == 1


@pytest.mark.parametrize("rule", OUTCOMES)
def test_a_proof_holds_against_the_sweeper_s_unknown(rule: str) -> None:
    """Proof of the same attempt beats `unknown`."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.before = down("DynamoDB", rule)
    bench.receive(a_queue_message())
    queue_message = last_copy(bench)
    bench.messages.before = lambda _: None
    bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.UNKNOWN, sweep_at=None)
    bench.clock.advance(timedelta(hours=1))
    bench.receive(queue_message)
    assert bench.record().status is status


@pytest.mark.parametrize("rule", OUTCOMES)
def test_a_written_outcome_whose_reply_was_lost_stays_as_it_is(rule: str) -> None:
    """The proof that comes after it changes nothing and sends nothing."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.after = down("DynamoDB", rule)
    bench.receive(a_queue_message())
    written = bench.record()
    assert written.status is status
    queue_message = last_copy(bench)
    bench.messages.after = lambda _: None
    bench.receive(queue_message)
    assert bench.record().status is status
    assert len(bench.provider.mails) == 1


@pytest.mark.parametrize("rule", ["accept", "fail_rejected", "mark_unknown"])
def test_an_outcome_that_neither_table_nor_queue_took_at_first_is_not_forgotten(rule: str) -> None:
    """The queue works again a moment later: what it then takes carries the outcome, whatever the caller chose for an unknown."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.before = down("DynamoDB", rule)
    refusals = iter([True, True])  # the queue is asked twice about each message
    bench.queue.refuses = lambda _: next(refusals, False)
    assert bench.receive(a_queue_message(onUnknown="resend")) == []
    assert bench.record().status is Status.SENDING
    queue_message = last_copy(bench)
    bench.messages.before = lambda _: None
    bench.clock.advance(timedelta(seconds=10))
    assert bench.receive(queue_message) == []
    assert bench.record().status is status
    assert len(bench.provider.mails) == 1


def test_a_proof_that_cannot_be_written_yet_travels_on() -> None:
    """One message goes on with it, and only one."""
    bench = Bench()
    bench.messages.before = down("DynamoDB", "accept")
    bench.receive(a_queue_message())
    for _ in range(3):
        queue_message, _ = bench.take()
        bench.receive(queue_message)
    queue_message, _ = bench.take()
    assert (queue_message.proof is not None, queue_message.generation) == (True, 4)


def test_a_proof_outlives_a_table_that_cannot_even_be_read() -> None:
    """The message that waits for the table keeps it."""
    bench = Bench()
    bench.messages.before = down("DynamoDB", "accept")
    bench.receive(a_queue_message())
    queue_message, _ = bench.take()

    def unreadable(*_: Any) -> Any:
        raise DependencyError("DynamoDB", "GetItem")

    get, bench.messages.get = bench.messages.get, unreadable  # type: ignore[method-assign]  # the port fails
    bench.receive(queue_message)
    waiting, _ = bench.take()
    assert waiting.proof == queue_message.proof
    bench.messages.get, bench.messages.before = get, lambda _: None  # type: ignore[method-assign]  # it works again
    bench.receive(waiting)
    assert (bench.record().status, len(bench.provider.mails)) == (Status.SENT, 1)


def test_a_fence_whose_reply_was_lost_ends_as_no_unknown() -> None:
    """The worker did not call the provider, and proves it."""
    bench = Bench()
    bench.messages.after = down("DynamoDB", "begin")
    assert bench.receive(a_queue_message()) == []
    assert (bench.provider.mails, bench.record().status) == ([], Status.SENDING)
    queue_message, delay = bench.take()
    assert delay < CALL_SPAN
    bench.messages.after = lambda _: None
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert bench.record().status is Status.DEFERRED
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt, len(bench.provider.mails)) == (Status.SENT, 2, 1)


def test_a_fence_that_was_never_written_costs_a_round() -> None:
    """The proof says nothing of the record, so the message goes on like any other."""
    bench = Bench()
    bench.messages.before = down("DynamoDB", "begin")
    bench.receive(a_queue_message())
    queue_message, _ = bench.take()
    bench.messages.before = lambda _: None
    bench.receive(queue_message)
    assert (bench.record().status, len(bench.provider.mails)) == (Status.SENT, 1)


@pytest.mark.parametrize("owner", ["another", "worker-1"])
def test_a_forged_or_foreign_proof_does_not_end_a_request_unsent(owner: str) -> None:
    """Only the worker that passed the fence can say that it was not sent, and only while that is open."""
    bench = Bench(a_record())
    attributes = {"proof": f'{{"attempt": 1, "owner": "{owner}", "notSent": "recipient_rejected"}}'}
    bench.receive(a_queue_message(attributes=attributes))
    assert bench.record().status is Status.SENT


def test_proof_that_it_was_sent_stops_a_second_attempt() -> None:
    """An acceptance counts whatever the record says meanwhile."""
    bench = Bench(a_record(maybe_sent=True, attempt=1, owner="another"))
    attributes = {"proof": '{"attempt": 1, "owner": "another", "sent": "m-first"}'}
    bench.receive(a_queue_message(attributes=attributes))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails) == (Status.SENT, "m-first", [])


def a_proof_of(attempt: int, owner: str) -> dict[str, str]:
    return {"proof": f'{{"attempt": {attempt}, "owner": "{owner}", "sent": "m-proof"}}'}


def test_a_late_proof_of_an_earlier_attempt_counts() -> None:
    """The record knows the token of the last attempt alone."""
    bench = Bench(a_record(maybe_sent=True, attempt=2, owner="second"))
    bench.receive(a_queue_message(attributes=a_proof_of(1, "first")))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails) == (Status.SENT, "m-proof", [])


NOT_MADE = [(0, "worker"), (-1, "worker"), (2, "worker"), pytest.param(10**400, "worker", id="huge"), (1, "somebody else")]


@pytest.mark.parametrize(("attempt", "owner"), NOT_MADE)
def test_a_proof_of_an_attempt_that_was_not_made_ends_nothing(attempt: int, owner: str) -> None:
    """The message goes on like any other."""
    bench = Bench(a_record(Status.QUEUED, attempt=1, owner="worker", maybe_sent=True))
    bench.receive(a_queue_message(attributes=a_proof_of(attempt, owner)))
    assert (bench.record().status, bench.record().message_id, len(bench.provider.mails)) == (Status.SENT, "m1", 1)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SENDING, Status.UNKNOWN, Status.FAILED])
def test_a_proof_of_other_content_ends_nothing(status: Status) -> None:
    """The message is kept as any other that came under a requestId that stands for something else."""
    record = a_record(status, body=a_body(onUnknown="resend"), attempt=1, owner="worker", deadline=NOON)
    bench = Bench(record)
    bench.receive(a_queue_message(attributes=a_proof_of(1, "worker")))
    assert (bench.record(), bench.queue.dead_letters[0].reason) == (record, "request_id_reused")


@pytest.mark.parametrize("outcome", [Sent("m1"), REJECTED, VANISHED])
def test_neither_table_nor_queue_gives_the_receipt_back(outcome: Sent | NotSent | MaybeSent) -> None:
    """SQS keeps the message; after the deadline the record is `unknown`, and the telemetry knows what the provider said."""
    bench = Bench(outcomes=[outcome])
    bench.messages.before = down("DynamoDB", "accept", "fail_rejected", "mark_unknown")
    bench.queue.broken = True
    assert bench.receive(a_queue_message()) == ["message-0"]
    assert bench.record().status is Status.SENDING
    bench.messages.before, bench.queue.broken = lambda _: None, False
    bench.clock.advance(timedelta(minutes=6))
    bench.receive(Received("again", a_queue_message(), 2))
    assert (bench.record().status, len(bench.provider.mails)) == (Status.UNKNOWN, 1)


def test_a_fault_of_the_providers_table_after_a_send_is_not_the_request_s() -> None:
    """Counting faults is about the tenant; the request is sent all the same."""
    bench = Bench(outcomes=[Sent("m1"), UNVERIFIED])

    def fail(*_: Any) -> Any:
        raise DependencyError("DynamoDB", "UpdateItem")

    bench.providers.rows["acme"] = a_provider(faulty_requests=frozenset({"r0"}))
    bench.providers.clear_faults = fail  # type: ignore[method-assign]  # the port fails
    bench.providers.record_fault = fail  # type: ignore[method-assign]  # the port fails
    assert bench.receive(a_queue_message("r1"), a_queue_message("r2")) == []
    assert [bench.record(r).status for r in ("r1", "r2")] == [Status.SENT, Status.DEFERRED]


# -- messages that may have killed their worker ----------------------------------------------------------------------------


def test_a_bug_in_one_request_does_not_touch_its_neighbours() -> None:
    """SQS is to redeliver it, the others are sent."""

    def bug() -> Outcome:
        raise ZeroDivisionError

    bench = Bench(outcomes=[bug])
    assert bench.receive(a_queue_message("r1"), a_queue_message("r2")) == ["message-0"]
    assert bench.record("r2").status is Status.SENT
    [(step, tenant_id, error)] = bench.events("failed")
    assert (step, tenant_id, type(error)) == ("deliver", "acme", ZeroDivisionError)


def test_the_rows_of_a_batch_are_read_at_once() -> None:
    """One read for all its tenants; none where nothing could be read."""
    bench = Bench()
    bench.receive(a_queue_message("r1"), a_queue_message("r2"), a_queue_message("r3", tenant_id="other"))
    bench.receive(a_queue_message(attributes={"body": "{}"}))
    assert [set(read) for read in bench.providers.reads] == [{"acme", "other"}]
