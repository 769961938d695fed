"""An operator's actions on dead letters: redrive open requests, drop with a record, never change ended requests."""

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
    """Dead letters in a list; received ones are invisible until they are put back."""

    waiting: list[DeadLetter] = field(default_factory=list)

    def receive_all(self) -> Iterator[DeadLetter]:
        taken, self.waiting = self.waiting, []
        yield from taken

    def delete(self, dead_letter: DeadLetter) -> None:
        assert dead_letter not in self.waiting

    def put_back(self, returned: Iterable[DeadLetter]) -> None:
        self.waiting += returned


@dataclass
class Scene:
    """A dead-letter queue with some dead letters, and a table with records."""

    dead_letters: list[DeadLetter]
    records: list[Delivery] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dlq = FakeDeadLetters(list(self.dead_letters))
        self.table, self.queue, self.parked = FakeMessagesTable(*self.records), FakeSendQueue(), FakeParkedBodies()
        self.clock = FakeClock()
        self.deps = DeadLetterDependencies(
            producers=Producers.parse(""),
            dead_letters=self.dlq,
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


def test_a_listing_shows_reasons_and_does_not_change_the_queue() -> None:
    """Messages that SQS moved have their own reason; a body is never shown."""
    scene = Scene([dead_letter(), dead_letter(reason=None)])
    summary = dead_letters.list_dead_letters(scene.deps)
    assert summary == [
        DeadLetterSummary("acme", "r1", "processing_crashed", "why"),
        DeadLetterSummary("acme", "r1", dead_letters.MOVED_BY_SQS, "why"),
    ]
    assert len(scene.dlq.waiting) == 2


@pytest.mark.parametrize("reason", [NOT_ALLOWED, None])
def test_a_dead_letter_with_a_replaced_key_s_signature_is_matched_by_its_record(reason: str | None) -> None:
    """It does not count as a producer's: the message came from one of our functions."""
    attributes = {"claimed": True, "sender": "AROASENDFUNCTION:x"}
    scene = Scene(
        [dead_letter(a_queue_message(attributes=attributes), reason), dead_letter(a_queue_message("r2", attributes=attributes), reason)],
        [a_record(generation=3)],
    )
    scene.deps = replace(scene.deps, producers=Producers.parse("AROAPRODUCER:acme"))
    assert scene.redrive() == [DeadLetterResult.REDRIVEN, DeadLetterResult.KEPT_NOT_ALLOWED]
    [queue_message] = scene.queue.messages
    assert (queue_message.generation, queue_message.claimed, queue_message.sender) == (3, False, None)


def test_a_pointer_with_a_replaced_key_s_signature_uses_the_record_s_key() -> None:
    """Its own key is not trusted."""
    key = "parked/acme/r1/1.json"
    first = QueueMessage(body='{"tenantId": "acme", "requestId": "r1"}', tenant_id="acme", created_at=NOON, claimed=True)
    scene = Scene([dead_letter(first, None)], [a_record(Status.DEFERRED, generation=3, parked=key)])
    scene.parked.bodies[key] = a_body()
    assert scene.redrive() == [DeadLetterResult.REDRIVEN]
    assert scene.queue.messages[0].parked == key


def test_a_redriven_request_is_due_at_once() -> None:
    """Its message has at least the record's generation, and no backoff of old failures."""
    deferred = a_record(Status.DEFERRED, generation=4, due_at=FakeClock().now() + timedelta(hours=9))
    scene = Scene([dead_letter(a_queue_message(generation=2, attributes={"failures": 8}))], [deferred])
    assert scene.redrive() == [DeadLetterResult.REDRIVEN]
    [queue_message] = scene.queue.messages
    record = scene.table.get("acme", "r1")
    assert (queue_message.generation >= 4, queue_message.failures) == (True, 0)
    assert record
    assert record.due_at == scene.clock.now()
    assert scene.dlq.waiting == []


def test_a_request_without_a_record_can_be_redriven() -> None:
    """The worker may have died before it wrote the record."""
    scene = Scene([dead_letter()])
    assert scene.redrive() == [DeadLetterResult.REDRIVEN]
    assert len(scene.queue.messages) == 1


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.CANCELLED, Status.UNKNOWN])
def test_an_ended_request_is_never_redriven(status: Status) -> None:
    """The dead letter stays on the queue."""
    scene = Scene([dead_letter()], [a_record(status)])
    assert scene.redrive() == [DeadLetterResult.KEPT_ENDED]
    assert (scene.queue.messages, len(scene.dlq.waiting)) == ([], 1)


