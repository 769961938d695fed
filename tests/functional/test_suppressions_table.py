"""The suppressions table in moto: what it stores, what each conditional write accepts and refuses, and what its lists show."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws

from mailer.adapters.dynamodb.suppressions_table import DynamoSuppressionsTable
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression
from mailer.ports import SuppressionsTable
from support.aws import tables
from support.fakes.ports import NOON
from support.fakes.suppressions import FakeSuppressionsTable, an_entry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MINUTE = timedelta(minutes=1)
WHOLE = Entry(
    tenant_id="acme",
    email="jo+x@xn--bcher-kva.example",
    suppression=Suppression(
        reason=Reason.COMPLAINT,
        at=NOON,
        request_id="r1",
        expires_at=NOON + 20 * MINUTE,
        by="arn:aws:iam::111111111111:user/ann",
        why="asked by phone",
        may_have_complained=True,
        spelling="Jo+X@xn--bcher-kva.example",
    ),
    by_ses=Suppression(reason=Reason.SOFT_BOUNCES, at=NOON, request_id="r0"),
    shorter=(Suppression(reason=Reason.MANUAL, at=NOON, expires_at=datetime(9999, 12, 31, tzinfo=UTC), by="ann", why="asked"),),
    soft_bounces={"r1": NOON, "r:2.x": NOON + MINUTE},
    delivered_at=NOON - MINUTE,
    lifted=Lifting(NOON - 2 * MINUTE, None, "mailbox is back"),
)


@pytest.fixture(scope="module")
def dynamodb() -> Iterator["DynamoDBClient"]:
    with mock_aws():
        yield boto3.client("dynamodb", region_name="eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture
def name(dynamodb: "DynamoDBClient") -> str:
    """Give each test its own table."""
    return tables.create_tables(dynamodb, {n: f"{n}-{uuid4()}" for n in tables.resources("AWS::DynamoDB::Table")})["SuppressionsTable"]


@pytest.fixture
def table(dynamodb: "DynamoDBClient", name: str) -> DynamoSuppressionsTable:
    return DynamoSuppressionsTable(dynamodb, name)


@pytest.fixture(params=["DynamoDB", "fake"])
def either(request: pytest.FixtureRequest, table: DynamoSuppressionsTable) -> SuppressionsTable:
    """Return the adapter or its fake, which has the same contract."""
    return table if request.param == "DynamoDB" else FakeSuppressionsTable()


def entry_of(table: SuppressionsTable, email: str, tenant_id: str = "acme") -> Entry:
    found = table.get_many([(tenant_id, email)])[tenant_id, email]
    assert isinstance(found, Entry)
    return found


def item_of(dynamodb: "DynamoDBClient", name: str, email: str) -> dict[str, Any]:
    item: Any = dynamodb.get_item(TableName=name, Key={"tenantId": {"S": "acme"}, "email": {"S": email}})["Item"]
    return item


# ── entries ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("entry", [WHOLE, an_entry(), Entry(tenant_id="acme", email="a@b.example", soft_bounces={"r1": NOON})])
def test_an_entry_is_read_as_it_was_written(either: SuppressionsTable, entry: Entry) -> None:
    """Every field, with the next revision."""
    assert either.replace(entry)
    assert entry_of(either, entry.email) == replace(entry, revision=1)


def test_each_tenant_has_its_own_entry_of_an_address(either: SuppressionsTable) -> None:
    """Missing entries are left out of the result."""
    assert either.replace(an_entry("a@example.com"))
    assert either.replace(an_entry("a@example.com", tenant_id="globex", reason=Reason.MANUAL))
    asked = [("acme", "a@example.com"), ("globex", "a@example.com"), ("acme", "b@example.com")]
    assert {listed: e.suppression and e.suppression.reason for listed, e in either.get_many(asked).items() if isinstance(e, Entry)} == {
        ("acme", "a@example.com"): Reason.HARD_BOUNCE,
        ("globex", "a@example.com"): Reason.MANUAL,
    }


def test_a_write_over_an_unread_revision_is_refused(either: SuppressionsTable) -> None:
    """Of two concurrent events about one address the second reads again."""
    assert either.replace(an_entry())
    assert not either.replace(an_entry(reason=Reason.COMPLAINT))
    read = entry_of(either, "jo@example.com")
    assert either.replace(replace(read, suppression=None, lifted=Lifting(NOON, None, None)))
    assert not either.replace(replace(read, suppression=None, lifted=Lifting(NOON + MINUTE, None, None)))
    assert entry_of(either, "jo@example.com").lifted == Lifting(NOON, None, None)


def test_a_write_whose_reply_was_lost_has_succeeded(table: DynamoSuppressionsTable) -> None:
    """The SDK's retry finds its own write."""
    assert table.replace(an_entry())
    assert table.replace(an_entry())


