"""Lists of records: the messages table on DynamoDB and its fake return the same pages and accept the same cursors."""

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from mailer.adapters.dynamodb.messages_table import (
    TENANT_SHARDS,
    DynamoMessagesTable,
    tenant_shard,
    tenant_shards,
)
from mailer.domain import changes
from mailer.domain.changes import SentBy
from mailer.domain.cursors import to_cursor
from mailer.domain.delivery import Change, Status
from mailer.ports import MessagesTable
from support.aws import tables
from support.fakes.ports import NOON, FakeMessagesTable
from support.transitions import REQUEST


@pytest.fixture(params=["dynamo", "fake"], scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[MessagesTable]:
    """Return a table where acme has five requests, r0 the newest, and another tenant three; r1 and r4 are being sent."""
    with mock_aws():
        made: MessagesTable = FakeMessagesTable()
        if request.param == "dynamo":
            client = boto3.client("dynamodb", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")
            made = DynamoMessagesTable(client, tables.create_tables(client)["MessagesTable"])
        for number in range(5):
            made.apply(queued(f"r{number}", number))
        for number in range(3):
            made.apply(queued(f"t{number}", number, "other"))
        for request_id in ("r1", "r4"):
            of_request = replace(REQUEST, request_id=request_id)
            made.apply(changes.begin(of_request, NOON, owner="w", deadline=NOON, sent_by=SentBy("ses", 1)))
        yield made


def queued(request_id: str, minutes: int, tenant_id: str = "acme") -> Change:
    """Return the change that records a request some minutes before noon."""
    created = NOON - timedelta(minutes=minutes)
    return changes.queue(replace(REQUEST, tenant_id=tenant_id, request_id=request_id, generation=0, created_at=created), created)


def pages(table: MessagesTable, status: Status | None = None, limit: int = 2) -> list[list[str]]:
    """Read acme's list page by page."""
    found, cursor = [], None
    while True:
        page = table.list("acme", status=status, limit=limit, cursor=cursor)
        found.append([d.request_id for d in page.deliveries])
        if (cursor := page.cursor) is None:
            return found


def cursor_of(table: MessagesTable, tenant_id: str, status: Status | None) -> str:
    cursor = table.list(tenant_id, status=status, limit=1, cursor=None).cursor
    assert cursor is not None
    return cursor


def test_a_list_is_newest_first_and_continues_at_its_cursor(table: MessagesTable) -> None:
    """Page by page, each record once, only the tenant's own."""
    assert pages(table) == [["r0", "r1"], ["r2", "r3"], ["r4"]]


@given(
    minutes=st.lists(st.integers(0, 4), max_size=14),
    sending=st.sets(st.integers(0, 13)),
    limit=st.integers(1, 15),
    status=st.sampled_from([None, Status.QUEUED, Status.SENDING]),
)
@settings(max_examples=15, deadline=None)
def test_pages_of_all_shards_form_one_list(minutes: list[int], sending: set[int], limit: int, status: Status | None) -> None:
    """In any shard, also with equal times: newest first, each once, the same as from the fake."""
    with mock_aws():
        client = boto3.client("dynamodb", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")
        name = tables.create_tables(client, {logical: f"{logical}-{uuid4()}" for logical in tables.resources("AWS::DynamoDB::Table")})
        both = DynamoMessagesTable(client, name["MessagesTable"]), FakeMessagesTable()
        found = []
        for made in both:
            for number, minute in enumerate(minutes):
                made.apply(queued(f"r{number}", minute))
                if number in sending:
                    of_request = replace(REQUEST, request_id=f"r{number}")
                    made.apply(changes.begin(of_request, NOON, owner="w", deadline=NOON, sent_by=SentBy("ses", 1)))
            found.append([request_id for page in pages(made, status, limit) for request_id in page])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(found[0])


def test_a_tenant_s_records_are_spread_over_its_shards() -> None:
    """Evenly, each by its id; no shard is another tenant's."""
    counts = Counter(tenant_shard("acme", f"r{number}") for number in range(200 * TENANT_SHARDS))
    assert counts.keys() == set(tenant_shards("acme"))
    assert min(counts.values()) > 120
    assert not counts.keys() & set(tenant_shards("acme-1"))


def test_a_list_of_one_status_has_no_other(table: MessagesTable) -> None:
    """On all its pages."""
    assert [r for page in pages(table, Status.QUEUED) for r in page] == ["r0", "r2", "r3"]
    assert [r for page in pages(table, Status.SENDING) for r in page] == ["r1", "r4"]
    assert [r for page in pages(table, Status.SENT) for r in page] == []


@pytest.mark.parametrize(
    ("whose", "of_status", "tenant_id", "status"),
    [
        ("other", None, "acme", None),
        ("acme", None, "other", None),
        ("acme", None, "acme", Status.QUEUED),
        ("acme", Status.QUEUED, "acme", None),
        ("acme", Status.QUEUED, "acme", Status.SENDING),
        ("other", Status.QUEUED, "acme", Status.QUEUED),
    ],
)
def test_a_cursor_of_another_list_is_refused(
    table: MessagesTable, whose: str, of_status: Status | None, tenant_id: str, status: Status | None
) -> None:
    """Another tenant's, or the same tenant's with another status: it would start in the middle and hide earlier records."""
    cursor = cursor_of(table, whose, of_status)
    with pytest.raises(KeyError):
        table.list(tenant_id, status=status, limit=9, cursor=cursor)


KEY = "2026-11-24T12:00:00.000+00:00#r2"


def test_a_cursor_is_a_key_and_needs_no_record(table: MessagesTable) -> None:
    """The last record of a page may expire before the next page is requested."""
    between = table.list("acme", status=None, limit=9, cursor=to_cursor("acme", "", "2026-11-24T11:57:30.000+00:00#gone"))
    assert [d.request_id for d in between.deliveries] == ["r3", "r4"]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "?",
        "AAAA",
        "\u00e9",
        "YWNtZSNyMQ",
        "a" * 5000,
        to_cursor(KEY),
        to_cursor("acme", KEY),
        to_cursor("acme", "", ""),
        to_cursor("acme", "", "r2"),
        to_cursor("acme", "", KEY, KEY),
        to_cursor("acme", "", KEY) + "=",
        to_cursor("acme", "", KEY) + "\n",
        base64.b64encode(f"acme\n\n{KEY}\n".encode()).decode(),
    ],
)
def test_a_made_up_cursor_is_refused(table: MessagesTable, cursor: str) -> None:
    """It never reaches DynamoDB."""
    with pytest.raises(KeyError):
        table.list("acme", status=None, limit=1, cursor=cursor)


@given(cursor=st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{0,80}", fullmatch=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_text_is_refused_as_a_cursor(table: MessagesTable, cursor: str) -> None:
    """With a KeyError."""
    with pytest.raises(KeyError):
        table.list("acme", status=None, limit=1, cursor=cursor)
