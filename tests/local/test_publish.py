"""Other systems get outcomes and provider changes from a rule on the stack's bus with a queue as its target."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant

MESSAGE = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}
WAIT = 30.0  # seconds


class Subscriber:
    """A system that subscribed to the bus; keeps the details that it received."""

    def __init__(self, aws: LocalAws) -> None:
        self._sqs = aws.client("sqs")
        self._url = self._sqs.create_queue(QueueName="subscriber")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events = aws.client("events")
        [bus] = [bus["Name"] for bus in events.list_event_buses()["EventBuses"] if bus["Name"].endswith("-outcomes")]
        events.put_rule(Name="all", EventBusName=bus, EventPattern=json.dumps({"source": ["tenantmail"]}))
        events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "subscriber", "Arn": arn}])
        self._received: list[dict[str, Any]] = []

    def receive(self, tenant: Tenant, expected: Sequence[str]) -> list[dict[str, Any]]:
        """Return the statuses and changes of a tenant's events in their order, once all expected ones are among them."""
        deadline = time.monotonic() + WAIT
        while True:
            mine = [detail for detail in self._received if detail["tenantId"] == tenant.tenant_id]
            if {*expected} <= {status_of(detail) for detail in mine}:
                return mine
            assert time.monotonic() < deadline, f"{[status_of(detail) for detail in mine]} of {expected}"
            self._receive()

    def _receive(self) -> None:
        got = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        for message in got:
            self._received.append(json.loads(message["Body"])["detail"])
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


def status_of(detail: dict[str, Any]) -> str:
    return str(detail.get("change") or detail["status"])


@pytest.fixture(scope="module")
def subscriber(running_aws: LocalAws) -> Subscriber:
    return Subscriber(running_aws)


def test_outcomes_and_changes_reach_a_subscriber(aws: LocalAws, subscriber: Subscriber, tenant: Tenant) -> None:
    """From storing a provider to a mail that is sent or fails, each with the fields that a consumer needs."""
    assert aws.api.submit(tenant.tenant_id, {"requestId": "good", "message": MESSAGE}).status == 202
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "bad", "message": {**MESSAGE, "to": []}})
    received = {status_of(detail): detail for detail in subscriber.receive(tenant, ["stored", "verified", "sent", "failed"])}
    assert received["sent"]["messageId"] == aws.api.status(tenant.tenant_id, "good").body["messageId"]
    assert (received["failed"]["requestId"], received["failed"]["error"]["code"]) == ("bad", "invalid_request")
    assert "jo@customer.example" not in json.dumps(received)


def test_delivery_reports_reach_a_subscriber(aws: LocalAws, subscriber: Subscriber) -> None:
    """From the tenant's SES through the record: counts of recipients, without addresses."""
    tenant = aws.tenant_with_feedback()
    to = [{"email": f"{name}@simulator.amazonses.com"} for name in ("bounce", "success", "success+two")]
    assert aws.api.submit(tenant.tenant_id, {"requestId": "three", "message": {**MESSAGE, "to": to}}).status == 202
    reports = [detail for detail in subscriber.receive(tenant, ["sent", "bounced", "delivered"]) if detail.get("requestId") == "three"]
    received = {status_of(detail): detail for detail in reports}
    assert (received["bounced"]["recipients"], received["delivered"]["recipients"]) == (1, 2)
    assert received["bounced"]["messageId"] == received["sent"]["messageId"]
    assert "simulator" not in json.dumps(reports)


def test_an_unknown_is_published_and_again_when_it_is_resolved(aws: LocalAws, subscriber: Subscriber, tenant: Tenant) -> None:
    """First as unknown, then with the operator's resolution."""
    aws.control.inject("reset", operation="SendRawEmail", access_key=tenant.access_key, times=1)
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "lost", "message": MESSAGE})
    [unknown] = [detail for detail in subscriber.receive(tenant, ["unknown"]) if status_of(detail) == "unknown"]
    assert unknown["error"]["code"] == "outcome_unknown"
    resolution = {"outcome": "sent", "by": "ops", "why": "found in the tenant's SES events"}
    assert aws.api.call("POST", f"/tenants/{tenant.tenant_id}/messages/lost/resolve", resolution).status == 200
    assert [status_of(detail) for detail in subscriber.receive(tenant, ["sent"])][-2:] == ["unknown", "sent"]


def test_events_are_published_after_an_outage_of_the_bus(aws: LocalAws, subscriber: Subscriber, tenant: Tenant) -> None:
    """Meanwhile mail goes out, and no event is lost."""
    aws.control.inject("error", service="events", operation="PutEvents", code="InternalException", status=500)
    aws.enqueue_request({"tenantId": tenant.tenant_id, "requestId": "meanwhile", "message": MESSAGE})
    assert aws.api.wait_for(tenant.tenant_id, "meanwhile")["status"] == "sent"
    assert aws.control.wait_for_requests(1, service="events", status=500)
    aws.control.clear_faults()
    assert "meanwhile" in [detail.get("requestId") for detail in subscriber.receive(tenant, ["sent"])]