def test_time_to_live_is_that_of_the_entry(dynamodb: "DynamoDBClient", table: DynamoSuppressionsTable, name: str) -> None:
    """A suppression without an end has none."""
    passing = replace(an_entry("a@example.com"), suppression=Suppression(reason=Reason.MANUAL, at=NOON, expires_at=NOON + MINUTE))
    for entry in (passing, an_entry("b@example.com")):
        assert table.replace(entry)
    assert item_of(dynamodb, name, "a@example.com")["ttl"] == {"N": str(int((NOON + MINUTE).timestamp()))}
    assert "ttl" not in item_of(dynamodb, name, "b@example.com")


def test_an_unreadable_entry_hides_no_other(dynamodb: "DynamoDBClient", table: DynamoSuppressionsTable, name: str) -> None:
    """Its error has the tenant and no address."""
    for email in ("a@example.com", "b@example.com"):
        assert table.replace(an_entry(email))
    item = item_of(dynamodb, name, "a@example.com")
    dynamodb.put_item(TableName=name, Item={**item, "suppression": {"M": {"reason": {"S": "a later reason"}, "at": {"N": "0"}}}})
    found = table.get_many([("acme", "a@example.com"), ("acme", "b@example.com")])
    damaged = found["acme", "a@example.com"]
    assert isinstance(damaged, UnreadableError)
    assert "acme" in str(damaged)
    assert "a@example.com" not in str(damaged)
    assert isinstance(found["acme", "b@example.com"], Entry)


@pytest.mark.parametrize("call", ["batch_get_item", "put_item", "query"])
def test_an_unavailable_table_is_a_dependency_error(dynamodb: "DynamoDBClient", table: DynamoSuppressionsTable, call: str) -> None:
    """For each call."""
    lost = ReadTimeoutError(endpoint_url="https://dynamodb.eu-central-1.amazonaws.com")
    with patch.object(dynamodb, call, side_effect=lost), pytest.raises(DependencyError):
        {
            "batch_get_item": lambda: table.get_many([("acme", "a@example.com")]),
            "put_item": lambda: table.replace(an_entry()),
            "query": lambda: table.list("acme", reason=None, limit=10, cursor=None),
        }[call]()


# ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def emails(table: SuppressionsTable, tenant_id: str = "acme", reason: Reason | None = None, limit: int = 2) -> list[list[str]]:
    """Return the addresses of a list, page by page."""
    pages, cursor = [], None
    while True:
        page = table.list(tenant_id, reason=reason, limit=limit, cursor=cursor)
        pages.append([entry.email for entry in page.entries])
        cursor = page.cursor
        if cursor is None:
            return pages
        assert "example" not in cursor


def fill(table: SuppressionsTable) -> None:
    reasons = [Reason.HARD_BOUNCE, Reason.COMPLAINT, Reason.HARD_BOUNCE, Reason.HARD_BOUNCE, Reason.MANUAL]
    for number, reason in enumerate(reasons):
        assert table.replace(an_entry(f"{number}@example.com", reason=reason, at=NOON + number * MINUTE))
    assert table.replace(an_entry("0@example.com", tenant_id="globex"))
    assert table.replace(Entry(tenant_id="acme", email="counted@example.com", soft_bounces={"r1": NOON}))
    assert table.replace(Entry(tenant_id="acme", email="lifted@example.com", lifted=Lifting(NOON, None, None)))


def test_a_list_shows_suppressed_addresses_newest_first(either: SuppressionsTable) -> None:
    """Of one tenant, page by page; without addresses that only have soft bounces or were lifted."""
    fill(either)
    assert emails(either) == [["4@example.com", "3@example.com"], ["2@example.com", "1@example.com"], ["0@example.com"]]
    assert emails(either, "globex") == [["0@example.com"]]
    assert emails(either, "nobody") == [[]]


def test_a_list_of_one_reason_shows_only_that(either: SuppressionsTable) -> None:
    """In the same order."""
    fill(either)
    assert emails(either, reason=Reason.HARD_BOUNCE) == [["3@example.com", "2@example.com"], ["0@example.com"]]
    assert emails(either, reason=Reason.SES_LIST) == [[]]


def test_a_cursor_is_valid_only_for_its_list(either: SuppressionsTable) -> None:
    """Not for another tenant or reason."""
    fill(either)
    cursor = either.list("acme", reason=None, limit=2, cursor=None).cursor
    assert cursor is not None
    for tenant_id, reason in (("globex", None), ("acme", Reason.HARD_BOUNCE)):
        with pytest.raises(KeyError):
            either.list(tenant_id, reason=reason, limit=2, cursor=cursor)
    with pytest.raises(KeyError):
        either.list("acme", reason=None, limit=2, cursor=cursor[:-2])


def test_a_lifted_suppression_leaves_the_list(either: SuppressionsTable) -> None:
    """By the same write."""
    fill(either)
    assert either.replace(replace(entry_of(either, "3@example.com"), suppression=None, lifted=Lifting(NOON, None, None)))
    assert all("3@example.com" not in page for page in emails(either))
