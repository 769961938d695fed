"""The table with the sessions that SendFunction's sandboxes share."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from mailer.adapters.dynamodb.sessions_table import DynamoSessionsTable
from mailer.adapters.sealed_entry import SealedEntry
from mailer.domain.errors import DependencyError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def table(aws: Mapping[str, str]) -> DynamoSessionsTable:
    return DynamoSessionsTable(boto3.client("dynamodb"), aws["SESSIONS_TABLE"])


def test_an_entry_is_read_as_it_was_written(table: DynamoSessionsTable) -> None:
    """Bytes and end; a later write replaces an earlier one, and another name has its own entry."""
    assert table.find("session#acme") is None
    for until in (NOON, NOON + timedelta(hours=1)):
        table.keep("session#acme", SealedEntry(b"\x00sealed\xff", until))
    assert table.find("session#acme") == SealedEntry(b"\x00sealed\xff", NOON + timedelta(hours=1))
    assert table.find("session#globex") is None


def test_dynamodb_deletes_an_entry_after_its_end(table: DynamoSessionsTable, aws: Mapping[str, str]) -> None:
    """By the TTL attribute of the template."""
    table.keep("session#acme", SealedEntry(b"x", NOON))
    item = boto3.client("dynamodb").get_item(TableName=aws["SESSIONS_TABLE"], Key={"name": {"S": "session#acme"}})["Item"]
    assert item["ttl"] == {"N": str(int(NOON.timestamp()))}


@pytest.mark.parametrize("item", [{}, {"sealed": {"S": "x"}, "ttl": {"N": "1"}}, {"sealed": {"B": b"x"}, "ttl": {"S": "later"}}])
def test_an_invalid_item_is_a_failure_of_the_table(table: DynamoSessionsTable, aws: Mapping[str, str], item: Any) -> None:
    """It costs an STS call and no mail."""
    named: Any = {"name": {"S": "session#acme"}} | item
    boto3.client("dynamodb").put_item(TableName=aws["SESSIONS_TABLE"], Item=named)
    with pytest.raises(DependencyError):
        table.find("session#acme")


def test_a_missing_table_is_a_failure(aws: Mapping[str, str]) -> None:  # noqa: ARG001  # moto
    """For reads and writes."""
    missing = DynamoSessionsTable(boto3.client("dynamodb"), "none")
    with pytest.raises(DependencyError):
        missing.find("session#acme")
    with pytest.raises(DependencyError):
        missing.keep("session#acme", SealedEntry(b"x", NOON))
