"""An unreadable row or record affects only its own tenant or request; the handlers and adapters over moto."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import MagicMock, patch

import boto3
import pytest

from mailer import wiring
from mailer.adapters.dynamodb import providers_table
from mailer.adapters.dynamodb.messages_table import SWEEP_SHARDS, DynamoMessagesTable, record_key, sweep_shard
from mailer.domain import changes
from mailer.domain.changes import Request
from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import ErrorInfo, UnreadableError
from mailer.domain.provider import ProviderStatus
from mailer.handlers import messages, providers, publish, send
from support.aws.api_calls import SendContext
from support.aws.streams import read_stream
from support.fakes.ports import NOON, a_provider
from support.servers.gateway import Gateway

ACME = "/tenants/acme/messages"
NO_SUCH = {"S": "of a later version"}

DAMAGES: Mapping[str, Any] = {
    "without a status": ("status", None),
    "an unknown status": ("status", NO_SUCH),
    "an unknown waitsFor": ("waitsFor", NO_SUCH),
    "an unknown onUnknown": ("onUnknown", NO_SUCH),
    "without createdAt": ("createdAt", None),
    "recipients as text": ("recipients", {"S": "1"}),
    "a time beyond all times": ("updatedAt", {"N": "9" * 30}),
    "a time to which nothing can be added": ("dueAt", {"N": "253402300799999"}),
    "an error that is none": ("error", {"S": "x"}),
}

CONFIG: Mapping[str, Any] = providers_table.to_item(a_provider())["active"]["M"]

ROW_DAMAGES: Mapping[str, Any] = {
    "without a revision": ("revision", None),
    "an unknown status": ("status", NO_SUCH),
    "a config without its ciphertext": ("active", {"M": {}}),
    "updatedAt as text": ("updatedAt", {"S": "x"}),
    "no config": ("active", None),
    "credentials of no type": ("active", {"M": {**CONFIG, "credentials": {"M": {}}}}),
    "an unknown provider": ("active", {"M": {**CONFIG, "provider": NO_SUCH}}),
    "a rate of nothing": ("active", {"M": {**CONFIG, "maxSendRate": {"N": "0"}}}),
    "a quota of less than nothing": ("active", {"M": {**CONFIG, "quotaRate": {"N": "-1"}}}),
}


def damage(table: str, key: Mapping[str, Any], attribute: str, value: Any) -> None:
    """Change an item behind the code's back."""
    boto3.client("dynamodb").update_item(
        TableName=table,
        Key=dict(key),
        UpdateExpression="REMOVE #name" if value is None else "SET #name = :value",
        ExpressionAttributeNames={"#name": attribute},
        **({} if value is None else {"ExpressionAttributeValues": {":value": value}}),
    )


def queue(request_id: str, now: datetime = NOON) -> Delivery:
    """Record a request of acme."""
    request = Request(
        tenant_id="acme",
        request_id=request_id,
        content_hash="sha256-v1:0",
        created_at=now,
        expires_at=now + timedelta(days=1),
        recipients=1,
    )
    return wiring.messages_table().apply(changes.queue(request, now))


@pytest.fixture(params=DAMAGES)
def bad(request: pytest.FixtureRequest, aws: Mapping[str, str]) -> str:
    """Store two records, one of them unreadable; return its id."""
    queue("good", NOON)
    queue("bad", NOON + timedelta(seconds=1))
    damage(aws["MESSAGES_TABLE"], record_key("acme", "bad"), *DAMAGES[request.param])
    return "bad"


def test_a_list_shows_the_other_records(bad: str, aws: Mapping[str, str]) -> None:
    """The unreadable one is logged with its ids and left out."""
    assert bad
    report = MagicMock()
    table = DynamoMessagesTable(wiring.dynamodb(), aws["MESSAGES_TABLE"], report)
    assert [record.request_id for record in table.list("acme", status=None, limit=10, cursor=None).deliveries] == ["good"]
    [(step, tenant_id, error)] = [call.args for call in report.call_args_list]
    assert (step, tenant_id, "acme/bad" in str(error)) == ("read record", "acme", True)
    answer = Gateway(messages.handler).call("GET", ACME)
    assert (answer.status, [record["requestId"] for record in answer.json["messages"]]) == (200, ["good"])


def test_a_request_for_it_returns_503_with_a_hint_for_the_operator(bad: str) -> None:
    """The caller may retry; it is not a bare internal error."""
    answer = Gateway(messages.handler).call("GET", f"{ACME}/{bad}")
    assert (answer.status, answer.json["code"]) == (503, "dependency_unavailable")
    assert "acme/bad" in answer.json["detail"]
    assert answer.json["hint"].startswith("Operator: it is damaged, or a later version")


def test_the_sweeper_reaches_the_records_behind_it(aws: Mapping[str, str]) -> None:
    """A page of unreadable records does not hide the due ones after it."""
    now = NOON + timedelta(hours=1)
    shard = [f"r{n}" for n in range(1000) if sweep_shard("acme", f"r{n}") == "3"][:6]
    for number, request_id in enumerate(shard):
        queue(request_id, NOON + timedelta(seconds=number))
    for request_id in shard[:4]:
        damage(aws["MESSAGES_TABLE"], record_key("acme", request_id), "status", NO_SUCH)
    assert SWEEP_SHARDS > 3
    assert [record.request_id for record in wiring.messages_table().due(3, now, 2)] == shard[4:]


def test_a_write_to_it_is_a_failed_call(bad: str) -> None:
    """Neither done nor refused as if the request had another state: it is retried later."""
    good = wiring.messages_table().get("acme", "good")
    assert good is not None
    with pytest.raises(UnreadableError):
        wiring.messages_table().apply(changes.queue(changes.Request(**{**vars_of(good), "request_id": bad}), NOON))


