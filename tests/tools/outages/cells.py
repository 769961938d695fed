"""Every pair of a call and a fault, and the expected result of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outage = Literal["refuse", "hang", "reset", "truncate", "slow"]

OUTAGES: tuple[Outage, ...] = ("hang", "refuse", "reset", "truncate", "slow")
"""In starting order: calls that hang take longest and use the least CPU."""

SLOW = 1.5  # seconds over which a slow response is spread; half of the shortest read timeout
OWN, ATTEMPTS = frozenset({"dynamodb", "sqs", "s3"}), 3
"""Services of the stack, and the attempts of one call to them. Only one call hangs; if all did, a cell would take a minute."""


@dataclass(frozen=True, slots=True)
class Place:
    """A call of the send path."""

    service: str
    rule: Mapping[str, Any] = field(default_factory=dict)
    """Which of the service's calls; empty: all."""
    by_role: bool = False
    """Whether the tenant gave a role instead of a key."""
    message: Literal["plain", "scheduled", "with a file", "large"] = "plain"


PLACES: Mapping[str, Place] = {
    "SES": Place("ses"),
    "SES, a large mail": Place("ses", message="large"),
    "SES, its upload": Place("ses", {"when": "head"}, message="large"),
    "KMS": Place("kms"),
    "STS": Place("sts", by_role=True),
    "DynamoDB": Place("dynamodb"),
    "DynamoDB: the fence": Place("dynamodb", {"operation": "UpdateItem"}),
    "DynamoDB: the result": Place("dynamodb", {"operation": "UpdateItem", "skip": 1}),
    "SQS": Place("sqs", message="scheduled"),
    "S3": Place("s3", message="with a file"),
}

FILES = {"with a file": 8, "large": 8_000_000}
"""Bytes of the attachment; in base64 the larger one exceeds the limit of SES v1."""


@dataclass(frozen=True, slots=True)
class Course:
    """Result of one request: the record when the function has returned and at the end, and how often SES had accepted it by then."""

    first: str
    accepted_first: int
    end: str
    accepted: int

    def __str__(self) -> str:
        if (self.first, self.accepted_first) == (self.end, self.accepted):
            return f"{self.end}, {self.accepted}"
        return f"{self.first}, {self.accepted_first} → {self.end}, {self.accepted}"


SENT = "sent"
NO_RECORD = "no record"
DEFERRED = "deferred: dependency_unavailable"
UNKNOWN = "unknown: outcome_unknown"

_AT_ONCE = Course(SENT, 1, SENT, 1)
_LATER = Course(DEFERRED, 0, SENT, 1)
_REDELIVERED = Course(NO_RECORD, 0, SENT, 1)
_RECONCILED = Course("sending", 1, SENT, 1)

EXPECTED: Mapping[str, Mapping[Outage, Course]] = {
    # Once the request is written the outcome is unknown; only the connection proves that it was not written.
    "SES": {
        "refuse": _LATER,
        "hang": Course(UNKNOWN, 0, UNKNOWN, 0),
        "reset": Course(UNKNOWN, 0, UNKNOWN, 0),
        "truncate": Course(UNKNOWN, 1, UNKNOWN, 1),
        "slow": _AT_ONCE,
    },
    "SES, a large mail": {
        "refuse": _LATER,
        "hang": Course(UNKNOWN, 0, UNKNOWN, 0),
        "reset": Course(UNKNOWN, 0, UNKNOWN, 0),
        "truncate": Course(UNKNOWN, 1, UNKNOWN, 1),
        "slow": _AT_ONCE,
    },
    # Without its last byte SES has no mail, however much was uploaded.
    "SES, its upload": {"hang": _LATER, "reset": _LATER},
    # Each cell has a new process, which needs KMS to sign messages.
    "KMS": {"refuse": _REDELIVERED, "hang": _REDELIVERED, "reset": _REDELIVERED, "truncate": _REDELIVERED, "slow": _AT_ONCE},
    "STS": {"refuse": _LATER, "hang": _LATER, "reset": _LATER, "truncate": _LATER, "slow": _AT_ONCE},
    # Without the table nothing can be written; only the queue has the message.
    "DynamoDB": {"refuse": _REDELIVERED, "hang": _LATER, "reset": _REDELIVERED, "truncate": _REDELIVERED, "slow": _AT_ONCE},
    # The fence may be passed although the response is lost: the queue message carries the proof that SES was not called.
    "DynamoDB: the fence": {"hang": _REDELIVERED, "reset": _REDELIVERED, "truncate": Course("sending", 0, SENT, 1), "slow": _AT_ONCE},
    "DynamoDB: the result": {"hang": _RECONCILED, "reset": _RECONCILED, "truncate": _AT_ONCE, "slow": _AT_ONCE},
    # A message that cannot be requeued stays on the queue, and SQS delivers it again.
    "SQS": {
        "refuse": _REDELIVERED,
        "hang": _LATER,
        "reset": _REDELIVERED,
        "truncate": _REDELIVERED,
        "slow": Course("deferred", 0, SENT, 1),
    },
    "S3": {"refuse": _LATER, "hang": _LATER, "reset": _LATER, "truncate": _LATER, "slow": _AT_ONCE},
}
"""A connection can be refused for a whole service only, not for one of its operations."""

VERIFY: Mapping[str, Mapping[Outage, int]] = {
    service: {"refuse": 503, "hang": 503, "reset": 503, "truncate": 503, "slow": 200} for service in ("KMS", "STS")
}
"""Status of `POST …/provider/verify` during the fault."""
