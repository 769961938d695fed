"""The send path from the queue to the provider and back: the real services with fakes."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain import lifecycle
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


def failing(service: str, *rules: str) -> Any:
    """Return a hook of the table that fails for the named rules, or for all."""

    def fail(change: Change) -> None:
        if not rules or change.rule.name in rules:
            raise DependencyError(service, "UpdateItem")

    return fail


# -- the fence and the call ----------------------------------------------------------------------------------------------


def test_a_first_message_is_sent_once_and_recorded() -> None:
    """The usual case: no record before, one call, `sent` with the messageId, nothing requeued."""
    bench = Bench()
    assert bench.receive(a_queue_message()) == []
    record = bench.record()
    assert (record.status, record.message_id, record.attempt, record.error) == (Status.SENT, "m1", 1, None)
    assert len(bench.provider.mails) == 1
    assert bench.queue.sent == []
    assert record.sweep_at is None


def test_the_fence_is_passed_before_the_provider_is_called() -> None:
    """During the call the record is `sending`, with its owner, its deadline and the config's version."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(active=a_config(version=7))
    seen: list[Any] = []

    def read_record() -> Outcome:
        seen.append(bench.record())
        return Sent("m1")

    bench.provider.outcomes = [read_record]
    bench.receive(a_queue_message())
    [record] = seen
    assert (record.status, record.attempt, record.owner, record.provider_version) == (Status.SENDING, 1, "worker-1", 7)
    assert record.deadline == record.sweep_at == NOON + CALL_SPAN


def test_mail_is_sent_with_credentials_from_after_the_last_verify() -> None:
    """A session from before may have been revoked."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(verified_at=NOON - timedelta(days=3))
    bench.receive(a_queue_message())
    assert bench.provider_factory.since == [NOON - timedelta(days=3)]


def test_each_attempt_is_tagged_with_the_key_of_its_record() -> None:
    """SES's events thereby have tenant, request and attempt, besides the caller's tags."""
    bench = Bench(outcomes=[THROTTLED])
    bench.receive(
        a_queue_message("a.1", message={"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello.", "tags": {"campaign": "x"}})
    )
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    own = {"campaign": "x", "tenantmail-tenant": "acme", "tenantmail-request": "a_d1"}
    assert bench.provider.tags == [{**own, "tenantmail-attempt": attempt} for attempt in ("1", "2")]


def test_a_response_is_logged_before_it_is_recorded() -> None:
    """An `unknown` can thus be resolved from the log."""
    bench = Bench()
    bench.messages.before = failing("DynamoDB", "accept")
    bench.receive(a_queue_message())
    [(tenant_id, request_id, fence, outcome, _)] = bench.events("answered")
    assert (tenant_id, request_id, fence.owner, outcome) == ("acme", "r1", "worker-1", Sent("m1"))
    assert bench.events("recorded") == []


def test_a_request_of_the_api_keeps_its_record() -> None:
    """The worker updates the record that the API created as queued."""
    bench = Bench(a_record(created_at=NOON - MINUTE))
    bench.receive(a_queue_message())
    assert (bench.record().status, bench.record().created_at) == (Status.SENT, NOON - MINUTE)


def test_duplicates_in_one_batch_send_one_mail() -> None:
    """The duplicate finds the record of the first message."""
    bench = Bench()
    assert bench.receive(a_queue_message(), a_queue_message()) == []
    assert len(bench.provider.mails) == 1


def test_the_mail_is_from_the_provider_s_sender_to_the_request_s_recipients() -> None:
    """The envelope depends only on the tenant's config and the request."""
    bench = Bench()
    bench.receive(a_queue_message())
    [mail] = bench.provider.mails
    assert (mail.mail_from, mail.recipients) == ("hello@acme.example", ("jo@example.com",))


# -- outcomes ------------------------------------------------------------------------------------------------------------


def test_a_throttled_request_is_requeued_with_a_delay() -> None:
    """For up to 15 minutes: the new message has the next generation, the record the due time and the reason."""
    bench = Bench(outcomes=[THROTTLED])
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.due_at, record.generation) == (Status.DEFERRED, NOON + timedelta(seconds=5), 1)
    assert record.error is not None
    assert record.error.code == "throttled"
    assert record.deadline is None
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.body, delay) == (1, a_body(), timedelta(seconds=5))


