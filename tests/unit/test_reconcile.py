"""Handling of a message that the fence rejects, in each state of the record: requeue first, acknowledge last."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from mailer.domain.delivery import OVERDUE_AFTER, Change, Delivery, Status, WaitsFor
from mailer.domain.errors import DependencyError
from mailer.domain.message import SCHEMA
from mailer.services.requests.ending import WORKER_LOST
from mailer.services.sending.jobs import Received
from support.fakes.ports import NOON
from support.fakes.sending import SEND_TIMEOUT, Bench, a_body, a_queue_message, a_record, attempted

SECOND = timedelta(seconds=1)
KEY = "parked/acme/r1/1.json"
DEADLINE = NOON + 20 * SECOND
DEAD_AT = DEADLINE + SEND_TIMEOUT + 60 * SECOND
RESEND = a_body(onUnknown="resend")


def an_unknown_to_resend(**fields: Any) -> Delivery:
    """Make an unknown with onUnknown resend."""
    return attempted(Status.UNKNOWN, body=RESEND, on_unknown="resend", **fields)


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.CANCELLED])
def test_a_message_of_an_ended_request_is_acknowledged(status: Status) -> None:
    """Its parked body is deleted."""
    bench = Bench(attempted(status, parked=KEY))
    bench.parked.bodies[KEY] = a_body()
    assert bench.receive(a_queue_message()) == []
    assert (bench.provider.mails, bench.queue.sent, bench.queue.dead_letters, bench.parked.bodies) == ([], [], [], {})
    assert bench.record().status is status


@pytest.mark.parametrize("status", list(Status))
def test_other_content_with_the_same_id_is_dead_lettered(status: Status) -> None:
    """The first request does not change, in any status."""
    first = attempted(status, body=RESEND)
    bench = Bench(first)
    assert bench.receive(a_queue_message()) == []
    assert [(dead_letters.reason, dead_letters.queue_message.body) for dead_letters in bench.queue.dead_letters] == [
        ("request_id_reused", a_body())
    ]
    assert (bench.record(), bench.provider.mails, bench.queue.sent) == (first, [], [])


def test_other_content_is_dead_lettered_once_during_an_outage() -> None:
    """Its message is not requeued through the outage."""
    bench = Bench(a_record(body=RESEND))
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(a_queue_message())
    assert [dead_letters.reason for dead_letters in bench.queue.dead_letters] == ["request_id_reused"]
    assert bench.queue.sent == []


def test_other_content_does_not_outdate_the_real_message() -> None:
    """A requeued foreign message must not raise the record's generation."""
    bench = Bench(a_record(body=RESEND))
    read, failures = bench.messages.get, iter([DependencyError("DynamoDB", "GetItem")])

    def unreadable_once(tenant_id: str, request_id: str) -> Delivery | None:
        for failure in failures:
            raise failure
        return read(tenant_id, request_id)

    bench.messages.get = unreadable_once  # type: ignore[method-assign]  # the port fails
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(a_queue_message())
    assert (bench.take()[0].generation, bench.record().generation) == (1, 0)


@pytest.mark.parametrize("maybe_sent", [False, True])
def test_expired_other_content_does_not_end_the_request(maybe_sent: bool) -> None:  # noqa: FBT001 - a table
    """It ends neither as `failed` nor as `unknown`."""
    first = a_record(body=RESEND, maybe_sent=maybe_sent, expires_at=NOON + timedelta(days=3))
    bench = Bench(first)
    bench.clock.time = NOON + timedelta(days=2)
    bench.receive(a_queue_message())
    assert ([dead_letters.reason for dead_letters in bench.queue.dead_letters], bench.record()) == (["request_id_reused"], first)


@pytest.mark.parametrize("maybe_sent", [False, True])
@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED])
def test_an_expired_stale_message_does_not_end_the_request(status: Status, maybe_sent: bool) -> None:  # noqa: FBT001 - a table
    """An operator's resend has a later expiry than the first message."""
    resent = a_record(status, generation=1, maybe_sent=maybe_sent, expires_at=NOON + timedelta(days=3))
    bench = Bench(resent)
    bench.clock.time = NOON + timedelta(days=2)
    assert bench.receive(a_queue_message()) == []
    assert (bench.record(), bench.queue.sent) == (resent, [])


