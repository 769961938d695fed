"""The send path keeps to the rates that SES enforces, on the deployed stack."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import floor
from typing import Any

from mailer.adapters.dynamodb.pacing_table import DynamoPacingTable
from mailer.domain.pacing import HEADROOM, HORIZON, RateSource, RetryAt
from mailer.domain.retries import MAX_DELAY
from mailer.services.pacing.pacing import Pacing
from mailer_client import Status
from tools.local_aws import worker
from tools.local_aws.flood import RATE, Flood, activate, enqueue, flooded, limited_tenant, rate, throttles
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant

IN_TIME = 120.0  # seconds within which a flood has left


def test_floods_leave_no_faster_than_their_accounts_allow(aws: LocalAws) -> None:
    """Side by side, each account at most at the rate that SES allows it, also one that two tenants share: SES throttles none of it.

    How close to that rate they are depends on the machine; tests/prove/test_pacing.py measures it.
    """
    flood = Flood(tenants=2, mails=6, recipients=8)
    shared = limited_tenant(aws)
    both = (shared.tenant_id, f"{shared.tenant_id}-too")
    activate(aws, both[1], shared)
    for tenant_id in both:
        enqueue(aws, tenant_id, flood.mails // 2, flood.recipients)
    for account, tenants in [*((tenant.account, 1) for tenant in flood.send(aws)), (shared.account, 2)]:
        mails = flooded(aws, account, flood.mails, IN_TIME, tenants=tenants)
        assert len(mails) == flood.mails
        assert rate(mails) <= 1.1 * RATE
        assert throttles(aws, account) == 0
    for tenant_id in both:
        assert aws.mail.wait(tenant_id, f"flood-{flood.mails // 2 - 1}").status is Status.SENT


def test_a_used_up_quota_rests_the_account(aws: LocalAws, tenant: Tenant) -> None:
    """What is left is deferred until the account has rested; SES is not asked again for it meanwhile."""
    aws.control.limit(tenant.account, max_24_hour_send=2)
    enqueue(aws, tenant.tenant_id, 4, 1)
    records = [aws.api.wait_for(tenant.tenant_id, f"flood-{number}", is_settled) for number in range(4)]
    assert sorted(record["status"] for record in records) == ["deferred", "deferred", "sent", "sent"]
    assert "daily_quota_exceeded" in {record["error"] and record["error"]["code"] for record in records}
    assert throttles(aws, tenant.account) <= 2


def is_settled(record: Mapping[str, Any]) -> bool:
    """Whether a request was sent, or waits for its account to rest, which is longer than it would for any slot."""
    return record["status"] == "sent" or ("dueAt" in record and rests(record) > MAX_DELAY)


def rests(record: Mapping[str, Any]) -> timedelta:
    return datetime.fromisoformat(record["dueAt"]) - datetime.fromisoformat(record["updatedAt"])


def test_a_full_line_promises_places_behind_its_horizon(aws: LocalAws) -> None:
    """More messages than the horizon has slots for: DynamoDB takes every write, and each of them is told when."""
    table = DynamoPacingTable(aws.client("dynamodb"), worker.environment(aws, "SendFunction")["PACING_TABLE"])
    pacing, now = Pacing(table, functions=1), datetime.now(UTC)
    batches = [[1] * 100] * 125
    answers = [
        answer for batch in batches for answer in pacing.reserve("full/eu-central-1", RateSource(configured=14.0), batch, [None] * 100, now)
    ]
    parked = [answer for answer in answers if isinstance(answer, RetryAt) and answer.slot is None]
    assert len(answers) - len(parked) == floor(14 * HEADROOM * HORIZON) + 1
    assert all(answer.at > now + timedelta(seconds=700) for answer in parked)