def test_a_requeued_message_is_sent_as_the_next_attempt() -> None:
    """A deferral proves that nothing was accepted, so another attempt is allowed."""
    bench = Bench(outcomes=[THROTTLED])
    bench.receive(a_queue_message())
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt) == (Status.SENT, 2)


def test_a_used_up_quota_parks_the_body_until_it_is_due() -> None:
    """Longer waits have no message on the queue, but one object and one record, which the sweeper finds when it is due."""
    bench = Bench(outcomes=[QUOTA])
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.due_at, record.sweep_at) == (Status.DEFERRED, NOON + 3 * HOUR, NOON + 3 * HOUR)
    assert record.waits_for is WaitsFor.TIME
    assert bench.queue.sent == []
    assert bench.parked.bodies == {record.parked: canonical_json(parse_request(a_body()))}


def test_a_rejected_request_fails() -> None:
    """A permanent rejection is not retried."""
    bench = Bench(outcomes=[REJECTED])
    bench.receive(a_queue_message())
    record = bench.record()
    assert record.status is Status.FAILED
    assert record.error == REJECTED.error
    assert (bench.queue.sent, record.sweep_at, record.forget_at) == ([], None, NOON + timedelta(days=35))


def test_a_tenant_error_defers_the_request_by_a_minute() -> None:
    """The first ones are retried, and counted for the version."""
    bench = Bench(outcomes=[UNVERIFIED])
    bench.receive(a_queue_message())
    assert (bench.record().status, bench.take()[1]) == (Status.DEFERRED, MINUTE)
    assert bench.providers.rows["acme"].faulty_requests == {"r1"}


def test_the_error_that_suspends_the_provider_parks_its_request() -> None:
    """A suspended tenant's mail waits for the provider instead of a time."""
    bench = Bench(outcomes=[UNVERIFIED] * 3)
    bench.receive(a_queue_message("r1"), a_queue_message("r2"), a_queue_message("r3"))
    record = bench.record("r3")
    assert bench.providers.rows["acme"].status is ProviderStatus.SUSPENDED
    assert (record.waits_for, record.due_at, record.sweep_at) == (WaitsFor.PROVIDER, record.expires_at, record.expires_at)
    assert record.parked in bench.parked.bodies
    [(tenant_id, version, error)] = bench.events("suspended")
    assert (tenant_id, version, error.code) == ("acme", 1, UNVERIFIED.error.code)


def test_denied_large_mails_do_not_suspend() -> None:
    """Smaller mails do not need that right and are sent; the large ones wait with the statement to attach."""
    denied = NotSent(ErrorInfo("credentials_denied", "AWS denied ses:SendEmail", rights=("ses:SendEmail",)), HOUR)
    bench = Bench(outcomes=[denied] * 4)
    for request_id in ("r1", "r2", "r3", "r4"):
        bench.receive(a_queue_message(request_id))
    record = bench.record("r4")
    assert bench.providers.rows["acme"].status is ProviderStatus.ACTIVE
    assert (record.status, record.due_at, bench.providers.rows["acme"].faulty_requests) == (Status.DEFERRED, NOON + HOUR, frozenset())
    assert record.error is not None
    assert '"ses:SendEmail"' in record.error.hint


def test_repeated_errors_of_one_request_do_not_suspend() -> None:
    """Only distinct requests count."""
    bench = Bench(outcomes=[UNVERIFIED] * 4)
    bench.receive(a_queue_message())
    for _ in range(3):
        queue_message, delay = bench.take()
        bench.clock.advance(delay)
        bench.receive(queue_message)
    assert bench.providers.rows["acme"].status is ProviderStatus.ACTIVE


def test_an_unknown_outcome_is_held_with_its_body() -> None:
    """Only an operator may resend it, from the parked body."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error, record.sweep_at) == (Status.UNKNOWN, VANISHED.error, None)
    assert bench.parked.bodies == {record.parked: canonical_json(parse_request(a_body()))}
    assert bench.queue.sent == []


def test_success_clears_the_faults_of_the_tenant() -> None:
    """Three errors in a month do not suspend a tenant whose mail is sent."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(faulty_requests=frozenset({"r0"}))
    bench.receive(a_queue_message())
    assert bench.providers.rows["acme"].faulty_requests == frozenset()