@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED, Status.SENDING, Status.UNKNOWN])
def test_a_stale_message_is_acknowledged(status: Status) -> None:
    """A newer message exists: a redelivered message must not create others."""
    bench = Bench(attempted(status, generation=2))
    assert bench.receive(a_queue_message(generation=1)) == []
    assert (bench.queue.sent, bench.provider.mails, bench.record().status) == ([], [], status)


def overdue(**fields: Any) -> Delivery:
    """Make a record of a request whose message was lost: it should have returned at noon."""
    return a_record(
        **{
            "status": Status.DEFERRED,
            "generation": 4,
            "due_at": NOON,
            "waits_for": WaitsFor.TIME,
            "expires_at": NOON + timedelta(days=1),
            **fields,
        }
    )


def test_a_request_with_a_lost_message_is_sent_by_the_caller_s_next_copy() -> None:
    """It keeps its own expiry, and the producer rules are checked as before."""
    bench = Bench(overdue(correlation_id="c-1"))
    bench.clock.time = NOON + OVERDUE_AFTER
    late = {"created_at": bench.clock.time, "sender": "AROAEXAMPLE:x"}
    bench.receive(a_queue_message(attributes=late))
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.created_at, queue_message.expires_at, delay) == (
        5,
        NOON,
        NOON + timedelta(days=1),
        timedelta(),
    )
    assert (queue_message.correlation_id, queue_message.sender, queue_message.schema) == ("c-1", "AROAEXAMPLE:x", SCHEMA)
    bench.receive(queue_message)
    assert (bench.record().status, len(bench.provider.mails), bench.queue.sent) == (Status.SENT, 1, [])


def test_several_copies_replace_a_lost_message_once() -> None:
    """Two messages that outdate each other would never be sent."""
    bench = Bench(overdue())
    bench.clock.time = NOON + OVERDUE_AFTER
    bench.receive(*[a_queue_message()] * 5)
    assert len(bench.queue.sent) == 1
    queue_message, _ = bench.take()
    bench.receive(a_queue_message(generation=4), queue_message)  # the lost message was only late
    assert (len(bench.provider.mails), bench.queue.sent, bench.record().status) == (1, [], Status.SENT)


NOT_LOST = {
    "not overdue": (overdue(), OVERDUE_AFTER - SECOND),
    "waits for an operator": (overdue(due_at=None), timedelta(hours=5)),
    "in progress": (attempted(generation=4, due_at=NOON), OVERDUE_AFTER),
    "resent by an operator": (overdue(status=Status.QUEUED, due_at=None), timedelta(hours=5)),
}


@pytest.mark.parametrize(("record", "later"), NOT_LOST.values(), ids=NOT_LOST)
def test_a_message_that_is_not_lost_is_not_replaced(record: Delivery, later: timedelta) -> None:
    """A producer may send duplicates."""
    bench = Bench(record)
    bench.clock.time = NOON + later
    bench.receive(a_queue_message())
    assert (bench.queue.sent, bench.record(), bench.provider.mails) == ([], record, [])


def test_an_old_message_of_ours_does_not_replace_a_lost_one() -> None:
    """Only a caller's message does: a redelivered message must not create others."""
    bench = Bench(overdue())
    bench.clock.time = NOON + OVERDUE_AFTER
    bench.receive(a_queue_message(generation=3))
    assert bench.queue.sent == []


def test_a_failed_write_of_the_replacement_costs_one_message() -> None:
    """The replacement is already on the queue."""
    bench = Bench(overdue())
    bench.clock.time = NOON + OVERDUE_AFTER

    def fail(change: Change) -> None:
        if change.rule.name == "reschedule":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    assert bench.receive(a_queue_message()) == []
    assert bench.take()[0].generation == 5


