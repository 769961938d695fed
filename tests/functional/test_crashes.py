"""The real SendFunction over the stack in moto: in a batch with a poison message all others go out, and only it is dead-lettered."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock, patch

import boto3

from mailer import wiring
from mailer.domain.delivery import Status
from mailer.handlers import providers, send
from support.aws.api_calls import SendContext, call, event
from support.crashing import WorkerCrash
from support.fakes.ports import FakeClock, InlineExecutor

FROM, SES_REGION = "billing@acme.example", "eu-west-1"
MESSAGES = 12
BATCHES = 40
"""More than needed."""


def activate() -> None:
    """Store a provider of acme, whose account sends fast, and verify it."""
    put = json.loads(event("provider-put")["body"])
    body = {**put, "config": {**put["config"], "maxSendRate": 1000}}
    boto3.client("ses", region_name=SES_REGION).verify_email_identity(EmailAddress=FROM)
    for answer in (
        call(providers.handler, event("provider-put"), tenant="acme", body=body),
        call(providers.handler, event("provider-verify"), tenant="acme"),
    ):
        assert answer.status == 200, answer.text


def enqueue(url: str) -> None:
    """Queue some mails, one of which needs an upload."""
    for number in range(MESSAGES):
        message: dict[str, Any] = {"to": [{"email": "jo@customer.example"}], "subject": "Hi", "text": "Hello"}
        if number == 0:
            message["attachments"] = [{"filename": "a.txt", "s3": {"key": "acme/poison"}}]
        body = json.dumps({"tenantId": "acme", "requestId": f"r{number}", "message": message})
        boto3.client("sqs").send_message(QueueUrl=url, MessageBody=body, MessageGroupId="acme")


def receive(url: str) -> Sequence[Any]:
    """Receive one batch; it is visible again at once, as after its visibility timeout."""
    found = boto3.client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, AttributeNames=["All"], MessageAttributeNames=["All"]
    )
    return found.get("Messages", [])


def record(message: Any) -> Mapping[str, Any]:
    """Return a record as Lambda passes it."""
    attributes = {name: {"stringValue": value["StringValue"]} for name, value in message.get("MessageAttributes", {}).items()}
    return {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": attributes,
    }


def work(url: str, clock: FakeClock) -> int:
    """Deliver batches until the queue is empty; return how many workers crashed."""
    crashes = 0
    for _ in range(BATCHES):
        if not (batch := receive(url)):
            return crashes
        try:
            answer = send.handler({"Records": [record(message) for message in batch]}, SendContext())
        except WorkerCrash:
            crashes += 1
        else:
            returned = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            for message in batch:
                if message["MessageId"] not in returned:
                    boto3.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        clock.advance(timedelta(seconds=360))
    raise AssertionError("the queue is never empty")


def test_only_the_poison_message_of_a_batch_is_dead_lettered(aws: Mapping[str, str]) -> None:
    """By DynamoDB's marks and SQS's own receive counts."""
    activate()
    enqueue(aws["SEND_QUEUE_URL"])
    clock = FakeClock(datetime.now(UTC))
    deadly = patch.multiple(wiring.attachments(), version=lambda *_: "1", fetch=Mock(side_effect=WorkerCrash))
    # In one thread, so that a crash ends everything that the worker was doing.
    with deadly, patch.multiple(wiring, clock=lambda: clock, workers=InlineExecutor):
        wiring.send_dependencies.cache_clear()
        crashes = work(aws["SEND_QUEUE_URL"], clock)
    assert crashes <= 3
    kept = receive(aws["DEAD_LETTER_QUEUE_URL"])
    assert [json.loads(message["Body"])["requestId"] for message in kept] == ["r0"]
    records = [wiring.messages_table().get("acme", f"r{number}") for number in range(MESSAGES)]
    assert [record and record.status for record in records] == [Status.DEFERRED, *[Status.SENT] * (MESSAGES - 1)]
