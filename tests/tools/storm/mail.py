"""Make the requests of a storm: whose they are, what they allow, which of them a producer sends twice or takes back."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

MARK = r"storm-\d{6}"
"""Fits the id of any request of a storm, wherever it is named: in a record's key, a queued body, an envelope."""

RESEND, TWICE, LATER, WITHDRAWN, LARGE = 0.2, 0.1, 0.03, 0.03, 0.02
"""Shares of the requests: those that allow to be sent again, those enqueued twice, scheduled for later, withdrawn by their caller, and
those too large for SES v1."""

FILE = 8_000_000
"""Bytes of the file that a large mail has: in base64 it is more than SES v1 takes."""

SHORT, LONG = (5, 30), (90, 150)
"""Seconds ahead for which a request is scheduled; those that are withdrawn are scheduled long enough ahead to be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    tenant_id: str
    request_id: str
    on_unknown: Literal["hold", "resend"]
    copies: int
    is_withdrawn: bool
    send_at: str | None
    is_large: bool = False

    def body(self) -> str:
        """Write the body of its message."""
        message: dict[str, Any] = {
            "to": [{"email": f"{self.request_id}@customer.example"}],
            "subject": self.request_id,
            "text": "In all weathers.",
        }
        if self.is_large:
            message["attachments"] = [{"filename": "large.pdf", "s3": {"key": file_of(self.tenant_id)}}]
        request: dict[str, Any] = {"tenantId": self.tenant_id, "requestId": self.request_id, "onUnknown": self.on_unknown}
        if self.send_at:
            request["sendAt"] = self.send_at
        return json.dumps({**request, "message": message})


def file_of(tenant_id: str) -> str:
    """Return the key of the file that a tenant's large mails have."""
    return f"{tenant_id}/large"


def ask(count: int, tenants: Sequence[str], dice: random.Random) -> list[Asked]:
    """Make so many requests."""
    return [_one(number, tenants, dice) for number in range(count)]


def _one(number: int, tenants: Sequence[str], dice: random.Random) -> Asked:
    is_withdrawn = dice.random() < WITHDRAWN
    wait = dice.uniform(*LONG) if is_withdrawn else dice.uniform(*SHORT) if dice.random() < LATER else None
    return Asked(
        tenant_id=dice.choice(tenants),
        request_id=f"storm-{number:06}",
        on_unknown="resend" if dice.random() < RESEND else "hold",
        copies=2 if dice.random() < TWICE else 1,
        is_withdrawn=is_withdrawn,
        send_at=f"{datetime.now(UTC) + timedelta(seconds=wait):%Y-%m-%dT%H:%M:%SZ}" if wait else None,
        is_large=dice.random() < LARGE,
    )


def enqueued(asked: Sequence[Asked], dice: random.Random) -> list[Asked]:
    """Put the requests into the order in which producers enqueue them: a second message comes beside the first, or some time after."""
    order = [
        (number + (dice.choice([0, 1, 5, 40]) if copy else 0), copy, one) for number, one in enumerate(asked) for copy in range(one.copies)
    ]
    return [one for _, _, one in sorted(order, key=lambda entry: entry[:2])]