# -- onUnknown: resend ---------------------------------------------------------------------------------------------------


def resending(**fields: Any) -> QueueMessage:
    return a_queue_message(onUnknown="resend", **fields)


def test_a_resend_waits_until_the_worker_is_dead() -> None:
    """It waits for the deadline, the function's timeout and a minute for clock differences."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(resending())
    queue_message, delay = bench.take()
    assert bench.record().status is Status.UNKNOWN
    assert delay == CALL_SPAN + SEND_TIMEOUT + MINUTE
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert bench.record().status is Status.UNKNOWN  # not in that second yet
    queue_message, _ = bench.take()
    bench.clock.advance(timedelta(seconds=1))
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt, bench.record().maybe_sent) == (Status.SENT, 2, True)


@pytest.fixture
def resent() -> tuple[Bench, QueueMessage]:
    """Return a request with `resend` whose second attempt may begin."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(resending())
    queue_message, delay = bench.take()
    bench.clock.advance(delay + timedelta(seconds=1))
    return bench, queue_message


def test_a_resent_request_that_is_rejected_ends_as_unknown(resent: tuple[Bench, QueueMessage]) -> None:
    """The first attempt may have been accepted, so it cannot be `failed`; it is not retried, despite `resend`."""
    bench, queue_message = resent
    bench.provider.outcomes = [REJECTED]
    bench.receive(queue_message)
    record = bench.record()
    assert (record.status, record.ended) == (Status.UNKNOWN, True)
    assert record.error is not None
    assert "recipient_rejected" in record.error.message
    assert bench.queue.sent == []
    assert record.parked in bench.parked.bodies


def test_a_resent_request_that_expires_ends_as_unknown(resent: tuple[Bench, QueueMessage]) -> None:
    """It is held with its body."""
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


def test_a_resend_that_is_given_up_during_parking_keeps_its_body(resent: tuple[Bench, QueueMessage]) -> None:
    """The record has its key for an operator, because no message is left."""
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


def test_a_message_whose_request_was_started_during_parking_is_requeued() -> None:
    """It may be the newest message, which is needed if the other worker dies."""
    bench, tomorrow = Bench(), (NOON + timedelta(days=1)).isoformat()

    def start_concurrently(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = attempted(body=a_body(sendAt=tomorrow))

    bench.messages.before = start_concurrently
    bench.receive(a_queue_message(sendAt=tomorrow))
    assert (bench.take()[0].generation, bench.record().status) == (1, Status.SENDING)


@pytest.mark.parametrize("status", [Status.DEFERRED, Status.SENT])
@pytest.mark.parametrize("attributes", [{}, {"parked": "parked/acme/r1/own.json"}])
def test_a_request_whose_id_was_taken_during_parking_has_one_body(attributes: dict[str, Any], status: Status) -> None:
    """Its dead letter has the body, or the key that the message had."""
    bench, tomorrow = Bench(), (NOON + timedelta(days=1)).isoformat()
    bench.parked.bodies = dict.fromkeys(attributes.values(), a_body(sendAt=tomorrow))

    def take_the_id(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = a_record(status)

    bench.messages.before = take_the_id
    bench.receive(a_queue_message(sendAt=tomorrow, attributes=attributes))
    [dead_letter] = bench.queue.dead_letters
    assert (dead_letter.reason, dead_letter.queue_message.parked, list(bench.parked.bodies)) == (
        "request_id_reused",
        attributes.get("parked"),
        list(attributes.values()),
    )


def test_an_unknown_that_expires_before_its_resend_is_held() -> None:
    """After expiresAt nothing is sent; the body is kept for an operator."""
    bench = Bench(outcomes=[VANISHED])
    bench.receive(resending())
    queue_message, _ = bench.take()
    bench.clock.advance(timedelta(days=2))
    bench.receive(queue_message)
    assert (bench.record().status, bench.queue.sent) == (Status.UNKNOWN, [])
    assert bench.record().parked in bench.parked.bodies


def test_a_resend_is_not_started_without_enough_time(resent: tuple[Bench, QueueMessage]) -> None:
    """The second attempt needs the same time as the first."""
    bench, queue_message = resent
    bench.receive(queue_message, time_left=CALL_SPAN - timedelta(seconds=1))
    assert bench.record().status is Status.DEFERRED
    assert len(bench.provider.mails) == 1
    assert bench.take()[0].generation == queue_message.generation + 1


def test_a_resend_whose_provider_was_deleted_ends_as_unknown(resent: tuple[Bench, QueueMessage]) -> None:
    """It does not end as `failed: provider_deleted`: the first attempt may have been accepted."""
    bench, queue_message = resent
    bench.providers.rows = {}
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().ended, bench.queue.sent) == (Status.UNKNOWN, True, [])
    assert bench.record().parked in bench.parked.bodies


# -- requests that are not attempted -------------------------------------------------------------------------------------


def test_an_expired_request_fails_without_a_call() -> None:
    """Its mail would be too late."""
    bench = Bench()
    bench.clock.advance(timedelta(hours=24))
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error and record.error.code, bench.provider.mails) == (Status.FAILED, "expired", [])


