"""The list of all tenants as API Gateway requests it, over the stack in moto."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import boto3
import pytest

from mailer import wiring
from mailer.domain.errors import ErrorInfo
from mailer.domain.provider import ProviderStatus
from mailer.handlers.providers import handler
from support.aws.api_calls import call, event
from support.fakes.ports import a_config, a_provider

TENANTS = {
    "ann": ProviderStatus.SUSPENDED,
    "bob": ProviderStatus.ACTIVE,
    "cat": ProviderStatus.ACTIVE,
    "eve": ProviderStatus.ACTIVE,
    "gus": ProviderStatus.DISABLED,
}
SORTED = ["bob", "cat", "eve", "gus", "ann"]


def listed(**query: str) -> Any:
    asked = {
        **event("tenants-list"),
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
    }
    return call(handler, asked)


@pytest.fixture
def tenants(aws: Mapping[str, str]) -> Mapping[str, str]:
    """Store some tenants in the stack's table."""
    for tenant_id, status in TENANTS.items():
        assert wiring.providers_table().replace(a_provider(tenant_id, status=status))
    return aws


def test_the_api_lists_provider_records_with_their_tenants(tenants: Mapping[str, str]) -> None:
    """As `GET …/provider` shows each, all of them in two calls."""
    assert call(handler, event("tenants-list")).json["cursor"] is None
    first = listed(limit="4").json
    second = listed(limit="4", cursor=first["cursor"]).json
    assert [tenant["tenantId"] for page in (first, second) for tenant in page["tenants"]] == SORTED
    assert second["cursor"] is None
    shown = dict(first["tenants"][0])
    assert shown.pop("tenantId") == "bob"
    assert shown == call(handler, event("provider-get"), tenant="bob").json
    assert tenants["PROVIDERS_TABLE"]


@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"status": "deleted"}, 400),
        ({"status": "ACTIVE"}, 400),
        ({"limit": "0"}, 400),
        ({"limit": "101"}, 400),
        ({"limit": "many"}, 400),
        ({"cursor": "made-up"}, 404),
    ],
)
def test_the_api_refuses_invalid_filters_and_cursors(query: dict[str, str], status: int) -> None:
    """400 with the parameter's name; an unknown cursor is a 404."""
    refusal = listed(**query)
    assert refusal.status == status
    assert [fault["path"] for fault in refusal.json["errors"]] == list(query)


@pytest.mark.usefixtures("aws")
def test_a_list_decrypts_nothing() -> None:
    """Of a role only the type is shown; ARN and ExternalId are in the tenant's own record. An error has its hint."""
    error = ErrorInfo("from_address_not_verified", "SES refused the sender")
    role = a_config(credentials={"type": "role"}, region="eu-west-1")
    assert wiring.providers_table().replace(a_provider("acme", status=ProviderStatus.SUSPENDED, active=role, error=error))
    with patch.object(wiring.config_cipher(), "decrypt", side_effect=AssertionError("a list must not decrypt")):
        [shown] = listed(status="suspended").json["tenants"]
    assert shown["credentials"] == {"type": "role"}
    assert "eu-west-1" in shown["error"]["hint"]


@pytest.mark.usefixtures("aws")
def test_an_unreadable_row_hides_no_other() -> None:
    """It is left out, and reported."""
    for tenant_id in ("acme", "broken", "zeta"):
        assert wiring.providers_table().replace(a_provider(tenant_id))
    boto3.client("dynamodb").update_item(
        TableName=wiring.settings().providers_table,
        Key={"tenantId": {"S": "broken"}},
        UpdateExpression="REMOVE versions",
    )
    with patch.object(wiring.providers_table(), "_report") as report:
        assert [tenant["tenantId"] for tenant in listed().json["tenants"]] == ["acme", "zeta"]
    [(step, tenant_id, _)] = [reported.args for reported in report.call_args_list]
    assert (step, tenant_id) == ("read provider", "broken")


@pytest.mark.usefixtures("aws")
def test_a_row_that_changed_since_the_index_is_shown_as_it_is() -> None:
    """In the list of all with its current status; in that of one status only if it still has it."""
    table = wiring.providers_table()
    assert table.replace(a_provider("acme"))
    late = {"acme": replace(a_provider("acme"), status=ProviderStatus.DISABLED)}
    with patch.object(table, "get_many", return_value=late):
        assert [tenant["status"] for tenant in listed().json["tenants"]] == ["disabled"]
        assert listed(status="active").json["tenants"] == []
    gone = {"acme": replace(a_provider("acme"), status=ProviderStatus.DELETED)}
    with patch.object(table, "get_many", return_value=gone):
        assert listed().json["tenants"] == []
