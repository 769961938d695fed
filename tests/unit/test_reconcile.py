"""What a message does when the fence refuses it: in each state of the record, message first, receipt last."""

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


def resendable(**fields: Any) -> Delivery:
    """Make an unknown that its caller wants sent again."""
    return attempted(Status.UNKNOWN, body=RESEND, on_unknown="resend", **fields)


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.CANCELLED])
def test_a_message_of_an_ended_request_is_done(status: Status) -> None:
    """It is acknowledged, and the body that may wait in the bucket is deleted."""
    bench = Bench(attempted(status, parked=KEY))
    bench.parked.bodies[KEY] = a_body()
    assert bench.receive(a_queue_message()) == []
    assert (bench.provider.mails, bench.queue.sent, bench.queue.dead_letters, bench.parked.bodies) == ([], [], [], {})
    assert bench.record().status is status


@pytest.mark.parametrize("status", list(Status))
def test_other_content_under_the_id_goes_to_the_dead_letters(status: Status) -> None:
    """Whatever became of the first request, it is untouched."""
    first = attempted(status, body=RESEND)
    bench = Bench(first)
    assert bench.receive(a_queue_message()) == []
    assert [(dead_letters.reason, dead_letters.queue_message.body) for dead_letters in bench.queue.dead_letters] == [
        ("request_id_reused", a_body())
    ]
    assert (bench.record(), bench.provider.mails, bench.queue.sent) == (first, [], [])


def test_other_content_is_buried_once_while_a_service_is_down() -> None:
    """Its message does not go round and round through the outage."""
    bench = Bench(a_record(body=RESEND))
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(a_queue_message())
    assert [dead_letters.reason for dead_letters in bench.queue.dead_letters] == ["request_id_reused"]
    assert bench.queue.sent == []


def test_other_content_does_not_make_the_real_message_look_stale() -> None:
    """A foreign message that comes back must not raise the record's generation."""
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
def test_other_content_that_expires_does_not_end_the_request_of_the_id(maybe_sent: bool) -> None:  # noqa: FBT001 - a table
    """Neither as `failed` nor, where that is barred, as `unknown`."""
    first = a_record(body=RESEND, maybe_sent=maybe_sent, expires_at=NOON + timedelta(days=3))
    bench = Bench(first)
    bench.clock.time = NOON + timedelta(days=2)
    bench.receive(a_queue_message())
    assert ([dead_letters.reason for dead_letters in bench.queue.dead_letters], bench.record()) == (["request_id_reused"], first)


@pytest.mark.parametrize("maybe_sent", [False, True])
@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED])
def test_a_stale_message_that_expires_does_not_end_a_request_with_a_newer_one(status: Status, maybe_sent: bool) -> None:  # noqa: FBT001 - a table
    """An operator's resend has another span than the first message tells."""
    resent = a_record(status, generation=1, maybe_sent=maybe_sent, expires_at=NOON + timedelta(days=3))
    bench = Bench(resent)
    bench.clock.time = NOON + timedelta(days=2)
    assert bench.receive(a_queue_message()) == []
    assert (bench.record(), bench.queue.sent) == (resent, [])


@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED, Status.SENDING, Status.UNKNOWN])
def test_a_stale_message_is_acknowledged(status: Status) -> None:
    """A newer one is on its way: a receipt that was lost must not breed messages."""
    bench = Bench(attempted(status, generation=2))
    assert bench.receive(a_queue_message(generation=1)) == []
    assert (bench.queue.sent, bench.provider.mails, bench.record().status) == ([], [], status)


def overdue(**fields: Any) -> Delivery:
    """Make a record of a request whose message has been lost: it should have come back at noon."""
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


def test_a_request_whose_message_is_lost_is_sent_when_its_caller_sends_it_once_more() -> None:
    """As the runbook says. It keeps its own end, and its producer is held against the rules as before."""
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


def test_of_many_messages_one_stands_for_what_was_lost() -> None:
    """Two that always found themselves older than the other would never be sent."""
    bench = Bench(overdue())
    bench.clock.time = NOON + OVERDUE_AFTER
    bench.receive(*[a_queue_message()] * 5)
    assert len(bench.queue.sent) == 1
    queue_message, _ = bench.take()
    bench.receive(a_queue_message(generation=4), queue_message)  # what seemed to be lost was only late
    assert (len(bench.provider.mails), bench.queue.sent, bench.record().status) == (1, [], Status.SENT)