@pytest.mark.parametrize("send_at", [NOON + timedelta(minutes=1), NOON + timedelta(days=1)], ids=["queue", "bucket"])
def test_a_message_that_becomes_stale_during_its_deferral_changes_nothing(send_at: datetime) -> None:
    """A newer one raised the record's generation meanwhile: a lower generation would make stale messages valid again."""
    body = a_body(sendAt=send_at.isoformat())
    bench = Bench(a_record(body=body))

    def outdate(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=3)

    bench.messages.before = outdate
    bench.receive(a_queue_message(sendAt=send_at.isoformat()))
    assert (bench.record().status, bench.record().generation) == (Status.QUEUED, 3)


def outdated_while_parking(bench: Bench, then: Callable[[], None]) -> None:
    """Let a newer message raise the generation during the parking of a body, and call `then` before the body is recorded."""

    def meanwhile(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=3)
        if change.rule.name == "annotate":
            then()

    bench.messages.before = meanwhile
    assert bench.receive(a_queue_message(sendAt=TOMORROW)) == []


TOMORROW = (NOON + timedelta(days=1)).isoformat()


def test_a_body_that_was_parked_for_a_stale_message_is_deleted_with_its_request() -> None:
    """The newest message may use the same object: only the end of the request may delete it."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))
    outdated_while_parking(bench, lambda: None)
    assert bench.record().parked in bench.parked.bodies
    assert bench.queue.sent == []


def test_a_body_that_was_parked_for_an_ended_request_is_deleted() -> None:
    """It was cancelled before the body was recorded."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))

    def cancel() -> None:
        bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.CANCELLED)

    outdated_while_parking(bench, cancel)
    assert bench.parked.bodies == {}


def test_an_unrecorded_body_is_left_to_the_lifecycle_rules() -> None:
    """The stale message is still acknowledged; an outage costs no more than that object."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))

    def fail() -> None:
        raise DependencyError("DynamoDB", "UpdateItem")

    outdated_while_parking(bench, fail)
    assert ([step for step, *_ in bench.events("failed")], bench.queue.sent) == (["remember"], [])


def test_a_body_that_was_parked_during_an_attempt_is_deleted_with_its_request() -> None:
    """The requeued message finds the request sent, and has the key of the unrecorded body."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))

    def begin(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = attempted(body=a_body(sendAt=TOMORROW))

    bench.messages.before = begin
    bench.receive(a_queue_message(sendAt=TOMORROW))
    bench.messages.before = None
    queue_message, _ = bench.take()
    assert queue_message.parked in bench.parked.bodies
    bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.SENT)
    bench.receive(queue_message)
    assert (bench.parked.bodies, bench.queue.sent) == ({}, [])


def test_a_parked_body_is_not_recorded_for_other_content() -> None:
    """Other content took the id meanwhile; the dead letter has the body instead of a key."""
    bench, other = Bench(), a_record(body=RESEND, generation=3)

    def meanwhile(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = other

    bench.messages.before = meanwhile
    bench.receive(a_queue_message(sendAt=TOMORROW))
    assert [(dead_letters.reason, dead_letters.queue_message.parked) for dead_letters in bench.queue.dead_letters] == [
        ("request_id_reused", None)
    ]
    assert bench.record() == other


def test_a_message_of_a_request_in_progress_is_requeued_to_its_deadline() -> None:
    """No other worker may continue `sending`."""
    bench = Bench(attempted())
    bench.receive(a_queue_message())
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, bench.record().generation, bench.record().status) == (1, DEADLINE - NOON, 1, Status.SENDING)


def test_a_worker_is_not_given_up_at_its_deadline() -> None:
    """It is given up only after the deadline."""
    bench = Bench(attempted())
    bench.clock.time = DEADLINE
    bench.receive(a_queue_message())
    assert bench.record().status is Status.SENDING


def test_an_attempt_past_its_deadline_is_unknown_and_held() -> None:
    """The message's body is parked for an operator."""
    bench = Bench(attempted())
    bench.clock.time = DEADLINE + SECOND
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.UNKNOWN, "outcome_unknown")
    assert record.parked in bench.parked.bodies
    assert (bench.queue.sent, bench.provider.mails) == ([], [])


