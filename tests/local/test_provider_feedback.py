"""The provider record shows whether a tenant's feedback works: proven by its events, silent without any."""

import time
from collections.abc import Mapping
from typing import Any

from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant

MESSAGE = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hi"}


def wait_until(aws: LocalAws, tenant: Tenant, state: str) -> Mapping[str, Any]:
    """Return the tenant's record once its feedback is in a state."""
    return aws.api.wait_for_provider(tenant.tenant_id, lambda record: record["feedback"] == state)


def test_verify_proves_that_feedback_works(aws: LocalAws) -> None:
    """By the events of its own test mail, with a key and with a role; until then the record has a hint."""
    for by_role in (False, True):
        tenant = aws.tenant_with_feedback(by_role=by_role)
        record = wait_until(aws, tenant, "proven")
        assert record["lastFeedbackAt"]
        assert record["feedbackHint"] is None


def test_a_tenant_without_a_configuration_set_has_none(aws: LocalAws, tenant: Tenant) -> None:
    """The record says how to enable it."""
    record = aws.api.provider(tenant.tenant_id).body
    assert (record["feedback"], record["lastFeedbackAt"]) == ("off", None)
    assert "onboarding" in record["feedbackHint"]
    assert aws.api.verify(tenant.tenant_id, simulate=True).status == 400


def test_a_simulation_reports_the_bounce_and_the_complaint(aws: LocalAws) -> None:
    """Also in the sandbox with its one mail a second; mail to the simulator is counted in no statistics."""
    tenant = aws.tenant_with_feedback(sandbox=True)
    aws.control.limit(tenant.account, max_send_rate=1)
    time.sleep(1.1)  # the previous verify's mail counts towards the rate
    verified = aws.api.verify(tenant.tenant_id, simulate=True)
    assert verified.status == 200, verified.body
    assert all(mail["messageId"] for mail in verified.body["simulated"].values()), verified.body

    def is_reported(record: Mapping[str, Any]) -> bool:
        simulation = record["simulation"] or {}
        return bool(simulation.get("bounceReportedAt") and simulation.get("complaintReportedAt"))

    assert aws.api.wait_for_provider(tenant.tenant_id, is_reported)["feedback"] == "proven"


def send_an_hour_ago(aws: LocalAws, tenant: Tenant) -> None:
    """Set the tenant's first mail without an event to an hour ago."""
    aws.client("dynamodb").update_item(
        TableName=aws.stack.outputs["ProvidersTableName"],
        Key={"tenantId": {"S": tenant.tenant_id}},
        UpdateExpression="SET active.unheardSince = :then ADD revision :one",
        ExpressionAttributeValues={":then": {"N": str(int((time.time() - 3600) * 1000))}, ":one": {"N": "1"}},
    )


def test_a_tenant_that_sends_without_events_is_silent_until_the_next_event(aws: LocalAws) -> None:
    """SES's events are lost from the start; the next mail after an hour makes it silent, the next event ends it."""
    lost = aws.control.inject_event_fault("lose")
    tenant = aws.tenant_with_feedback()
    assert len(aws.control.wait_for_events(2, account=tenant.account, lost=True)) == 2
    assert aws.api.provider(tenant.tenant_id).body["feedback"] == "unproven"
    send_an_hour_ago(aws, tenant)
    assert aws.api.submit(tenant.tenant_id, {"requestId": "r1", "message": MESSAGE}).status == 202
    assert aws.api.wait_for(tenant.tenant_id, "r1")["status"] == "sent"
    record = wait_until(aws, tenant, "silent")
    for name in (tenant.account, f"mail-{tenant.tenant_id}"):
        assert name in record["feedbackHint"]
    assert aws.control.event_fault_hits(lost) > 0
    aws.control.reset_all()
    assert aws.api.verify(tenant.tenant_id).status == 200
    assert wait_until(aws, tenant, "proven")["feedbackHint"] is None