NOT_LOST = {
    "not overdue": (overdue(), OVERDUE_AFTER - SECOND),
    "left to an operator": (overdue(due_at=None), timedelta(hours=5)),
    "in progress": (attempted(generation=4, due_at=NOON), OVERDUE_AFTER),
    "resent by an operator": (overdue(status=Status.QUEUED, due_at=None), timedelta(hours=5)),
}


@pytest.mark.parametrize(("record", "later"), NOT_LOST.values(), ids=NOT_LOST)
def test_a_message_that_is_on_its_way_is_not_replaced(record: Delivery, later: timedelta) -> None:
    """A producer may send everything twice."""
    bench = Bench(record)
    bench.clock.time = NOON + later
    bench.receive(a_queue_message())
    assert (bench.queue.sent, bench.record(), bench.provider.mails) == ([], record, [])


def test_an_old_message_of_ours_never_stands_for_a_lost_one() -> None:
    """Only what a caller sent: a receipt that was lost must not breed messages."""
    bench = Bench(overdue())
    bench.clock.time = NOON + OVERDUE_AFTER
    bench.receive(a_queue_message(generation=3))
    assert bench.queue.sent == []


def test_a_table_that_does_not_hear_of_the_replacement_costs_a_message() -> None:
    """That is safe on the queue by then."""
    bench = Bench(overdue())
    bench.clock.time = NOON + OVERDUE_AFTER

    def lost(change: Change) -> None:
        if change.rule.name == "reschedule":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = lost
    assert bench.receive(a_queue_message()) == []
    assert bench.take()[0].generation == 5


@pytest.mark.parametrize("send_at", [NOON + timedelta(minutes=1), NOON + timedelta(days=1)], ids=["queue", "bucket"])
def test_a_message_that_became_stale_while_it_was_put_to_rest_moves_nothing(send_at: datetime) -> None:
    """A newer one had raised the record's generation since it was read: lowered, the generation would let every stale message in again."""
    body = a_body(sendAt=send_at.isoformat())
    bench = Bench(a_record(body=body))

    def overtake(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=3)

    bench.messages.before = overtake
    bench.receive(a_queue_message(sendAt=send_at.isoformat()))
    assert (bench.record().status, bench.record().generation) == (Status.QUEUED, 3)


def overtaken_while_parking(bench: Bench, then: Callable[[], None]) -> None:
    """Let a newer message raise the generation while a body is being parked, and something happen before the record hears of that body."""

    def meanwhile(change: Change) -> None:
        if change.rule.name == "defer":
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=3)
        if change.rule.name == "annotate":
            then()

    bench.messages.before = meanwhile
    assert bench.receive(a_queue_message(sendAt=TOMORROW)) == []


TOMORROW = (NOON + timedelta(days=1)).isoformat()


def test_a_body_that_was_parked_for_a_stale_message_goes_with_its_request() -> None:
    """The newest message may have parked the same object: only the request's end can delete it."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))
    overtaken_while_parking(bench, lambda: None)
    assert bench.record().parked in bench.parked.bodies
    assert bench.queue.sent == []


def test_a_body_that_was_parked_for_an_ended_request_is_deleted() -> None:
    """It was cancelled before its record heard of the body."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))

    def cancel() -> None:
        bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.CANCELLED)

    overtaken_while_parking(bench, cancel)
    assert bench.parked.bodies == {}


def test_a_body_that_its_record_does_not_hear_of_is_the_bucket_s_to_delete() -> None:
    """The stale message is done all the same; that is all an outage can cost here."""
    bench = Bench(a_record(body=a_body(sendAt=TOMORROW)))

    def fail() -> None:
        raise DependencyError("DynamoDB", "UpdateItem")

    overtaken_while_parking(bench, fail)
    assert ([step for step, *_ in bench.events("failed")], bench.queue.sent) == (["remember"], [])


def test_a_body_that_was_parked_during_an_attempt_is_deleted_with_its_request() -> None:
    """The message that looks again finds the request sent, and knows of the body that its record never heard of."""
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


def test_a_parked_body_does_not_get_into_another_request_s_record() -> None:
    """Other content took the id while this body was being parked; what an operator puts back needs no bucket."""
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
    """Nothing takes over `sending`."""
    bench = Bench(attempted())
    bench.receive(a_queue_message())
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, bench.record().generation, bench.record().status) == (1, DEADLINE - NOON, 1, Status.SENDING)


