"""Bodies at SQS's size limit, through the real function: if they are too large to wait, they are refused and not lost."""

import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from mailer import wiring
from mailer.domain.message import MAX_BODY
from mailer.handlers.send import handler
from support.aws.api_calls import SendContext
from support.aws.queues import record, taken

MOST = 1024 * 1024
"""SQS's maximum bytes of a message."""


def a_body(size: int, request_id: str = "r1") -> str:
    """Return a valid request of so many bytes."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "Ü", "text": ""}
    request = {"tenantId": "acme", "requestId": request_id, "message": message}
    spare = size - len(json.dumps(request, ensure_ascii=False).encode())
    return json.dumps({**request, "message": {**message, "text": "x" * spare}}, ensure_ascii=False)


def put_and_run(aws: Mapping[str, str], *bodies: str) -> Any:
    for body in bodies:
        boto3.client("sqs").send_message(QueueUrl=aws["SEND_QUEUE_URL"], MessageBody=body, MessageGroupId="acme")
    return handler({"Records": [record(message) for message in taken(aws["SEND_QUEUE_URL"])]}, SendContext())


@pytest.mark.parametrize("size", [MAX_BODY + 1, MOST])
def test_a_body_that_leaves_no_room_for_attributes_is_refused(aws: Mapping[str, str], size: int) -> None:
    """With both numbers, before a message of it is needed."""
    assert put_and_run(aws, a_body(size)) == {"batchItemFailures": []}
    ended = wiring.messages_table().get("acme", "r1")
    assert ended
    assert ended.error
    assert (ended.status, ended.error.code) == ("failed", "message_too_large")
    assert str(size) in ended.error.message
    assert str(MAX_BODY) in ended.error.message
    assert taken(aws["DEAD_LETTER_QUEUE_URL"]) == []


@pytest.mark.parametrize("body", ["{" * MOST, "{" * (MAX_BODY + 1)], ids=["full", "almost"])
def test_an_unreadable_body_of_any_size_becomes_a_dead_letter(aws: Mapping[str, str], body: str) -> None:
    """Without its reason if there is no room for one: the message must not be redelivered forever."""
    assert put_and_run(aws, body) == {"batchItemFailures": []}
    [dead_letter] = taken(aws["DEAD_LETTER_QUEUE_URL"])
    assert dead_letter["Body"] == body
    assert ("reason" in dead_letter.get("MessageAttributes", {})) == (len(body) < MOST)


def test_a_full_body_with_a_used_id_becomes_a_dead_letter(aws: Mapping[str, str]) -> None:
    """The first request is not changed."""
    put_and_run(aws, a_body(500))
    first = wiring.messages_table().get("acme", "r1")
    assert put_and_run(aws, a_body(MOST)) == {"batchItemFailures": []}
    [dead_letter] = taken(aws["DEAD_LETTER_QUEUE_URL"])
    assert (dead_letter["Body"], wiring.messages_table().get("acme", "r1")) == (a_body(MOST), first)
