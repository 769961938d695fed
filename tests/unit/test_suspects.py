"""A message that crashes its worker is isolated and moved to the dead-letter queue; the others of its batches are sent."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Outcome, Status
from mailer.domain.errors import DependencyError
from mailer.ports import QueueMessage, Stage, Trial
from mailer.services.sending.jobs import Received
from mailer.services.sending.send import CALL_SPAN
from mailer.services.sending.suspects import DEAD_LETTER_FROM, DIED, RAISED, REQUEUE_FROM, SUSPECT_FROM, TRIAL_SPAN
from support.crashing import STEPS, CrashingBody, Queue, WorkerCrash
from support.fakes.ports import NOON
from support.fakes.sending import Bench, a_body, a_queue_message, a_record, attempted

LONG_AGO = NOON - timedelta(seconds=360)


def culprit(bench: Bench, queue_message: QueueMessage | None = None, stage: Stage = Stage.SENDING) -> Received:
    """Return a message that SQS redelivers because its worker crashed while it processed only this message."""
    bench.trials.marks["last"] = Trial(stage, "gone", LONG_AGO)
    return Received("last", queue_message or a_queue_message(), SUSPECT_FROM + 1)


def suspect(receives: int = SUSPECT_FROM, queue_message: QueueMessage | None = None) -> Received:
    """Return a message that has been delivered before."""
    return Received("suspect", queue_message or a_queue_message(), receives)


def broken(*_: Any, **__: Any) -> Any:
    """Fail like SQS."""
    raise DependencyError("SQS", "SendMessage")


def reasons(bench: Bench) -> Sequence[tuple[str, str]]:
    """Return reason and detail of each dead letter."""
    return [(dead_letters.reason, dead_letters.detail) for dead_letters in bench.queue.dead_letters]


# -- a hundred neighbours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch", [10, 100])
@pytest.mark.parametrize("poison", [1, 3, 10])
def test_only_poison_messages_become_dead_letters_and_all_others_are_sent_once(poison: int, batch: int, seed: int) -> None:
    """Of a hundred messages, at any step of a crash: no other message becomes a dead letter, is lost or is sent twice."""
    queue = Queue(poison, seed, batch=batch).run()
    others = {str(number) for number in range(queue.messages)} - queue.poison_steps.keys()
    assert (sorted(queue.dead_letters), queue.sent, queue.moved) == (sorted(queue.poison_steps), others, [])
    assert len(queue.bench.provider.mails) == len(others)


@pytest.mark.parametrize("step", STEPS)
def test_each_poison_message_crashes_three_workers_at_most(step: str) -> None:
    """Two while it is processed with others, one while it is processed alone."""
    assert [Queue(1, seed, step=step).run().crashes for seed in range(3)] == [3, 3, 3]
    assert max(Queue(3, seed, step=step).run().crashes for seed in range(3)) <= 3 * 3


# -- one message ---------------------------------------------------------------------------------------------------------


def test_suspects_are_processed_after_the_others_of_their_batch() -> None:
    """From the third receive on a message may be the poison one."""
    bench = Bench()
    bench.receive(Received("a", a_queue_message("suspect"), SUSPECT_FROM), Received("b", a_queue_message("calm"), SUSPECT_FROM - 1))
    assert bench.record("calm").message_id == "m1"
    assert bench.record("suspect").message_id == "m2"


def test_a_harmless_suspect_is_sent_and_only_acknowledged_when_redelivered() -> None:
    """Its deletion may be lost if the worker crashes on another message."""
    bench = Bench()
    assert (bench.receive(suspect()), bench.record().status) == ([], Status.SENT)
    bench.clock.advance(timedelta(seconds=360))
    before = len(bench.telemetry.entries)
    assert (bench.receive(suspect(SUSPECT_FROM + 1)), reasons(bench)) == ([], [])
    assert len(bench.telemetry.entries) == before


def test_a_message_that_crashed_its_worker_alone_becomes_a_dead_letter() -> None:
    """It is not tried again but copied to the dead-letter queue with the reason; its record stays open."""
    bench = Bench(a_record())
    assert bench.receive(culprit(bench)) == []
    assert (reasons(bench), bench.queue.dead_letters[0].queue_message.body) == ([("processing_crashed", DIED.message)], a_body())
    record = bench.record()
    assert (record.status, record.error, record.sweep_at) == (Status.DEFERRED, DIED, record.expires_at)
    assert (bench.provider.mails, bench.queue.sent) == ([], [])


def test_a_poison_message_without_a_record_gets_one() -> None:
    """Also one that never reached the fence."""
    bench = Bench()
    bench.receive(culprit(bench))
    assert bench.record().status is Status.DEFERRED


def test_a_message_that_crashes_parsing_becomes_a_dead_letter_unparsed() -> None:
    """Parsing it would crash this worker too; it is handled even if this worker crashes on another message before the deletion."""
    bench = Bench()
    deadly = QueueMessage(body=CrashingBody(a_body()), tenant_id="acme", created_at=NOON)
    assert bench.receive(culprit(bench, deadly, Stage.READING)) == []
    assert bench.receive(Received("last", deadly, SUSPECT_FROM + 2)) == []
    assert reasons(bench) == [("processing_crashed", DIED.message)]


def test_a_redriven_poison_message_is_tried_again_alone() -> None:
    """Also after SQS's own redrive, which delivers the dead letter unchanged: it is the newest message, due, and crashes no other."""
    bench = Bench(a_record())
    bench.receive(culprit(bench))
    [dead_letters] = bench.queue.dead_letters
    bench.receive(Received("again", dead_letters.queue_message, 1), Received("b", a_queue_message("calm"), 1))
    assert bench.record("calm").message_id == "m1"
    assert (bench.record().status, bench.record().message_id) == (Status.SENT, "m2")


