"""The feedback table keeps the contract of `mailer.ports.FeedbackTable`, on DynamoDB and in the tests' fake."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from botocore.config import Config

from mailer import wiring
from mailer.adapters.dynamodb.feedback_table import DynamoFeedbackTable
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.facts import FACT_RETENTION, NO_FACTS, Fact, Facts, RecipientStatus
from mailer.domain.feedback import MailRef
from mailer.ports import FeedbackTable, MergedFacts
from support.fakes.ports import NOON, FakeFeedbackTable

MINUTE = timedelta(minutes=1)
MAIL = MailRef("acme", "r1", 2)
MESSAGE = ("111122223333", "eu-west-1", "0100-one")


def some_facts(
    email: str = "jo@example.com", status: RecipientStatus = RecipientStatus.DELIVERED, minutes: int = 0, **fields: Any
) -> Facts:
    return {email: {status: Fact(NOON + minutes * MINUTE, **fields)}}


BOUNCED = some_facts(
    status=RecipientStatus.BOUNCED, minutes=2, smtp_status="5.1.1", diagnostic="smtp; 550 5.1.1 no jo@example.com here, ünbekannt"
)


@pytest.fixture(params=["dynamodb", "fake"])
def table(request: pytest.FixtureRequest, aws: Mapping[str, str]) -> FeedbackTable:
    return FakeFeedbackTable() if request.param == "fake" else DynamoFeedbackTable(wiring.dynamodb(), aws["FEEDBACK_TABLE"])


@pytest.fixture
def dynamo(aws: Mapping[str, str]) -> DynamoFeedbackTable:
    return DynamoFeedbackTable(wiring.dynamodb(), aws["FEEDBACK_TABLE"])


def items(dynamo: DynamoFeedbackTable) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.client("dynamodb").scan(TableName=dynamo._table)["Items"]
    return found


def test_facts_are_merged_into_existing_ones(table: FeedbackTable) -> None:
    """Before and after are returned: the difference is what is counted."""
    first, second = some_facts(), some_facts("b@example.net", RecipientStatus.DELAYED)
    assert table.facts("acme", "r1") == NO_FACTS
    assert table.merge("acme", "r1", first) == MergedFacts(NO_FACTS, first)
    assert table.merge("acme", "r1", second).after == {**first, **second}
    assert table.merge("acme", "r1", BOUNCED).before == {**first, **second}
    assert table.facts("acme", "r1")["jo@example.com"] == {**first["jo@example.com"], **BOUNCED["jo@example.com"]}
    assert table.facts("acme", "r2") == table.facts("acme2", "r1") == NO_FACTS


def test_known_facts_change_nothing(table: FeedbackTable) -> None:
    """As of a duplicate or outdated event."""
    later = some_facts(minutes=5)
    table.merge("acme", "r1", some_facts())
    table.merge("acme", "r1", later)
    for facts in (some_facts(), later, some_facts(minutes=3)):
        merged = table.merge("acme", "r1", facts)
        assert merged.before == merged.after == table.facts("acme", "r1")
    [fact] = table.facts("acme", "r1")["jo@example.com"].values()
    assert (fact.at, fact.since) == (NOON + 5 * MINUTE, NOON)


def test_a_message_id_finds_its_mail(table: FeedbackTable) -> None:
    """Within its account and region."""
    assert table.find(*MESSAGE) is None
    table.remember(*MESSAGE, MAIL, NOON)
    table.remember(*MESSAGE, MAIL, NOON)
    assert table.find(*MESSAGE) == MAIL
    assert table.find("444455556666", *MESSAGE[1:]) is None
    assert table.find(MESSAGE[0], "us-east-1", MESSAGE[2]) is None


def test_the_same_facts_are_the_same_bytes(dynamo: DynamoFeedbackTable) -> None:
    """In whatever order they arrived: the item depends only on them."""
    some = [some_facts(), some_facts(minutes=3), BOUNCED, some_facts("b@example.net", RecipientStatus.DELAYED)]
    for request_id, facts in (("r1", some), ("r2", [*reversed(some), *some])):
        for one in facts:
            dynamo.merge("acme", request_id, one)
    first, second = ({**item, "pk": None, "requestId": None} for item in items(dynamo))
    assert first == second


def test_items_expire_35_days_after_the_last_event(dynamo: DynamoFeedbackTable) -> None:
    """Also those of messageIds."""
    dynamo.merge("acme", "r1", some_facts())
    dynamo.merge("acme", "r1", BOUNCED)
    dynamo.remember(*MESSAGE, MAIL, NOON)
    assert {item["sk"]["S"]: int(item["ttl"]["N"]) for item in items(dynamo)} == {
        "facts": int((NOON + 2 * MINUTE + FACT_RETENTION).timestamp()),
        "mail": int((NOON + FACT_RETENTION).timestamp()),
    }


def test_facts_are_removed(table: FeedbackTable) -> None:
    """Only those of the request; later ones are stored again."""
    table.merge("acme", "r1", BOUNCED)
    table.merge("acme", "r2", BOUNCED)
    table.forget("acme", "r1", NOON)
    table.forget("acme", "r3", NOON)
    assert (table.facts("acme", "r1"), table.facts("acme", "r3"), table.facts("acme", "r2")) == (NO_FACTS, NO_FACTS, BOUNCED)
    assert table.merge("acme", "r1", some_facts()) == MergedFacts(NO_FACTS, some_facts())


def test_an_item_without_facts_is_due_for_deletion(dynamo: DynamoFeedbackTable) -> None:
    """No function may delete items."""
    dynamo.merge("acme", "r1", BOUNCED)
    dynamo.forget("acme", "r1", NOON)
    [item] = items(dynamo)
    assert "example.com" not in repr(item)
    assert int(item["ttl"]["N"]) == int(NOON.timestamp())


def test_addresses_are_only_in_the_facts(dynamo: DynamoFeedbackTable) -> None:
    """Keys appear in traces and errors."""
    dynamo.merge("acme", "r1", BOUNCED)
    dynamo.remember(*MESSAGE, MAIL, NOON)
    assert "example.com" not in repr([{name: value for name, value in item.items() if name != "facts"} for item in items(dynamo)])


@pytest.fixture
def racing(dynamo: DynamoFeedbackTable) -> Iterator[list[Facts]]:
    """Let another function write facts just before each of our writes."""
    others: list[Facts] = []
    rival = DynamoFeedbackTable(boto3.client("dynamodb"), dynamo._table)

    def write_first(**_: Any) -> None:
        if others:
            rival.merge("acme", "r1", others.pop(0))

    dynamo._client.meta.events.register("before-call.dynamodb.PutItem", write_first)
    yield others
    dynamo._client.meta.events.unregister("before-call.dynamodb.PutItem", write_first)


def test_no_concurrent_write_is_lost(dynamo: DynamoFeedbackTable, racing: list[Facts]) -> None:
    """With and without an existing item: the write is conditional on what was read, and repeated."""
    racing += [some_facts("first@example.com"), some_facts("second@example.com")]
    merged = dynamo.merge("acme", "r1", some_facts())
    assert set(merged.after) == {"jo@example.com", "first@example.com", "second@example.com"}
    assert dynamo.facts("acme", "r1") == merged.after


def test_a_write_that_always_conflicts_fails(dynamo: DynamoFeedbackTable, racing: list[Facts]) -> None:
    """SQS redelivers the event later."""
    racing += [some_facts(f"{number}@example.com") for number in range(50)]
    with pytest.raises(DependencyError, match="contention"):
        dynamo.merge("acme", "r1", some_facts())


@pytest.mark.parametrize(
    "damage", [{"facts": {"S": "x"}}, {"facts": {"M": {"jo@example.com": {"M": {"opened": {"M": {"at": {"N": "1"}}}}}}}}]
)
def test_an_item_of_a_later_version_is_not_overwritten(dynamo: DynamoFeedbackTable, damage: dict[str, Any]) -> None:
    """The event is retried until the item can be read; the error has ids and no address."""
    dynamo.merge("acme", "r1", some_facts())
    [item] = items(dynamo)
    boto3.client("dynamodb").put_item(TableName=dynamo._table, Item={**item, **damage})
    for read in (lambda: dynamo.merge("acme", "r1", BOUNCED), lambda: dynamo.facts("acme", "r1")):
        with pytest.raises(UnreadableError, match="acme/r1") as error:
            read()
        assert "example.com" not in str(error.value)
    assert items(dynamo) == [{**item, **damage}]


def test_an_unavailable_table_is_a_dependency_error(aws: Mapping[str, str]) -> None:
    """For each call."""
    assert aws
    nowhere = DynamoFeedbackTable(boto3.client("dynamodb", config=Config(retries={"total_max_attempts": 1})), "no-such-table")
    with patch("time.sleep"):
        for ask in (
            lambda: nowhere.merge("acme", "r1", some_facts()),
            lambda: nowhere.facts("acme", "r1"),
            lambda: nowhere.find(*MESSAGE),
            lambda: nowhere.remember(*MESSAGE, MAIL, NOON),
        ):
            with pytest.raises(DependencyError):
                ask()
