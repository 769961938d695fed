"""After a restore of the providers table: tenants that have suppressions are marked again, so that these are looked up."""

from collections.abc import Mapping
from dataclasses import replace
from unittest.mock import patch

import pytest
from botocore.exceptions import ReadTimeoutError

from mailer import wiring
from mailer.domain.errors import DependencyError
from mailer.domain.suppressions import Entry
from mailer_ops.adapters.suppression_marks import DynamoUnmarkedTenants
from mailer_ops.operations.suppression_marks import mark_again
from support.fakes.ports import NOON, a_provider
from support.fakes.suppressions import an_entry


@pytest.fixture
def tenants(aws: Mapping[str, str]) -> DynamoUnmarkedTenants:
    """Store four rows: marked, restored from before its first suppression, with soft bounces only, without suppressions."""
    providers, suppressions = wiring.providers_table(), wiring.suppressions_table()
    assert providers.replace(a_provider("marked", has_suppressions=True))
    for tenant_id in ("restored", "counted", "plain"):
        assert providers.replace(a_provider(tenant_id))
    for entry in (an_entry(tenant_id="marked"), an_entry(tenant_id="restored"), an_entry("ann@example.com", tenant_id="restored")):
        assert suppressions.replace(entry)
    assert suppressions.replace(Entry(tenant_id="counted", email="jo@example.com", soft_bounces={"r1": NOON}))
    assert suppressions.replace(an_entry(tenant_id="gone"))
    return DynamoUnmarkedTenants(wiring.dynamodb(), providers=aws["PROVIDERS_TABLE"], suppressions=aws["SUPPRESSIONS_TABLE"])


def marked() -> set[str]:
    rows = wiring.providers_table().get_many(["marked", "restored", "counted", "plain", "gone"])
    return {tenant_id for tenant_id, row in rows.items() if getattr(row, "has_suppressions", False)}


def test_only_a_restored_row_is_marked(tenants: DynamoUnmarkedTenants) -> None:
    """Its bounced addresses would be mailed; a tenant without suppressions still costs no look-ups."""
    assert mark_again(tenants, wiring.providers_table()) == ["restored"]
    assert marked() == {"marked", "restored"}
    assert mark_again(tenants, wiring.providers_table()) == []


def test_a_mark_changes_nothing_else_in_the_row(tenants: DynamoUnmarkedTenants) -> None:
    """The tenant still sends."""
    mark_again(tenants, wiring.providers_table())
    row = wiring.providers_table().get("restored")
    assert row is not None
    assert replace(row, revision=1) == a_provider("restored", has_suppressions=True, revision=1)


@pytest.mark.parametrize("call", ["query", "update_item"])
def test_an_outage_of_dynamodb_is_an_error(tenants: DynamoUnmarkedTenants, call: str) -> None:
    """The command is run again, and continues."""
    lost = ReadTimeoutError(endpoint_url="https://dynamodb.eu-central-1.amazonaws.com")
    with patch.object(wiring.dynamodb(), call, side_effect=lost), pytest.raises(DependencyError):
        mark_again(tenants, wiring.providers_table())
    assert mark_again(tenants, wiring.providers_table()) == ["restored"]
