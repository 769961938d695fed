"""Copies on SQS: papers as message attributes, the body as the caller wrote it, batches within SQS's limits."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

from fakes import NOON
from mailer import wiring
from mailer.adapters.send_queue import MAX_BATCH_BYTES, SqsSendQueue, from_attributes, packed, to_attributes
from mailer.domain.errors import DependencyError
from mailer.handlers.send import _received
from mailer.ports import Copy

WHOLE = Copy(
    body='{"tenantId":"acme","requestId":"r1"}',
    tenant_id="acme",
    created_at=NOON,
    hop=7,
    redeliveries=2,
    failures=3,
    parked="parked/acme/r1/1.json",
    expires_at=NOON + timedelta(days=2),
    slot=1796126400.25,
    proof='{"attempt": 1, "owner": "w", "sent": "m"}',
    correlation_id="c-1",
    schema=3,
)
PLAIN = Copy(body="{}", tenant_id="acme", created_at=NOON)
SECOND = timedelta(seconds=1)


@pytest.fixture
def queue(aws: Mapping[str, str]) -> SqsSendQueue:
    assert aws["SEND_QUEUE_URL"]
    return wiring.send_queue()


def taken(url: str) -> list[dict[str, Any]]:
    """Receive what is on a queue, as Lambda's event source does."""
    found = boto3.client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
    )
    return list(found.get("Messages", []))


def record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a received message into the record that Lambda hands to the function."""
    papers = message.get("MessageAttributes", {}).items()
    return {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {name: {"stringValue": value["StringValue"], "dataType": value["DataType"]} for name, value in papers},
    }


@pytest.mark.parametrize("copy", [WHOLE, PLAIN], ids=["whole", "plain"])
def test_a_copy_arrives_as_it_was_sent(queue: SqsSendQueue, copy: Copy) -> None:
    """Every paper of it, through SQS and Lambda's record."""
    assert queue.send([(copy, timedelta())]) == []
    [message] = taken(queue._queue_url)
    received = _received(record(message))
    assert (received.copy, received.receives, received.receipt) == (copy, 1, message["MessageId"])


def test_sqs_serves_tenants_fairly_by_their_group(queue: SqsSendQueue) -> None:
    """The message group is the tenant; a body that tells none has no group."""
    queue.send([(WHOLE, timedelta()), (replace(PLAIN, tenant_id=None), timedelta())])
    assert [m["Attributes"].get("MessageGroupId") for m in taken(queue._queue_url)] == ["acme", None]


def test_a_buried_copy_says_why(queue: SqsSendQueue) -> None:
    """The reason and its detail are attributes; the body is as it was, and of the papers all that matter after a redrive."""
    queue.bury(WHOLE, reason="request_id_reused", detail="x" * 9000)
    [message] = taken(queue._dead_letter_queue_url)
    attributes = message["MessageAttributes"]
    assert (message["Body"], attributes["reason"]["StringValue"]) == (WHOLE.body, "request_id_reused")
    assert attributes["detail"]["StringValue"] == "x" * 512
    assert len(attributes) <= 10  # SQS takes no more
    assert _received(record(message)).copy == replace(WHOLE, slot=None, failures=0)


def test_a_buried_copy_without_detail_or_tenant_is_taken(queue: SqsSendQueue) -> None:
    """SQS refuses empty attributes and groups."""
    queue.bury(replace(PLAIN, tenant_id=None), reason="invalid_request", detail="")
    assert len(taken(queue._dead_letter_queue_url)) == 1


def test_a_raw_message_of_a_producer_is_a_first_copy(queue: SqsSendQueue) -> None:
    """No papers at all: it came when SQS took it."""
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody="{}")
    [message] = taken(queue._queue_url)
    copy = _received(record(message)).copy
    assert (copy.hop, copy.parked, copy.proof, copy.slot, copy.expires_at) == (0, None, None, None, None)
    assert int(copy.created_at.timestamp() * 1000) == int(message["Attributes"]["SentTimestamp"])


GARBLED = [("hop", "-1"), ("hop", "x"), ("hop", "1" * 7), ("hop", "²"), ("createdAt", "x"), ("createdAt", "9" * 30)]
GARBLED += [("failures", "-1"), ("failures", "x")]
GARBLED += [("slot", "x"), ("slot", "inf"), ("slot", "nan"), ("expiresAt", "x"), ("expiresAt", "9" * 30)]


