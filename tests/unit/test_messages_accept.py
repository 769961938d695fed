"""Accepting requests: the queue first, the record second, each request by itself."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Change, Status
from mailer.domain.errors import DependencyError, RequestError
from mailer.domain.message import HASH_SCHEME, MAX_BODY, canonical_json, content_hash, parse_request
from mailer.domain.provider import ProviderStatus
from mailer.services.api.messages import Accepted, accept, accept_batch
from support.fakes.messages import a_body, a_send, fake_deps
from support.fakes.ports import NOON, FakeMessagesTable, FakeProvidersTable, FakeSendQueue, a_config, a_delivery, a_provider


class FailingTable(FakeMessagesTable):
    """A table with failing reads, all or of one id."""

    def __init__(self, failing_id: str | None = None) -> None:
        super().__init__()
        self.failing_id = failing_id

    def get(self, tenant_id: str, request_id: str) -> Any:
        if self.failing_id in (None, request_id):
            raise DependencyError("DynamoDB", "GetItem")
        return super().get(tenant_id, request_id)


SIZE_WITHOUT_TEXT = len(canonical_json(a_send(message={"text": ""})))
"""Bytes of a queued request without its text."""


def fail(_: Change) -> None:
    raise DependencyError("DynamoDB", "UpdateItem")


def codes(results: Any) -> list[str]:
    return [result.code if isinstance(result, RequestError) else type(result).__name__ for result in results]


def test_an_accepted_request_is_queued_unchanged() -> None:
    """The message has the whole request with its ids, and the attributes that the consumer needs."""
    deps = fake_deps()
    accept(a_send(), deps, correlation_id="c-1")
    [(queue_message, delay)] = deps.queue.sent
    assert json.loads(queue_message.body) == {"tenantId": "acme", **a_body("r1")}
    assert (queue_message.tenant_id, queue_message.created_at, queue_message.generation, queue_message.correlation_id) == (
        "acme",
        NOON,
        0,
        "c-1",
    )
    assert delay == timedelta()


def test_the_consumer_finds_the_same_content_in_the_message() -> None:
    """The record's hash is that of the queued body; otherwise the fence would reject it."""
    deps = fake_deps()
    record = accept(a_send(), deps).record
    assert content_hash(parse_request(deps.queue.messages[0].body)) == record.content_hash


def test_an_accepted_request_has_a_record() -> None:
    """The record is created as queued, equal to the consumer's."""
    deps = fake_deps()
    send = a_send(onUnknown="resend", message={"to": [{"email": "a@example.com"}, {"email": "b@example.com"}]})
    accepted = accept(send, deps, correlation_id="c-1")
    assert not accepted.replayed
    record = deps.messages.get("acme", "r1")
    assert record == accepted.record
    assert (record.status, record.recipients, record.on_unknown, record.correlation_id) == (Status.QUEUED, 2, "resend", "c-1")
    assert (record.created_at, record.expires_at) == (NOON, NOON + timedelta(hours=24))


def test_times_are_kept_to_the_millisecond() -> None:
    """Queue and table have milliseconds: with finer times the consumer's record would seem to be another call's."""
    deps = fake_deps()
    deps.clock.advance(timedelta(microseconds=1_234_567))
    accept(a_send(), deps)
    assert deps.queue.messages[0].created_at.microsecond == 234_000
    assert deps.messages.get("acme", "r1").created_at == deps.queue.messages[0].created_at


def test_the_request_is_queued_before_the_record_is_written() -> None:
    """A request that SQS rejects is an error and leaves no record."""
    deps = fake_deps(queue=FakeSendQueue(broken=True))
    with pytest.raises(DependencyError):
        accept(a_send(), deps)
    assert not deps.messages.records


def test_a_failed_record_write_is_still_a_success() -> None:
    """Once queued, the response is 202: a caller that retried without its own id would send the mail twice."""
    deps = fake_deps()
    deps.messages.before = fail
    accepted = accept(a_send(), deps)
    assert (accepted.record.status, accepted.record.request_id, accepted.replayed) == (Status.QUEUED, "r1", False)
    assert deps.queue.messages
    assert [event for event, _ in deps.telemetry.entries] == ["failed"]


