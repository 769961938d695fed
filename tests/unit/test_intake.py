"""A received message becomes a job, a `failed` record, or a dead letter with a reason."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import ANNOTATE, Change, Status, WaitsFor
from mailer.domain.errors import EXPIRED, DependencyError
from mailer.domain.message import MAX_AHEAD, SCHEMA, SendRequest, parse_request
from mailer.ports import QueueMessage
from mailer.services.api.messages import SubmittedRequest, prepare_request
from mailer.services.sending.jobs import Received
from support.fakes.ports import NOON
from support.fakes.sending import THROTTLED, Bench, a_body, a_queue_message, a_record, attempted

KEY = "parked/acme/r1/1.json"
IDS = '{"tenantId": "acme", "requestId": "r1"}'


def pointer(key: str = KEY, body: str = IDS, **attributes: Any) -> QueueMessage:
    return QueueMessage(body=body, tenant_id="acme", created_at=NOON, parked=key, **attributes)


def with_parked_body(bench: Bench, body: str | None = None) -> Bench:
    bench.parked.bodies[KEY] = body or a_body()
    return bench


@pytest.mark.parametrize("body", ["", "null", "[]", "{}", "nonsense", '{"tenantId": "acme"}', '{"tenantId": "../x", "requestId": "r1"}'])
def test_a_body_without_ids_is_dead_lettered(body: str) -> None:
    """No record can be written; the dead letter has the reason."""
    bench = Bench()
    assert bench.receive(QueueMessage(body=body, tenant_id=None, created_at=NOON)) == []
    assert [(dead_letters.reason, dead_letters.queue_message.body) for dead_letters in bench.queue.dead_letters] == [
        ("invalid_request", body)
    ]
    assert bench.messages.records == {}


def test_an_invalid_request_ends_as_a_failed_record() -> None:
    """The caller finds the problem in the status record."""
    bench = Bench()
    assert bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON)) == []
    record = bench.record()
    assert (record.status, record.error and record.error.code, record.recipients) == (Status.FAILED, "invalid_request", 0)
    assert record.error is not None
    assert "message" in record.error.message
    assert bench.queue.dead_letters == []


def test_a_repeated_invalid_request_changes_nothing() -> None:
    """The same body is the same request."""
    bench = Bench()
    for _ in range(2):
        bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON))
    assert bench.queue.dead_letters == []


def test_an_invalid_request_does_not_change_another_with_its_id() -> None:
    """The first record does not change, the second message is dead-lettered."""
    bench = Bench(a_record())
    bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON))
    assert (bench.record().status, [dead_letters.reason for dead_letters in bench.queue.dead_letters]) == (
        Status.QUEUED,
        ["invalid_request"],
    )


def test_invalid_times_are_refused_with_the_field() -> None:
    """They are measured from when the message was first accepted."""
    bench = Bench()
    bench.receive(a_queue_message(sendAt="2026-12-24T12:00:00Z"))
    record = bench.record()
    assert record.error is not None
    assert "sendAt" in record.error.message


@pytest.mark.parametrize("send_at", [None, "2026-11-24T10:00:00Z"])
def test_a_request_that_arrives_too_late_has_expired(send_at: str | None) -> None:
    """The request is valid, but SQS or its producer delayed it."""
    bench = Bench()
    times = {"expiresAt": "2026-11-24T11:00:00Z"} | ({"sendAt": send_at} if send_at else {})
    assert bench.receive(a_queue_message(**times)) == []
    assert (bench.record().status, bench.record().error) == (Status.FAILED, EXPIRED)
    assert (bench.provider.mails, bench.queue.dead_letters) == ([], [])


@pytest.mark.parametrize("status", [Status.SENT, Status.CANCELLED, Status.FAILED])
def test_a_replay_after_its_expiry_finds_the_first_result(status: Status) -> None:
    """The same request a day later causes no dead letter, no alarm and no second mail."""
    expiring = {"expiresAt": "2026-11-24T13:00:00Z"}
    first = a_record(status, body=a_body(**expiring))
    bench = Bench(first)
    bench.clock.advance(timedelta(days=1))
    assert bench.receive(a_queue_message(**expiring, attributes={"created_at": bench.clock.now()})) == []
    assert (bench.record(), bench.provider.mails, bench.queue.dead_letters, bench.queue.sent) == (first, [], [], [])


def test_other_content_after_the_expiry_is_not_a_replay() -> None:
    """It is dead-lettered, and the first record does not change."""
    bench = Bench(a_record(Status.SENT))
    bench.receive(a_queue_message(expiresAt="2026-11-24T11:00:00Z"))
    assert (bench.record().status, [b.reason for b in bench.queue.dead_letters]) == (Status.SENT, ["request_id_reused"])


@pytest.mark.parametrize("later", [timedelta(), timedelta(days=2)])
def test_a_request_with_invalid_times_ends_once(later: timedelta) -> None:
    """A copy that arrives when its sendAt is valid does not change the first result."""
    bench = Bench()
    for moment in (NOON, NOON + later):
        bench.clock.time = moment
        assert bench.receive(a_queue_message(sendAt="2026-12-02T12:00:00Z", attributes={"created_at": moment})) == []
    assert (bench.record().status, bench.queue.dead_letters, bench.queue.sent) == (Status.FAILED, [], [])


def test_a_failed_record_says_that_its_id_cannot_be_used_again() -> None:
    """A correction under the same id would be other content."""
    bench = Bench()
    bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON))
    shown = bench.record().shown_error
    assert shown is not None
    assert "use a new requestId" in shown.hint


def test_an_invalid_body_does_not_affect_its_batch() -> None:
    """The others of its batch are sent."""
    bench = Bench()
    assert bench.receive(QueueMessage(body="\ud800", tenant_id=None, created_at=NOON), a_queue_message()) == []
    assert bench.record().status is Status.SENT


def test_an_exception_in_parsing_returns_the_message() -> None:
    """No body may stop its batch."""
    bench = with_parked_body(Bench())

    def bug(_: str) -> str:
        raise ZeroDivisionError

    bench.parked.fetch = bug  # type: ignore[method-assign]  # the port fails
    assert bench.receive(Received("bad", pointer(), 1), a_queue_message("r2")) == ["bad"]
    assert bench.record("r2").status is Status.SENT


# -- pointers to parked bodies -------------------------------------------------------------------------------------------


def test_a_pointer_is_resolved_to_its_body() -> None:
    """The mail is sent like any other, and the body is deleted after that."""
    bench = with_parked_body(Bench(a_record(Status.DEFERRED, due_at=NOON, waits_for=WaitsFor.TIME, parked=KEY, generation=1)))
    bench.receive(pointer(generation=1))
    assert (bench.record().status, bench.parked.bodies) == (Status.SENT, {})


@pytest.mark.parametrize("key", ["parked/other/r1/1.json", "parked/acme/r2/1.json", "parked/acme/r1", "attachments/acme/r1/1.json"])
def test_a_pointer_may_only_have_its_own_request_s_key(key: str) -> None:
    """A producer cannot have another tenant's mail sent."""
    bench = Bench()
    bench.parked.bodies[key] = a_body()
    bench.receive(pointer(key))
    assert bench.provider.mails == []
    assert (bench.record().status, bench.record().error and bench.record().error) != (Status.SENT, None)


