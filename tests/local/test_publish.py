"""Other systems hear how requests ended and what changed about providers: a rule on the stack's bus with a queue behind it."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant

MESSAGE = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}
WAIT = 30.0  # seconds


class Listener:
    """A system that subscribed to the bus; keeps the details it has received."""

    def __init__(self, aws: LocalAws) -> None:
        self._sqs = aws.client("sqs")
        self._url = self._sqs.create_queue(QueueName="listener")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events = aws.client("events")
        [bus] = [bus["Name"] for bus in events.list_event_buses()["EventBuses"] if bus["Name"].endswith("-outcomes")]
        events.put_rule(Name="all", EventBusName=bus, EventPattern=json.dumps({"source": ["tenantmail"]}))
        events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "listener", "Arn": arn}])
        self._heard: list[dict[str, Any]] = []

    def hear(self, tenant: Tenant, expected: Sequence[str]) -> list[dict[str, Any]]:
        """Return what a tenant's events say, in their order, once all that is expected (a status or a change) is among it."""
        deadline = time.monotonic() + WAIT
        while True:
            mine = [detail for detail in self._heard if detail["tenantId"] == tenant.tenant_id]
            if {*expected} <= {said(detail) for detail in mine}:
                return mine
            assert time.monotonic() < deadline, f"{[said(detail) for detail in mine]} of {expected}"
            self._receive()

    def _receive(self) -> None:
        got = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        for message in got:
            self._heard.append(json.loads(message["Body"])["detail"])
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


def said(detail: dict[str, Any]) -> str:
    return str(detail.get("change") or detail["status"])


@pytest.fixture(scope="module")
def listener(running_aws: LocalAws) -> Listener:
    return Listener(running_aws)


def test_ends_and_changes_reach_who_listens(aws: LocalAws, listener: Listener, tenant: Tenant) -> None:
    """From the provider that is stored to the mail that is sent or cannot be, each with what a consumer needs."""
    assert aws.api.submit(tenant.tenant_id, {"requestId": "good", "message": MESSAGE}).status == 202
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "bad", "message": {**MESSAGE, "to": []}})
    heard = {said(detail): detail for detail in listener.hear(tenant, ["stored", "verified", "sent", "failed"])}
    assert heard["sent"]["messageId"] == aws.api.status(tenant.tenant_id, "good").body["messageId"]
    assert (heard["failed"]["requestId"], heard["failed"]["error"]["code"]) == ("bad", "invalid_request")
    assert "jo@customer.example" not in json.dumps(heard)


def test_what_became_of_a_mail_is_told(aws: LocalAws, listener: Listener) -> None:
    """From the tenant's SES over the record to who listens: how many recipients, and none of their addresses."""
    tenant = aws.tenant_with_feedback()
    to = [{"email": f"{name}@simulator.amazonses.com"} for name in ("bounce", "success", "success+two")]
    assert aws.api.submit(tenant.tenant_id, {"requestId": "three", "message": {**MESSAGE, "to": to}}).status == 202
    told = [detail for detail in listener.hear(tenant, ["sent", "bounced", "delivered"]) if detail.get("requestId") == "three"]
    heard = {said(detail): detail for detail in told}
    assert (heard["bounced"]["recipients"], heard["delivered"]["recipients"]) == (1, 2)
    assert heard["bounced"]["messageId"] == heard["sent"]["messageId"]
    assert "simulator" not in json.dumps(told)


def test_an_unknown_is_told_and_told_again_when_it_is_settled(aws: LocalAws, listener: Listener, tenant: Tenant) -> None:
    """First that nobody knows, then what an operator found out."""
    aws.control.inject("reset", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "lost", "message": MESSAGE})
    [unknown] = [detail for detail in listener.hear(tenant, ["unknown"]) if said(detail) == "unknown"]
    assert unknown["error"]["code"] == "outcome_unknown"
    word = {"outcome": "sent", "by": "ops", "why": "found in the tenant's SES events"}
    assert aws.api.call("POST", f"/tenants/{tenant.tenant_id}/messages/lost/resolve", word).status == 200
    assert [said(detail) for detail in listener.hear(tenant, ["sent"])][-2:] == ["unknown", "sent"]


def test_a_bus_that_was_down_hears_it_later(aws: LocalAws, listener: Listener, tenant: Tenant) -> None:
    """The mail goes out meanwhile, and nothing that happened is lost."""
    aws.control.inject("error", service="events", operation="PutEvents", code="InternalException", status=500)
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "meanwhile", "message": MESSAGE})
    assert aws.api.wait_for(tenant.tenant_id, "meanwhile")["status"] == "sent"
    assert aws.control.wait_for_requests(1, service="events", status=500)
    aws.control.clear_faults()
    assert "meanwhile" in [detail.get("requestId") for detail in listener.hear(tenant, ["sent"])]
