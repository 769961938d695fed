"""Suppressions on the deployed stack: SES's simulator bounces, the next mail leaves the address out, the API lifts it."""

import time
from typing import Any
from urllib.parse import quote

import botocore.session
import pytest

from mailer_client import SuppressionsClient
from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION
from tools.local_aws.stack import platform_session
from tools.local_aws.tenants import Tenant

SIMULATOR = "simulator.amazonses.com"
WAIT = 30.0  # seconds


def path_of(tenant_id: str, address: str) -> str:
    return f"/tenants/{tenant_id}/suppressions/{quote(address, safe='')}"


def suppression(aws: LocalAws, tenant_id: str, address: str) -> dict[str, Any]:
    """Wait until an address is suppressed; only the API shows it."""
    deadline = time.monotonic() + WAIT
    while (answer := aws.api.call("GET", path_of(tenant_id, address))).status != 200:
        assert answer.status == 404, answer.body
        assert time.monotonic() < deadline, "not suppressed"
        time.sleep(0.1)
    found: dict[str, Any] = answer.body
    return found


def send(aws: LocalAws, tenant_id: str, request_id: str, *to: str) -> dict[str, Any]:
    """Submit a mail and wait for its end."""
    message = {"to": [{"email": address} for address in to], "subject": "Your invoice", "text": "Thank you."}
    assert aws.api.submit(tenant_id, {"requestId": request_id, "message": message}).status == 202
    return aws.api.wait_for(tenant_id, request_id)


def test_a_bounced_or_complaining_address_is_left_out_until_it_is_lifted(aws: LocalAws) -> None:
    """By SES's events, from the tenant's account to the next mail."""
    tenant_id = aws.tenant_with_feedback().tenant_id
    # A complaint names every recipient at its domain, because SES does not know which of them complained.
    bounced, angry, fine = f"bounce+list@{SIMULATOR}", f"complaint+list@{SIMULATOR}", "jo@elsewhere.example"
    assert send(aws, tenant_id, "first", bounced, angry, fine)["status"] == "sent"
    assert suppression(aws, tenant_id, bounced)["reason"] == "hard_bounce"
    assert suppression(aws, tenant_id, angry)["reason"] == "complaint"
    second = send(aws, tenant_id, "second", bounced, angry, fine)
    assert (second["status"], second["recipients"], second["suppressed"]) == ("sent", 3, 2)
    third = send(aws, tenant_id, "third", bounced)
    assert (third["status"], third["error"]["code"]) == ("failed", "recipient_suppressed")
    listed = aws.api.call("GET", f"/tenants/{tenant_id}/suppressions?reason=hard_bounce").body["suppressions"]
    assert [entry["email"] for entry in listed] == [bounced]
    lifted = aws.api.call("DELETE", f"{path_of(tenant_id, bounced)}?why=test")
    assert lifted.status == 200
    assert "sesList" in lifted.body
    assert send(aws, tenant_id, "fourth", bounced)["status"] == "sent"


@pytest.mark.parametrize("address", ["jo+news@example.com", "o'neil&a=b#{c}@example.com"])
def test_the_client_signs_any_address(aws: LocalAws, tenant: Tenant, address: str) -> None:
    """It is percent-encoded in the path, which the signature covers."""
    keys, session = platform_session().get_credentials(), botocore.session.Session()
    assert keys
    session.set_credentials(keys.access_key, keys.secret_key)
    client = SuppressionsClient(aws.stack.api_url, region=REGION, session=session)
    assert client.put(tenant.tenant_id, address, why="asked by phone").email == address
    assert [entry.email for entry in client.list(tenant.tenant_id)] == [address]
    assert client.delete(tenant.tenant_id, address, why="asked & answered").email == address


def test_a_list_is_imported_for_one_tenant_only(aws: LocalAws) -> None:
    """By a batch, before any mail."""
    mine, other = (aws.tenant_with_feedback().tenant_id for _ in range(2))
    batch = [{"email": f"Old{n}@Example.com", "why": "from the old system"} for n in range(3)]
    answer = aws.api.call("POST", f"/tenants/{mine}/suppressions/batch", batch)
    assert [one["status"] for one in answer.body] == [200] * 3
    assert send(aws, mine, "mine", "old1@example.com")["error"]["code"] == "recipient_suppressed"
    assert send(aws, other, "other", "old1@example.com")["status"] == "sent"