def test_a_poison_message_whose_request_was_sent_is_acknowledged() -> None:
    """After a crash that followed the send nothing is left to do."""
    bench = Bench(attempted(Status.SENT))
    bench.receive(culprit(bench))
    assert (bench.queue.dead_letters, bench.queue.sent) == ([], [])


def test_a_poison_message_with_other_content_is_reported_as_such() -> None:
    """The reason is one that an operator can act on."""
    bench = Bench(a_record(body=a_body(onUnknown="resend")))
    bench.receive(culprit(bench))
    assert [reason for reason, _ in reasons(bench)] == ["request_id_reused"]


def test_an_unknown_due_for_its_resend_may_be_a_poison_message_too() -> None:
    """Its message becomes a dead letter and is not acknowledged as if it were in progress."""
    body = a_body(onUnknown="resend")
    lost = {"deadline": LONG_AGO, "updated_at": LONG_AGO}
    bench = Bench(attempted(Status.UNKNOWN, body=body, on_unknown="resend", **lost))
    bench.receive(culprit(bench, a_queue_message(onUnknown="resend")))
    assert [reason for reason, _ in reasons(bench)] == ["processing_crashed"]
    assert bench.record().status is Status.DEFERRED


def test_a_poison_message_is_not_lost_if_the_dead_letter_queue_fails() -> None:
    """A message is acknowledged only after it was requeued or copied; otherwise SQS redelivers it."""
    bench = Bench(a_record())
    bench.queue.dead_letter = broken  # type: ignore[method-assign]  # the port fails
    assert bench.receive(culprit(bench)) == []
    assert bench.take()[0].generation == 1
    assert bench.receive(culprit(bench, stage=Stage.READING)) == ["last"]


def test_a_message_in_progress_in_another_worker_is_left_to_it() -> None:
    """SQS occasionally delivers a message twice; the other worker may still run."""
    bench = Bench()
    bench.trials.marks["suspect"] = Trial(Stage.SENDING, "other", NOON - timedelta(seconds=30))
    assert (bench.receive(suspect()), reasons(bench), bench.provider.mails) == (["suspect"], [], [])


def test_a_message_behind_a_poison_message_is_requeued_before_sqs_moves_it() -> None:
    """The new message has its own receive count and is still processed alone; the old one is only acknowledged."""
    bench = Bench()
    assert bench.receive(suspect(REQUEUE_FROM)) == []
    fresh, delay = bench.take()
    assert (fresh.generation, fresh.redeliveries, delay) == (1, REQUEUE_FROM - 1, timedelta())
    assert (bench.receive(suspect(REQUEUE_FROM + 1)), bench.queue.sent) == ([], [])
    bench.receive(Received("fresh", fresh, 1), Received("b", a_queue_message("calm"), 1))
    assert (bench.record("calm").message_id, bench.record().message_id) == ("m1", "m2")