def test_a_send_at_within_15_minutes_waits_on_the_queue() -> None:
    """The message is delayed."""
    bench = Bench()
    bench.receive(a_queue_message(sendAt="2026-11-24T12:10:00Z"))
    assert (bench.record().status, bench.record().due_at) == (Status.DEFERRED, NOON + 10 * MINUTE)
    assert bench.record().error is None
    assert bench.take()[1] == 10 * MINUTE


def test_a_later_send_at_parks_the_body() -> None:
    """It needs one object and one record, and no message on the queue."""
    bench = Bench()
    bench.receive(a_queue_message(sendAt="2026-12-01T12:00:00Z"))
    record = bench.record()
    assert (record.due_at, record.sweep_at, bench.queue.sent) == (NOON + timedelta(days=7), NOON + timedelta(days=7), [])
    assert list(bench.parked.bodies) == [record.parked]


@pytest.mark.parametrize("status", [ProviderStatus.SUSPENDED, ProviderStatus.DISABLED])
def test_mail_of_an_inactive_provider_waits_for_it(status: ProviderStatus) -> None:
    """It is parked until the provider is active again, or it expires."""
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
        (a_provider(deleted_at=NOON), "provider_deleted"),  # another config was stored since
    ],
)
def test_mail_of_a_tenant_without_a_provider_fails_at_once(row: Any, code: str) -> None:
    """There is no default provider."""
    bench = Bench()
    bench.providers.rows = {"acme": row} if row else {}
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, code)
    assert bench.provider.mails == []


def test_a_mail_that_cannot_be_composed_fails_with_the_reason() -> None:
    """A missing attachment is found before the fence is passed."""
    bench = Bench()
    missing = {"filename": "a.pdf", "s3": {"key": "acme/gone"}}
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello.", "attachments": [missing]}
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
def test_mail_waits_while_the_config_is_unusable(code: str, status: Status, delay: timedelta | None) -> None:
    """The error counts towards a suspension."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo(code, "so it is"))
    bench.receive(a_queue_message())
    error = bench.record().error
    assert error is not None
    assert (bench.record().status, error.code, error.message) == (status, code, "so it is")
    assert [d for _, d in bench.queue.sent] == ([delay] if delay else [])


def test_the_third_unusable_config_suspends_and_parks() -> None:
    """This is the same as for the provider's own rejections."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo("credentials_invalid", "so it is"))
    bench.receive(a_queue_message("r1"), a_queue_message("r2"), a_queue_message("r3"))
    assert [bench.record(r).waits_for for r in ("r1", "r2", "r3")] == [WaitsFor.TIME, WaitsFor.TIME, WaitsFor.PROVIDER]


MISSING_IN = "verify hello@acme.example or acme.example in SES in eu-west-1"
"""Parts of hints that are specific to the config; the code's own hint has no address or region."""


def test_the_hint_of_a_rejected_mail_is_specific_to_its_config() -> None:
    """Readers of the record need no other information to act."""
    bench = Bench(outcomes=[UNVERIFIED])
    bench.receive(a_queue_message())
    assert MISSING_IN in hint_of(bench)


def test_the_hint_of_an_unusable_role_says_where_its_trust_policy_is() -> None:
    """The policy has the tenant's ExternalId, which records must not show."""
    bench = Bench()
    bench.provider_factory.error = NotSentError(ErrorInfo("role_not_assumable", "so it is"))
    bench.receive(a_queue_message())
    assert hint_of(bench) == CODES["role_not_assumable"].hint


