"""What an operator may do with dead letters: try again what is open, give up with a record, and never touch what has ended."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.changes import Fence
from mailer.domain.delivery import Delivery, NotSent, Outcome, Sent, Status
from mailer.domain.errors import DependencyError
from mailer.domain.message import MAX_BODY
from mailer.domain.producers import Producers
from mailer.domain.proof import to_json
from mailer.ports import QueueMessage
from mailer.services.sending.intake import NOT_ALLOWED
from mailer_ops.operations import dead_letters
from mailer_ops.operations.dead_letters import DeadLetterDependencies, DeadLetterResult, DeadLetterSummary
from mailer_ops.ports import DeadLetter
from support.fakes.ports import NOON, FakeClock, FakeMessagesTable, FakeParkedBodies, FakeSendQueue, FakeTelemetry
from support.fakes.sending import REJECTED, THROTTLED, a_body, a_queue_message, a_record


@dataclass
class FakeDeadLetters:
    """Letters in a list; what was taken out is gone until it is put back."""

    waiting: list[DeadLetter] = field(default_factory=list)

    def receive_all(self) -> Iterator[DeadLetter]:
        taken, self.waiting = self.waiting, []
        yield from taken

    def delete(self, dead_letter: DeadLetter) -> None:
        assert dead_letter not in self.waiting

    def put_back(self, letters: Iterable[DeadLetter]) -> None:
        self.waiting += letters


@dataclass
class Office:
    """A dead-letter queue with some dead letters, and records beside it."""

    dead_letters: list[DeadLetter]
    records: list[Delivery] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dead = FakeDeadLetters(list(self.dead_letters))
        self.table, self.queue, self.parked = FakeMessagesTable(*self.records), FakeSendQueue(), FakeParkedBodies()
        self.clock = FakeClock()
        self.deps = DeadLetterDependencies(
            producers=Producers.parse(""),
            dead_letters=self.dead,
            messages=self.table,
            queue=self.queue,
            parked=self.parked,
            telemetry=FakeTelemetry(),
            clock=self.clock,
        )

    def redrive(self, tenant_id: str = "acme") -> list[DeadLetterResult]:
        return [result for _, result in dead_letters.redrive(self.deps, lambda summary: summary.tenant_id == tenant_id)]

    def drop(self, tenant_id: str = "acme") -> list[DeadLetterResult]:
        return [result for _, result in dead_letters.drop(self.deps, lambda summary: summary.tenant_id == tenant_id)]

    def status(self) -> Status:
        record = self.table.get("acme", "r1")
        assert record
        return record.status


def dead_letter(queue_message: QueueMessage | None = None, reason: str | None = "processing_crashed") -> DeadLetter:
    return DeadLetter(queue_message or a_queue_message(), reason, "why", "handle")


def test_a_listing_tells_reasons_and_leaves_the_queue_as_it_was() -> None:
    """What SQS moved by itself is told apart; a body is never shown."""
    office = Office([dead_letter(), dead_letter(reason=None)])
    summary = dead_letters.list_dead_letters(office.deps)
    assert summary == [
        DeadLetterSummary("acme", "r1", "processing_crashed", "why"),
        DeadLetterSummary("acme", "r1", dead_letters.MOVED_BY_SQS, "why"),
    ]
    assert len(office.dead.waiting) == 2


@pytest.mark.parametrize("reason", [NOT_ALLOWED, None])
def test_a_dead_letter_that_a_replaced_key_has_signed_is_known_by_its_record(reason: str | None) -> None:
    """Not as its producer's: the message came from one of our functions."""
    attributes = {"claimed": True, "sender": "AROASENDFUNCTION:x"}
    office = Office(
        [dead_letter(a_queue_message(attributes=attributes), reason), dead_letter(a_queue_message("r2", attributes=attributes), reason)],
        [a_record(generation=3)],
    )
    office.deps = replace(office.deps, producers=Producers.parse("AROAPRODUCER:acme"))
    assert office.redrive() == [DeadLetterResult.REDRIVEN, DeadLetterResult.KEPT_NOT_ALLOWED]
    [queue_message] = office.queue.messages
    assert (queue_message.generation, queue_message.claimed, queue_message.sender) == (3, False, None)


