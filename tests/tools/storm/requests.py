"""Plan the requests of a storm: tenants, onUnknown, duplicates by the producer, cancellations."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

MARK = r"storm-\d{6}"
"""Pattern of the request ids of a storm, in records' keys, queued bodies and envelopes."""

RESEND, TWICE, LATER, CANCELLED, LARGE, UNDELIVERABLE = 0.2, 0.1, 0.03, 0.03, 0.02, 0.15
"""Shares of the requests: with onUnknown resend, enqueued twice, scheduled for later, cancelled by their caller, too large for SES v1,
and with a second recipient that bounces or complains."""

SUPPRESSIBLE = [f"{what}+{number}@simulator.amazonses.com" for what in ("bounce", "complaint", "suppressionlist") for number in range(2)]
"""The second recipients: one event of SES suppresses each, and later mails to it follow."""

FILE = 8_000_000
"""Bytes of a large mail's file: in base64 it exceeds the limit of SES v1."""

SHORT, LONG = (5, 30), (90, 150)
"""Seconds ahead of scheduled requests; those to be cancelled are scheduled far enough ahead."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request."""

    tenant_id: str
    request_id: str
    on_unknown: Literal["hold", "resend"]
    copies: int
    is_cancelled: bool
    send_at: str | None
    is_large: bool = False
    also_to: str | None = None
    """A second recipient, of `SUPPRESSIBLE`."""

    def body(self) -> str:
        """Return the body of its queue message."""
        message: dict[str, Any] = {
            "to": [{"email": email} for email in (f"{self.request_id}@customer.example", self.also_to) if email],
            "subject": self.request_id,
            "text": "Hello.",
        }
        if self.is_large:
            message["attachments"] = [{"filename": "large.pdf", "s3": {"key": file_of(self.tenant_id)}}]
        request: dict[str, Any] = {"tenantId": self.tenant_id, "requestId": self.request_id, "onUnknown": self.on_unknown}
        if self.send_at:
            request["sendAt"] = self.send_at
        return json.dumps({**request, "message": message})


def file_of(tenant_id: str) -> str:
    """Return the key of the file of a tenant's large mails."""
    return f"{tenant_id}/large"


def plan_requests(count: int, tenants: Sequence[str], dice: random.Random) -> list[PlannedRequest]:
    """Return `count` requests."""
    return [_one(number, tenants, dice) for number in range(count)]


def _one(number: int, tenants: Sequence[str], dice: random.Random) -> PlannedRequest:
    is_cancelled = dice.random() < CANCELLED
    wait = dice.uniform(*LONG) if is_cancelled else dice.uniform(*SHORT) if dice.random() < LATER else None
    return PlannedRequest(
        tenant_id=dice.choice(tenants),
        request_id=f"storm-{number:06}",
        on_unknown="resend" if dice.random() < RESEND else "hold",
        copies=2 if dice.random() < TWICE else 1,
        is_cancelled=is_cancelled,
        send_at=f"{datetime.now(UTC) + timedelta(seconds=wait):%Y-%m-%dT%H:%M:%SZ}" if wait else None,
        is_large=dice.random() < LARGE,
        also_to=dice.choice(SUPPRESSIBLE) if dice.random() < UNDELIVERABLE else None,
    )


def enqueued(planned: Sequence[PlannedRequest], dice: random.Random) -> list[PlannedRequest]:
    """Return the requests in the order of their messages; a duplicate is next to the first message or some time later."""
    order = [
        (number + (dice.choice([0, 1, 5, 40]) if copy else 0), copy, one)
        for number, one in enumerate(planned)
        for copy in range(one.copies)
    ]
    return [one for _, _, one in sorted(order, key=lambda entry: entry[:2])]