def test_a_result_just_before_the_unknown_wins() -> None:
    """The write of `unknown` is rejected, and the message is handled by the new status."""
    bench = Bench(attempted())
    bench.clock.time = DEADLINE + SECOND

    def finish(change: Change) -> None:
        if change.rule.name == "time_out":
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.SENT)

    bench.messages.before = finish
    assert bench.receive(a_queue_message()) == []
    assert (bench.record().status, bench.queue.sent, bench.parked.bodies) == (Status.SENT, [], {})


def test_a_held_unknown_keeps_its_parked_body() -> None:
    """A request has one object."""
    bench = Bench(attempted(Status.UNKNOWN, parked=KEY))
    bench.receive(a_queue_message())
    assert (bench.record().parked, bench.parked.bodies, bench.queue.sent) == (KEY, {}, [])


def test_a_message_is_requeued_if_its_body_cannot_be_parked() -> None:
    """Without the body an operator could not resend the request."""
    bench = Bench(attempted(Status.UNKNOWN))
    bench.parked.broken = True
    bench.receive(a_queue_message())
    assert bench.take()[0].generation == 1


def test_an_unneeded_parked_body_is_deleted() -> None:
    """The proof of acceptance arrived during the parking."""
    bench = Bench(attempted(Status.UNKNOWN))

    def finish(change: Change) -> None:
        if change.rule.name == "annotate":
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.SENT)

    bench.messages.before = finish
    bench.receive(a_queue_message())
    assert bench.parked.bodies == {}


def test_a_parked_body_is_recorded_despite_a_newer_message() -> None:
    """The key is written with any generation of the record."""
    bench = Bench(attempted(Status.UNKNOWN))

    def outdate(change: Change) -> None:
        if change.rule.name == "annotate" and bench.record().generation == 0:
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=3)

    bench.messages.before = outdate
    bench.receive(a_queue_message())
    assert bench.record().parked in bench.parked.bodies


def test_a_message_that_parked_too_early_is_handled_by_the_new_status() -> None:
    """A proof arrived during the parking: the request waits again, and this message must be requeued."""
    bench = Bench(attempted(Status.UNKNOWN))

    def prove(change: Change) -> None:
        if change.rule.name == "annotate" and bench.record().status is Status.UNKNOWN:
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.DEFERRED, due_at=NOON + SECOND, generation=1)

    bench.messages.before = prove
    bench.receive(a_queue_message(generation=1))
    assert bench.take()[0].generation == 2


def test_an_unknown_to_be_resent_waits_until_its_worker_is_dead() -> None:
    """The wait is until the deadline, the function's timeout and a minute have passed."""
    bench = Bench(an_unknown_to_resend())
    bench.receive(a_queue_message(onUnknown="resend"))
    assert bench.take()[1] == DEAD_AT - NOON


def test_an_unknown_is_resent_once_its_worker_is_dead() -> None:
    """It passes the fence like any other, and stays marked as maybe sent."""
    bench = Bench(an_unknown_to_resend())
    bench.clock.time = DEAD_AT + SECOND
    bench.receive(a_queue_message(onUnknown="resend"))
    assert (bench.record().status, bench.record().attempt, bench.record().maybe_sent) == (Status.SENT, 2, True)


@pytest.mark.parametrize("parked", [None, "parked/acme/r1/1.json"])
@pytest.mark.parametrize(("expires_at", "now"), [(DEAD_AT, NOON), (DEAD_AT + SECOND, DEAD_AT + SECOND)])
def test_an_unknown_that_expires_before_its_resend_ends_at_once(expires_at: datetime, now: datetime, parked: str | None) -> None:
    """The record becomes a held unknown, with the body for an operator."""
    fields = {"onUnknown": "resend", "expiresAt": expires_at.isoformat()}
    bench = Bench(attempted(Status.UNKNOWN, body=a_body(**fields), on_unknown="resend", expires_at=expires_at, parked=parked))
    bench.clock.time = now
    bench.receive(a_queue_message(**fields))
    record = bench.record()
    assert (record.status, record.on_unknown, record.ended, bench.queue.sent) == (Status.UNKNOWN, "hold", True, [])
    assert record.parked == parked if parked else record.parked in bench.parked.bodies