def test_mail_of_a_suspended_tenant_has_the_hint_of_the_suspension() -> None:
    """The hint is as specific as that of the mail that got the error."""
    bench = Bench()
    bench.providers.rows["acme"] = a_provider(status=ProviderStatus.SUSPENDED, error=UNVERIFIED.error)
    bench.receive(a_queue_message())
    assert MISSING_IN in hint_of(bench)


def hint_of(bench: Bench) -> str:
    error = bench.record().error
    assert error is not None
    return error.hint


def test_a_request_is_not_started_shortly_before_the_function_s_timeout() -> None:
    """It is requeued with a record; redelivery is only for crashes."""
    bench = Bench()
    assert bench.receive(a_queue_message(), time_left=CALL_SPAN - timedelta(milliseconds=1)) == []
    assert (bench.provider.mails, bench.record().status, bench.record().due_at) == ([], Status.DEFERRED, NOON)
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay) == (1, timedelta())
    bench.receive(queue_message)
    assert bench.record().status is Status.SENT


def test_just_enough_time_is_enough() -> None:
    """An attempt needs exactly its maximum time."""
    bench = Bench()
    bench.receive(a_queue_message(), time_left=CALL_SPAN)
    assert bench.record().status is Status.SENT


# -- outages of our services ---------------------------------------------------------------------------------------------


def fail_provider_factory(bench: Bench) -> None:
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")


def fail_provider_rows(bench: Bench) -> None:
    def fail(_: Any) -> Any:
        raise DependencyError("DynamoDB", "BatchGetItem")

    bench.providers.get_many = fail  # type: ignore[method-assign]  # the port fails


def fail_attachments(bench: Bench) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise DependencyError("S3", "GetObject")

    bench.attachments.fetch = fail  # type: ignore[method-assign]  # the port fails


WITH_UPLOAD = {
    "to": [{"email": "jo@example.com"}],
    "subject": "Hi",
    "text": "Hello.",
    "attachments": [{"filename": "a.pdf", "s3": {"key": "acme/a"}}],
}


@pytest.mark.parametrize("outage", [fail_provider_factory, fail_provider_rows, fail_attachments])
def test_an_outage_of_ours_defers_the_request_with_a_record(outage: Any) -> None:
    """It does not count towards a suspension, and a record is made even before the fence."""
    bench = Bench()
    bench.attachments.files["acme/a"] = b"%PDF"
    outage(bench)
    assert bench.receive(a_queue_message(message=WITH_UPLOAD)) == []
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.DEFERRED, "dependency_unavailable")
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, record.due_at) == (1, timedelta(seconds=5), NOON + timedelta(seconds=5))
    assert bench.providers.rows["acme"].faulty_requests == frozenset()


def test_waits_double_with_every_failure() -> None:
    """An outage of hours costs a few messages instead of thousands."""
    bench = Bench()
    fail_provider_factory(bench)
    queue_message, delays = a_queue_message(), []
    for _ in range(10):
        bench.receive(queue_message)
        queue_message, delay = bench.take()
        delays.append(int(delay.total_seconds()))
        bench.clock.advance(delay)
    assert delays == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_waits_for_slots_do_not_lengthen_the_wait_after_a_failure() -> None:
    """A request that waited for slots is retried as soon as any other."""
    bench = Bench()
    fail_provider_factory(bench)
    bench.receive(a_queue_message(generation=40))
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.failures, delay) == (41, 1, timedelta(seconds=5))
    bench.clock.advance(delay)
    bench.provider_factory.error = None
    bench.receive(queue_message, time_left=timedelta())  # not started in time: not a failure
    queue_message, _ = bench.take()
    assert (queue_message.generation, queue_message.failures) == (42, 1)


def test_an_outage_of_the_table_requeues_the_message() -> None:
    """The message waits without a record."""
    bench = Bench()
    bench.messages.before = failing("DynamoDB")
    fail_provider_factory(bench)
    assert bench.receive(a_queue_message()) == []
    assert bench.messages.records == {}
    assert bench.take()[0].generation == 1


def test_a_parked_body_without_a_record_is_also_queued() -> None:
    """The sweeper would not find it without a record."""
    bench = Bench()
    bench.messages.before = failing("DynamoDB")
    bench.providers.rows["acme"] = a_provider(status=ProviderStatus.SUSPENDED)
    bench.receive(a_queue_message())
    assert bench.take()[0].body == a_body()


