"""The reputation guard on a deployed stack with `pause`: SES's simulator bounces, mail waits, somebody resumes it with a reason."""

from collections.abc import Iterator
from typing import Any

import pytest

from tools.local_aws.running import LocalAws, local_aws
from tools.local_aws.tenants import Tenant

SIMULATOR = "simulator.amazonses.com"
BOUNCES = 5
COUNTED = 60.0  # seconds from a bounce to the suspension: SES's event, the record's write, the stream


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """Yield a separate stack, as the limits are the stack's: half of the mail, and five bounces."""
    limits = {"ReputationGuard": "pause", "ReputationLimits": f"pause/1/bounces/50/{BOUNCES}/{BOUNCES}"}
    with local_aws(tmp_path_factory.mktemp("guarded"), front=(), parameters=limits) as running:
        yield running


def send(aws: LocalAws, tenant: Tenant, request_id: str, to: str) -> None:
    message = {"to": [{"email": to}], "subject": "Your invoice", "text": "Thank you."}
    assert aws.api.submit(tenant.tenant_id, {"requestId": request_id, "message": message}).status == 202


def bounce(aws: LocalAws, tenant: Tenant, name: str) -> dict[str, Any]:
    """Send mails that bounce, each to its own address; wait until the tenant is suspended for them."""
    for number in range(BOUNCES):
        send(aws, tenant, f"{name}-{number}", f"bounce+{name}{number}@{SIMULATOR}")
    return aws.api.wait_for_provider(tenant.tenant_id, lambda row: row["status"] == "suspended", COUNTED)


def call(aws: LocalAws, tenant: Tenant, act: str, body: Any = None) -> Any:
    return aws.api.call("POST", f"/tenants/{tenant.tenant_id}/provider/{act}", body)


def test_a_tenant_whose_mail_bounces_is_suspended_until_somebody_resumes_it(guarded: LocalAws) -> None:
    """Its mail waits whatever the tenant does, goes out after the resumption, and new bounces suspend it again."""
    tenant = guarded.tenant_with_feedback()
    other = guarded.tenant_with_feedback()
    suspended = bounce(guarded, tenant, "first")
    assert suspended["error"]["code"] == "reputation_at_risk"
    assert "50 %" in suspended["error"]["message"]

    send(guarded, tenant, "waits", "jo@customer.example")
    record = guarded.api.wait_for(tenant.tenant_id, "waits", lambda shown: shown["status"] == "deferred")
    assert record["error"]["code"] == "reputation_at_risk"
    send(guarded, other, "free", "jo@customer.example")
    assert guarded.api.wait_for(other.tenant_id, "free")["status"] == "sent"

    assert guarded.api.verify(tenant.tenant_id).body["status"] == "suspended"
    assert call(guarded, tenant, "enable").status == 409
    resumed = call(guarded, tenant, "enable", {"by": "sam", "why": "the bought list is gone"})
    assert (resumed.status, resumed.body["status"]) == (200, "active")
    guarded.sweep()
    assert guarded.api.wait_for(tenant.tenant_id, "waits")["status"] == "sent"

    assert bounce(guarded, tenant, "second")["error"]["code"] == "reputation_at_risk"
