"""A message off the queue becomes a job, a `failed` record, or a dead letter with its reason."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Status, WaitsFor
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


def parked(bench: Bench, body: str | None = None) -> Bench:
    bench.parked.bodies[KEY] = body or a_body()
    return bench


@pytest.mark.parametrize("body", ["", "null", "[]", "{}", "nonsense", '{"tenantId": "acme"}', '{"tenantId": "../x", "requestId": "r1"}'])
def test_a_body_without_ids_goes_to_the_dead_letters(body: str) -> None:
    """There is no record to write: the message carries the reason."""
    bench = Bench()
    assert bench.receive(QueueMessage(body=body, tenant_id=None, created_at=NOON)) == []
    assert [(dead_letters.reason, dead_letters.queue_message.body) for dead_letters in bench.queue.dead_letters] == [
        ("invalid_request", body)
    ]
    assert bench.messages.records == {}


def test_an_invalid_request_ends_as_a_failed_record() -> None:
    """Its caller learns what is wrong where it looks for the status."""
    bench = Bench()
    assert bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON)) == []
    record = bench.record()
    assert (record.status, record.error and record.error.code, record.recipients) == (Status.FAILED, "invalid_request", 0)
    assert record.error is not None
    assert "message" in record.error.message
    assert bench.queue.dead_letters == []


def test_an_invalid_request_that_comes_again_changes_nothing() -> None:
    """The same body is the same request."""
    bench = Bench()
    for _ in range(2):
        bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON))
    assert bench.queue.dead_letters == []


def test_an_invalid_request_does_not_end_another_under_its_id() -> None:
    """The first is untouched, the second goes to the dead letters."""
    bench = Bench(a_record())
    bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON))
    assert (bench.record().status, [dead_letters.reason for dead_letters in bench.queue.dead_letters]) == (
        Status.QUEUED,
        ["invalid_request"],
    )


def test_times_that_do_not_fit_are_refused_by_name() -> None:
    """They are counted from when the message was first accepted."""
    bench = Bench()
    bench.receive(a_queue_message(sendAt="2026-12-24T12:00:00Z"))
    record = bench.record()
    assert record.error is not None
    assert "sendAt" in record.error.message


@pytest.mark.parametrize("send_at", [None, "2026-11-24T10:00:00Z"])
def test_a_request_that_arrives_too_late_has_expired(send_at: str | None) -> None:
    """Nothing is wrong with it: SQS held it back, or its producer did."""
    bench = Bench()
    times = {"expiresAt": "2026-11-24T11:00:00Z"} | ({"sendAt": send_at} if send_at else {})
    assert bench.receive(a_queue_message(**times)) == []
    assert (bench.record().status, bench.record().error) == (Status.FAILED, EXPIRED)
    assert (bench.provider.mails, bench.queue.dead_letters) == ([], [])


@pytest.mark.parametrize("status", [Status.SENT, Status.CANCELLED, Status.FAILED])
def test_a_replay_after_its_expiry_finds_the_first_result(status: Status) -> None:
    """A producer that sends the same request once more, a day later: no dead letter, no alarm, no second mail."""
    expiring = {"expiresAt": "2026-11-24T13:00:00Z"}
    first = a_record(status, body=a_body(**expiring))
    bench = Bench(first)
    bench.clock.advance(timedelta(days=1))
    assert bench.receive(a_queue_message(**expiring, attributes={"created_at": bench.clock.now()})) == []
    assert (bench.record(), bench.provider.mails, bench.queue.dead_letters, bench.queue.sent) == (first, [], [], [])


def test_other_content_that_comes_too_late_is_told_apart() -> None:
    """It is no replay: it goes to the dead letters, and the first is untouched."""
    bench = Bench(a_record(Status.SENT))
    bench.receive(a_queue_message(expiresAt="2026-11-24T11:00:00Z"))
    assert (bench.record().status, [b.reason for b in bench.queue.dead_letters]) == (Status.SENT, ["request_id_reused"])


@pytest.mark.parametrize("later", [timedelta(), timedelta(days=2)])
def test_a_request_whose_times_do_not_fit_ends_once(later: timedelta) -> None:
    """It comes again, perhaps when its sendAt is no longer too far ahead: the first result stands."""
    bench = Bench()
    for moment in (NOON, NOON + later):
        bench.clock.time = moment
        assert bench.receive(a_queue_message(sendAt="2026-12-02T12:00:00Z", attributes={"created_at": moment})) == []
    assert (bench.record().status, bench.queue.dead_letters, bench.queue.sent) == (Status.FAILED, [], [])


def test_a_failed_record_says_that_its_id_is_used_up() -> None:
    """A correction under the same id would be other content."""
    bench = Bench()
    bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON))
    shown = bench.record().shown_error
    assert shown is not None
    assert "use a new requestId" in shown.hint


def test_a_poison_body_touches_no_neighbour() -> None:
    """The rest of its batch is sent."""
    bench = Bench()
    assert bench.receive(QueueMessage(body="\ud800", tenant_id=None, created_at=NOON), a_queue_message()) == []
    assert bench.record().status is Status.SENT


def test_a_bug_in_reading_gives_the_receipt_back() -> None:
    """Nothing that a body holds may stop its batch."""
    bench = parked(Bench())

    def bug(_: str) -> str:
        raise ZeroDivisionError

    bench.parked.fetch = bug  # type: ignore[method-assign]  # the port fails
    assert bench.receive(Received("bad", pointer(), 1), a_queue_message("r2")) == ["bad"]
    assert bench.record("r2").status is Status.SENT


# -- pointers to parked bodies -------------------------------------------------------------------------------------------


def test_a_pointer_brings_its_body_back() -> None:
    """It is sent like any message, and the body is deleted then."""
    bench = parked(Bench(a_record(Status.DEFERRED, due_at=NOON, waits_for=WaitsFor.TIME, parked=KEY, generation=1)))
    bench.receive(pointer(generation=1))
    assert (bench.record().status, bench.parked.bodies) == (Status.SENT, {})


@pytest.mark.parametrize("key", ["parked/other/r1/1.json", "parked/acme/r2/1.json", "parked/acme/r1", "attachments/acme/r1/1.json"])
def test_a_pointer_may_only_name_its_own_body(key: str) -> None:
    """Whoever may write to the queue cannot have another tenant's mail sent."""
    bench = Bench()
    bench.parked.bodies[key] = a_body()
    bench.receive(pointer(key))
    assert bench.provider.mails == []
    assert (bench.record().status, bench.record().error and bench.record().error) != (Status.SENT, None)