def test_at_its_deadline_a_worker_is_still_waited_for() -> None:
    """Only past it is it given up."""
    bench = Bench(attempted())
    bench.clock.time = DEADLINE
    bench.receive(a_queue_message())
    assert bench.record().status is Status.SENDING


def test_past_its_deadline_an_attempt_is_unknown_and_held() -> None:
    """The message in hand keeps the body for an operator."""
    bench = Bench(attempted())
    bench.clock.time = DEADLINE + SECOND
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.UNKNOWN, "outcome_unknown")
    assert record.parked in bench.parked.bodies
    assert (bench.queue.sent, bench.provider.mails) == ([], [])


def test_a_result_that_comes_just_before_the_unknown_counts() -> None:
    """The write of `unknown` is refused, and the message does what the new state asks."""
    bench = Bench(attempted())
    bench.clock.time = DEADLINE + SECOND

    def finish(change: Change) -> None:
        if change.rule.name == "time_out":
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.SENT)

    bench.messages.before = finish
    assert bench.receive(a_queue_message()) == []
    assert (bench.record().status, bench.queue.sent, bench.parked.bodies) == (Status.SENT, [], {})


def test_a_held_unknown_keeps_the_body_that_it_has() -> None:
    """One object for one request."""
    bench = Bench(attempted(Status.UNKNOWN, parked=KEY))
    bench.receive(a_queue_message())
    assert (bench.record().parked, bench.parked.bodies, bench.queue.sent) == (KEY, {}, [])


def test_a_body_that_cannot_be_kept_keeps_its_message() -> None:
    """Without it an operator could not send the request again."""
    bench = Bench(attempted(Status.UNKNOWN))
    bench.parked.broken = True
    bench.receive(a_queue_message())
    assert bench.take()[0].generation == 1


def test_a_body_that_was_kept_for_nothing_is_deleted() -> None:
    """The proof of acceptance came while it was being parked."""
    bench = Bench(attempted(Status.UNKNOWN))

    def finish(change: Change) -> None:
        if change.rule.name == "annotate":
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.SENT)

    bench.messages.before = finish
    bench.receive(a_queue_message())
    assert bench.parked.bodies == {}


def test_a_newer_message_does_not_make_the_kept_body_unknown() -> None:
    """The record learns of it whatever its generation is by then."""
    bench = Bench(attempted(Status.UNKNOWN))

    def overtake(change: Change) -> None:
        if change.rule.name == "annotate" and bench.record().generation == 0:
            bench.messages.records["acme", "r1"] = replace(bench.record(), generation=3)

    bench.messages.before = overtake
    bench.receive(a_queue_message())
    assert bench.record().parked in bench.parked.bodies


def test_a_message_that_held_too_early_goes_on_with_what_it_finds() -> None:
    """Proof came while it kept the body: the request waits again, and this message is the one that brings it back."""
    bench = Bench(attempted(Status.UNKNOWN))

    def prove(change: Change) -> None:
        if change.rule.name == "annotate" and bench.record().status is Status.UNKNOWN:
            bench.messages.records["acme", "r1"] = replace(bench.record(), status=Status.DEFERRED, due_at=NOON + SECOND, generation=1)

    bench.messages.before = prove
    bench.receive(a_queue_message(generation=1))
    assert bench.take()[0].generation == 2


def test_an_unknown_to_be_resent_waits_until_its_worker_is_dead() -> None:
    """Deadline, the function's timeout and a minute."""
    bench = Bench(resendable())
    bench.receive(a_queue_message(onUnknown="resend"))
    assert bench.take()[1] == DEAD_AT - NOON


def test_an_unknown_is_resent_once_its_worker_is_dead() -> None:
    """It goes through the fence like any other, and stays marked."""
    bench = Bench(resendable())
    bench.clock.time = DEAD_AT + SECOND
    bench.receive(a_queue_message(onUnknown="resend"))
    assert (bench.record().status, bench.record().attempt, bench.record().maybe_sent) == (Status.SENT, 2, True)