def test_other_content_under_the_same_id_is_never_redriven() -> None:
    """It would be rejected again; a drop does not change the first request either."""
    other = a_queue_message().body.replace("{", '{"onUnknown": "resend", ', 1)
    scene = Scene([dead_letter(QueueMessage(body=other, tenant_id="acme", created_at=FakeClock().now()))], [a_record(Status.QUEUED)])
    assert scene.redrive() == [DeadLetterResult.KEPT_OTHER_CONTENT]
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert scene.status() is Status.QUEUED


def test_a_drop_deletes_the_parked_body_of_other_content() -> None:
    """It is not needed any more; the body of the first request stays."""
    tomorrow = FakeClock().now() + timedelta(days=1)
    scene = Scene([], [a_record(Status.DEFERRED, parked="parked/acme/r1/first.json")])
    bodies = {"parked/acme/r1/first.json": a_body(), "parked/acme/r1/other.json": a_body(sendAt=tomorrow.isoformat())}
    scene.parked.bodies = dict(bodies)
    scene.dlq.waiting = [dead_letter(a_queue_message(attributes={"parked": "parked/acme/r1/other.json"}))]
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert (list(scene.parked.bodies), scene.status()) == (["parked/acme/r1/first.json"], Status.DEFERRED)


def test_an_unreadable_dead_letter_can_only_be_dropped() -> None:
    """There is no record to write."""
    garbage = dead_letter(QueueMessage(body="{", tenant_id="acme", created_at=FakeClock().now()), "invalid_request")
    scene = Scene([garbage])
    assert scene.redrive() == [DeadLetterResult.KEPT_UNREADABLE]
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert scene.dlq.waiting == []


def test_a_message_that_cannot_be_queued_stays_a_dead_letter() -> None:
    """A dead letter is deleted only after its message is queued."""
    scene = Scene([dead_letter()], [a_record(Status.QUEUED)])
    scene.queue.broken = True
    assert scene.redrive() == [DeadLetterResult.KEPT_QUEUE]
    assert len(scene.dlq.waiting) == 1


@pytest.mark.parametrize("operation", ["redrive", "drop"])
def test_a_failing_dead_letter_is_kept_and_the_next_is_processed(operation: str) -> None:
    """One throttled call neither stops the run nor hides the dead letter from the next run."""
    scene = Scene(
        [dead_letter(), dead_letter(a_queue_message(request_id="r2"))], [a_record(Status.QUEUED), a_record(Status.QUEUED, request_id="r2")]
    )
    read = scene.table.get

    def fail_once(tenant_id: str, request_id: str) -> Delivery | None:
        if request_id == "r1":
            raise DependencyError("DynamoDB", "GetItem")
        return read(tenant_id, request_id)

    scene.table.get = fail_once  # type: ignore[method-assign]
    assert getattr(scene, operation)() == [
        DeadLetterResult.KEPT_FAILED,
        DeadLetterResult.REDRIVEN if operation == "redrive" else DeadLetterResult.DROPPED,
    ]
    assert scene.dlq.waiting == [dead_letter()]


@pytest.mark.parametrize("records", [[], [a_record(Status.QUEUED)], [a_record(Status.DEFERRED)]])
def test_a_dropped_request_ends_as_failed_dropped(records: list[Delivery]) -> None:
    """The code says that an operator dropped it."""
    scene = Scene([dead_letter()], records)
    assert scene.drop() == [DeadLetterResult.DROPPED]
    record = scene.table.get("acme", "r1")
    assert record
    assert record.error
    assert (record.status, record.error.code) == (Status.FAILED, "dropped")


def test_a_dropped_request_that_may_have_been_accepted_ends_as_unknown() -> None:
    """It is never recorded as failed."""
    scene = Scene([dead_letter()], [a_record(Status.QUEUED, maybe_sent=True)])
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert scene.status() is Status.UNKNOWN


