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


class LostTable(FakeMessagesTable):
    """A table whose reads fail, all or for one id."""

    def __init__(self, lost: str | None = None) -> None:
        super().__init__()
        self.lost = lost

    def get(self, tenant_id: str, request_id: str) -> Any:
        if self.lost in (None, request_id):
            raise DependencyError("DynamoDB", "GetItem")
        return super().get(tenant_id, request_id)


WRITTEN = len(canonical_json(a_send(message={"text": ""})))
"""Bytes of a request that is all but its text."""


def lose(_: Change) -> None:
    raise DependencyError("DynamoDB", "UpdateItem")


def codes(answers: Any) -> list[str]:
    return [answer.code if isinstance(answer, RequestError) else type(answer).__name__ for answer in answers]


def test_an_accepted_request_is_on_the_queue_as_it_was_asked_for() -> None:
    """The message holds the whole request with its ids, and the attributes that the consumer needs."""
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
    """The hash of the record is that of the queued body, else the fence would refuse it."""
    deps = fake_deps()
    record = accept(a_send(), deps).record
    assert content_hash(parse_request(deps.queue.messages[0].body)) == record.content_hash


def test_an_accepted_request_has_a_record() -> None:
    """The record is created queued, with what the consumer would write."""
    deps = fake_deps()
    send = a_send(onUnknown="resend", message={"to": [{"email": "a@example.com"}, {"email": "b@example.com"}]})
    accepted = accept(send, deps, correlation_id="c-1")
    assert not accepted.replayed
    record = deps.messages.get("acme", "r1")
    assert record == accepted.record
    assert (record.status, record.recipients, record.on_unknown, record.correlation_id) == (Status.QUEUED, 2, "resend", "c-1")
    assert (record.created_at, record.expires_at) == (NOON, NOON + timedelta(hours=24))


def test_times_are_kept_to_the_millisecond() -> None:
    """Queue and table keep milliseconds: finer times would make the consumer's record look like another call's."""
    deps = fake_deps()
    deps.clock.advance(timedelta(microseconds=1_234_567))
    accept(a_send(), deps)
    assert deps.queue.messages[0].created_at.microsecond == 234_000
    assert deps.messages.get("acme", "r1").created_at == deps.queue.messages[0].created_at


def test_the_queue_comes_first() -> None:
    """A request that SQS did not take leaves no record behind, and is no success."""
    deps = fake_deps(queue=FakeSendQueue(broken=True))
    with pytest.raises(DependencyError):
        accept(a_send(), deps)
    assert not deps.messages.records


def test_a_lost_record_is_a_success_all_the_same() -> None:
    """Once queued, the answer is 202: a caller who retried without an id of its own would send the mail twice."""
    deps = fake_deps()
    deps.messages.before = lose
    accepted = accept(a_send(), deps)
    assert (accepted.record.status, accepted.record.request_id, accepted.replayed) == (Status.QUEUED, "r1", False)
    assert deps.queue.messages
    assert [event for event, _ in deps.telemetry.entries] == ["failed"]


def test_nothing_is_queued_while_nobody_knows_whether_the_id_is_taken() -> None:
    """A table that cannot be read refuses the request before it is queued."""
    deps = fake_deps(messages=LostTable())
    with pytest.raises(DependencyError):
        accept(a_send(), deps)
    assert not deps.queue.messages


# ── replays ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_request_again_is_answered_with_the_first_record() -> None:
    """A retry is answered as the first call was, and nothing is queued twice."""
    deps = fake_deps()
    first = accept(a_send(), deps).record
    deps.clock.advance(timedelta(minutes=5))
    again = accept(a_send(), deps)
    assert again == Accepted(first, replayed=True)
    assert len(deps.queue.messages) == 1


def test_a_retry_sees_how_far_the_request_has_come() -> None:
    """The record of a replay is the one that stands now."""
    deps = fake_deps()
    record = accept(a_send(), deps).record
    deps.messages.records["acme", "r1"] = replace(record, status=Status.SENT, message_id="0100")
    assert accept(a_send(), deps).record.message_id == "0100"


GONE = [
    FakeProvidersTable(),
    FakeProvidersTable(a_provider(status=ProviderStatus.DELETED, active=None, deleted_at=NOON)),
    FakeProvidersTable(a_provider(status=ProviderStatus.UNVERIFIED, active=None)),
]


@pytest.mark.parametrize("providers", GONE)
@pytest.mark.parametrize("status", list(Status))
def test_a_replay_has_the_first_result_whatever_has_become_of_times_and_provider(providers: FakeProvidersTable, status: Status) -> None:
    """A refusal would make its caller send the mail once more, under another id."""
    deps = fake_deps()
    times = {"sendAt": (NOON + timedelta(hours=1)).isoformat(), "expiresAt": (NOON + timedelta(hours=2)).isoformat()}
    first = replace(accept(a_send(**times), deps).record, status=status)
    deps.messages.records["acme", "r1"] = first
    later = replace(deps, providers=providers)
    later.clock.advance(timedelta(days=30))
    [alone, again] = accept_batch([a_send(**times), a_send(**times)], later)
    assert alone == again == Accepted(first, replayed=True)
    assert len(deps.queue.messages) == 1


