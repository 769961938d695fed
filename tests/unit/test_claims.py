"""A message with another key's signature is matched to its record: replacing the key loses no message, and a forged one has no effect."""

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

RULES_FOR_OTHERS, SIGNED_ATTRIBUTE = "AROAPRODUCER:globex", "AROASENDFUNCTION:session"
KEY = "parked/acme/r1/1.json"
IDS = '{"tenantId": "acme", "requestId": "r1"}'
SECOND = timedelta(seconds=1)


def claimed(body: str, **attributes: Any) -> QueueMessage:
    """Make a message of our own that was signed with another key; only SQS's time and sender are known of it."""
    first = QueueMessage(body=body, tenant_id="acme", created_at=NOON + timedelta(hours=1), sender=SIGNED_ATTRIBUTE, claimed=True)
    return replace(first, **attributes)


def deferred(**fields: Any) -> Any:
    return a_record(Status.DEFERRED, **{"generation": 4, "due_at": NOON, "waits_for": WaitsFor.TIME, **fields})


def bench_with(*records: Any, rules: str = RULES_FOR_OTHERS) -> Bench:
    bench = Bench(*records)
    bench.producers.rules = rules
    bench.parked.bodies[KEY] = a_body()
    return bench


@pytest.mark.parametrize("rules", ["", RULES_FOR_OTHERS])
def test_a_request_that_waits_on_the_queue_is_sent(rules: str) -> None:
    """It counts neither as outdated nor as another producer's."""
    bench = bench_with(deferred(), rules=rules)
    assert bench.receive(claimed(a_body())) == []
    assert (bench.record().status, len(bench.provider.mails), bench.queue.dead_letters) == (Status.SENT, 1, [])


@pytest.mark.parametrize("rules", ["", RULES_FOR_OTHERS])
def test_a_request_that_waits_in_the_bucket_is_sent(rules: str) -> None:
    """Its pointer uses the record's key and is not an invalid request."""
    bench = bench_with(deferred(parked=KEY), rules=rules)
    assert bench.receive(claimed(IDS)) == []
    assert (bench.record().status, len(bench.provider.mails), bench.queue.dead_letters) == (Status.SENT, 1, [])


def test_a_claimed_message_has_the_times_of_its_record() -> None:
    """With SQS's time it would be sent after its expiry."""
    bench = bench_with(deferred(expires_at=NOON + timedelta(minutes=30)))
    bench.clock.advance(timedelta(minutes=31))
    bench.receive(claimed(a_body()))
    assert (bench.record().status, bench.provider.mails) == (Status.FAILED, [])


def test_a_claimed_message_of_an_ended_request_is_acknowledged() -> None:
    """No dead letter names a producer."""
    bench = bench_with(a_record(Status.SENT, generation=4))
    assert bench.receive(claimed(a_body())) == []
    assert (bench.provider.mails, bench.queue.sent, bench.queue.dead_letters) == ([], [], [])


def test_a_claimed_message_does_not_send_a_request_early() -> None:
    """Knowing a request's content is not enough to send it before its time."""
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
def test_a_claimed_message_without_a_matching_record_counts_as_a_producer_s(record: Any, body: str) -> None:
    """Other content, a pointer to no parked body and garbage are checked by the producer rules; the record does not change."""
    bench = bench_with(*[record] if record else [])
    assert bench.receive(claimed(body, sender="AROAEVE:x")) == []
    assert [dead_letters.reason for dead_letters in bench.queue.dead_letters] == [
        "invalid_request" if body == "{" else "producer_not_allowed"
    ]
    assert (bench.messages.get("acme", "r1"), bench.provider.mails, bench.queue.sent) == (record, [], [])


def test_a_record_with_lost_content_matches_no_message() -> None:
    """Only an equal hash is a match."""
    bench = bench_with(deferred(content_hash="lost-v1:0"))
    bench.receive(claimed(a_body(), sender="AROAEVE:x"))
    assert ([dead_letters.reason for dead_letters in bench.queue.dead_letters], bench.provider.mails) == (["producer_not_allowed"], [])


def test_an_unsigned_message_reads_no_record() -> None:
    """Without a signature the sender is a producer."""
    bench = bench_with(deferred())
    bench.receive(a_queue_message(attributes={"sender": SIGNED_ATTRIBUTE}))
    assert [dead_letters.reason for dead_letters in bench.queue.dead_letters] == ["producer_not_allowed"]


def test_a_claim_is_kept_while_the_table_does_not_answer() -> None:
    """The requeued message does not count as a producer's."""
    bench = bench_with(deferred())
    bench.messages.get = broken(bench.messages.get)  # type: ignore[method-assign]  # once
    assert bench.receive(claimed(a_body())) == []
    queue_message, delay = bench.take()
    assert queue_message.claimed
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, bench.queue.dead_letters) == (Status.SENT, [])


def test_a_claim_is_kept_by_a_suspect() -> None:
    """It may be in the batch of a crashing message like any other."""
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