def test_an_outage_of_the_bucket_keeps_the_body_on_the_queue() -> None:
    """The message is requeued every 15 minutes until the body can be parked."""
    bench = Bench(outcomes=[QUOTA])
    bench.parked.broken = True
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.parked, record.due_at, record.waits_for) == (None, NOON + 15 * MINUTE, WaitsFor.TIME)
    assert bench.take()[1] == 15 * MINUTE


@pytest.mark.parametrize("outcome", [THROTTLED, UNVERIFIED])
def test_an_outage_of_the_queue_returns_the_message(outcome: NotSent) -> None:
    """SQS redelivers the message, and the record allows an attempt."""
    bench = Bench(outcomes=[outcome])
    bench.queue.broken = True
    assert bench.receive(a_queue_message()) == ["message-0"]
    assert (bench.record().status, bench.record().due_at) == (Status.DEFERRED, NOON)
    bench.queue.broken = False
    assert bench.receive(Received("again", a_queue_message(), 2)) == []
    assert bench.record().status is Status.SENT


def test_an_outage_of_the_queue_returns_messages_that_were_not_started() -> None:
    """Without time and queue SQS must redeliver it."""
    bench = Bench()
    bench.queue.broken = True
    assert bench.receive(a_queue_message(), time_left=timedelta(seconds=1)) == ["message-0"]


# -- outcomes that cannot be written -------------------------------------------------------------------------------------

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
def test_an_outcome_that_cannot_be_written_is_queued_as_a_proof(rule: str) -> None:
    """It is written when the message is received, and nothing is sent again."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.before = failing("DynamoDB", rule)
    assert bench.receive(a_queue_message()) == []
    assert bench.record().status is Status.SENDING
    queue_message = last_copy(bench)
    bench.messages.before = lambda _: None
    bench.clock.advance(timedelta(seconds=10))
    assert bench.receive(queue_message) == []
    assert bench.record().status is status
    assert len(bench.provider.mails) == 1


@pytest.mark.parametrize("rule", OUTCOMES)
def test_a_proof_replaces_the_sweeper_s_unknown(rule: str) -> None:
    """A proof of the same attempt replaces `unknown`."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.before = failing("DynamoDB", rule)
    bench.receive(a_queue_message())
    queue_message = last_copy(bench)
    bench.messages.before = lambda _: None
    bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.UNKNOWN, sweep_at=None)
    bench.clock.advance(timedelta(hours=1))
    bench.receive(queue_message)
    assert bench.record().status is status


