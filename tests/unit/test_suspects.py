"""A message that kills its worker is found and kept for an operator; the others of its batches are sent."""

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
from support.crashing import WHERE, DeadlyBody, Died, Queue
from support.fakes.ports import NOON
from support.fakes.sending import Bench, a_body, a_queue_message, a_record, under_way

LONG_AGO = NOON - timedelta(seconds=360)


def culprit(bench: Bench, queue_message: QueueMessage | None = None, stage: Stage = Stage.SENDING) -> Received:
    """Make a message that SQS hands out again after its worker died while it tried it by itself."""
    bench.trials.marks["last"] = Trial(stage, "gone", LONG_AGO)
    return Received("last", queue_message or a_queue_message(), SUSPECT_FROM + 1)


def suspect(receives: int = SUSPECT_FROM, queue_message: QueueMessage | None = None) -> Received:
    """Make a message that has been handed out before."""
    return Received("suspect", queue_message or a_queue_message(), receives)


def broken(*_: Any, **__: Any) -> Any:
    """Fail as SQS does."""
    raise DependencyError("SQS", "SendMessage")


def reasons(bench: Bench) -> Sequence[tuple[str, str]]:
    """Return reason and detail of each dead letter."""
    return [(dead_letters.reason, dead_letters.detail) for dead_letters in bench.queue.dead_letters]


# -- a hundred neighbours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch", [10, 100])
@pytest.mark.parametrize("killers", [1, 3, 10])
def test_only_what_kills_is_kept_and_everything_else_is_sent_once(killers: int, batch: int, seed: int) -> None:
    """Of a hundred messages, wherever some kill their worker: no innocent is kept, none is lost, none goes out twice."""
    played = Queue(killers, seed, batch=batch).play()
    innocents = {str(number) for number in range(played.messages)} - played.deadly.keys()
    assert (sorted(played.dead_letters), played.sent, played.moved) == (sorted(played.deadly), innocents, [])
    assert len(played.bench.provider.mails) == len(innocents)


@pytest.mark.parametrize("where", WHERE)
def test_each_killer_takes_three_workers_at_most(where: str) -> None:
    """Two while it is tried beside others, one while it is tried by itself."""
    assert [Queue(1, seed, where=where).play().deaths for seed in range(3)] == [3, 3, 3]
    assert max(Queue(3, seed, where=where).play().deaths for seed in range(3)) <= 3 * 3


# -- one message ---------------------------------------------------------------------------------------------------------


def test_suspects_come_after_their_neighbours() -> None:
    """From the third receive on a message may be the crasher: the others are done first."""
    bench = Bench()
    bench.receive(Received("a", a_queue_message("suspect"), SUSPECT_FROM), Received("b", a_queue_message("calm"), SUSPECT_FROM - 1))
    assert bench.record("calm").message_id == "m1"
    assert bench.record("suspect").message_id == "m2"


def test_a_suspect_that_lives_goes_out_and_is_only_acknowledged_when_it_comes_again() -> None:
    """Its deletion may be lost with a worker that dies of another message."""
    bench = Bench()
    assert (bench.receive(suspect()), bench.record().status) == ([], Status.SENT)
    bench.clock.advance(timedelta(seconds=360))
    before = len(bench.telemetry.entries)
    assert (bench.receive(suspect(SUSPECT_FROM + 1)), reasons(bench)) == ([], [])
    assert len(bench.telemetry.entries) == before


def test_a_message_whose_worker_died_while_it_was_tried_by_itself_is_kept_for_an_operator() -> None:
    """Not tried, copied to the dead-letter queue with the reason, its record stays open."""
    bench = Bench(a_record())
    assert bench.receive(culprit(bench)) == []
    assert (reasons(bench), bench.queue.dead_letters[0].queue_message.body) == ([("processing_crashed", DIED.message)], a_body())
    record = bench.record()
    assert (record.status, record.error, record.sweep_at) == (Status.DEFERRED, DIED, record.expires_at)
    assert (bench.provider.mails, bench.queue.sent) == ([], [])


def test_a_crasher_without_a_record_gets_one() -> None:
    """No request is in the dark, also one that never reached the fence."""
    bench = Bench()
    bench.receive(culprit(bench))
    assert bench.record().status is Status.DEFERRED