def test_a_replay_needs_no_providers_table() -> None:
    """Only a request that goes on the queue is measured by the provider."""
    deps = fake_deps()
    accept(a_send(), deps)
    assert accept(a_send(), replace(deps, providers=None)).replayed


def test_a_new_request_whose_time_has_passed_is_refused() -> None:
    """It could never go out; nothing is recorded, so the id stays free."""
    deps = fake_deps()
    with pytest.raises(RequestError) as refusal:
        accept(a_send(expiresAt=NOON.isoformat()), deps)
    assert [problem.path for problem in refusal.value.problems] == ["expiresAt"]
    assert not accept(a_send(expiresAt=(NOON + timedelta(hours=1)).isoformat()), deps).replayed


def test_another_content_under_the_same_id_is_refused() -> None:
    """An id stands for one content; the first request is untouched."""
    deps = fake_deps()
    accept(a_send(), deps)
    with pytest.raises(RequestError) as refusal:
        accept(a_send(message={"subject": "Other"}), deps)
    assert refusal.value.code == "request_id_reused"
    assert len(deps.queue.messages) == 1


def test_the_ids_of_tenants_are_their_own() -> None:
    """Two tenants may use the same id."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(), a_provider("bravo")))
    accept(a_send(), deps)
    other = parse_request(json.dumps({"tenantId": "bravo", **a_body("r1", message={"subject": "Other"})}))
    assert not accept(other, deps).replayed


def test_a_consumer_that_was_faster_makes_no_replay_of_it() -> None:
    """The consumer may write the record before we do; that record is of this very call."""
    deps = fake_deps()
    deps.messages.before = fast_consumer(deps, NOON)
    accepted = accept(a_send(), deps)
    assert (accepted.record.status, accepted.replayed) == (Status.SENT, False)


@pytest.mark.parametrize("status", list(Status))
def test_a_call_that_lost_a_race_is_a_replay(status: Status) -> None:
    """Two equal calls at once: the later is answered with the record of the earlier, however far that has come, and leaves it alone."""
    deps = fake_deps()
    deps.messages.before = fast_consumer(deps, NOON - timedelta(seconds=1), status)
    answer = accept(a_send(), deps)
    assert (answer.replayed, answer.record.status, deps.messages.changes) == (True, status, [])


def test_a_call_that_lost_a_race_to_other_content_is_refused() -> None:
    """Two calls with other content at once: one is accepted, the other learns that its id is taken."""
    deps = fake_deps()
    deps.messages.before = fast_consumer(deps, NOON, content_hash=f"{HASH_SCHEME}:other")
    with pytest.raises(RequestError) as refusal:
        accept(a_send(), deps)
    assert refusal.value.code == "request_id_reused"


def fast_consumer(deps: Any, created_at: Any, status: Status = Status.SENT, **fields: Any) -> Any:
    """Put a record where the change wants to make one."""

    def write(change: Change) -> None:
        born = {**change.initial_fields, "created_at": created_at, **fields}
        deps.messages.records["acme", "r1"] = a_delivery("r1", status, **born)

    return write


# ── times and sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ahead", "delay"),
    [
        (timedelta(seconds=-60), timedelta()),
        (timedelta(seconds=600), timedelta(seconds=600)),
        (timedelta(seconds=900), timedelta(seconds=900)),
        (timedelta(seconds=901), timedelta()),
        (timedelta(days=7), timedelta()),
    ],
)
def test_the_queue_holds_back_what_it_can_hold_back(ahead: timedelta, delay: timedelta) -> None:
    """A later `sendAt` goes out at once: the consumer parks the body and notes when it is due."""
    deps = fake_deps()
    accept(a_send(sendAt=(NOON + ahead).isoformat()), deps)
    assert deps.queue.sent[0][1] == delay


def test_a_time_too_far_ahead_is_refused() -> None:
    """`sendAt` is at most 7 days ahead; nothing of a refused request is queued."""
    deps = fake_deps()
    with pytest.raises(RequestError) as refusal:
        accept(a_send(sendAt=(NOON + timedelta(days=8)).isoformat()), deps)
    assert [problem.path for problem in refusal.value.problems] == ["sendAt"]
    assert not deps.queue.messages


def test_a_body_as_large_as_the_queue_takes_is_accepted() -> None:
    """The limit is on the request as it is queued, to the byte."""
    deps = fake_deps()
    accept(a_send(message={"text": "x" * (MAX_BODY - WRITTEN)}), deps)
    assert len(deps.queue.messages[0].body) == MAX_BODY


def test_a_body_larger_than_the_queue_takes_is_refused_with_the_way_out() -> None:
    """The refusal names both numbers and the upload."""
    deps = fake_deps()
    with pytest.raises(RequestError) as refusal:
        accept(a_send(message={"text": "x" * (MAX_BODY - WRITTEN + 1)}), deps)
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
def test_mail_that_can_only_fail_is_refused_at_once(rows: list[Any], code: str) -> None:
    """Without a provider that was ever active, nothing is queued."""
    deps = fake_deps(providers=FakeProvidersTable(*rows))
    with pytest.raises(RequestError) as refusal:
        accept(a_send(), deps)
    assert refusal.value.code == code
    assert not deps.queue.messages


@pytest.mark.parametrize("status", [ProviderStatus.DISABLED, ProviderStatus.SUSPENDED])
def test_mail_that_would_wait_is_accepted(status: ProviderStatus) -> None:
    """A disabled or suspended provider only delays its mail."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(status=status)))
    assert accept(a_send(), deps).record.status is Status.QUEUED