@pytest.mark.parametrize("rule", OUTCOMES)
def test_a_written_outcome_whose_reply_was_lost_does_not_change(rule: str) -> None:
    """The later proof changes nothing and sends nothing."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.after = failing("DynamoDB", rule)
    bench.receive(a_queue_message())
    written = bench.record()
    assert written.status is status
    queue_message = last_copy(bench)
    bench.messages.after = lambda _: None
    bench.receive(queue_message)
    assert bench.record().status is status
    assert len(bench.provider.mails) == 1


@pytest.mark.parametrize("rule", ["accept", "fail_rejected", "mark_unknown"])
def test_an_outcome_that_neither_table_nor_queue_accepted_at_first_is_kept(rule: str) -> None:
    """The queue works again a moment later: the requeued message carries the outcome, also with `resend`."""
    outcome, status = OUTCOMES[rule]
    bench = Bench(outcomes=[outcome])
    bench.messages.before = failing("DynamoDB", rule)
    refusals = iter([True, True])  # `refuses` is called twice for each message
    bench.queue.refuses = lambda _: next(refusals, False)
    assert bench.receive(a_queue_message(onUnknown="resend")) == []
    assert bench.record().status is Status.SENDING
    queue_message = last_copy(bench)
    bench.messages.before = lambda _: None
    bench.clock.advance(timedelta(seconds=10))
    assert bench.receive(queue_message) == []
    assert bench.record().status is status
    assert len(bench.provider.mails) == 1


def test_a_proof_that_cannot_be_written_yet_is_requeued() -> None:
    """Exactly one message carries it on."""
    bench = Bench()
    bench.messages.before = failing("DynamoDB", "accept")
    bench.receive(a_queue_message())
    for _ in range(3):
        queue_message, _ = bench.take()
        bench.receive(queue_message)
    queue_message, _ = bench.take()
    assert (queue_message.proof is not None, queue_message.generation) == (True, 4)


def test_a_proof_is_kept_while_the_table_cannot_be_read() -> None:
    """The requeued message keeps it."""
    bench = Bench()
    bench.messages.before = failing("DynamoDB", "accept")
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


def test_a_fence_whose_reply_was_lost_causes_no_unknown() -> None:
    """The worker did not call the provider, and proves it."""
    bench = Bench()
    bench.messages.after = failing("DynamoDB", "begin")
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


def test_a_fence_that_was_not_written_costs_one_message() -> None:
    """The proof does not match the record, so the message is handled like any other."""
    bench = Bench()
    bench.messages.before = failing("DynamoDB", "begin")
    bench.receive(a_queue_message())
    queue_message, _ = bench.take()
    bench.messages.before = lambda _: None
    bench.receive(queue_message)
    assert (bench.record().status, len(bench.provider.mails)) == (Status.SENT, 1)


@pytest.mark.parametrize("owner", ["another", "worker-1"])
def test_a_forged_or_foreign_proof_does_not_end_a_request_unsent(owner: str) -> None:
    """Only the worker that passed the fence can prove that it was not sent."""
    bench = Bench(a_record())
    attributes = {"proof": f'{{"attempt": 1, "owner": "{owner}", "notSent": "recipient_rejected"}}'}
    bench.receive(a_queue_message(attributes=attributes))
    assert bench.record().status is Status.SENT


def test_a_proof_of_acceptance_prevents_a_second_attempt() -> None:
    """An acceptance counts in any status of the record."""
    bench = Bench(a_record(maybe_sent=True, attempt=1, owner="another"))
    attributes = {"proof": '{"attempt": 1, "owner": "another", "sent": "m-first"}'}
    bench.receive(a_queue_message(attributes=attributes))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails) == (Status.SENT, "m-first", [])


def a_proof_of(attempt: int, owner: str) -> dict[str, str]:
    return {"proof": f'{{"attempt": {attempt}, "owner": "{owner}", "sent": "m-proof"}}'}


def test_a_late_proof_of_an_earlier_attempt_counts() -> None:
    """The record has only the owner of the last attempt."""
    bench = Bench(a_record(maybe_sent=True, attempt=2, owner="second"))
    bench.receive(a_queue_message(attributes=a_proof_of(1, "first")))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails) == (Status.SENT, "m-proof", [])


NEVER_MADE = [(0, "worker"), (-1, "worker"), (2, "worker"), pytest.param(10**400, "worker", id="huge"), (1, "somebody else")]


@pytest.mark.parametrize(("attempt", "owner"), NEVER_MADE)
def test_a_proof_of_an_attempt_that_was_not_made_is_ignored(attempt: int, owner: str) -> None:
    """The message is handled like any other."""
    bench = Bench(a_record(Status.QUEUED, attempt=1, owner="worker", maybe_sent=True))
    bench.receive(a_queue_message(attributes=a_proof_of(attempt, owner)))
    assert (bench.record().status, bench.record().message_id, len(bench.provider.mails)) == (Status.SENT, "m1", 1)


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN])
@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_a_proof_of_another_worker_does_not_end_the_open_attempt(status: Status, attempt: int) -> None:
    """The attempt in hand is its owner's, whatever number the proof names."""
    bench = Bench(a_record(status, attempt=1, owner="worker", deadline=NOON + timedelta(seconds=20)))
    bench.receive(a_queue_message(attributes=a_proof_of(attempt, "somebody else")))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails) == (status, None, [])


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SENDING, Status.UNKNOWN, Status.FAILED])
def test_a_proof_of_other_content_is_ignored(status: Status) -> None:
    """The message is dead-lettered like any other with a reused requestId."""
    record = a_record(status, body=a_body(onUnknown="resend"), attempt=1, owner="worker", deadline=NOON)
    bench = Bench(record)
    bench.receive(a_queue_message(attributes=a_proof_of(1, "worker")))
    assert (bench.record(), bench.queue.dead_letters[0].reason) == (record, "request_id_reused")