def test_a_pointer_to_a_missing_body_ends_its_request() -> None:
    """The request does not wait for a body that no longer exists."""
    bench = Bench(a_record(Status.DEFERRED, parked=KEY))
    bench.receive(pointer())
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "body_missing")
    assert [step for step, _, _ in bench.events("failed")] == ["fetch parked body"]


def test_a_pointer_to_a_missing_body_does_not_end_a_request_with_another_body() -> None:
    """The pointer is of other content with the same id; the record's own body exists."""
    bench = Bench(a_record(Status.QUEUED))
    assert bench.receive(pointer()) == []
    assert bench.record().status is Status.QUEUED


def test_a_maybe_sent_request_with_a_missing_body_is_unknown() -> None:
    """It must not be recorded as `failed`."""
    bench = Bench(a_record(Status.DEFERRED, parked=KEY, maybe_sent=True, attempt=1, owner="w"))
    bench.receive(pointer())
    assert bench.record().status is Status.UNKNOWN


@pytest.mark.parametrize("status", [Status.SENT, Status.CANCELLED, Status.SENDING, Status.UNKNOWN])
def test_a_late_pointer_to_a_deleted_body_changes_nothing(status: Status) -> None:
    """The request is in progress, or has ended."""
    bench = Bench(attempted(status))
    assert bench.receive(pointer()) == []
    assert (bench.record().status, bench.queue.dead_letters) == (status, [])


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN])
def test_an_attempt_whose_body_is_missing_is_not_repeated(status: Status) -> None:
    """Without its body it cannot be sent again as its caller chose: it must not stay `unknown` and never end."""
    bench = Bench(attempted(status, on_unknown="resend", parked=KEY))
    assert bench.receive(pointer()) == []
    assert (bench.record().status, bench.record().on_unknown, bench.queue.sent) == (status, "hold", [])