def test_messages_are_requeued_before_any_of_their_batch_is_tried() -> None:
    """A later one may crash the worker again."""

    def die() -> Outcome:
        raise WorkerCrash

    bench = Bench(outcomes=[die])
    with pytest.raises(WorkerCrash):
        bench.receive(Received("a", a_queue_message("deadly"), 1), suspect(REQUEUE_FROM))
    assert [queue_message.redeliveries for queue_message in bench.queue.messages] == [REQUEUE_FROM - 1]


def test_a_waiting_message_stays_a_suspect() -> None:
    """A crash makes it miss its slot, and the receives of its new message start at one: otherwise it would crash a worker per slot."""
    bench = Bench()
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(Received("second", a_queue_message(), 2))
    assert bench.take()[0].redeliveries == 1
    bench.receive(Received("third", a_queue_message(generation=1, attributes={"redeliveries": 1}), 2))
    assert bench.take()[0].redeliveries == 2


def test_a_parked_body_stays_a_suspect() -> None:
    """Its pointer is created only from the record."""
    bench = Bench()
    queue_message = a_queue_message(sendAt="2026-11-26T12:00:00Z")
    bench.receive(Received("third", queue_message, 3))
    assert (bench.record().parked is not None, bench.record().redeliveries) == (True, 2)


@pytest.mark.parametrize("receives", [SUSPECT_FROM, REQUEUE_FROM])
def test_suspects_wait_if_the_table_fails(receives: int) -> None:
    """Without a mark the cause of a crash would be unknown; as a new message it is not near SQS's receive limit."""
    bench = Bench()
    bench.trials.broken = True
    assert (bench.receive(suspect(receives)), bench.provider.mails) == ([], [])
    assert bench.take()[0].redeliveries == receives - 1


def test_a_suspect_is_redelivered_if_both_table_and_queue_fail() -> None:
    """Nothing is lost in a total outage, and no message is marked as poison after it."""
    bench = Bench()
    bench.trials.broken = bench.queue.broken = True
    assert bench.receive(suspect()) == ["suspect"]
    bench.trials.broken = bench.queue.broken = False
    bench.receive(suspect(SUSPECT_FROM + 1))
    assert (bench.record().status, reasons(bench)) == (Status.SENT, [])


def test_a_suspect_is_not_started_shortly_before_the_function_s_timeout() -> None:
    """A worker that is ended by its timeout looks like one that crashed."""
    bench = Bench()
    assert TRIAL_SPAN > CALL_SPAN
    assert bench.receive(suspect(), time_left=TRIAL_SPAN - timedelta(seconds=1)) == []
    assert (len(bench.queue.sent), bench.provider.mails) == (1, [])


def test_a_suspect_returned_in_an_outage_loses_its_mark() -> None:
    """Its worker did not crash, so it is no poison message when redelivered."""
    bench = Bench()
    bench.queue.broken = True
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    assert (bench.receive(suspect()), bench.trials.marks) == (["suspect"], {})


def test_an_unexpected_exception_makes_a_dead_letter_after_two_tries_alone() -> None:
    """The reason says that no worker crashed."""
    bench = Bench()
    bench.attachments.files["acme/1"] = b"x"
    bench.attachments.fetch = lambda *_, **__: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # the port has a bug
    uploaded = {"filename": "a.txt", "s3": {"key": "acme/1"}}
    queue_message = a_queue_message(message={"to": [{"email": "jo@example.com"}], "subject": "Hi", "attachments": [uploaded]})
    assert (bench.receive(suspect(DEAD_LETTER_FROM - 1, queue_message)), reasons(bench)) == (["suspect"], [])
    assert (bench.receive(suspect(DEAD_LETTER_FROM, queue_message)), reasons(bench)) == ([], [("processing_crashed", RAISED.message)])
    assert bench.record().error == RAISED


def test_an_unexpected_exception_in_parsing_makes_a_dead_letter() -> None:
    """Unparsed, because no record can be created."""
    bench = Bench()
    bench.parked.fetch = lambda _: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # the port has a bug
    queue_message = a_queue_message(attributes={"parked": "parked/acme/r1/1.json"})
    assert (bench.receive(suspect(DEAD_LETTER_FROM - 1, queue_message)), reasons(bench)) == (["suspect"], [])
    assert (bench.receive(suspect(DEAD_LETTER_FROM, queue_message)), reasons(bench)) == ([], [("processing_crashed", RAISED.message)])