def test_nothing_is_queued_if_the_table_cannot_be_read() -> None:
    """Without the record it is not known whether the id is used."""
    deps = fake_deps(messages=FailingTable())
    with pytest.raises(DependencyError):
        accept(a_send(), deps)
    assert not deps.queue.messages


# ── replays ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replay_returns_the_first_record() -> None:
    """A retry gets the first response, and nothing is queued twice."""
    deps = fake_deps()
    first = accept(a_send(), deps).record
    deps.clock.advance(timedelta(minutes=5))
    again = accept(a_send(), deps)
    assert again == Accepted(first, replayed=True)
    assert len(deps.queue.messages) == 1


def test_a_replay_returns_the_current_status() -> None:
    """The record is read at the time of the replay."""
    deps = fake_deps()
    record = accept(a_send(), deps).record
    deps.messages.records["acme", "r1"] = replace(record, status=Status.SENT, message_id="0100")
    assert accept(a_send(), deps).record.message_id == "0100"


WITHOUT_ACTIVE_CONFIG = [
    FakeProvidersTable(),
    FakeProvidersTable(a_provider(status=ProviderStatus.DELETED, active=None, deleted_at=NOON)),
    FakeProvidersTable(a_provider(status=ProviderStatus.UNVERIFIED, active=None)),
]


@pytest.mark.parametrize("providers", WITHOUT_ACTIVE_CONFIG)
@pytest.mark.parametrize("status", list(Status))
def test_a_replay_is_accepted_with_any_times_and_provider(providers: FakeProvidersTable, status: Status) -> None:
    """After a rejection the caller would send the mail again with another id."""
    deps = fake_deps()
    times = {"sendAt": (NOON + timedelta(hours=1)).isoformat(), "expiresAt": (NOON + timedelta(hours=2)).isoformat()}
    first = replace(accept(a_send(**times), deps).record, status=status)
    deps.messages.records["acme", "r1"] = first
    later = replace(deps, providers=providers)
    later.clock.advance(timedelta(days=30))
    [alone, again] = accept_batch([a_send(**times), a_send(**times)], later)
    assert alone == again == Accepted(first, replayed=True)
    assert len(deps.queue.messages) == 1


def test_a_replay_does_not_read_the_providers_table() -> None:
    """Only a new request is checked against the provider."""
    deps = fake_deps()
    accept(a_send(), deps)
    assert accept(a_send(), replace(deps, providers=None)).replayed


def test_a_new_request_whose_time_has_passed_is_refused() -> None:
    """It could never be sent; nothing is recorded, so the id can be used again."""
    deps = fake_deps()
    with pytest.raises(RequestError) as refusal:
        accept(a_send(expiresAt=NOON.isoformat()), deps)
    assert [problem.path for problem in refusal.value.problems] == ["expiresAt"]
    assert not accept(a_send(expiresAt=(NOON + timedelta(hours=1)).isoformat()), deps).replayed


def test_other_content_under_the_same_id_is_refused() -> None:
    """The first request does not change."""
    deps = fake_deps()
    accept(a_send(), deps)
    with pytest.raises(RequestError) as refusal:
        accept(a_send(message={"subject": "Other"}), deps)
    assert refusal.value.code == "request_id_reused"
    assert len(deps.queue.messages) == 1


def test_each_tenant_has_its_own_ids() -> None:
    """Two tenants may use the same id."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(), a_provider("bravo")))
    accept(a_send(), deps)
    other = parse_request(json.dumps({"tenantId": "bravo", **a_body("r1", message={"subject": "Other"})}))
    assert not accept(other, deps).replayed


def test_a_record_of_a_faster_consumer_is_not_a_replay() -> None:
    """The consumer may write this call's record before the API does."""
    deps = fake_deps()
    deps.messages.before = write_by_the_consumer(deps, NOON)
    accepted = accept(a_send(), deps)
    assert (accepted.record.status, accepted.replayed) == (Status.SENT, False)


