"""Name every pair of a place and a fault, and say how it must end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outage = Literal["refuse", "hang", "reset", "truncate", "slow"]

OUTAGES: tuple[Outage, ...] = ("hang", "refuse", "reset", "truncate", "slow")
"""In the order in which they are begun: those that hang take longest and cost least."""

SLOW = 2.5  # seconds over which a slow answer is spread
OWN, ATTEMPTS = frozenset({"dynamodb", "sqs", "s3"}), 3
"""Services of our own, and how often one call to them is tried: what hangs does so for one call, for all would take a minute."""


@dataclass(frozen=True, slots=True)
class Place:
    """A call of the send path."""

    service: str
    rule: Mapping[str, Any] = field(default_factory=dict)
    """Which of the service's calls, where not all."""
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
"""Bytes of what is attached; in base64 the larger one makes a mail that SES v1 does not take."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a request fared: the record when the function had answered, and at the end; how often SES had accepted it by then."""

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
_COMES_BACK = Course(NO_RECORD, 0, SENT, 1)
_PROOF_TRAVELS = Course("sending", 1, SENT, 1)

EXPECTED: Mapping[str, Mapping[Outage, Course]] = {
    # After the request is written nobody can know; that it was not is proven by the connection alone.
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
    # However far it came: without its last byte SES has no mail of it.
    "SES, its upload": {"hang": _LATER, "reset": _LATER},
    # Each cell has a new process: without KMS it can sign no message.
    "KMS": {"refuse": _COMES_BACK, "hang": _COMES_BACK, "reset": _COMES_BACK, "truncate": _COMES_BACK, "slow": _AT_ONCE},
    "STS": {"refuse": _LATER, "hang": _LATER, "reset": _LATER, "truncate": _LATER, "slow": _AT_ONCE},
    # Without the table nothing can be written; the message waits on the queue alone.
    "DynamoDB": {"refuse": _COMES_BACK, "hang": _LATER, "reset": _COMES_BACK, "truncate": _COMES_BACK, "slow": _AT_ONCE},
    # The fence may be passed although nobody was told: the proof that SES was not called travels along the queue.
    "DynamoDB: the fence": {"hang": _COMES_BACK, "reset": _COMES_BACK, "truncate": Course("sending", 0, SENT, 1), "slow": _AT_ONCE},
    "DynamoDB: the result": {"hang": _PROOF_TRAVELS, "reset": _PROOF_TRAVELS, "truncate": _AT_ONCE, "slow": _AT_ONCE},
    # What cannot be copied stays on the queue, and SQS hands it out again.
    "SQS": {
        "refuse": _COMES_BACK,
        "hang": _LATER,
        "reset": _COMES_BACK,
        "truncate": _COMES_BACK,
        "slow": Course("deferred", 0, SENT, 1),
    },
    "S3": {"refuse": _LATER, "hang": _LATER, "reset": _LATER, "truncate": _LATER, "slow": _AT_ONCE},
}
"""Only all of a service can be refused, not one of its operations."""

VERIFY: Mapping[str, Mapping[Outage, int]] = {
    service: {"refuse": 503, "hang": 503, "reset": 503, "truncate": 503, "slow": 200} for service in ("KMS", "STS")
}
"""What `POST …/provider/verify` answers meanwhile."""
