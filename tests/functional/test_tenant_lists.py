"""The list of all tenants: the providers table on DynamoDB and its fake return the same pages and accept the same cursors."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from mailer.adapters.dynamodb.providers_table import DynamoProvidersTable
from mailer.domain.cursors import to_cursor
from mailer.domain.provider import Provider, ProviderStatus
from mailer.ports import ProviderStore
from support.aws import tables
from support.fakes.ports import FakeClock, a_config, a_provider
from support.fakes.providers import FakeStore

ROWS = {
    "ann": ProviderStatus.SUSPENDED,
    "bob": ProviderStatus.ACTIVE,
    "cat": ProviderStatus.ACTIVE,
    "dan": ProviderStatus.UNVERIFIED,
    "eve": ProviderStatus.ACTIVE,
    "fay": ProviderStatus.DELETED,
    "gus": ProviderStatus.DISABLED,
}
SORTED = ["bob", "cat", "eve", "gus", "ann", "dan"]


def a_row(tenant_id: str, status: ProviderStatus) -> Provider:
    if status is ProviderStatus.UNVERIFIED:
        return a_provider(tenant_id, status=status, active=None, candidate=a_config())
    return a_provider(tenant_id, status=status, **({"active": None} if status is ProviderStatus.DELETED else {}))


@pytest.fixture(params=["dynamo", "fake"], scope="module")
def store(request: pytest.FixtureRequest) -> Iterator[ProviderStore]:
    """Return a table of seven tenants, one of which has deleted its provider."""
    with mock_aws():
        made: ProviderStore = FakeStore()
        if request.param == "dynamo":
            client = boto3.client("dynamodb", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")
            made = DynamoProvidersTable(client, tables.create_tables(client)["ProvidersTable"], FakeClock())
        for tenant_id, status in ROWS.items():
            assert made.replace(a_row(tenant_id, status))
        yield made


def pages(store: ProviderStore, limit: int, status: ProviderStatus | None = None) -> list[list[str]]:
    """Read the whole list page by page."""
    found, cursor = [], None
    while True:
        page = store.list(status=status, limit=limit, cursor=cursor)
        found.append([row.tenant_id for row in page.rows])
        if (cursor := page.cursor) is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7])
def test_a_list_has_every_tenant_once_by_status_and_name(store: ProviderStore, limit: int) -> None:
    """Wherever its pages end: within a status, or with its last tenant. A tombstone is not listed."""
    read = pages(store, limit)
    assert [tenant for page in read for tenant in page] == SORTED
    assert all(len(page) == limit for page in read[:-1])


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_a_list_of_one_status_has_no_other(store: ProviderStore, limit: int) -> None:
    """On all its pages."""
    assert [tenant for page in pages(store, limit, ProviderStatus.ACTIVE) for tenant in page] == ["bob", "cat", "eve"]
    assert [tenant for page in pages(store, limit, ProviderStatus.SUSPENDED) for tenant in page] == ["ann"]


def test_a_page_with_the_whole_list_is_the_last(store: ProviderStore) -> None:
    """No caller makes a call for an empty page."""
    assert store.list(status=None, limit=7, cursor=None).cursor is None
    assert store.list(status=ProviderStatus.ACTIVE, limit=4, cursor=None).cursor is None


def test_a_cursor_is_a_key_and_needs_no_row(store: ProviderStore) -> None:
    """The last tenant of a page may have another status by then."""
    after = store.list(status=None, limit=9, cursor=to_cursor("providers", "", "active#cau"))
    assert [row.tenant_id for row in after.rows] == ["eve", "gus", "ann", "dan"]


@pytest.mark.parametrize(
    ("cursor", "status"),
    [
        (to_cursor("providers", "", "active#bob"), ProviderStatus.ACTIVE),
        (to_cursor("providers", "active", "active#bob"), None),
        (to_cursor("providers", "active", "active#bob"), ProviderStatus.SUSPENDED),
        (to_cursor("acme", "", "active#bob"), None),
        (to_cursor("providers", "", "deleted#fay"), None),
        (to_cursor("providers", "", "active#"), None),
        (to_cursor("providers", "", "active#b b"), None),
        ("", None),
        ("AAAA", None),
    ],
)
def test_a_cursor_of_another_list_is_refused(store: ProviderStore, cursor: str, status: ProviderStatus | None) -> None:
    """Of another status, or made up: no such cursor reaches DynamoDB."""
    with pytest.raises(KeyError):
        store.list(status=status, limit=9, cursor=cursor)
