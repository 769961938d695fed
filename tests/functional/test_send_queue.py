"""Messages on SQS: our data in one signed attribute, the body as the caller wrote it, batches within SQS's limits."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock, patch

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from mailer import wiring
from mailer.adapters.sqs.send_queue import MAX_BATCH_BYTES, SIGNED_ATTRIBUTE, SqsSendQueue, packed, to_attributes
from mailer.adapters.sqs.signer import Signer
from mailer.domain import changes, proof
from mailer.domain.changes import Fence, Request
from mailer.domain.delivery import NotSent
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.message import MAX_BODY, parse_request
from mailer.handlers.send import _received, handler
from mailer.ports import QueueMessage
from mailer.services.requests.queue_messages import pointer_to
from mailer.settings import settings
from support.aws.api_calls import SendContext
from support.aws.queues import record, taken
from support.fakes.ports import NOON
from support.fakes.sending import a_body

WHOLE = QueueMessage(
    body='{"tenantId":"acme","requestId":"r1"}',
    tenant_id="acme",
    created_at=NOON,
    generation=7,
    redeliveries=2,
    failures=3,
    parked="parked/acme/r1/1.json",
    expires_at=NOON + timedelta(days=2),
    slot=1796126400.25,
    upload_slot=1796126400.75,
    proof='{"attempt": 1, "owner": "w", "sent": "m"}',
    correlation_id="c-1",
    sender="AROAEXAMPLE:session",
    schema=3,
    claimed=True,
)
PLAIN = QueueMessage(body="{}", tenant_id="acme", created_at=NOON)
SECOND = timedelta(seconds=1)


class Kms:
    """A KMS client that returns a key."""

    def generate_mac(self, **_: Any) -> Any:
        return {"Mac": b"k" * 32}


CLIENT: Any = Kms()
MOTO_S_SENDER = "AIDAIT2UOQQY3AUEKVGXU"
SIGNER = Signer(lambda: CLIENT, "key", lambda: NOON)


@pytest.fixture
def queue(aws: Mapping[str, str]) -> SqsSendQueue:
    assert aws["SEND_QUEUE_URL"]
    return wiring.send_queue()


@pytest.mark.parametrize("queue_message", [WHOLE, PLAIN], ids=["whole", "plain"])
def test_a_message_arrives_as_it_was_sent(queue: SqsSendQueue, queue_message: QueueMessage) -> None:
    """With all its fields, through SQS and Lambda's record."""
    assert queue.send([(queue_message, timedelta())]) == []
    [message] = taken(queue._queue_url)
    received = _received(record(message), wiring.signer())
    assert (received.queue_message, received.receives, received.sqs_message_id) == (queue_message, 1, message["MessageId"])


def test_the_message_group_is_the_tenant(queue: SqsSendQueue) -> None:
    """SQS serves groups fairly; a body without a tenant has no group."""
    queue.send([(WHOLE, timedelta()), (replace(PLAIN, tenant_id=None), timedelta())])
    assert [m["Attributes"].get("MessageGroupId") for m in taken(queue._queue_url)] == ["acme", None]


def test_a_dead_letter_has_its_reason(queue: SqsSendQueue) -> None:
    """The reason and its detail are attributes; body and other fields are unchanged."""
    queue.dead_letter(WHOLE, reason="request_id_reused", detail="x" * 9000)
    [message] = taken(queue._dead_letter_queue_url)
    attributes = message["MessageAttributes"]
    assert (message["Body"], attributes["reason"]["StringValue"]) == (WHOLE.body, "request_id_reused")
    assert attributes["detail"]["StringValue"] == "x" * 512
    assert len(attributes) <= 10  # SQS's limit
    assert _received(record(message), wiring.signer()).queue_message == WHOLE


def test_a_dead_letter_without_detail_or_tenant_is_accepted(queue: SqsSendQueue) -> None:
    """SQS refuses empty attributes and groups."""
    queue.dead_letter(replace(PLAIN, tenant_id=None), reason="invalid_request", detail="")
    assert len(taken(queue._dead_letter_queue_url)) == 1