def test_a_pointer_that_a_replaced_key_has_signed_leads_to_the_parked_body() -> None:
    """Where the record says; its dead letter says nothing that counts."""
    key = "parked/acme/r1/1.json"
    first = QueueMessage(body='{"tenantId": "acme", "requestId": "r1"}', tenant_id="acme", created_at=NOON, claimed=True)
    office = Office([dead_letter(first, None)], [a_record(Status.DEFERRED, generation=3, parked=key)])
    office.parked.bodies[key] = a_body()
    assert office.redrive() == [DeadLetterResult.REDRIVEN]
    assert office.queue.messages[0].parked == key


def test_an_open_request_goes_through_the_queue_again_at_once() -> None:
    """It is due now, its message is not older than what the record knows, and it does not wait for old failures."""
    deferred = a_record(Status.DEFERRED, generation=4, due_at=FakeClock().now() + timedelta(hours=9))
    office = Office([dead_letter(a_queue_message(generation=2, attributes={"failures": 8}))], [deferred])
    assert office.redrive() == [DeadLetterResult.REDRIVEN]
    [queue_message] = office.queue.messages
    record = office.table.get("acme", "r1")
    assert (queue_message.generation >= 4, queue_message.failures) == (True, 0)
    assert record
    assert record.due_at == office.clock.now()
    assert office.dead.waiting == []


def test_a_request_without_a_record_can_be_tried_again() -> None:
    """The worker may have died before it wrote anything."""
    office = Office([dead_letter()])
    assert office.redrive() == [DeadLetterResult.REDRIVEN]
    assert len(office.queue.messages) == 1


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.CANCELLED, Status.UNKNOWN])
def test_what_has_ended_is_never_tried_again(status: Status) -> None:
    """The dead letter stays where it is."""
    office = Office([dead_letter()], [a_record(status)])
    assert office.redrive() == [DeadLetterResult.KEPT_ENDED]
    assert (office.queue.messages, len(office.dead.waiting)) == ([], 1)


def test_other_content_under_the_same_id_is_never_tried_again() -> None:
    """It would be refused again; the first request is left alone by a drop, too."""
    other = a_queue_message().body.replace("{", '{"onUnknown": "resend", ', 1)
    office = Office([dead_letter(QueueMessage(body=other, tenant_id="acme", created_at=FakeClock().now()))], [a_record(Status.QUEUED)])
    assert office.redrive() == [DeadLetterResult.KEPT_OTHER_CONTENT]
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert office.status() is Status.QUEUED


def test_a_drop_deletes_the_parked_body_of_other_content() -> None:
    """Nobody will send it; that of the first request stays."""
    tomorrow = FakeClock().now() + timedelta(days=1)
    office = Office([], [a_record(Status.DEFERRED, parked="parked/acme/r1/first.json")])
    bodies = {"parked/acme/r1/first.json": a_body(), "parked/acme/r1/other.json": a_body(sendAt=tomorrow.isoformat())}
    office.parked.bodies = dict(bodies)
    office.dead.waiting = [dead_letter(a_queue_message(attributes={"parked": "parked/acme/r1/other.json"}))]
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert (list(office.parked.bodies), office.status()) == (["parked/acme/r1/first.json"], Status.DEFERRED)


def test_what_cannot_be_read_is_not_tried_again_but_can_be_dropped() -> None:
    """There is no record to write."""
    garbage = dead_letter(QueueMessage(body="{", tenant_id="acme", created_at=FakeClock().now()), "invalid_request")
    office = Office([garbage])
    assert office.redrive() == [DeadLetterResult.KEPT_UNREADABLE]
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert office.dead.waiting == []


def test_a_message_that_the_queue_does_not_take_stays_a_dead_letter() -> None:
    """Nothing is deleted before it is safe elsewhere."""
    office = Office([dead_letter()], [a_record(Status.QUEUED)])
    office.queue.broken = True
    assert office.redrive() == [DeadLetterResult.KEPT_QUEUE]
    assert len(office.dead.waiting) == 1