@pytest.mark.parametrize("parked", [None, "parked/acme/r1/1.json"])
@pytest.mark.parametrize(("expires_at", "now"), [(DEAD_AT, NOON), (DEAD_AT + SECOND, DEAD_AT + SECOND)])
def test_an_unknown_that_expires_before_its_resend_has_ended(expires_at: datetime, now: datetime, parked: str | None) -> None:
    """It is known at once that nothing is sent again: the record says so, and an operator has the body."""
    asked = {"onUnknown": "resend", "expiresAt": expires_at.isoformat()}
    bench = Bench(attempted(Status.UNKNOWN, body=a_body(**asked), on_unknown="resend", expires_at=expires_at, parked=parked))
    bench.clock.time = now
    bench.receive(a_queue_message(**asked))
    record = bench.record()
    assert (record.status, record.on_unknown, record.ended, bench.queue.sent) == (Status.UNKNOWN, "hold", True, [])
    assert record.parked == parked if parked else record.parked in bench.parked.bodies


def test_an_unknown_to_be_resent_says_when_and_that_nobody_must_act() -> None:
    """Until then it is no end."""
    record = resendable(error=WORKER_LOST)
    assert (record.ended, record.next_try_at(SEND_TIMEOUT)) == (False, DEAD_AT)
    assert record.shown_error is not None
    assert record.shown_error.hint.startswith("Nobody:")
    held = replace(record, on_unknown="hold")
    assert (held.ended, held.next_try_at(SEND_TIMEOUT), held.shown_error) == (True, None, WORKER_LOST)


def test_a_late_proof_that_overtakes_a_resend_keeps_its_only_message() -> None:
    """The proof's own next message wanted the resend: the record waits for this very message now, so it must come back."""
    bench = Bench(resendable())
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


def test_a_resend_that_comes_too_late_leaves_the_body_to_an_operator() -> None:
    """Another worker had been granted it, and has given the request up since."""
    bench = Bench(resendable())
    bench.clock.time = DEAD_AT + SECOND

    def give_up(change: Change) -> None:
        if change.rule.name == "resend":
            bench.messages.records["acme", "r1"] = replace(bench.record(), on_unknown="hold", maybe_sent=True)

    bench.messages.before = give_up
    bench.receive(a_queue_message(onUnknown="resend"))
    assert bench.record().parked in bench.parked.bodies


def test_two_messages_that_want_the_resend_are_one_mail() -> None:
    """The fence lets one of them pass."""
    bench = Bench(resendable())
    bench.clock.time = DEAD_AT + SECOND
    bench.receive(a_queue_message(onUnknown="resend"), a_queue_message(onUnknown="resend"))
    assert len(bench.provider.mails) == 1


def test_a_deferred_request_that_is_not_due_comes_back_when_it_is() -> None:
    """A message that came early makes no attempt."""
    bench = Bench(a_record(Status.DEFERRED, due_at=NOON + 90 * SECOND, waits_for=WaitsFor.TIME))
    bench.receive(a_queue_message())
    queue_message, delay = bench.take()
    assert (queue_message.generation, delay, bench.provider.mails) == (1, 90 * SECOND, [])


def test_a_message_is_never_delayed_longer_than_the_queue_can() -> None:
    """It comes back in between and looks again."""
    bench = Bench(a_record(Status.DEFERRED, due_at=NOON + timedelta(hours=2), waits_for=WaitsFor.TIME))
    bench.receive(a_queue_message())
    assert bench.take()[1] == timedelta(seconds=900)


def test_a_generation_that_cannot_be_written_costs_at_most_a_second_message() -> None:
    """The message is safe; that is what counts."""
    bench = Bench(attempted())

    def lost(change: Change) -> None:
        if change.rule.name == "annotate":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = lost
    assert bench.receive(a_queue_message()) == []
    assert len(bench.queue.sent) == 1


def test_a_message_that_cannot_be_made_gives_the_receipt_back() -> None:
    """SQS hands it out again."""
    bench = Bench(attempted())
    bench.queue.broken = True
    assert bench.receive(Received("r", a_queue_message(), 1)) == ["r"]


def test_the_clock_of_one_worker_cannot_make_two_mails() -> None:
    """A clock that runs ahead makes an `unknown` too early; the proof of acceptance still wins, and nothing is sent twice."""
    bench = Bench(attempted())
    bench.clock.time = NOON + timedelta(hours=5)
    bench.receive(a_queue_message())
    assert bench.record().status is Status.UNKNOWN
    bench.clock.time = NOON
    bench.receive(a_queue_message(attributes={"proof": '{"attempt": 1, "owner": "another", "sent": "m-1"}'}))
    assert (bench.record().status, bench.record().message_id, bench.provider.mails, bench.parked.bodies) == (Status.SENT, "m-1", [], {})