@pytest.mark.parametrize("outcome", [Sent("m1"), REJECTED, VANISHED])
def test_an_outage_of_table_and_queue_returns_the_message(outcome: Sent | NotSent | MaybeSent) -> None:
    """SQS redelivers the message; after the deadline the record is `unknown`, and the log has the provider's response."""
    bench = Bench(outcomes=[outcome])
    bench.messages.before = failing("DynamoDB", "accept", "fail_rejected", "mark_unknown")
    bench.queue.broken = True
    assert bench.receive(a_queue_message()) == ["message-0"]
    assert bench.record().status is Status.SENDING
    bench.messages.before, bench.queue.broken = lambda _: None, False
    bench.clock.advance(timedelta(minutes=6))
    bench.receive(Received("again", a_queue_message(), 2))
    assert (bench.record().status, len(bench.provider.mails)) == (Status.UNKNOWN, 1)


def test_a_failure_of_the_providers_table_does_not_affect_the_request() -> None:
    """Errors are counted after the send; the request is still recorded as sent."""
    bench = Bench(outcomes=[Sent("m1"), UNVERIFIED])

    def fail(*_: Any) -> Any:
        raise DependencyError("DynamoDB", "UpdateItem")

    bench.providers.rows["acme"] = a_provider(faulty_requests=frozenset({"r0"}))
    bench.providers.clear_faults = fail  # type: ignore[method-assign]  # the port fails
    bench.providers.record_fault = fail  # type: ignore[method-assign]  # the port fails
    assert bench.receive(a_queue_message("r1"), a_queue_message("r2")) == []
    assert [bench.record(r).status for r in ("r1", "r2")] == [Status.SENT, Status.DEFERRED]


# -- exceptions and batches ----------------------------------------------------------------------------------------------


def test_an_exception_affects_only_its_own_request() -> None:
    """SQS redelivers its message, the others are sent."""

    def raise_exception() -> Outcome:
        raise ZeroDivisionError

    bench = Bench(outcomes=[raise_exception])
    assert bench.receive(a_queue_message("r1"), a_queue_message("r2")) == ["message-0"]
    assert bench.record("r2").status is Status.SENT
    [(step, tenant_id, error)] = bench.events("failed")
    assert (step, tenant_id, type(error)) == ("deliver", "acme", ZeroDivisionError)


def test_the_rows_of_a_batch_are_read_at_once() -> None:
    """There is one read for all its tenants, and none if no body is valid."""
    bench = Bench()
    bench.receive(a_queue_message("r1"), a_queue_message("r2"), a_queue_message("r3", tenant_id="other"))
    bench.receive(a_queue_message(attributes={"body": "{}"}))
    assert [set(read) for read in bench.providers.reads] == [{"acme", "other"}]


def test_a_suspended_row_of_a_later_version_does_not_stop_its_batch() -> None:
    """Its credentials are of a kind for which there is no hint here."""
    bench = Bench()
    row = a_provider(
        "bravo",
        ProviderStatus.SUSPENDED,
        active=a_config(credentials={"type": "oidc"}),
        error=ErrorInfo("credentials_denied", "AWS denied ses:SendRawEmail"),
    )
    bench.providers.rows["bravo"] = row
    assert bench.receive(a_queue_message(tenant_id="bravo"), a_queue_message("r2")) == []
    waits = bench.messages.records["bravo", "r1"]
    assert (waits.status, waits.error, bench.record("r2").status) == (Status.DEFERRED, row.error, Status.SENT)


def test_errors_of_a_batch_from_before_a_verify_do_not_suspend() -> None:
    """It goes on with the session that may have been revoked; that is no fault of what was verified."""

    def denied_after_a_verify() -> Outcome:
        row = bench.providers.rows["acme"]
        if row.verified_at != bench.clock.now():
            bench.providers.rows["acme"] = lifecycle.verify(row, 1, lifecycle.VerificationResult(at=bench.clock.now()))
        return UNVERIFIED

    bench = Bench()
    bench.providers.rows["acme"] = a_provider(verified_at=NOON - HOUR)
    bench.provider.outcomes = [denied_after_a_verify] * 3
    bench.receive(*(a_queue_message(f"r{number}") for number in range(3)))
    row = bench.providers.rows["acme"]
    assert (row.verified_at, row.status) == (NOON, ProviderStatus.ACTIVE)