@pytest.mark.parametrize("work", ["redrive", "drop"])
def test_a_dead_letter_on_which_a_service_fails_is_kept_and_the_next_goes_on(work: str) -> None:
    """One throttle among hundreds stops no operator, and hides no dead letter from the next try."""
    office = Office(
        [dead_letter(), dead_letter(a_queue_message(request_id="r2"))], [a_record(Status.QUEUED), a_record(Status.QUEUED, request_id="r2")]
    )
    read = office.table.get

    def fail_once(tenant_id: str, request_id: str) -> Delivery | None:
        if request_id == "r1":
            raise DependencyError("DynamoDB", "GetItem")
        return read(tenant_id, request_id)

    office.table.get = fail_once  # type: ignore[method-assign]
    assert getattr(office, work)() == [
        DeadLetterResult.KEPT_FAILED,
        DeadLetterResult.REDRIVEN if work == "redrive" else DeadLetterResult.DROPPED,
    ]
    assert office.dead.waiting == [dead_letter()]


@pytest.mark.parametrize("records", [[], [a_record(Status.QUEUED)], [a_record(Status.DEFERRED)]])
def test_a_dropped_request_ends_as_failed_dropped(records: list[Delivery]) -> None:
    """With the code that says that an operator did it."""
    office = Office([dead_letter()], records)
    assert office.drop() == [DeadLetterResult.DROPPED]
    record = office.table.get("acme", "r1")
    assert record
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "dropped")


def test_a_dropped_request_that_may_have_been_accepted_ends_as_unknown() -> None:
    """It is never recorded as failed."""
    office = Office([dead_letter()], [a_record(Status.QUEUED, maybe_sent=True)])
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert office.status() is Status.UNKNOWN


def test_a_request_that_a_worker_is_at_is_not_dropped() -> None:
    """SES may be accepting it this moment."""
    office = Office([dead_letter()], [a_record(Status.SENDING, attempt=1, owner="w", deadline=FakeClock().now())])
    assert office.drop() == [DeadLetterResult.KEPT_UNDER_WAY]
    assert (office.status(), len(office.dead.waiting)) == (Status.SENDING, 1)


def test_only_what_was_chosen_is_touched() -> None:
    """The others are put back."""
    office = Office(
        [
            dead_letter(a_queue_message(attributes={})),
            dead_letter(QueueMessage(body=a_body(tenant_id="globex"), tenant_id="globex", created_at=FakeClock().now())),
        ]
    )
    assert office.redrive("globex") == [DeadLetterResult.REDRIVEN]
    assert [dead_letters.summarize(kept).tenant_id for kept in office.dead.waiting] == ["acme"]


def test_a_dead_letter_that_leaves_no_room_on_the_queue_can_only_be_dropped() -> None:
    """SQS moved it before it could be refused; what the service adds to a message would not fit."""
    body = a_body()
    office = Office([dead_letter(a_queue_message(attributes={"body": body + " " * (MAX_BODY + 1 - len(body))}))])
    assert office.redrive() == [DeadLetterResult.KEPT_TOO_LARGE]
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert office.status() is Status.FAILED


def test_nothing_is_written_for_a_producer_that_may_not_ask() -> None:
    """Neither by a drop nor by a redrive, whatever the dead letter says."""
    letters = [dead_letter(a_queue_message(attributes={"sender": "A"}), reason) for reason in (NOT_ALLOWED, None)]
    office = Office(letters, [a_record(Status.QUEUED)])
    office.deps = replace(office.deps, producers=Producers.parse("A:globex"))
    assert office.redrive() == [DeadLetterResult.KEPT_NOT_ALLOWED] * 2
    assert office.drop() == [DeadLetterResult.DROPPED] * 2
    assert (office.status(), office.queue.sent) == (Status.QUEUED, [])


def test_a_producer_that_may_ask_by_now_is_heard_after_a_redrive() -> None:
    """The operator has corrected the rules."""
    office = Office([dead_letter(a_queue_message(attributes={"sender": "A"}), NOT_ALLOWED)])
    office.deps = replace(office.deps, producers=Producers.parse("A:acme"))
    assert office.redrive() == [DeadLetterResult.REDRIVEN]
    assert [queue_message.sender for queue_message in office.queue.messages] == ["A"]