@pytest.mark.parametrize(("name", "value"), GARBLED)
def test_garbled_papers_count_as_none(name: str, value: str) -> None:
    """A producer's nonsense must not stop a batch."""
    copy = from_attributes("{}", {name: value}, sent_at=NOON, tenant_id="acme")
    assert copy == PLAIN


def test_a_correlation_id_is_cut() -> None:
    """It stands in every log line."""
    copy = from_attributes("{}", {"correlationId": "c" * 999}, sent_at=NOON, tenant_id=None)
    assert copy.correlation_id == "c" * 128


def test_papers_that_a_copy_does_not_have_are_not_sent() -> None:
    """SQS counts attributes and refuses empty ones."""
    assert set(to_attributes(PLAIN)) == {"hop", "createdAt"}


# -- what SQS does not take ----------------------------------------------------------------------------------------------


class Answers:
    """An SQS client that answers as told, and keeps what it was asked."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.entries: list[dict[str, Any]] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:  # noqa: ARG002, N803 - boto3's names
        self.entries += Entries
        done = [{"Id": e["Id"]} for e in Entries if e["MessageBody"] not in self.refused]
        return {"Successful": done} if done else {"Failed": [{"Id": e["Id"]} for e in Entries]}


def test_copies_that_sqs_refuses_are_given_back() -> None:
    """A batch may be taken in part."""
    copies = [replace(PLAIN, body=f"{n}") for n in range(12)]
    client: Any = Answers("3", "11")
    missed = SqsSendQueue(client, "q", "d").send([(copy, timedelta()) for copy in copies])
    assert [copy.body for copy in missed] == ["3", "11"]


def test_an_outage_gives_every_copy_back(queue: SqsSendQueue) -> None:
    """The caller decides what becomes of them."""
    broken = SqsSendQueue(queue._client, "https://sqs.eu-central-1.amazonaws.com/123456789012/none", "https://none")
    assert broken.send([(PLAIN, timedelta()), (WHOLE, timedelta())]) == [PLAIN, WHOLE]


def test_a_dead_letter_that_is_not_taken_raises(queue: SqsSendQueue) -> None:
    """It must not be acknowledged."""
    broken = SqsSendQueue(queue._client, "https://none", "https://sqs.eu-central-1.amazonaws.com/123456789012/none")
    with pytest.raises(DependencyError, match="SQS did not complete SendMessage"):
        broken.bury(PLAIN, reason="invalid_request", detail="-")


DELAYS = [(-5.0, 0), (0.0, 0), (0.001, 1), (1.5, 2), (900.0, 900), (7200.0, 900)]


@pytest.mark.parametrize(("delay", "seconds"), DELAYS)
def test_a_delay_is_whole_seconds_and_never_too_short(delay: float, seconds: int) -> None:
    """A copy that comes early costs another round; SQS takes 900 s at most."""
    client: Any = Answers()
    SqsSendQueue(client, "q", "d").send([(PLAIN, delay * SECOND)])
    assert client.entries[0]["DelaySeconds"] == seconds


# -- batches -------------------------------------------------------------------------------------------------------------


def test_a_batch_has_at_most_ten_entries() -> None:
    """SQS's limit."""
    assert [len(batch) for batch in packed([(PLAIN, timedelta())] * 25)] == [10, 10, 5]


def test_a_batch_weighs_at_most_one_mebibyte() -> None:
    """Bodies and attributes together; a body that fills a batch goes alone."""
    sizes = [900_000, 200_000, 200_000, 1_044_480, 5]
    batches = list(packed([(replace(WHOLE, body="x" * size), timedelta()) for size in sizes]))
    assert [[len(copy.body) for copy, _ in batch] for batch in batches] == [[900_000], [200_000, 200_000], [1_044_480], [5]]
    for batch in batches:
        assert sum(len(copy.body) + len(json.dumps(to_attributes(copy))) for copy, _ in batch) <= MAX_BATCH_BYTES


def test_no_copies_are_no_call() -> None:
    """An empty batch is refused by SQS."""
    client: Any = Answers()
    assert SqsSendQueue(client, "q", "d").send([]) == []
    assert client.entries == []