def test_a_request_in_progress_is_not_dropped() -> None:
    """SES may be accepting it now."""
    scene = Scene([dead_letter()], [a_record(Status.SENDING, attempt=1, owner="w", deadline=FakeClock().now())])
    assert scene.drop() == [DeadLetterResult.KEPT_IN_PROGRESS]
    assert (scene.status(), len(scene.dlq.waiting)) == (Status.SENDING, 1)


def test_a_dead_letter_with_attributes_of_another_version_stays() -> None:
    """It may have a proof, which neither a redrive nor a drop may destroy."""
    scene = Scene([replace(dead_letter(reason=None), is_readable=False)])
    assert [summary.reason for summary in dead_letters.list_dead_letters(scene.deps)] == ["other_version"]
    assert scene.redrive() == scene.drop() == [DeadLetterResult.KEPT_OTHER_VERSION]
    assert len(scene.dlq.waiting) == 1


def test_only_selected_dead_letters_are_redriven() -> None:
    """The others are put back."""
    scene = Scene(
        [
            dead_letter(a_queue_message(attributes={})),
            dead_letter(QueueMessage(body=a_body(tenant_id="globex"), tenant_id="globex", created_at=FakeClock().now())),
        ]
    )
    assert scene.redrive("globex") == [DeadLetterResult.REDRIVEN]
    assert [dead_letters.summarize(remaining).tenant_id for remaining in scene.dlq.waiting] == ["acme"]


def test_a_dead_letter_that_is_too_large_to_requeue_can_only_be_dropped() -> None:
    """SQS moved it before it could be rejected; the service's attributes would not fit."""
    body = a_body()
    scene = Scene([dead_letter(a_queue_message(attributes={"body": body + " " * (MAX_BODY + 1 - len(body))}))])
    assert scene.redrive() == [DeadLetterResult.KEPT_TOO_LARGE]
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert scene.status() is Status.FAILED


def test_nothing_is_written_for_a_producer_that_is_not_allowed() -> None:
    """Neither a drop nor a redrive writes, for any reason of the dead letter."""
    rejected = [dead_letter(a_queue_message(attributes={"sender": "A"}), reason) for reason in (NOT_ALLOWED, None)]
    scene = Scene(rejected, [a_record(Status.QUEUED)])
    scene.deps = replace(scene.deps, producers=Producers.parse("A:globex"))
    assert scene.redrive() == [DeadLetterResult.KEPT_NOT_ALLOWED] * 2
    assert scene.drop() == [DeadLetterResult.DROPPED] * 2
    assert (scene.status(), scene.queue.sent) == (Status.QUEUED, [])


def test_a_producer_that_is_allowed_now_can_be_redriven() -> None:
    """The operator has corrected the rules."""
    scene = Scene([dead_letter(a_queue_message(attributes={"sender": "A"}), NOT_ALLOWED)])
    scene.deps = replace(scene.deps, producers=Producers.parse("A:acme"))
    assert scene.redrive() == [DeadLetterResult.REDRIVEN]
    assert [queue_message.sender for queue_message in scene.queue.messages] == ["A"]


# -- dead letters with a proof of an attempt's outcome -------------------------------------------------------------------

KEY = "parked/acme/r1/1.json"
ATTEMPT = {"attempt": 1, "owner": "w", "deadline": FakeClock().now()}


def with_proof(outcome: Outcome, **attributes: Any) -> DeadLetter:
    """Make a dead letter that SQS moved while the table did not respond."""
    return dead_letter(a_queue_message(generation=2, attributes={"proof": to_json(Fence(1, "w"), outcome), **attributes}))


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN, Status.FAILED, Status.QUEUED])
def test_a_dead_letter_with_a_proof_is_redriven(status: Status) -> None:
    """Also if the request has ended without it."""
    scene = Scene([with_proof(Sent("m1"))], [a_record(status, generation=1, **ATTEMPT)])
    assert scene.redrive() == [DeadLetterResult.REDRIVEN]
    [queue_message] = scene.queue.messages
    assert (queue_message.proof, queue_message.generation) == (to_json(Fence(1, "w"), Sent("m1")), 2)


