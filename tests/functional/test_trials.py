"""The marks on DynamoDB keep the contract of `mailer.ports.Trials`."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import boto3
import pytest
from botocore.config import Config

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import DynamoMessagesTable
from mailer.adapters.dynamodb.trials import DynamoTrials
from mailer.domain.errors import DependencyError
from mailer.ports import Stage, Trial, Trials
from support.fakes.ports import FakeTrials

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RECEIPT = "5fea7756-0ea4-451a-a703-a558b933e274"


@pytest.fixture(params=["dynamodb", "fake"])
def trials(request: pytest.FixtureRequest, aws: Mapping[str, str]) -> Trials:
    """Return the table or its fake: the unit tests rely on the same behaviour."""
    return FakeTrials() if request.param == "fake" else DynamoTrials(wiring.dynamodb(), aws["MESSAGES_TABLE"])


def test_a_message_is_marked_once(trials: Trials) -> None:
    """The second worker reads the first one's stage."""
    assert trials.find(RECEIPT) is None
    assert trials.begin(RECEIPT, "one", NOON) is None
    assert trials.begin(RECEIPT, "two", NOON + timedelta(minutes=6)) == Trial(Stage.READING, "one", NOON)
    trials.reach(RECEIPT, Trial(Stage.SENDING, "one", NOON + timedelta(seconds=1)))
    assert trials.begin(RECEIPT, "two", NOON) == trials.find(RECEIPT) == Trial(Stage.SENDING, "one", NOON + timedelta(seconds=1))
    assert trials.begin("another", "two", NOON) is None


def test_a_removed_mark_is_absent(trials: Trials) -> None:
    """The message may be tried again."""
    trials.begin(RECEIPT, "one", NOON)
    trials.clear(RECEIPT)
    assert trials.find(RECEIPT) is None
    assert trials.begin(RECEIPT, "two", NOON) is None


def test_a_mark_can_be_recorded_as_done_without_a_start(trials: Trials) -> None:
    """A message that was sent again as a new one has not been tried."""
    trials.reach(RECEIPT, Trial(Stage.DONE, "-", NOON))
    assert trials.begin(RECEIPT, "two", NOON) == Trial(Stage.DONE, "-", NOON)


def test_a_mark_whose_reply_was_lost_is_one_s_own(aws: Mapping[str, str]) -> None:
    """The SDK's retry finds its own write: no worker has crashed on the message."""
    trials = DynamoTrials(wiring.dynamodb(), aws["MESSAGES_TABLE"])
    trials.begin(RECEIPT, "one", NOON)
    assert trials.begin(RECEIPT, "one", NOON) is None


def test_a_mark_is_no_record(aws: Mapping[str, str]) -> None:
    """Neither lists nor the sweeper see it, and it expires once its message cannot be on the queue any more."""
    client = boto3.client("dynamodb")
    DynamoTrials(client, aws["MESSAGES_TABLE"]).begin(RECEIPT, "one", NOON)
    table = DynamoMessagesTable(client, aws["MESSAGES_TABLE"])
    assert all(not table.due(shard, NOON + timedelta(days=99), 100) for shard in range(16))
    [item] = client.scan(TableName=aws["MESSAGES_TABLE"])["Items"]
    assert item.keys() == {"tenantShard", "requestId", "stage", "by", "at", "ttl"}
    assert int(item["ttl"]["N"]) == int((NOON + timedelta(days=15)).timestamp())


def test_a_table_that_does_not_answer_is_a_failed_dependency(aws: Mapping[str, str]) -> None:
    """Each call raises the same error."""
    assert aws
    trials = DynamoTrials(boto3.client("dynamodb", config=Config(retries={"total_max_attempts": 1})), "no-such-table")
    with patch("time.sleep"):
        for call in (
            lambda: trials.find(RECEIPT),
            lambda: trials.begin(RECEIPT, "one", NOON),
            lambda: trials.reach(RECEIPT, Trial(Stage.DONE, "-", NOON)),
            lambda: trials.clear(RECEIPT),
        ):
            with pytest.raises(DependencyError):
                call()