def test_a_request_that_ends_while_its_missing_body_is_noticed_stays_as_it_is() -> None:
    """Its worker has recorded the acceptance."""
    bench = Bench(attempted(Status.UNKNOWN, on_unknown="resend", parked=KEY))

    def accept(change: Change) -> None:
        if change.rule is ANNOTATE:
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.SENT)

    bench.messages.before = accept
    assert bench.receive(pointer()) == []
    assert (bench.record().status, bench.record().on_unknown) == (Status.SENT, "resend")


def test_a_pointer_without_a_record_is_dropped() -> None:
    """Its record has expired."""
    bench = Bench()
    assert bench.receive(pointer()) == []
    assert (bench.messages.records, bench.queue.dead_letters) == ({}, [])


def test_an_outage_of_the_bucket_requeues_the_pointer() -> None:
    """The newer message has all its attributes."""
    bench = with_parked_body(Bench(a_record(Status.DEFERRED, parked=KEY, generation=2)))
    bench.parked.broken = True
    assert bench.receive(pointer(generation=2, failures=2, proof="p", correlation_id="c")) == []
    queue_message, delay = bench.take()
    assert (
        queue_message.generation,
        queue_message.failures,
        queue_message.parked,
        queue_message.proof,
        queue_message.correlation_id,
    ) == (
        3,
        3,
        KEY,
        "p",
        "c",
    )
    assert delay == timedelta(seconds=20)


def test_an_outage_of_bucket_and_queue_returns_the_message() -> None:
    """SQS redelivers the pointer."""
    bench = with_parked_body(Bench())
    bench.parked.broken = bench.queue.broken = True
    assert bench.receive(Received("p", pointer(), 1)) == ["p"]


def test_a_pointer_s_expiry_replaces_the_body_s() -> None:
    """An operator's resend has set a new expiry."""
    body = a_body()
    bench = with_parked_body(
        Bench(a_record(Status.QUEUED, maybe_sent=True, parked=KEY, generation=1, expires_at=NOON + timedelta(days=3))), body
    )
    bench.clock.advance(timedelta(days=2))
    bench.receive(pointer(generation=1, expires_at=NOON + timedelta(days=3)))
    assert bench.record().status is Status.SENT


def test_an_outage_of_the_table_requeues_an_invalid_request() -> None:
    """Its end cannot be written yet."""
    bench = Bench()

    def down(_: Any) -> None:
        raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = down
    assert bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON)) == []
    assert bench.take()[0].generation == 1


def test_the_tenant_is_that_of_the_body() -> None:
    """A producer's message group does not determine the tenant."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"tenant_id": "other"}))
    assert json.loads(a_body())["tenantId"] == "acme"
    assert ("acme", "r1") in bench.messages.records


# -- requests of a later version -----------------------------------------------------------------------------------------

OF_A_LATER_VERSION = {"newField": True}


def test_a_request_that_a_later_version_accepted_waits_for_it() -> None:
    """After a roll-back its field is not known here, but the caller got a 202."""
    bench = Bench(a_record(Status.QUEUED))
    bench.receive(a_queue_message(attributes={"schema": SCHEMA + 1}, **OF_A_LATER_VERSION))
    queue_message, delay = bench.take()
    assert (bench.record().status, queue_message.schema, queue_message.failures, delay > timedelta()) == (
        Status.QUEUED,
        SCHEMA + 1,
        1,
        True,
    )


def test_a_parked_body_of_a_later_version_waits_too() -> None:
    """Only our own functions park bodies, and only valid ones."""
    bench = Bench(a_record(Status.DEFERRED, due_at=NOON, waits_for=WaitsFor.TIME, parked=KEY))
    bench.parked.bodies[KEY] = a_body(**OF_A_LATER_VERSION)
    bench.receive(pointer())
    assert (bench.record().status, len(bench.queue.sent), bench.queue.dead_letters) == (Status.DEFERRED, 1, [])


@pytest.mark.parametrize("schema", [0, SCHEMA])
def test_an_unknown_field_of_a_producer_is_refused(schema: int) -> None:
    """A producer's typo ends the request at once; the problem has the field's name."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"schema": schema}, **OF_A_LATER_VERSION))
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "invalid_request")
    assert record.error is not None
    assert "newField" in record.error.message