def vars_of(record: Delivery) -> dict[str, Any]:
    """Return the fields of a record that make a request."""
    about = changes.request_of(record)
    return {name: getattr(about, name) for name in about.__dataclass_fields__}


# -- provider rows -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=ROW_DAMAGES)
def bad_row(request: pytest.FixtureRequest, aws: Mapping[str, str]) -> str:
    """Store an unreadable row; return its tenant."""
    wiring.providers_table().replace(a_provider("bravo"))
    damage(aws["PROVIDERS_TABLE"], {"tenantId": {"S": "bravo"}}, *ROW_DAMAGES[request.param])
    return "bravo"


def test_an_unreadable_provider_row_defers_only_its_own_mail(bad_row: str) -> None:
    """Its request is deferred and not failed; another tenant's in the same batch is processed."""
    answer = send.handler({"Records": [record("r1", bad_row), record("r2", "acme")]}, SendContext())
    assert answer == {"batchItemFailures": []}
    waits, ended = wiring.messages_table().get(bad_row, "r1"), wiring.messages_table().get("acme", "r2")
    assert waits is not None
    assert ended is not None
    assert (waits.status, waits.error and waits.error.code) == (Status.DEFERRED, "dependency_unavailable")
    assert (ended.status, ended.error and ended.error.code) == (Status.FAILED, "provider_not_configured")


def record(request_id: str, tenant_id: str) -> Mapping[str, Any]:
    """Return a message as Lambda passes it."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello."}
    stamp = str(int(datetime.now(UTC).timestamp() * 1000))
    return {
        "messageId": request_id,
        "body": json.dumps({"tenantId": tenant_id, "requestId": request_id, "message": message}),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": stamp, "MessageGroupId": tenant_id},
    }


def test_a_post_for_such_a_tenant_returns_503(bad_row: str) -> None:
    """The request is not queued, and may be retried."""
    body = {"requestId": "r1", "message": {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello."}}
    answer = Gateway(messages.handler).call("POST", f"/tenants/{bad_row}/messages", body)
    assert (answer.status, answer.json["code"]) == (503, "dependency_unavailable")


def test_a_list_of_tenants_shows_the_other_rows(bad_row: str) -> None:
    """One row does not make the list unavailable."""
    wiring.providers_table().replace(a_provider("acme"))
    answer = Gateway(messages.handler, providers.handler).call("GET", "/tenants")
    assert (answer.status, [row["tenantId"] for row in answer.json["tenants"]]) == (200, ["acme"])
    assert bad_row


@pytest.mark.parametrize("candidate", [{**CONFIG, "provider": NO_SUCH}, {}], ids=["of a later version", "damaged"])
def test_a_candidate_that_cannot_be_read_does_not_stop_the_active_config(aws: Mapping[str, str], candidate: Mapping[str, Any]) -> None:
    """Mail is sent with the active one until the candidate is verified. A write must not lose it, so the row is not read for one."""
    table, row = wiring.providers_table(), a_provider("bravo")
    table.replace(row)
    damage(aws["PROVIDERS_TABLE"], {"tenantId": {"S": "bravo"}}, "candidate", {"M": candidate})
    body = {"requestId": "r1", "message": {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello."}}
    api = Gateway(messages.handler, providers.handler)
    assert api.call("POST", "/tenants/bravo/messages", body).status == 202
    [listed] = api.call("GET", "/tenants").json["tenants"]
    assert (listed["status"], listed["candidate"]) == ("active", None)
    assert row.active
    assert not table.record_fault("bravo", row.active.version, "r1", ErrorInfo("credentials_invalid", "x"), row.verified_at)
    assert api.call("POST", "/tenants/bravo/provider/disable").status == 503


def test_a_sandbox_of_a_later_version_is_not_known(aws: Mapping[str, str]) -> None:
    """It decides nothing, so the row is readable, and shown."""
    wiring.providers_table().replace(a_provider("acme"))
    damage(aws["PROVIDERS_TABLE"], {"tenantId": {"S": "acme"}}, "sandbox", NO_SUCH)
    answer = Gateway(messages.handler, providers.handler).call("GET", "/tenants/acme/provider")
    assert (answer.status, answer.json["sandbox"]) == (200, "unknown")


# -- streams -------------------------------------------------------------------------------------------------------------


def test_a_write_over_an_unreadable_image_is_published(aws: Mapping[str, str]) -> None:
    """The old image is unreadable and the new one readable; an unreadable new image stops nothing."""
    table = aws["MESSAGES_TABLE"]
    key = record_key("acme", "r1")
    queue("r1")
    damage(table, key, "status", NO_SUCH)
    damage(table, key, "status", {"S": "failed"})
    damage(table, key, "error", {"M": {"code": {"S": "of_a_later_version"}, "message": {"S": "x"}, "cause": {"S": "new"}}})
    queue("r2")
    published: list[Any] = []
    with patch.object(wiring, "event_bus") as bus:
        bus.return_value.put.side_effect = lambda events: published.extend(events) or []
        publish.handler({"Records": read_stream(table)}, None)
    assert [event.detail["requestId"] for event in published] == ["r1"]


def test_a_code_of_a_later_version_does_not_make_a_row_unreadable(aws: Mapping[str, str]) -> None:
    """A provider suspended with it is shown as suspended."""
    wiring.providers_table().replace(a_provider("acme", ProviderStatus.SUSPENDED, error=ErrorInfo("of_a_later_version", "x")))
    damage(aws["PROVIDERS_TABLE"], {"tenantId": {"S": "acme"}}, "new", {"S": "field"})
    row = wiring.providers_table().get("acme")
    assert row is not None
    assert row.error is not None
    assert (row.error.code, row.error.retryable) == ("of_a_later_version", False)
