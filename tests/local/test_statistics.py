"""Outcomes are counted on the deployed stack: by StatisticsFunction, from the stream, with the events of SES's mailbox simulator."""

import time
from collections import Counter
from collections.abc import Mapping

from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant

SIMULATOR = "simulator.amazonses.com"
WAIT = 60.0  # seconds


def counts(aws: LocalAws, tenant: Tenant) -> Mapping[str, int]:
    """Return the sums of the last day, of the tenant and of its account."""
    answer = aws.api.call("GET", f"/tenants/{tenant.tenant_id}/statistics")
    assert answer.status == 200
    sums: Counter[str] = Counter()
    for buckets, prefix in ((answer.body["buckets"], ""), (answer.body["account"]["buckets"], "account ")):
        for bucket in buckets:
            sums.update({f"{prefix}{name}": number for name, number in bucket.items() if name != "from"})
    return +sums


def test_mail_is_counted_by_its_outcome(aws: LocalAws) -> None:
    """Delivered, bounced and complained about by the simulator; and the same for the account, which only this tenant uses."""
    tenant = aws.tenant_with_feedback()
    for name in ("success", "bounce", "complaint"):
        message = {"to": [{"email": f"{name}@{SIMULATOR}"}], "subject": "hi", "text": "hi"}
        assert aws.api.submit(tenant.tenant_id, {"requestId": name, "message": message}).status == 202
    expected = {"sent": 3, "delivered": 1, "bounced": 1, "complained": 1}
    deadline = time.monotonic() + WAIT
    while True:
        shown = counts(aws, tenant)
        if {name: shown.get(name) for name in expected} == expected:
            break
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)
    assert {name: shown.get(f"account {name}") for name in expected} == expected
