"""Make the requests of a storm: whose they are, what they allow, which of them a producer sends twice or takes back."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

MARK = r"storm-\d{6}"
"""Fits the id of any request of a storm, wherever it is named: in a record's key, a queued body, an envelope."""

RESEND, TWICE, LATER, WITHDRAWN = 0.2, 0.1, 0.03, 0.03
"""Shares of the requests: those that allow to be sent again, those enqueued twice, scheduled for later, withdrawn by their caller."""

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

    def body(self) -> str:
        """Write the body of its message."""
        message = {"to": [{"email": f"{self.request_id}@customer.example"}], "subject": self.request_id, "text": "In all weathers."}
        request: dict[str, Any] = {"tenantId": self.tenant_id, "requestId": self.request_id, "onUnknown": self.on_unknown}
        if self.send_at:
            request["sendAt"] = self.send_at
        return json.dumps({**request, "message": message})


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
    )


def enqueued(asked: Sequence[Asked], dice: random.Random) -> list[Asked]:
    """Put the requests into the order in which producers enqueue them: a second message comes beside the first, or some time after."""
    order = [
        (number + (dice.choice([0, 1, 5, 40]) if copy else 0), copy, one) for number, one in enumerate(asked) for copy in range(one.copies)
    ]
    return [one for _, _, one in sorted(order, key=lambda entry: entry[:2])]
