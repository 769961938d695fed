"""The dead-letter queue on SQS: what a lost reply or a service that is away does to an operator's work."""

from collections.abc import Mapping
from unittest.mock import DEFAULT, patch

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from mailer import operate, wiring
from mailer.adapters.dead_letters import SqsDeadLetters
from mailer.domain.errors import DependencyError


@pytest.fixture
def letters(aws: Mapping[str, str]) -> SqsDeadLetters:
    for number in range(12):
        boto3.client("sqs").send_message(QueueUrl=aws["DEAD_LETTER_QUEUE_URL"], MessageBody=str(number))
    return SqsDeadLetters(wiring.sqs(), wiring.signer(), aws["DEAD_LETTER_QUEUE_URL"])


def test_a_letter_that_is_gone_counts_as_deleted(letters: SqsDeadLetters) -> None:
    """SQS took the first try, and its reply was lost."""
    [first, *others] = letters.letters()
    gone = wiring.sqs().exceptions.ReceiptHandleIsInvalid({"Error": {"Code": "ReceiptHandleIsInvalid"}}, "DeleteMessage")
    letters.delete(first)
    with patch.object(wiring.sqs(), "delete_message", side_effect=gone):
        letters.delete(first)
    letters.put_back(others)
    assert sorted(letter.copy.body for letter in letters.letters()) == sorted(letter.copy.body for letter in others)


def test_letters_that_sqs_does_not_put_back_keep_no_others(letters: SqsDeadLetters) -> None:
    """They show up by themselves; those of the next call are seen again at once."""
    taken, put = list(letters.letters()), wiring.sqs().change_message_visibility_batch
    away = EndpointConnectionError(endpoint_url="https://sqs")
    with patch.object(wiring.sqs(), "change_message_visibility_batch", side_effect=[away, DEFAULT], wraps=put):
        letters.put_back(taken)
    assert [letter.copy.body for letter in letters.letters()] == [letter.copy.body for letter in taken[10:]]


def test_a_command_that_stops_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    """In a line, not in a traceback; its exit code tells that something is left."""
    away = DependencyError("SQS", "ReceiveMessage")
    with patch.object(operate, "use_stack"), patch.object(operate, "_room", side_effect=away):
        assert operate.main(["dlq", "list"]) == 1
    assert capsys.readouterr().err == "stopped half-way: SQS did not complete ReceiveMessage; run it again\n"