def test_a_raw_message_of_a_producer_is_a_first_message(queue: SqsSendQueue) -> None:
    """It has no other data: its creation time is when SQS received it."""
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody="{}")
    [message] = taken(queue._queue_url)
    queue_message = _received(record(message), wiring.signer()).queue_message
    assert (queue_message.generation, queue_message.parked, queue_message.proof, queue_message.slot, queue_message.expires_at) == (
        0,
        None,
        None,
        None,
        None,
    )
    assert int(queue_message.created_at.timestamp() * 1000) == int(message["Attributes"]["SentTimestamp"])


MADE_UP = [
    *({name: value} for name in ("generation", "failures", "slot", "createdAt", "expiresAt") for value in ("7", "-1", "nan", "9" * 400)),
    {"createdAt": "253402300799999"},
    {"parked": "parked/globex/r1/1.json"},
    {"proof": '{"attempt": 1, "owner": "w", "sent": "made-up"}'},
    {SIGNED_ATTRIBUTE: '{"createdAt":1,"generation":7,"proof":"{}"}'},
    {SIGNED_ATTRIBUTE: "."},
    {SIGNED_ATTRIBUTE: f"{'A' * 43}." + '{"createdAt":1,"generation":7}'},
]


@pytest.mark.parametrize("attributes", MADE_UP, ids=str)
def test_attributes_of_a_producer_are_ignored(queue: SqsSendQueue, attributes: Mapping[str, str]) -> None:
    """A producer can neither pass for one of our functions nor stop a batch: its message is a first message."""
    made_up: Any = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody="{}", MessageAttributes=made_up, MessageGroupId="acme")
    [message] = taken(queue._queue_url)
    queue_message = _received(record(message), wiring.signer()).queue_message
    sender = message["Attributes"]["SenderId"]
    assert replace(queue_message, created_at=NOON) == replace(PLAIN, sender=sender, claimed=SIGNED_ATTRIBUTE in attributes)
    assert int(queue_message.created_at.timestamp() * 1000) == int(message["Attributes"]["SentTimestamp"])