@pytest.mark.parametrize("status", list(Status))
def test_a_call_that_lost_a_race_is_a_replay(status: Status) -> None:
    """Of two equal concurrent calls the later returns the record of the earlier, in any status, and does not change it."""
    deps = fake_deps()
    deps.messages.before = write_by_the_consumer(deps, NOON - timedelta(seconds=1), status)
    result = accept(a_send(), deps)
    assert (result.replayed, result.record.status, deps.messages.changes) == (True, status, [])


def test_a_call_that_lost_a_race_to_other_content_is_refused() -> None:
    """Of two concurrent calls with different content one is accepted, and the other's id is in use."""
    deps = fake_deps()
    deps.messages.before = write_by_the_consumer(deps, NOON, content_hash=f"{HASH_SCHEME}:other")
    with pytest.raises(RequestError) as refusal:
        accept(a_send(), deps)
    assert refusal.value.code == "request_id_reused"


def write_by_the_consumer(deps: Any, created_at: Any, status: Status = Status.SENT, **fields: Any) -> Any:
    """Return a hook that writes the consumer's record before the change."""

    def write(change: Change) -> None:
        initial = {**change.initial_fields, "created_at": created_at, **fields}
        deps.messages.records["acme", "r1"] = a_delivery("r1", status, **initial)

    return write


# ── times and sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("send_in", "delay"),
    [
        (timedelta(seconds=-60), timedelta()),
        (timedelta(seconds=600), timedelta(seconds=600)),
        (timedelta(seconds=900), timedelta(seconds=900)),
        (timedelta(seconds=901), timedelta()),
        (timedelta(days=7), timedelta()),
    ],
)
def test_a_send_at_within_15_minutes_delays_the_message(send_in: timedelta, delay: timedelta) -> None:
    """With a later `sendAt` the message is not delayed: the consumer parks the body until it is due."""
    deps = fake_deps()
    accept(a_send(sendAt=(NOON + send_in).isoformat()), deps)
    assert deps.queue.sent[0][1] == delay


def test_a_time_too_far_ahead_is_refused() -> None:
    """`sendAt` is at most 7 days ahead; a rejected request is not queued."""
    deps = fake_deps()
    with pytest.raises(RequestError) as refusal:
        accept(a_send(sendAt=(NOON + timedelta(days=8)).isoformat()), deps)
    assert [problem.path for problem in refusal.value.problems] == ["sendAt"]
    assert not deps.queue.messages


def test_a_body_of_the_queue_s_maximum_size_is_accepted() -> None:
    """The limit is exact, and applies to the queued form."""
    deps = fake_deps()
    accept(a_send(message={"text": "x" * (MAX_BODY - SIZE_WITHOUT_TEXT)}), deps)
    assert len(deps.queue.messages[0].body) == MAX_BODY


def test_a_larger_body_is_refused_with_both_sizes_and_the_upload() -> None:
    """The hint names the upload."""
    deps = fake_deps()
    with pytest.raises(RequestError) as refusal:
        accept(a_send(message={"text": "x" * (MAX_BODY - SIZE_WITHOUT_TEXT + 1)}), deps)
    assert refusal.value.code == "message_too_large"
    text = str(refusal.value)
    assert str(MAX_BODY + 1) in text
    assert str(MAX_BODY) in text
    assert "attachments" in text


# ── the provider ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "provider_not_configured"),
        ([a_provider(status=ProviderStatus.DELETED, active=None, deleted_at=NOON - timedelta(days=1))], "provider_not_configured"),
        ([a_provider(status=ProviderStatus.UNVERIFIED, active=None)], "provider_not_active"),
    ],
)
def test_without_an_active_provider_a_request_is_refused(rows: list[Any], code: str) -> None:
    """Nothing is queued if the provider was never active."""
    deps = fake_deps(providers=FakeProvidersTable(*rows))
    with pytest.raises(RequestError) as refusal:
        accept(a_send(), deps)
    assert refusal.value.code == code
    assert not deps.queue.messages