TAGGED = {"tags": {"campaign": "spring"}}


@pytest.mark.parametrize("status", [ProviderStatus.ACTIVE, ProviderStatus.DISABLED, ProviderStatus.SUSPENDED])
def test_tags_that_nobody_would_see_are_refused(status: ProviderStatus) -> None:
    """Without a configuration set SES reports no events, and drops the tags silently."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(status=status)))
    [tagged, plain] = accept_batch([a_send("r1", message=TAGGED), a_send("r2")], deps)
    assert isinstance(tagged, RequestError)
    assert (tagged.code, [problem.path for problem in tagged.problems]) == ("invalid_request", ["message.tags"])
    assert isinstance(plain, Accepted)
    assert len(deps.queue.messages) == 1


@pytest.mark.parametrize("config", [a_config(configuration_set="events"), a_config(provider="smtp", region="")])
def test_tags_are_taken_where_they_can_be_seen(config: Any) -> None:
    """Also on a development stack, where SMTP stands in for SES."""
    deps = fake_deps(providers=FakeProvidersTable(a_provider(active=config)))
    assert not accept(a_send(message=TAGGED), deps).replayed


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_answers_in_its_order_each_request_by_itself() -> None:
    """One request's fault is not its neighbours'."""
    deps = fake_deps()
    accept(a_send("taken", message={"subject": "Other"}), deps)
    late = (NOON + timedelta(days=8)).isoformat()
    answers = accept_batch([a_send("a"), a_send("late", sendAt=late), a_send("taken"), a_send("b")], deps)
    assert codes(answers) == ["Accepted", "invalid_request", "request_id_reused", "Accepted"]
    assert {request_id for _, request_id in deps.messages.records} == {"taken", "a", "b"}


def test_what_the_queue_does_not_take_fails_alone() -> None:
    """A partly failed SQS call fails only what it did not take."""
    deps = fake_deps(queue=FakeSendQueue(refuses=lambda queue_message: '"requestId":"b"' in queue_message.body))
    answers = accept_batch([a_send("a"), a_send("b"), a_send("c")], deps)
    assert codes(answers) == ["Accepted", "DependencyError", "Accepted"]
    assert ("acme", "b") not in deps.messages.records


def test_the_same_request_twice_in_a_batch_is_a_replay() -> None:
    """A repeated id behaves as in two calls one after the other."""
    deps = fake_deps()
    answers = accept_batch([a_send("a"), a_send("a"), a_send("b")], deps)
    assert [(a.record.request_id, a.replayed) for a in answers] == [("a", False), ("a", True), ("b", False)]
    assert len(deps.queue.messages) == 2


def test_other_content_under_an_id_of_the_same_batch_is_refused() -> None:
    """The first of them wins, as in two calls one after the other."""
    deps = fake_deps()
    answers = accept_batch([a_send("a"), a_send("a", message={"subject": "Other"}), a_send("a")], deps)
    assert codes(answers) == ["Accepted", "request_id_reused", "Accepted"]
    assert len(deps.queue.messages) == 1


def test_a_batch_without_a_provider_refuses_each() -> None:
    """Faults of single requests are still told apart from what concerns them all."""
    deps = fake_deps(providers=FakeProvidersTable())
    late = (NOON + timedelta(days=8)).isoformat()
    answers = accept_batch([a_send("a"), a_send("late", sendAt=late)], deps)
    assert codes(answers) == ["provider_not_configured", "invalid_request"]


def test_a_lost_read_fails_alone() -> None:
    """A table that fails for one id does not fail the batch."""
    answers = accept_batch([a_send("a"), a_send("b")], fake_deps(messages=LostTable("b")))
    assert codes(answers) == ["Accepted", "DependencyError"]