def test_a_request_of_a_later_version_does_not_wait_forever() -> None:
    """After the longest lifetime of a request its record has ended, and the message is dropped."""
    bench = Bench(a_record(Status.FAILED))
    bench.clock.advance(2 * MAX_AHEAD)
    bench.receive(a_queue_message(attributes={"schema": SCHEMA + 1}, **OF_A_LATER_VERSION))
    assert bench.queue.sent == []


def test_our_messages_have_their_schema_version() -> None:
    """Both messages of the API and requeued messages of producers have it."""
    bench = Bench()
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(a_queue_message())
    assert bench.take()[0].schema == SCHEMA
    assert prepare_request(SubmittedRequest.of(parse_request(a_body()), NOON), NOON).queue_message.schema == SCHEMA


FIELDS = {1: "02db9e05075a49e0"}
"""A digest of all field names of each version of a send request."""


def test_a_new_field_raises_the_version_of_the_request() -> None:
    """Otherwise an older release would fail requests with the field: raise SCHEMA, and add its digest here."""
    schema = SendRequest.model_json_schema()
    models = {"SendRequest": schema, **schema["$defs"]}
    names = sorted(f"{model}.{name}" for model, described in models.items() for name in described.get("properties", {}))
    assert FIELDS[SCHEMA] == hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]


# -- producer rules ------------------------------------------------------------------------------------------------------

RULES = "AROAEXAMPLE:acme|globex,AIDAEXAMPLE:*"


@pytest.mark.parametrize("sender", [None, "AROAEXAMPLE:mailer", "AROAEXAMPLE:another-session", "AIDAEXAMPLE"])
def test_a_producer_may_send_for_its_tenants(sender: str | None) -> None:
    """So may the API, which has no sender."""
    bench = Bench()
    bench.producers.rules = RULES
    assert bench.receive(a_queue_message(attributes={"sender": sender})) == []
    assert bench.record().status is Status.SENT


FOREIGN = ["AROAOTHER:acme", "AROAEXAMPL", "111111111111", "", "-", "acme", "*"]


@pytest.mark.parametrize("sender", FOREIGN)
@pytest.mark.parametrize("fields", [{}, {"subject": 7}, {"sendAt": "2026-11-25T08:00:00Z"}], ids=["good", "faulty", "later"])
def test_a_request_for_a_tenant_of_another_producer_is_dead_lettered(sender: str, fields: dict[str, Any]) -> None:
    """It writes no record, sends no mail and reads no body; the dead letter has the producer."""
    bench = Bench()
    bench.producers.rules = RULES
    assert bench.receive(a_queue_message(attributes={"sender": sender}, **fields)) == []
    [dead_letters] = bench.queue.dead_letters
    assert (dead_letters.reason, dead_letters.detail.startswith(sender)) == ("producer_not_allowed", True)
    assert (bench.messages.records, bench.provider.mails, bench.parked.bodies, bench.queue.sent) == ({}, [], {}, [])


def test_every_message_keeps_its_sender() -> None:
    """A waiting request is checked again with the rules at its return."""
    bench = Bench(outcomes=[THROTTLED])
    bench.producers.rules = RULES
    bench.receive(a_queue_message(attributes={"sender": "AROAEXAMPLE:mailer"}))
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.producers.rules = "AROAEXAMPLE:globex"
    bench.receive(queue_message)
    assert (bench.queue.dead_letters[0].reason, bench.record().status) == ("producer_not_allowed", Status.DEFERRED)


def test_without_readable_rules_producers_messages_are_requeued() -> None:
    """The API's messages are sent."""
    bench = Bench()
    bench.producers.broken = True
    assert bench.receive(a_queue_message(attributes={"sender": "AROAEXAMPLE:mailer"}), a_queue_message("r2")) == []
    assert ([queue_message.sender for queue_message in bench.queue.messages], list(bench.messages.records)) == (
        ["AROAEXAMPLE:mailer"],
        [("acme", "r2")],
    )
