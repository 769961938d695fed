"""A message whose signature does not fit is known by its record: a new key loses nothing, and what was made up gains nothing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Status, WaitsFor
from mailer.domain.errors import DependencyError
from mailer.ports import QueueMessage
from mailer.services.sending.jobs import Received
from support.fakes.ports import NOON
from support.fakes.sending import Bench, a_body, a_queue_message, a_record

OTHERS, SIGNED_ATTRIBUTE = "AROAPRODUCER:globex", "AROASENDFUNCTION:session"
KEY = "parked/acme/r1/1.json"
IDS = '{"tenantId": "acme", "requestId": "r1"}'
SECOND = timedelta(seconds=1)


def claimed(body: str, **attributes: Any) -> QueueMessage:
    """Make what is left of a message of ours that was signed with another key: when SQS took it, and from which of our functions."""
    first = QueueMessage(body=body, tenant_id="acme", created_at=NOON + timedelta(hours=1), sender=SIGNED_ATTRIBUTE, claimed=True)
    return replace(first, **attributes)


def deferred(**fields: Any) -> Any:
    return a_record(Status.DEFERRED, **{"generation": 4, "due_at": NOON, "waits_for": WaitsFor.TIME, **fields})


def bench_with(*records: Any, rules: str = OTHERS) -> Bench:
    bench = Bench(*records)
    bench.producers.rules = rules
    bench.parked.bodies[KEY] = a_body()
    return bench


@pytest.mark.parametrize("rules", ["", OTHERS])
def test_a_request_that_waits_on_the_queue_is_sent(rules: str) -> None:
    """It is neither taken for a message that a newer one follows nor for another producer's."""
    bench = bench_with(deferred(), rules=rules)
    assert bench.receive(claimed(a_body())) == []
    assert (bench.record().status, len(bench.provider.mails), bench.queue.dead_letters) == (Status.SENT, 1, [])


@pytest.mark.parametrize("rules", ["", OTHERS])
def test_a_request_that_waits_in_the_bucket_is_sent(rules: str) -> None:
    """Its pointer leads where the record says, and is no invalid request."""
    bench = bench_with(deferred(parked=KEY), rules=rules)
    assert bench.receive(claimed(IDS)) == []
    assert (bench.record().status, len(bench.provider.mails), bench.queue.dead_letters) == (Status.SENT, 1, [])


def test_it_has_the_times_of_its_record() -> None:
    """Not those of when SQS took the message: it would be sent after its end."""
    bench = bench_with(deferred(expires_at=NOON + timedelta(minutes=30)))
    bench.clock.advance(timedelta(minutes=31))
    bench.receive(claimed(a_body()))
    assert (bench.record().status, bench.provider.mails) == (Status.FAILED, [])


def test_a_request_that_has_ended_is_done() -> None:
    """Nothing is said of producers."""
    bench = bench_with(a_record(Status.SENT, generation=4))
    assert bench.receive(claimed(a_body())) == []
    assert (bench.provider.mails, bench.queue.sent, bench.queue.dead_letters) == ([], [], [])


def test_what_waits_for_its_time_goes_on_waiting() -> None:
    """Whoever knows a request's content does not make it go out early."""
    bench = bench_with(deferred(due_at=NOON + timedelta(minutes=5)))
    bench.receive(claimed(a_body()))
    queue_message, delay = bench.take()
    assert (queue_message.generation, queue_message.claimed, queue_message.sender, delay, bench.provider.mails) == (
        5,
        False,
        None,
        timedelta(minutes=5),
        [],
    )


@pytest.mark.parametrize("body", [a_body(message={"to": [{"email": "eve@example.com"}], "subject": "Hi", "text": "Hello."}), IDS, "{"])
@pytest.mark.parametrize("record", [deferred(), None], ids=["record", "none"])
def test_what_no_record_knows_is_a_producer_s(record: Any, body: str) -> None:
    """Other content, a pointer to nothing that is parked, garbage: it is held against the rules, and the record is as it was."""
    bench = bench_with(*[record] if record else [])
    assert bench.receive(claimed(body, sender="AROAEVE:x")) == []
    assert [dead_letters.reason for dead_letters in bench.queue.dead_letters] == [
        "invalid_request" if body == "{" else "producer_not_allowed"
    ]
    assert (bench.messages.get("acme", "r1"), bench.provider.mails, bench.queue.sent) == (record, [], [])


def test_content_that_a_restored_table_has_lost_is_nobody_s() -> None:
    """Only the very same hash is a proof."""
    bench = bench_with(deferred(content_hash="lost-v1:0"))
    bench.receive(claimed(a_body(), sender="AROAEVE:x"))
    assert ([dead_letters.reason for dead_letters in bench.queue.dead_letters], bench.provider.mails) == (["producer_not_allowed"], [])


def test_an_unsigned_message_costs_no_reading() -> None:
    """A producer that claims nothing is what it says."""
    bench = bench_with(deferred())
    bench.receive(a_queue_message(attributes={"sender": SIGNED_ATTRIBUTE}))
    assert [dead_letters.reason for dead_letters in bench.queue.dead_letters] == ["producer_not_allowed"]


def test_it_stays_known_where_the_table_does_not_answer() -> None:
    """The message that is signed again does not become a producer's."""
    bench = bench_with(deferred())
    bench.messages.get = broken(bench.messages.get)  # type: ignore[method-assign]  # once
    assert bench.receive(claimed(a_body())) == []
    queue_message, delay = bench.take()
    assert queue_message.claimed
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, bench.queue.dead_letters) == (Status.SENT, [])


def test_it_stays_known_as_a_suspect() -> None:
    """It may stand beside a crasher as any other."""
    bench = bench_with(deferred())
    bench.trials.broken = True
    bench.receive(Received("r", claimed(a_body()), 3))
    queue_message, _ = bench.take()
    bench.trials.broken = False
    bench.receive(queue_message)
    assert bench.record().status is Status.SENT


def broken(get: Any) -> Any:
    """Fail the first call."""
    calls: list[Any] = []

    def once(*ids: str) -> Any:
        calls.append(ids)
        if len(calls) == 1:
            raise DependencyError("DynamoDB", "GetItem")
        return get(*ids)

    return once
