"""A thousand requests through the deployed API, by the client."""

import time

from mailer_client import Status
from support.fakes.messages import a_body
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant


def test_a_thousand_requests_in_batches_all_end_as_sent(aws: LocalAws, tenant: Tenant) -> None:
    """Ten batches of a hundred: each request has its record, and ends as sent."""
    ids = [f"batch-{number}" for number in range(1000)]
    began = time.monotonic()
    for start in range(0, len(ids), 100):
        answers = aws.mail.send_batch(tenant.tenant_id, [a_body(request_id) for request_id in ids[start : start + 100]])
        assert {answer.status for answer in answers} == {202}
    print(f"1 000 requests accepted in {time.monotonic() - began:.1f} s")
    ended = {request_id: aws.mail.wait(tenant.tenant_id, request_id, timeout=300).status for request_id in ids}
    print(f"all sent after {time.monotonic() - began:.1f} s")
    assert set(ended.values()) == {Status.SENT}
    assert set(ids) <= {record.request_id for record in aws.mail.list(tenant.tenant_id)}