def test_a_message_that_killed_its_reader_is_kept_unread() -> None:
    """Reading it would kill this worker too; it is done with even if this one dies of a neighbour before the deletion."""
    bench = Bench()
    deadly = QueueMessage(body=DeadlyBody(a_body()), tenant_id="acme", created_at=NOON)
    assert bench.receive(culprit(bench, deadly, Stage.READING)) == []
    assert bench.receive(Received("last", deadly, SUSPECT_FROM + 2)) == []
    assert reasons(bench) == [("processing_crashed", DIED.message)]


def test_a_redriven_crasher_is_tried_again_by_itself() -> None:
    """By SQS's own redrive too, which hands out the letter as it lies there: it is the newest message, due, and takes nobody along."""
    bench = Bench(a_record())
    bench.receive(culprit(bench))
    [dead_letters] = bench.queue.dead_letters
    bench.receive(Received("again", dead_letters.queue_message, 1), Received("b", a_queue_message("calm"), 1))
    assert bench.record("calm").message_id == "m1"
    assert (bench.record().status, bench.record().message_id) == (Status.SENT, "m2")


def test_a_crasher_whose_request_was_sent_is_not_kept() -> None:
    """Whoever crashed after the send left nothing to do."""
    bench = Bench(under_way(Status.SENT))
    bench.receive(culprit(bench))
    assert (bench.queue.dead_letters, bench.queue.sent) == ([], [])


def test_other_content_that_crashes_says_so() -> None:
    """The reason is the one that an operator can act on."""
    bench = Bench(a_record(body=a_body(onUnknown="resend")))
    bench.receive(culprit(bench))
    assert [reason for reason, _ in reasons(bench)] == ["request_id_reused"]


def test_an_unknown_that_is_due_for_its_resend_can_be_a_crasher_too() -> None:
    """Its message is kept for the operator, never acknowledged as if it were on its way."""
    body = a_body(onUnknown="resend")
    lost = {"deadline": LONG_AGO, "updated_at": LONG_AGO}
    bench = Bench(under_way(Status.UNKNOWN, body=body, on_unknown="resend", **lost))
    bench.receive(culprit(bench, a_queue_message(onUnknown="resend")))
    assert [reason for reason, _ in reasons(bench)] == ["processing_crashed"]
    assert bench.record().status is Status.DEFERRED


def test_a_dead_letter_queue_that_takes_nothing_loses_no_crasher() -> None:
    """A message is never acknowledged before it is safe: its next message is, or SQS hands it out again."""
    bench = Bench(a_record())
    bench.queue.dead_letter = broken  # type: ignore[method-assign]  # the port fails
    assert bench.receive(culprit(bench)) == []
    assert bench.take()[0].generation == 1
    assert bench.receive(culprit(bench, stage=Stage.READING)) == ["last"]


def test_a_message_that_another_worker_is_trying_is_left_to_it() -> None:
    """SQS hands a message out twice now and then; that worker may well be alive."""
    bench = Bench()
    bench.trials.marks["suspect"] = Trial(Stage.SENDING, "other", NOON - timedelta(seconds=30))
    assert (bench.receive(suspect()), reasons(bench), bench.provider.mails) == (["suspect"], [], [])


def test_a_message_behind_a_killer_is_sent_again_before_sqs_moves_it() -> None:
    """It comes as a new message that SQS has not counted, and is tried by itself all the same; the old one is only acknowledged."""
    bench = Bench()
    assert bench.receive(suspect(REQUEUE_FROM)) == []
    fresh, delay = bench.take()
    assert (fresh.generation, fresh.redeliveries, delay) == (1, REQUEUE_FROM - 1, timedelta())
    assert (bench.receive(suspect(REQUEUE_FROM + 1)), bench.queue.sent) == ([], [])
    bench.receive(Received("fresh", fresh, 1), Received("b", a_queue_message("calm"), 1))
    assert (bench.record("calm").message_id, bench.record().message_id) == ("m1", "m2")


def test_messages_are_sent_again_before_anything_of_their_batch_is_tried() -> None:
    """Whatever comes after may kill the worker again."""

    def die() -> Outcome:
        raise Died

    bench = Bench(outcomes=[die])
    with pytest.raises(Died):
        bench.receive(Received("a", a_queue_message("deadly"), 1), suspect(REQUEUE_FROM))
    assert [queue_message.redeliveries for queue_message in bench.queue.messages] == [REQUEUE_FROM - 1]