def test_an_unknown_to_be_resent_has_its_time_and_a_hint_that_nobody_must_act() -> None:
    """It has not ended."""
    record = an_unknown_to_resend(error=WORKER_LOST)
    assert (record.ended, record.next_try_at(SEND_TIMEOUT)) == (False, DEAD_AT)
    assert record.shown_error is not None
    assert record.shown_error.hint.startswith("Nobody:")
    held = replace(record, on_unknown="hold")
    assert (held.ended, held.next_try_at(SEND_TIMEOUT), held.shown_error) == (True, None, WORKER_LOST)


def test_a_late_proof_during_a_resend_keeps_the_only_message() -> None:
    """The record waits for this message after the proof, so it must be requeued."""
    bench = Bench(an_unknown_to_resend())
    bench.clock.time = DEAD_AT + SECOND

    def prove(change: Change) -> None:
        if change.rule.name == "resend":
            bench.messages.records["acme", "r1"] = replace(
                bench.record(), status=Status.DEFERRED, due_at=DEAD_AT + 5 * SECOND, generation=1
            )

    bench.messages.before = prove
    bench.receive(a_queue_message(generation=1, onUnknown="resend"))
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, bench.record().status, bench.provider.mails) == (2, 4 * SECOND, Status.DEFERRED, [])


def test_a_refused_resend_parks_the_body_for_an_operator() -> None:
    """Another worker made the resend and gave the request up."""
    bench = Bench(an_unknown_to_resend())
    bench.clock.time = DEAD_AT + SECOND

    def give_up(change: Change) -> None:
        if change.rule.name == "resend":
            bench.messages.records["acme", "r1"] = replace(bench.record(), on_unknown="hold", maybe_sent=True)

    bench.messages.before = give_up
    bench.receive(a_queue_message(onUnknown="resend"))
    assert bench.record().parked in bench.parked.bodies


def test_two_messages_of_a_resend_send_one_mail() -> None:
    """Only one of them passes the fence."""
    bench = Bench(an_unknown_to_resend())
    bench.clock.time = DEAD_AT + SECOND
    bench.receive(a_queue_message(onUnknown="resend"), a_queue_message(onUnknown="resend"))
    assert len(bench.provider.mails) == 1


def test_a_message_before_the_due_time_is_requeued_to_it() -> None:
    """An early message makes no attempt."""
    bench = Bench(a_record(Status.DEFERRED, due_at=NOON + 90 * SECOND, waits_for=WaitsFor.TIME))
    bench.receive(a_queue_message())
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, bench.provider.mails) == (1, 90 * SECOND, [])


def test_a_message_is_delayed_at_most_15_minutes() -> None:
    """That is SQS's maximum; the message is requeued again after it."""
    bench = Bench(a_record(Status.DEFERRED, due_at=NOON + timedelta(hours=2), waits_for=WaitsFor.TIME))
    bench.receive(a_queue_message())
    assert bench.take()[1] == timedelta(seconds=900)


def test_a_generation_that_cannot_be_written_costs_at_most_a_second_message() -> None:
    """The message is safely on the queue."""
    bench = Bench(attempted())

    def fail(change: Change) -> None:
        if change.rule.name == "annotate":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    assert bench.receive(a_queue_message()) == []
    assert len(bench.queue.sent) == 1


def test_a_message_that_cannot_be_requeued_is_returned() -> None:
    """SQS redelivers it."""
    bench = Bench(attempted())
    bench.queue.broken = True
    assert bench.receive(Received("r", a_queue_message(), 1)) == ["r"]


def test_a_wrong_clock_cannot_cause_two_mails() -> None:
    """A fast clock causes an early `unknown`; the proof of acceptance still wins, and nothing is sent twice."""
    bench = Bench(attempted())
    bench.clock.time = NOON + timedelta(hours=5)
    bench.receive(a_queue_message())
    assert bench.record().status is Status.UNKNOWN
    bench.clock.time = NOON
    bench.receive(a_queue_message(attributes={"proof": '{"attempt": 1, "owner": "another", "sent": "m-1"}'}))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails, bench.parked.bodies) == (Status.SENT, "m-1", [], {})
