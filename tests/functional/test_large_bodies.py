"""Bodies that fill what SQS takes of a message, through the real function: too large to wait, they are refused and not lost."""

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
"""Bytes that SQS takes of a message."""


def a_body(size: int, request_id: str = "r1") -> str:
    """Write a good request of so many bytes."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "Ü", "text": ""}
    request = {"tenantId": "acme", "requestId": request_id, "message": message}
    spare = size - len(json.dumps(request, ensure_ascii=False).encode())
    return json.dumps({**request, "message": {**message, "text": "x" * spare}}, ensure_ascii=False)


def put_and_run(aws: Mapping[str, str], *bodies: str) -> Any:
    for body in bodies:
        boto3.client("sqs").send_message(QueueUrl=aws["SEND_QUEUE_URL"], MessageBody=body, MessageGroupId="acme")
    return handler({"Records": [record(message) for message in taken(aws["SEND_QUEUE_URL"])]}, SendContext())


@pytest.mark.parametrize("size", [MAX_BODY + 1, MOST])
def test_a_body_that_leaves_no_room_on_the_queue_is_refused(aws: Mapping[str, str], size: int) -> None:
    """With both numbers, before anything needs a message of it."""
    assert put_and_run(aws, a_body(size)) == {"batchItemFailures": []}
    ended = wiring.messages_table().get("acme", "r1")
    assert ended
    assert ended.error
    assert (ended.status, ended.error.code) == ("failed", "message_too_large")
    assert str(size) in ended.error.message
    assert str(MAX_BODY) in ended.error.message
    assert taken(aws["DEAD_LETTER_QUEUE_URL"]) == []


@pytest.mark.parametrize("body", ["{" * MOST, "{" * (MAX_BODY + 1)], ids=["full", "almost"])
def test_a_body_that_cannot_be_read_becomes_a_dead_letter_whatever_its_size(aws: Mapping[str, str], body: str) -> None:
    """Without its reason where there is no room for one: it is no message that comes again and again."""
    assert put_and_run(aws, body) == {"batchItemFailures": []}
    [dead_letter] = taken(aws["DEAD_LETTER_QUEUE_URL"])
    assert dead_letter["Body"] == body
    assert ("reason" in dead_letter.get("MessageAttributes", {})) == (len(body) < MOST)


def test_a_full_body_under_an_id_that_is_taken_becomes_a_dead_letter(aws: Mapping[str, str]) -> None:
    """The first is untouched."""
    put_and_run(aws, a_body(500))
    first = wiring.messages_table().get("acme", "r1")
    assert put_and_run(aws, a_body(MOST)) == {"batchItemFailures": []}
    [dead_letter] = taken(aws["DEAD_LETTER_QUEUE_URL"])
    assert (dead_letter["Body"], wiring.messages_table().get("acme", "r1")) == (a_body(MOST), first)