def test_a_producer_is_identified_by_sqs_s_sender_id(queue: SqsSendQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for another tenant becomes a dead letter, one for its own a record."""
    boto3.client("ssm").put_parameter(Name="rules", Type="String", Value=f"{MOTO_S_SENDER}:globex")
    monkeypatch.setattr(wiring.producer_rules(), "_name", "rules")
    message = {"to": [{"email": "jo@example.com"}], "text": "Hi"}
    for tenant in ("acme", "globex"):
        body = json.dumps({"tenantId": tenant, "requestId": "r1", "message": message})
        boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody=body)
    assert handler({"Records": [record(one) for one in taken(queue._queue_url)]}, SendContext()) == {"batchItemFailures": []}
    [dead_letter] = taken(queue._dead_letter_queue_url)
    assert ('"acme"' in dead_letter["Body"], dead_letter["MessageAttributes"]["reason"]["StringValue"]) == (True, "producer_not_allowed")
    [ended] = boto3.client("dynamodb").scan(TableName=settings().messages_table)["Items"]
    assert ended["tenantId"]["S"] == "globex"


def test_with_a_new_key_messages_of_the_old_one_are_not_a_producer_s(queue: SqsSendQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits on the queue, one in the bucket: both end by their records, although the rules name no function of ours."""
    boto3.client("ssm").put_parameter(Name="rules", Type="String", Value="AROAEXAMPLE12:globex")
    monkeypatch.setattr(wiring.producer_rules(), "_name", "rules")
    monkeypatch.setattr(queue, "_signer", SIGNER)
    soon = datetime.now(UTC) + timedelta(hours=1)
    for request_id in ("r1", "r2"):
        body = a_body(request_id)
        request = Request.of(parse_request(body), created_at=NOON, expires_at=soon)
        parked = wiring.parked_bodies().park("acme", request_id, body) if request_id == "r2" else None
        waits = wiring.messages_table().apply(changes.defer(request, NOON, changes.Deferral(until=NOON, generation=1, parked=parked)))
        queue.send([(pointer_to(waits) if parked else replace(PLAIN, body=body, generation=1), timedelta())])
    monkeypatch.setattr(queue, "_signer", wiring.signer())
    assert handler({"Records": [record(one) for one in taken(queue._queue_url)]}, SendContext()) == {"batchItemFailures": []}
    ended = [wiring.messages_table().get("acme", request_id) for request_id in ("r1", "r2")]
    assert [one.error and one.error.code for one in ended if one] == ["provider_not_configured"] * 2
    assert taken(queue._dead_letter_queue_url) == []


def test_a_signature_is_valid_for_its_message_only(queue: SqsSendQueue) -> None:
    """Not with another body or any changed field."""
    signed = to_attributes(WHOLE, wiring.signer())[SIGNED_ATTRIBUTE]["StringValue"]
    assert wiring.signer().read(signed, WHOLE.body)
    assert wiring.signer().read(signed, WHOLE.body + " ") is None
    assert wiring.signer().read(signed.replace('"generation":7', '"generation":8'), WHOLE.body) is None
    assert wiring.signer().read(f"{signed}{WHOLE.body[:1]}", WHOLE.body[1:]) is None
    assert queue


def test_a_moved_message_keeps_its_signature(queue: SqsSendQueue) -> None:
    """Moved by SQS, or by an operator in the console."""
    queue.dead_letter(WHOLE, reason="processing_crashed", detail="-")
    [message] = taken(queue._dead_letter_queue_url)
    boto3.client("sqs").send_message(
        QueueUrl=queue._queue_url, MessageBody=message["Body"], MessageAttributes=message["MessageAttributes"], MessageGroupId="acme"
    )
    [moved] = taken(queue._queue_url)
    assert _received(record(moved), wiring.signer()).queue_message == WHOLE


def test_without_kms_only_signed_messages_are_returned(queue: SqsSendQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their signatures cannot be checked; unsigned messages of producers are processed."""
    body = json.dumps({"tenantId": "acme", "requestId": "r1", "message": {"to": [{"email": "jo@example.com"}], "text": "Hi"}})
    queue.send([(replace(PLAIN, body=body), timedelta())])
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody=body.replace("r1", "r2"))
    records = [record(message) for message in taken(queue._queue_url)]
    [signed] = [one["messageId"] for one in records if one["messageAttributes"]]
    without_kms(monkeypatch)
    assert handler({"Records": records}, SendContext()) == {"batchItemFailures": [{"itemIdentifier": signed}]}
    [ended] = boto3.client("dynamodb").scan(TableName=settings().messages_table)["Items"]
    assert (ended["requestId"]["S"], ended["status"]["S"]) == ("r2", "failed")


@pytest.mark.parametrize("signed", ["{}", '{"createdAt":"2026"}', '{"createdAt":1e300}', '{"createdAt":253402300800000}', "[]", "1", "x"])
def test_signed_attributes_of_a_later_version_return_only_their_message(queue: SqsSendQueue, signed: str) -> None:
    """The others of the batch are processed, and the message waits until it can be read."""
    body = a_body("r1")
    attribute = {"DataType": "String", "StringValue": wiring.signer().sign(signed, body)}
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody=body, MessageAttributes={SIGNED_ATTRIBUTE: attribute})
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody=a_body("r2"))
    records = [record(message) for message in taken(queue._queue_url)]
    [unreadable] = [one["messageId"] for one in records if one["messageAttributes"]]
    assert handler({"Records": records}, SendContext()) == {"batchItemFailures": [{"itemIdentifier": unreadable}]}
    [ended] = boto3.client("dynamodb").scan(TableName=settings().messages_table)["Items"]
    assert ended["requestId"]["S"] == "r2"


@pytest.mark.parametrize(("receives", "hidden"), [(4, []), (5, [1800]), (6, [3600]), (8, [14400]), (9, [14400]), (10, [])])
def test_messages_returned_repeatedly_in_an_outage_are_hidden(
    queue: SqsSendQueue, monkeypatch: pytest.MonkeyPatch, receives: int, hidden: list[int]
) -> None:
    """With a redelivery every six minutes they would be dead letters within the hour; processed ones and last receives are not hidden."""
    queue.send([(PLAIN, timedelta())])
    boto3.client("sqs").send_message(QueueUrl=queue._queue_url, MessageBody=a_body())
    records = [record(message) for message in taken(queue._queue_url)]
    for one in records:
        one["attributes"]["ApproximateReceiveCount"] = str(receives if one["messageAttributes"] else 2)
    without_kms(monkeypatch)
    with patch.object(wiring.sqs(), "change_message_visibility_batch", wraps=wiring.sqs().change_message_visibility_batch) as hide:
        assert len(handler({"Records": records}, SendContext())["batchItemFailures"]) == 1
    entries = [entry for call in hide.call_args_list for entry in call.kwargs["Entries"]]
    [signed] = [one["receiptHandle"] for one in records if one["messageAttributes"]]
    assert [(entry["ReceiptHandle"], entry["VisibilityTimeout"]) for entry in entries] == [(signed, seconds) for seconds in hidden]


def test_any_number_of_messages_is_hidden(queue: SqsSendQueue) -> None:
    """In calls of at most ten."""
    queue.send([(PLAIN, timedelta())] * 12)
    handles = [message["ReceiptHandle"] for _ in range(2) for message in taken(queue._queue_url)]
    with patch.object(wiring.sqs(), "change_message_visibility_batch", wraps=wiring.sqs().change_message_visibility_batch) as hide:
        queue.hide(dict.fromkeys(handles, 60 * SECOND))
    assert [len(call.kwargs["Entries"]) for call in hide.call_args_list] == [10, 2]


def test_messages_are_returned_even_if_sqs_fails_to_hide_them(queue: SqsSendQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are redelivered after the queue's own timeout; the batch gets its response."""
    queue.send([(PLAIN, timedelta())])
    [message] = taken(queue._queue_url)
    message["Attributes"]["ApproximateReceiveCount"] = "5"
    without_kms(monkeypatch)
    away = EndpointConnectionError(endpoint_url="https://sqs")
    monkeypatch.setattr(wiring.sqs(), "change_message_visibility_batch", Mock(side_effect=away))
    assert handler({"Records": [record(message)]}, SendContext()) == {"batchItemFailures": [{"itemIdentifier": message["MessageId"]}]}


def without_kms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a new process for which KMS is unavailable."""
    monkeypatch.setattr(wiring.signer(), "_key", None)
    monkeypatch.setattr(wiring.kms(), "generate_mac", Mock(side_effect=EndpointConnectionError(endpoint_url="https://kms")))


def test_a_producer_s_correlation_id_is_truncated() -> None:
    """It is in every log line."""
    attributes = {"correlationId": {"stringValue": "c" * 999}}
    read = _received({"messageId": "1", "body": "{}", "messageAttributes": attributes}, SIGNER)
    assert read.queue_message.correlation_id == "c" * 128


def test_the_largest_body_leaves_room_for_our_attributes() -> None:
    """SQS counts names, types and values of all attributes towards its 1 MiB."""
    most = QueueMessage(
        body="x" * MAX_BODY,
        tenant_id="t" * 64,
        created_at=NOON,
        generation=999_999,
        failures=999_999,
        parked=f"parked/{'t' * 64}/{'r' * 128}/{'0' * 16}.json",
        expires_at=NOON,
        slot=1796126400.125,
        upload_slot=1796126400.625,
        proof=proof.to_json(Fence(999_999, "0" * 32), NotSent(ErrorInfo("dependency_unavailable", '"ü' * 300), timedelta(days=7))),
        correlation_id="\U0001f4e7" * 128,
    )
    client: Any = Answers()
    SqsSendQueue(client, SIGNER, "q", "d").dead_letter(most, reason="attachment_type_blocked", detail="ü" * 999)
    [entry] = client.entries
    assert MAX_BATCH_BYTES - 1024 < weight(entry) <= MAX_BATCH_BYTES


def weight(entry: Mapping[str, Any]) -> int:
    """Return the size of a message as SQS counts it."""
    attributes = entry["MessageAttributes"].items()
    return len(entry["MessageBody"]) + sum(len(f"{name}{a['DataType']}{a['StringValue']}".encode()) for name, a in attributes)


# -- refused by SQS ------------------------------------------------------------------------------------------------------


class Answers:
    """An SQS client with given refusals, which keeps its requests."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.entries: list[dict[str, Any]] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:  # noqa: ARG002, N803 - boto3's names
        self.entries += Entries
        done = [{"Id": e["Id"]} for e in Entries if e["MessageBody"] not in self.refused]
        return {"Successful": done} if done else {"Failed": [{"Id": e["Id"]} for e in Entries]}

    def send_message(self, **entry: Any) -> Any:
        self.entries.append(entry)


def test_messages_that_sqs_refuses_are_returned() -> None:
    """SQS may accept part of a batch."""
    queue_messages = [replace(PLAIN, body=f"{n}") for n in range(12)]
    client: Any = Answers("3", "11")
    missed = SqsSendQueue(client, SIGNER, "q", "d").send([(queue_message, timedelta()) for queue_message in queue_messages])
    assert [queue_message.body for queue_message in missed] == ["3", "11"]


def test_an_outage_returns_every_message(queue: SqsSendQueue) -> None:
    """The caller decides what to do with them."""
    broken = SqsSendQueue(queue._client, SIGNER, "https://sqs.eu-central-1.amazonaws.com/123456789012/none", "https://none")
    assert broken.send([(PLAIN, timedelta()), (WHOLE, timedelta())]) == [PLAIN, WHOLE]


def test_a_dead_letter_that_sqs_refuses_raises(queue: SqsSendQueue) -> None:
    """The message must not be acknowledged."""
    broken = SqsSendQueue(queue._client, SIGNER, "https://none", "https://sqs.eu-central-1.amazonaws.com/123456789012/none")
    with pytest.raises(DependencyError, match="SQS did not complete SendMessage"):
        broken.dead_letter(PLAIN, reason="invalid_request", detail="-")


DELAYS = [(-5.0, 0), (0.0, 0), (0.001, 1), (1.5, 2), (900.0, 900), (7200.0, 900)]


@pytest.mark.parametrize(("delay", "seconds"), DELAYS)
def test_a_delay_is_whole_seconds_and_never_too_short(delay: float, seconds: int) -> None:
    """A message that arrives early costs another round; SQS's maximum is 900 s."""
    client: Any = Answers()
    SqsSendQueue(client, SIGNER, "q", "d").send([(PLAIN, delay * SECOND)])
    assert client.entries[0]["DelaySeconds"] == seconds


# -- batches -------------------------------------------------------------------------------------------------------------


def test_a_batch_has_at_most_ten_entries() -> None:
    """SQS's limit."""
    assert [len(batch) for batch in packed([(PLAIN, timedelta())] * 25)] == [10, 10, 5]


def test_a_batch_has_at_most_one_mebibyte() -> None:
    """With bodies and attributes; a body that fills a batch is sent alone."""
    sizes = [900_000, 200_000, 200_000, 1_044_480, 5]
    batches = list(packed([(replace(WHOLE, body="x" * size), timedelta()) for size in sizes]))
    assert [[len(queue_message.body) for queue_message, _ in batch] for batch in batches] == [
        [900_000],
        [200_000, 200_000],
        [1_044_480],
        [5],
    ]
    for batch in batches:
        assert (
            sum(len(queue_message.body) + len(json.dumps(to_attributes(queue_message, SIGNER))) for queue_message, _ in batch)
            <= MAX_BATCH_BYTES
        )


def test_no_messages_make_no_call() -> None:
    """SQS refuses an empty batch."""
    client: Any = Answers()
    assert SqsSendQueue(client, SIGNER, "q", "d").send([]) == []
    assert client.entries == []
