"""A thousand messages of twenty tenants at once, each with its own rate-limited SES account."""

import pytest

from mailer_client import Status
from tools.local_aws.flood import RATE, Flood, flooded, pollers, rate, throttles
from tools.local_aws.running import LocalAws


def test_twenty_tenants_send_a_thousand_messages_at_their_rates(aws: LocalAws) -> None:
    """Each within ten percent of its account's rate, whatever others send; no throttle is reported as a failure."""
    flood = Flood(tenants=20, mails=50, recipients=20)
    with pollers(aws, 3):
        tenants = flood.send(aws)
        mails = [flooded(aws, tenant.account, flood.mails, 3 * flood.seconds) for tenant in tenants]
    assert [len(some) for some in mails] == [flood.mails] * flood.tenants
    rates, refused = [rate(some) for some in mails], sum(throttles(aws, tenant.account) for tenant in tenants)
    share = [one / RATE for one in rates]
    print(f"each account at {min(share):.1%} to {max(share):.1%} of its rate; {refused} of {flood.tenants * flood.mails} sends throttled")
    assert rates == pytest.approx([RATE] * flood.tenants, rel=0.1)
    for tenant in tenants:
        for number in range(flood.mails):
            aws.mail.wait(tenant.tenant_id, f"flood-{number}")
        assert {record.status for record in aws.mail.list(tenant.tenant_id)} == {Status.SENT}