def test_a_message_that_waits_stays_a_suspect() -> None:
    """A death makes it miss its slot, and its new message is not counted: else it would kill a worker for each slot until it expires."""
    bench = Bench()
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(Received("second", a_queue_message(), 2))
    assert bench.take()[0].redeliveries == 1
    bench.receive(Received("third", a_queue_message(generation=1, attributes={"redeliveries": 1}), 2))
    assert bench.take()[0].redeliveries == 2


def test_a_body_that_is_parked_stays_a_suspect() -> None:
    """Its pointer is made from the record alone."""
    bench = Bench()
    queue_message = a_queue_message(sendAt="2026-11-26T12:00:00Z")
    bench.receive(Received("third", queue_message, 3))
    assert (bench.record().parked is not None, bench.record().redeliveries) == (True, 2)


@pytest.mark.parametrize("receives", [SUSPECT_FROM, REQUEUE_FROM])
def test_a_table_that_takes_no_mark_lets_suspects_wait(receives: int) -> None:
    """Unmarked nobody would know of what the worker died; as a new message it has not been handed out too often."""
    bench = Bench()
    bench.trials.broken = True
    assert (bench.receive(suspect(receives)), bench.provider.mails) == ([], [])
    assert bench.take()[0].redeliveries == receives - 1


def test_a_suspect_is_handed_out_again_where_neither_table_nor_queue_takes_anything() -> None:
    """Nothing is lost in a total outage, and nobody is blamed after it."""
    bench = Bench()
    bench.trials.broken = bench.queue.broken = True
    assert bench.receive(suspect()) == ["suspect"]
    bench.trials.broken = bench.queue.broken = False
    bench.receive(suspect(SUSPECT_FROM + 1))
    assert (bench.record().status, reasons(bench)) == (Status.SENT, [])


def test_a_suspect_is_not_begun_shortly_before_the_function_s_time_is_over() -> None:
    """A worker that is ended by its timeout looks as one that crashed."""
    bench = Bench()
    assert TRIAL_SPAN > CALL_SPAN
    assert bench.receive(suspect(), time_left=TRIAL_SPAN - timedelta(seconds=1)) == []
    assert (len(bench.queue.sent), bench.provider.mails) == (1, [])


def test_a_suspect_that_an_outage_gives_back_is_not_marked_any_more() -> None:
    """Its worker lives: it is no crasher when it comes again."""
    bench = Bench()
    bench.queue.broken = True
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    assert (bench.receive(suspect()), bench.trials.marks) == (["suspect"], {})


def test_a_bug_keeps_a_message_for_an_operator_after_it_has_been_tried_by_itself_twice() -> None:
    """The reason tells that no worker died."""
    bench = Bench()
    bench.attachments.files["acme/1"] = b"x"
    bench.attachments.fetch = lambda *_, **__: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # the port has a bug
    uploaded = {"filename": "a.txt", "s3": {"key": "acme/1"}}
    queue_message = a_queue_message(message={"to": [{"email": "jo@example.com"}], "subject": "Hi", "attachments": [uploaded]})
    assert (bench.receive(suspect(DEAD_LETTER_FROM - 1, queue_message)), reasons(bench)) == (["suspect"], [])
    assert (bench.receive(suspect(DEAD_LETTER_FROM, queue_message)), reasons(bench)) == ([], [("processing_crashed", RAISED.message)])
    assert bench.record().error == RAISED


def test_a_bug_in_reading_keeps_a_message_for_an_operator() -> None:
    """Unread, as no record can be made of it."""
    bench = Bench()
    bench.parked.fetch = lambda _: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # the port has a bug
    queue_message = a_queue_message(attributes={"parked": "parked/acme/r1/1.json"})
    assert (bench.receive(suspect(DEAD_LETTER_FROM - 1, queue_message)), reasons(bench)) == (["suspect"], [])
    assert (bench.receive(suspect(DEAD_LETTER_FROM, queue_message)), reasons(bench)) == ([], [("processing_crashed", RAISED.message)])