def test_a_proof_without_news_is_not_redriven() -> None:
    """Its request is recorded as sent."""
    scene = Scene([with_proof(Sent("m1"))], [a_record(Status.SENT, **ATTEMPT)])
    assert scene.redrive() == [DeadLetterResult.KEPT_ENDED]
    assert scene.drop() == [DeadLetterResult.DROPPED]


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN, Status.FAILED, Status.QUEUED])
def test_dropping_a_proof_of_acceptance_records_sent(status: Status) -> None:
    """An accepted mail is never recorded as failed; its body is deleted."""
    scene = Scene([with_proof(Sent("m1"), parked=KEY)], [a_record(status, **ATTEMPT)])
    scene.parked.bodies = {KEY: a_body()}
    assert scene.drop() == [DeadLetterResult.RECORDED]
    record = scene.table.get("acme", "r1")
    assert record
    assert (record.status, record.message_id, scene.parked.bodies, scene.dlq.waiting) == (Status.SENT, "m1", {}, [])


def test_dropping_a_proof_of_a_producer_that_is_not_allowed_any_more_records_sent() -> None:
    """It was allowed when one of our workers sent its mail."""
    scene = Scene([with_proof(Sent("m1"), sender="A")], [a_record(Status.UNKNOWN, **ATTEMPT)])
    scene.dlq.waiting = [replace(scene.dlq.waiting[0], reason=NOT_ALLOWED)]
    scene.deps = replace(scene.deps, producers=Producers.parse("A:globex"))
    assert scene.redrive() == [DeadLetterResult.KEPT_NOT_ALLOWED]
    assert scene.drop() == [DeadLetterResult.RECORDED]
    assert scene.status() is Status.SENT


@pytest.mark.parametrize("bodies", [{}, {KEY: a_body(newField=True)}], ids=["missing", "of a later version"])
def test_dropping_a_proof_whose_body_cannot_be_read_records_sent(bodies: dict[str, str]) -> None:
    """Its message names the request; the body stays as it is."""
    scene = Scene([with_proof(Sent("m1"), parked=KEY)], [a_record(Status.UNKNOWN, **ATTEMPT)])
    scene.parked.bodies = dict(bodies)
    assert scene.redrive() == [DeadLetterResult.KEPT_UNREADABLE]
    assert scene.drop() == [DeadLetterResult.RECORDED]
    assert (scene.status(), scene.parked.bodies) == (Status.SENT, bodies)


def test_a_proof_of_an_attempt_that_was_not_made_is_only_dropped() -> None:
    """It is neither the record's nor an earlier one."""
    scene = Scene([with_proof(Sent("m1"), parked=KEY)], [a_record(Status.UNKNOWN, attempt=1, owner="another")])
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert scene.status() is Status.UNKNOWN


@pytest.mark.parametrize("outcome", [THROTTLED, REJECTED])
@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN])
def test_dropping_a_proof_of_rejection_records_dropped(status: Status, outcome: NotSent) -> None:
    """The attempt is over, and it was proven not to be sent."""
    scene = Scene([with_proof(outcome)], [a_record(status, **ATTEMPT)])
    assert scene.drop() == [DeadLetterResult.DROPPED]
    record = scene.table.get("acme", "r1")
    assert record
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "dropped")


def test_a_proof_of_rejection_does_not_end_a_maybe_sent_request() -> None:
    """It stays unknown."""
    scene = Scene([with_proof(REJECTED)], [a_record(Status.UNKNOWN, maybe_sent=True, **ATTEMPT)])
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert scene.status() is Status.UNKNOWN


def test_a_drop_keeps_the_body_of_an_unknown() -> None:
    """An operator may still resend it."""
    scene = Scene([dead_letter(a_queue_message(attributes={"parked": KEY}))], [a_record(Status.QUEUED, maybe_sent=True, parked=KEY)])
    scene.parked.bodies = {KEY: a_body()}
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert (scene.status(), list(scene.parked.bodies)) == (Status.UNKNOWN, [KEY])


@pytest.mark.parametrize("key", ["parked/globex/r1/1.json", "parked/acme/r2/1.json", "parked/acme/r1", "attachments/acme/r1/1.json"])
def test_a_dead_letter_cannot_use_the_body_of_another_request(key: str) -> None:
    """That body is neither read nor deleted."""
    scene = Scene([dead_letter(a_queue_message(attributes={"parked": key}))])
    scene.parked.bodies = {key: a_body()}
    assert scene.redrive() == [DeadLetterResult.KEPT_UNREADABLE]
    assert scene.drop() == [DeadLetterResult.DROPPED]
    assert (list(scene.parked.bodies), scene.table.records) == ([key], {})