# -- dead letters that prove what became of an attempt ------------------------------------------------------------------------

KEY = "parked/acme/r1/1.json"
ATTEMPT = {"attempt": 1, "owner": "w", "deadline": FakeClock().now()}


def proving(outcome: Outcome, **attributes: Any) -> DeadLetter:
    """Make a dead letter that SQS moved while the table was away."""
    return dead_letter(a_queue_message(generation=2, attributes={"proof": to_json(Fence(1, "w"), outcome), **attributes}))


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN, Status.FAILED, Status.QUEUED])
def test_a_proof_goes_back_to_be_settled(status: Status) -> None:
    """Also where the request counts as ended without it."""
    office = Office([proving(Sent("m1"))], [a_record(status, generation=1, **ATTEMPT)])
    assert office.redrive() == [DeadLetterResult.REDRIVEN]
    [queue_message] = office.queue.messages
    assert (queue_message.proof, queue_message.generation) == (to_json(Fence(1, "w"), Sent("m1")), 2)


def test_a_proof_that_says_nothing_new_does_not_go_back() -> None:
    """Its request has been sent."""
    office = Office([proving(Sent("m1"))], [a_record(Status.SENT, **ATTEMPT)])
    assert office.redrive() == [DeadLetterResult.KEPT_ENDED]
    assert office.drop() == [DeadLetterResult.DROPPED]


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN, Status.FAILED, Status.QUEUED])
def test_a_dropped_dead_letter_that_proves_an_acceptance_ends_its_request_as_sent(status: Status) -> None:
    """What SES accepted is never failed; nobody needs the body any more."""
    office = Office([proving(Sent("m1"), parked=KEY)], [a_record(status, **ATTEMPT)])
    office.parked.bodies = {KEY: a_body()}
    assert office.drop() == [DeadLetterResult.RECORDED]
    record = office.table.get("acme", "r1")
    assert record
    assert (record.status, record.message_id, office.parked.bodies, office.dead.waiting) == (Status.SENT, "m1", {}, [])


@pytest.mark.parametrize("outcome", [THROTTLED, REJECTED])
@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN])
def test_a_dropped_dead_letter_that_proves_a_refusal_ends_its_request_as_dropped(status: Status, outcome: NotSent) -> None:
    """Nobody is at it any more: it was proven not to be sent."""
    office = Office([proving(outcome)], [a_record(status, **ATTEMPT)])
    assert office.drop() == [DeadLetterResult.DROPPED]
    record = office.table.get("acme", "r1")
    assert record
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "dropped")


def test_a_refusal_does_not_end_what_an_earlier_attempt_may_have_sent() -> None:
    """It stays unknown."""
    office = Office([proving(REJECTED)], [a_record(Status.UNKNOWN, maybe_sent=True, **ATTEMPT)])
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert office.status() is Status.UNKNOWN


def test_a_body_that_an_operator_may_still_need_outlives_a_drop() -> None:
    """Of a request that ends as unknown."""
    office = Office([dead_letter(a_queue_message(attributes={"parked": KEY}))], [a_record(Status.QUEUED, maybe_sent=True, parked=KEY)])
    office.parked.bodies = {KEY: a_body()}
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert (office.status(), list(office.parked.bodies)) == (Status.UNKNOWN, [KEY])


@pytest.mark.parametrize("key", ["parked/globex/r1/1.json", "parked/acme/r2/1.json", "parked/acme/r1", "attachments/acme/r1/1.json"])
def test_no_dead_letter_touches_the_body_of_another_request(key: str) -> None:
    """It is neither read nor deleted, whatever the dead letter says."""
    office = Office([dead_letter(a_queue_message(attributes={"parked": key}))])
    office.parked.bodies = {key: a_body()}
    assert office.redrive() == [DeadLetterResult.KEPT_UNREADABLE]
    assert office.drop() == [DeadLetterResult.DROPPED]
    assert (list(office.parked.bodies), office.table.records) == ([key], {})
