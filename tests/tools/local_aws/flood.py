"""Flood the stack with mail of tenants whose accounts SES limits, and measure the rate at which each account's mail is sent.

Rates count recipients: a few mails to many recipients use up an account's rate without loading the emulator.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, combinations
from statistics import median
from threading import Thread
from typing import Any

from tools.local_aws import worker
from tools.local_aws.control import WAIT, SentMail
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant
from tools.local_aws.worker import Pace, Worker

RATE = 5.0
"""Recipients per second that SES allows each account. Its burst of one second's worth covers the emulator's jitter."""

HIDDEN = 60
"""Visibility timeout in seconds of messages received by our pollers."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Parameters of a flood: each tenant's mails are sent at once."""

    tenants: int
    mails: int
    recipients: int

    @property
    def seconds(self) -> float:
        """Return how long an account needs for its mails, from the first to the last."""
        return (self.mails - 1) * self.recipients / RATE

    def send(self, aws: LocalAws) -> list[Tenant]:
        """Create the accounts, and enqueue all mails, tenant by tenant."""
        tenants = [limited_tenant(aws) for _ in range(self.tenants)]
        for tenant in tenants:
            enqueue(aws, tenant.tenant_id, self.mails, self.recipients)
        return tenants


def limited_tenant(aws: LocalAws) -> Tenant:
    """Create an active tenant whose account SES limits to RATE, as in its config."""
    tenant = aws.tenants.open()
    activate(aws, tenant.tenant_id, tenant)
    aws.control.limit(tenant.account, max_send_rate=RATE)
    return tenant


def activate(aws: LocalAws, tenant_id: str, account: Tenant) -> None:
    """Store and verify a config of a tenant for an account."""
    stored = aws.api.put_provider(tenant_id, account.provider(maxSendRate=RATE))
    verified = aws.api.verify(tenant_id)
    assert (stored.status, verified.status) == (200, 200), (stored.body, verified.body)


def enqueue(aws: LocalAws, tenant_id: str, mails: int, recipients: int) -> None:
    """Enqueue mails as a producer does, in the tenant's message group."""
    entries = [_entry(tenant_id, number, recipients) for number in range(mails)]
    for start in range(0, mails, 10):
        answer = aws.client("sqs").send_message_batch(QueueUrl=aws.stack.outputs["SendQueueUrl"], Entries=entries[start : start + 10])
        assert not answer.get("Failed")


@contextmanager
def pollers(aws: LocalAws, count: int) -> Iterator[None]:
    """Replace the emulator's poller, which polls too irregularly: a slot is forfeited after about a second."""
    env = worker.environment(aws, "SendFunction")
    _operate("pause", env)
    try:
        with ExitStack() as running:
            for _ in range(count):
                poller = running.enter_context(worker.start(worker.poll, Pace(), HIDDEN, env=env))
                Thread(target=_drain, args=(poller,), daemon=True).start()
            yield
    finally:
        _operate("resume", env)


def _drain(poller: Worker) -> None:
    """Read a poller's results until it is killed; it would block otherwise."""
    with suppress(EOFError, OSError):
        while True:
            with suppress(TimeoutError):
                poller.next_result(WAIT)


def _operate(command: str, env: dict[str, str]) -> None:
    with worker.start(worker.operate, command, env=env) as operator:
        assert operator.next_result(WAIT) == 0


def _entry(tenant_id: str, number: int, recipients: int) -> dict[str, Any]:
    to = [{"email": f"jo{n}@customer.example"} for n in range(recipients)]
    request = {"tenantId": tenant_id, "requestId": f"flood-{number}", "message": {"to": to, "subject": "flood", "text": "flood"}}
    return {"Id": str(number), "MessageBody": json.dumps(request), "MessageGroupId": tenant_id}


def flooded(aws: LocalAws, account: str, mails: int, seconds: float, *, tenants: int = 1) -> Sequence[SentMail]:
    """Return an account's mails of the flood as soon as there are `mails`, or those accepted before the timeout."""
    ends_at, at_least = time.monotonic() + seconds, mails + tenants  # each tenant was verified by one
    found: Sequence[SentMail] = ()
    while len(found) < at_least and (left := ends_at - time.monotonic()) > 0:
        found = aws.control.wait_for_mails(at_least, seconds=min(left, WAIT), account=account)
    return [mail for mail in found if mail.destinations[0].startswith("jo")]


def rate(mails: Sequence[SentMail]) -> float:
    """Return recipients per second: the median over all pairs of mails, so that a mail delayed by a busy machine does not decide it.

    That nothing is sent too early is SES's part to say: see `throttles`.
    """
    before = [0, *accumulate(len(mail.destinations) for mail in mails)]
    return median((before[j] - before[i]) / (mails[j].time - mails[i].time) for i, j in combinations(range(len(mails)), 2))


def throttles(aws: LocalAws, account: str) -> int:
    """Return the number of sends that SES throttled."""
    return len(aws.control.requests(service="ses", operation="SendRawEmail", account=account, status=400))