def test_a_pointer_whose_body_is_gone_ends_its_request() -> None:
    """Nobody waits for what cannot come."""
    bench = Bench(a_record(Status.DEFERRED, parked=KEY))
    bench.receive(pointer())
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "body_missing")
    assert [step for step, _, _ in bench.events("failed")] == ["fetch parked body"]


def test_a_pointer_whose_body_is_gone_does_not_end_a_request_with_another_body() -> None:
    """Other content that had come under the same id: its own body is gone, not that of the record."""
    bench = Bench(a_record(Status.QUEUED))
    assert bench.receive(pointer()) == []
    assert bench.record().status is Status.QUEUED


def test_a_maybe_sent_request_whose_body_is_gone_is_unknown() -> None:
    """`failed` would be a lie."""
    bench = Bench(a_record(Status.DEFERRED, parked=KEY, maybe_sent=True, attempt=1, owner="w"))
    bench.receive(pointer())
    assert bench.record().status is Status.UNKNOWN


@pytest.mark.parametrize("status", [Status.SENT, Status.CANCELLED, Status.SENDING, Status.UNKNOWN])
def test_a_late_pointer_to_a_deleted_body_changes_nothing(status: Status) -> None:
    """A worker has taken the request on, or it has ended."""
    bench = Bench(attempted(status))
    assert bench.receive(pointer()) == []
    assert (bench.record().status, bench.queue.dead_letters) == (status, [])


def test_a_pointer_to_a_request_that_nobody_knows_is_dropped() -> None:
    """Its record was forgotten."""
    bench = Bench()
    assert bench.receive(pointer()) == []
    assert (bench.messages.records, bench.queue.dead_letters) == ({}, [])


def test_a_bucket_that_does_not_answer_lets_the_pointer_wait() -> None:
    """It comes back as a newer message, with all its attributes."""
    bench = parked(Bench(a_record(Status.DEFERRED, parked=KEY, generation=2)))
    bench.parked.broken = True
    assert bench.receive(pointer(generation=2, failures=2, proof="p", correlation_id="c")) == []
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.failures, queue_message.parked, queue_message.proof, queue_message.correlation_id) == (
        3,
        3,
        KEY,
        "p",
        "c",
    )
    assert delay == timedelta(seconds=20)


def test_a_bucket_and_a_queue_that_do_not_answer_give_the_receipt_back() -> None:
    """SQS keeps the pointer."""
    bench = parked(Bench())
    bench.parked.broken = bench.queue.broken = True
    assert bench.receive(Received("p", pointer(), 1)) == ["p"]


def test_a_pointer_knows_an_expiry_that_the_body_does_not() -> None:
    """An operator's resend gave the request a new span."""
    body = a_body()
    bench = parked(Bench(a_record(Status.QUEUED, maybe_sent=True, parked=KEY, generation=1, expires_at=NOON + timedelta(days=3))), body)
    bench.clock.advance(timedelta(days=2))
    bench.receive(pointer(generation=1, expires_at=NOON + timedelta(days=3)))
    assert bench.record().status is Status.SENT


def test_a_table_that_does_not_answer_lets_a_poor_request_wait() -> None:
    """Its end is not written yet: the message comes back."""
    bench = Bench()

    def down(_: Any) -> None:
        raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = down
    assert bench.receive(QueueMessage(body=IDS, tenant_id="acme", created_at=NOON)) == []
    assert bench.take()[0].generation == 1


