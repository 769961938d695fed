"""The dead-letter queue on SQS: the effect of lost replies and outages on an operator's commands."""

import os
import signal
from collections.abc import Mapping
from typing import Any
from unittest.mock import DEFAULT, patch

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from mailer import wiring
from mailer.adapters.sqs.send_queue import SIGNED_ATTRIBUTE
from mailer.domain.errors import DependencyError
from mailer_ops.adapters.dead_letters import SqsDeadLetters


@pytest.fixture
def letters(aws: Mapping[str, str]) -> SqsDeadLetters:
    for number in range(12):
        boto3.client("sqs").send_message(QueueUrl=aws["DEAD_LETTER_QUEUE_URL"], MessageBody=str(number))
    return SqsDeadLetters(wiring.sqs(), wiring.signer(), aws["DEAD_LETTER_QUEUE_URL"])


def test_a_dead_letter_that_is_gone_counts_as_deleted(letters: SqsDeadLetters) -> None:
    """SQS executed the first try, and its reply was lost."""
    [first, *others] = letters.receive_all()
    gone = wiring.sqs().exceptions.ReceiptHandleIsInvalid({"Error": {"Code": "ReceiptHandleIsInvalid"}}, "DeleteMessage")
    letters.delete(first)
    with patch.object(wiring.sqs(), "delete_message", side_effect=gone):
        letters.delete(first)
    letters.put_back(others)
    assert sorted(dead_letter.queue_message.body for dead_letter in letters.receive_all()) == sorted(
        dead_letter.queue_message.body for dead_letter in others
    )


def test_a_dead_letter_with_attributes_of_a_later_version_does_not_affect_others(letters: SqsDeadLetters, aws: Mapping[str, str]) -> None:
    """It is received without them, and marked."""
    body = '{"tenantId": "acme"}'
    attribute = {"DataType": "String", "StringValue": wiring.signer().sign('{"createdAt":"2026"}', body)}
    boto3.client("sqs").send_message(
        QueueUrl=aws["DEAD_LETTER_QUEUE_URL"], MessageBody=body, MessageAttributes={SIGNED_ATTRIBUTE: attribute}
    )
    taken = list(letters.receive_all())
    assert len(taken) == 13
    assert [dead_letter.queue_message.body for dead_letter in taken if not dead_letter.is_readable] == [body]


def test_letters_that_sqs_does_not_return_do_not_affect_others(letters: SqsDeadLetters) -> None:
    """They become visible after their timeout; those of the next call are visible at once."""
    taken, put = list(letters.receive_all()), wiring.sqs().change_message_visibility_batch
    away = EndpointConnectionError(endpoint_url="https://sqs")
    with patch.object(wiring.sqs(), "change_message_visibility_batch", side_effect=[away, DEFAULT, away], wraps=put):
        letters.put_back(taken)
        with pytest.raises(DependencyError, match="ChangeMessageVisibilityBatch"):
            letters.close()
    assert [dead_letter.queue_message.body for dead_letter in letters.receive_all()] == [
        dead_letter.queue_message.body for dead_letter in taken[10:]
    ]


def test_received_letters_are_visible_again_at_the_end(letters: SqsDeadLetters) -> None:
    """Wherever an operator stops: in the middle of a batch, or of a dead letter."""
    taken = letters.receive_all()
    letters.delete(next(taken))
    next(taken)
    letters.close()
    assert len(list(letters.receive_all())) == 11


def test_ctrl_c_during_a_call_hides_no_dead_letter(letters: SqsDeadLetters) -> None:
    """The received dead letters are known when the interrupt is raised."""
    receive = wiring.sqs().receive_message

    def interrupted(**call: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return receive(**call)

    with patch.object(wiring.sqs(), "receive_message", side_effect=interrupted), pytest.raises(KeyboardInterrupt):
        list(letters.receive_all())
    letters.close()
    assert len(list(letters.receive_all())) == 12