@pytest.mark.parametrize("status", [ProviderStatus.DISABLED, ProviderStatus.SUSPENDED])
def test_mail_for_an_inactive_provider_is_accepted(status: ProviderStatus) -> None:
    """A disabled or suspended provider only delays its mail."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(status=status)))
    assert accept(a_send(), deps).record.status is Status.QUEUED


TAGGED = {"tags": {"campaign": "spring"}}


@pytest.mark.parametrize("status", [ProviderStatus.ACTIVE, ProviderStatus.DISABLED, ProviderStatus.SUSPENDED])
def test_tags_without_a_configuration_set_are_refused(status: ProviderStatus) -> None:
    """Without one SES reports no events and silently drops the tags."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(status=status)))
    [tagged, plain] = accept_batch([a_send("r1", message=TAGGED), a_send("r2")], deps)
    assert isinstance(tagged, RequestError)
    assert (tagged.code, [problem.path for problem in tagged.problems]) == ("invalid_request", ["message.tags"])
    assert isinstance(plain, Accepted)
    assert len(deps.queue.messages) == 1


@pytest.mark.parametrize("config", [a_config(configuration_set="events"), a_config(provider="smtp", region="")])
def test_tags_with_a_configuration_set_are_accepted(config: Any) -> None:
    """They are also accepted for SMTP, which replaces SES on a development stack."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(active=config)))
    assert not accept(a_send(message=TAGGED), deps).replayed


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_has_one_result_per_request_in_order() -> None:
    """One request's problem does not affect the others."""
    deps = fake_deps()
    accept(a_send("taken", message={"subject": "Other"}), deps)
    late = (NOON + timedelta(days=8)).isoformat()
    results = accept_batch([a_send("a"), a_send("late", sendAt=late), a_send("taken"), a_send("b")], deps)
    assert codes(results) == ["Accepted", "invalid_request", "request_id_reused", "Accepted"]
    assert {request_id for _, request_id in deps.messages.records} == {"taken", "a", "b"}


def test_a_message_that_sqs_rejects_fails_alone() -> None:
    """A partly failed SQS call fails only the rejected messages."""
    deps = fake_deps(queue=FakeSendQueue(refuses=lambda queue_message: '"requestId":"b"' in queue_message.body))
    results = accept_batch([a_send("a"), a_send("b"), a_send("c")], deps)
    assert codes(results) == ["Accepted", "DependencyError", "Accepted"]
    assert ("acme", "b") not in deps.messages.records


def test_a_repeated_request_in_a_batch_is_a_replay() -> None:
    """A repeated id behaves as in two successive calls."""
    deps = fake_deps()
    results = accept_batch([a_send("a"), a_send("a"), a_send("b")], deps)
    assert [(a.record.request_id, a.replayed) for a in results] == [("a", False), ("a", True), ("b", False)]
    assert len(deps.queue.messages) == 2


def test_other_content_with_an_id_of_the_same_batch_is_refused() -> None:
    """The first one wins, as in two successive calls."""
    deps = fake_deps()
    results = accept_batch([a_send("a"), a_send("a", message={"subject": "Other"}), a_send("a")], deps)
    assert codes(results) == ["Accepted", "request_id_reused", "Accepted"]
    assert len(deps.queue.messages) == 1


def test_a_batch_without_a_provider_refuses_each() -> None:
    """Problems of single requests are still reported separately."""
    deps = fake_deps(providers=FakeProvidersTable())
    late = (NOON + timedelta(days=8)).isoformat()
    results = accept_batch([a_send("a"), a_send("late", sendAt=late)], deps)
    assert codes(results) == ["provider_not_configured", "invalid_request"]


def test_a_failed_read_fails_one_request() -> None:
    """A table that fails for one id does not fail the batch."""
    results = accept_batch([a_send("a"), a_send("b")], fake_deps(messages=FailingTable("b")))
    assert codes(results) == ["Accepted", "DependencyError"]
