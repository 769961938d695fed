"""The messages API from event to response, over the stack's tables, queue and bucket in moto."""

import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import record_key
from mailer.domain.delivery import Status
from mailer.handlers import messages
from mailer.handlers.send import _received as received
from support.aws.queues import record, taken
from support.fakes.messages import a_body
from support.fakes.ports import a_provider
from support.servers.gateway import Gateway

ACME = "/tenants/acme/messages"


@pytest.fixture
def api(aws: Mapping[str, str]) -> Gateway:  # noqa: ARG001 - it makes what the handler reads
    """Return an API on which acme and bravo have active providers."""
    for tenant in ("acme", "bravo"):
        wiring.providers_table().replace(a_provider(tenant))
    return Gateway(messages.handler)


def correlation_id(message: Mapping[str, Any]) -> str | None:
    """Return the correlation id that SendFunction reads from a message."""
    return received(record(message), wiring.signer()).queue_message.correlation_id


def test_a_request_returns_its_record(api: Gateway, aws: Mapping[str, str]) -> None:
    """202 with the current record, and a message on the queue in the tenant's message group."""
    answer = api.call("POST", ACME, a_body("invoice-1"))
    assert answer.status == 202
    shown = answer.json
    assert {name: shown[name] for name in ("tenantId", "requestId", "status", "provider", "attempts", "recipients")} == {
        "tenantId": "acme",
        "requestId": "invoice-1",
        "status": "queued",
        "provider": "ses",
        "attempts": 0,
        "recipients": 1,
    }
    assert shown["messageId"] is shown["error"] is shown["sentAt"] is None
    assert shown["createdAt"].endswith("Z")
    assert api.call("GET", f"{ACME}/invoice-1").json == shown
    [sqs_message] = taken(aws["SEND_QUEUE_URL"])
    assert json.loads(sqs_message["Body"]) == {"tenantId": "acme", **a_body("invoice-1")}
    assert sqs_message["Attributes"]["MessageGroupId"] == "acme"
    assert correlation_id(sqs_message) == "correlation-1"


@pytest.mark.parametrize("path", ["", "/batch"])
def test_a_caller_may_set_a_correlation_id(api: Gateway, aws: Mapping[str, str], path: str) -> None:
    """It goes with the request to every log line, event and tag; one with a line break is refused."""
    body = [a_body("invoice-1")] if path else a_body("invoice-1")
    assert api.call("POST", ACME + path, body, {"X-Correlation-Id": "order-7:mail"}).status in (202, 207)
    [sqs_message] = taken(aws["SEND_QUEUE_URL"])
    assert correlation_id(sqs_message) == "order-7:mail"
    refusal = api.call("POST", ACME + path, body, {"X-Correlation-Id": "a\nb"})
    assert refusal.is_problem(400, "invalid_request")
    assert [path.lower() for path in refusal.paths] == ["x-correlation-id"]


def test_a_replay_is_marked_as_one(api: Gateway) -> None:
    """The first record again, with the header of a replay."""
    first, again = (api.call("POST", ACME, a_body("r1")) for _ in range(2))
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status, again.json) == (202, first.json)


def test_a_failed_dependency_is_not_the_caller_s_fault(api: Gateway, aws: Mapping[str, str]) -> None:
    """503 with Retry-After if the queue is unavailable."""
    boto3.client("sqs").delete_queue(QueueUrl=aws["SEND_QUEUE_URL"])
    answer = api.call("POST", ACME, a_body())
    assert answer.is_problem(503, "dependency_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_list_is_read_page_by_page(api: Gateway) -> None:
    """Newest first, each once, the last page without a cursor."""
    for number in range(5):
        api.call("POST", ACME, a_body(f"r{number}"))
    seen, cursor = [], ""
    while cursor is not None:
        page = api.call("GET", f"{ACME}?limit=2{cursor and f'&cursor={cursor}'}").json
        seen += [record["requestId"] for record in page["messages"]]
        cursor = page["cursor"]
    assert sorted(seen) == [f"r{number}" for number in range(5)]


def test_a_list_can_be_filtered_by_status(api: Gateway) -> None:
    """Only records that currently have it."""
    for request_id in ("r1", "r2"):
        api.call("POST", ACME, a_body(request_id))
    api.call("POST", f"{ACME}/r1/cancel")
    page = api.call("GET", f"{ACME}?status=cancelled").json
    assert [record["requestId"] for record in page["messages"]] == ["r1"]


def test_a_cursor_is_valid_only_for_its_list(api: Gateway) -> None:
    """Of this tenant, with this status; any other gives the usual not_found."""
    for number in range(2):
        api.call("POST", ACME, a_body(f"r{number}"))
        api.call("POST", "/tenants/bravo/messages", a_body(f"b{number}"))
    cursor = api.call("GET", f"{ACME}?limit=1").json["cursor"]
    assert api.call("GET", f"/tenants/bravo/messages?cursor={cursor}").is_problem(404, "not_found")
    assert api.call("GET", f"{ACME}?status=queued&cursor={cursor}").is_problem(404, "not_found")
    for made_up in ("bm90aGluZw", "", "%00", "%F0%9F%92%A9"):
        assert api.call("GET", f"{ACME}?cursor={made_up}").is_problem(404, "not_found")


def test_large_requests_of_a_batch_are_spread_over_calls(api: Gateway, aws: Mapping[str, str]) -> None:
    """Together they are larger than one SQS call allows."""
    batch = [a_body(f"r{n}", message={"text": "x" * 400_000}) for n in range(5)]
    assert {item["status"] for item in api.call("POST", f"{ACME}/batch", batch).json} == {202}
    queue = boto3.client("sqs").get_queue_attributes(QueueUrl=aws["SEND_QUEUE_URL"], AttributeNames=["ApproximateNumberOfMessages"])
    assert queue["Attributes"]["ApproximateNumberOfMessages"] == "5"


def test_a_queued_request_can_be_cancelled(api: Gateway) -> None:
    """200 with the record; the same if repeated."""
    api.call("POST", ACME, a_body("r1"))
    first, again = (api.call("POST", f"{ACME}/r1/cancel") for _ in range(2))
    assert (first.status, first.json["status"]) == (200, "cancelled")
    assert (again.status, again.json) == (200, first.json)
    assert api.call("POST", f"{ACME}/r2/cancel").is_problem(404, "not_found")


def test_an_unknown_can_be_resolved(api: Gateway) -> None:
    """200 with the record and the operator's resolution; any other status is a conflict."""
    resolution = {"outcome": "sent", "by": "ops@acme.example", "why": "found in the SES events", "messageId": "0100"}
    api.call("POST", ACME, a_body("r1"))
    assert api.call("POST", f"{ACME}/r1/resolve", resolution).is_problem(409, "not_resolvable")
    make_unknown("acme", "r1")
    record = api.call("POST", f"{ACME}/r1/resolve", resolution).json
    assert (record["status"], record["messageId"]) == ("sent", "0100")
    assert {name: record["resolution"][name] for name in ("outcome", "by", "why")} == {n: resolution[n] for n in ("outcome", "by", "why")}


def make_unknown(tenant_id: str, request_id: str) -> None:
    boto3.client("dynamodb").update_item(
        TableName=wiring.settings().messages_table,
        Key=record_key(tenant_id, request_id),
        UpdateExpression="SET #status = :unknown, attempt = :one, #owner = :owner",
        ExpressionAttributeNames={"#status": "status", "#owner": "owner"},
        ExpressionAttributeValues={":unknown": {"S": Status.UNKNOWN}, ":one": {"N": "1"}, ":owner": {"S": "w1"}},
    )