def test_the_tenant_is_the_one_of_the_body() -> None:
    """A producer's message group says nothing of whose mail it is."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"tenant_id": "other"}))
    assert json.loads(a_body())["tenantId"] == "acme"
    assert ("acme", "r1") in bench.messages.records


# -- requests of a later version -----------------------------------------------------------------------------------------

OF_A_LATER_VERSION = {"newField": True}


def test_a_request_that_a_later_version_accepted_waits_for_it() -> None:
    """After a roll-back: its field is not known here, but the caller was told 202."""
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
    """Only our own functions park, and only what they could read."""
    bench = Bench(a_record(Status.DEFERRED, due_at=NOON, waits_for=WaitsFor.TIME, parked=KEY))
    bench.parked.bodies[KEY] = a_body(**OF_A_LATER_VERSION)
    bench.receive(pointer())
    assert (bench.record().status, len(bench.queue.sent), bench.queue.dead_letters) == (Status.DEFERRED, 1, [])


@pytest.mark.parametrize("schema", [0, SCHEMA])
def test_an_unknown_field_is_refused_where_no_later_version_has_read_it(schema: int) -> None:
    """A producer's typo ends at once, with its name."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"schema": schema}, **OF_A_LATER_VERSION))
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "invalid_request")
    assert record.error is not None
    assert "newField" in record.error.message


def test_it_does_not_come_back_for_ever() -> None:
    """After the longest time that a request can live its record has ended, and the message ends too."""
    bench = Bench(a_record(Status.FAILED))
    bench.clock.advance(2 * MAX_AHEAD)
    bench.receive(a_queue_message(attributes={"schema": SCHEMA + 1}, **OF_A_LATER_VERSION))
    assert bench.queue.sent == []


def test_our_messages_tell_by_which_version_they_were_read() -> None:
    """Those that the API makes, and those of a worker that has read what a producer wrote."""
    bench = Bench()
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(a_queue_message())
    assert bench.take()[0].schema == SCHEMA
    assert prepare_request(SubmittedRequest.of(parse_request(a_body()), NOON), NOON).queue_message.schema == SCHEMA


FIELDS = {1: "02db9e05075a49e0"}
"""Of each version of a send request, a digest of the names of all its fields."""


def test_a_new_field_raises_the_version_of_the_request() -> None:
    """Else a version that was rolled back to would fail requests that have it: raise SCHEMA, and write its digest here."""
    schema = SendRequest.model_json_schema()
    models = {"SendRequest": schema, **schema["$defs"]}
    names = sorted(f"{model}.{name}" for model, described in models.items() for name in described.get("properties", {}))
    assert FIELDS[SCHEMA] == hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]


# -- whom a producer may ask for -----------------------------------------------------------------------------------------

RULES = "AROAEXAMPLE:acme|globex,AIDAEXAMPLE:*"


@pytest.mark.parametrize("sender", [None, "AROAEXAMPLE:mailer", "AROAEXAMPLE:another-session", "AIDAEXAMPLE"])
def test_a_producer_asks_for_its_tenants(sender: str | None) -> None:
    """So does the API, which has no sender."""
    bench = Bench()
    bench.producers.rules = RULES
    assert bench.receive(a_queue_message(attributes={"sender": sender})) == []
    assert bench.record().status is Status.SENT


FOREIGN = ["AROAOTHER:acme", "AROAEXAMPL", "111111111111", "", "-", "acme", "*"]


@pytest.mark.parametrize("sender", FOREIGN)
@pytest.mark.parametrize("fields", [{}, {"subject": 7}, {"sendAt": "2026-11-25T08:00:00Z"}], ids=["good", "faulty", "later"])
def test_what_a_producer_asks_for_another_s_tenant_touches_nothing_of_it(sender: str, fields: dict[str, Any]) -> None:
    """No record, no mail, no body: a dead letter that names the producer."""
    bench = Bench()
    bench.producers.rules = RULES
    assert bench.receive(a_queue_message(attributes={"sender": sender}, **fields)) == []
    [dead_letters] = bench.queue.dead_letters
    assert (dead_letters.reason, dead_letters.detail.startswith(sender)) == ("producer_not_allowed", True)
    assert (bench.messages.records, bench.provider.mails, bench.parked.bodies, bench.queue.sent) == ({}, [], {}, [])


def test_who_asked_goes_with_every_message() -> None:
    """A request that waits is held against the rules of the day that it comes back on."""
    bench = Bench(outcomes=[THROTTLED])
    bench.producers.rules = RULES
    bench.receive(a_queue_message(attributes={"sender": "AROAEXAMPLE:mailer"}))
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.producers.rules = "AROAEXAMPLE:globex"
    bench.receive(queue_message)
    assert (bench.queue.dead_letters[0].reason, bench.record().status) == ("producer_not_allowed", Status.DEFERRED)


def test_rules_that_cannot_be_read_let_nothing_pass() -> None:
    """The message comes back; the API's goes on."""
    bench = Bench()
    bench.producers.broken = True
    assert bench.receive(a_queue_message(attributes={"sender": "AROAEXAMPLE:mailer"}), a_queue_message("r2")) == []
    assert ([queue_message.sender for queue_message in bench.queue.messages], list(bench.messages.records)) == (
        ["AROAEXAMPLE:mailer"],
        [("acme", "r2")],
    )
