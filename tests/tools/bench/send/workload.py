"""The workload, the same for every contender: fictitious tenants, an invoice mail each, and their SQS events."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

REGION = "eu-central-1"
BATCH = 100  # messages, as in the template
TENANTS = 20  # per batch
LARGE = 5_000_000  # bytes of a large file
LARGEST_FILE = 7_640_000  # bytes of a file that, with the bodies, fits into the 10 485 760 of SES v1
LARGE_MAILS = (20_000_000, 38_000_000)  # bytes of the raw message, for SES v2

TEXT = "Guten Tag,\n\nanbei finden Sie Ihre Rechnung für März.\n\nMit freundlichen Grüßen\nIhre Buchhaltung\n\n" * 15
HTML = '<p>Guten Tag,</p>\n<p>anbei finden Sie Ihre <a href="https://acme.example/i?id=42">Rechnung</a> für März.</p>\n' * 25


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant, with its access key."""

    number: int

    @property
    def tenant_id(self) -> str:
        return f"tenant-{self.number}"

    @property
    def config(self) -> dict[str, Any]:
        """Return its provider config."""
        return {
            "accessKeyId": f"AKIA{self.number:016d}",
            "secretAccessKey": f"{self.number:040d}",
            "region": REGION,
            "fromAddress": f"billing@tenant-{self.number}.example",
            "fromName": "Buchhaltung",
            "maxSendRate": 10_000,
        }


EVERYONE = [Tenant(n) for n in range(TENANTS)]


def message(*attachments: Mapping[str, Any]) -> dict[str, Any]:
    """Return an invoice mail of 5 KB with the given attachments."""
    return {
        "to": [{"email": "jo@example.com", "name": "Jo Ünger"}],
        "subject": "Ihre Rechnung für März",
        "text": TEXT,
        "html": HTML,
        **({"attachments": list(attachments)} if attachments else {}),
    }


@cache
def octets(size: int) -> bytes:
    """Return a file of `size` bytes, the same each time."""
    return random.Random(size).randbytes(size)  # noqa: S311  # it need not be secret


def uploaded(tenant_id: str, size: int) -> dict[str, Any]:
    """Return an uploaded attachment of `size` bytes: the bucket holds a file under every key that ends with a size."""
    return {"filename": "Rechnung.pdf", "s3": {"key": f"{tenant_id}/{size}"}}


def file_of(mail: int) -> int:
    """Return the bytes of a file that makes a mail of about `mail` bytes, bodies included."""
    return (mail - 10_000) * 57 // 78


def event(requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Lambda event for some send requests."""
    now = str(int(time.time() * 1000))
    return {
        "Records": [
            {
                "messageId": f"message-{n}",
                "body": json.dumps(request),
                "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": now, "MessageGroupId": request["tenantId"]},
                "messageAttributes": {},
            }
            for n, request in enumerate(requests)
        ]
    }


@dataclass
class Requests:
    """Factory of new send requests."""

    prefix: str
    made: int = 0

    def take(self, tenants: Sequence[Tenant], size: int = BATCH, content: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return `size` requests, of the tenants in rotation."""
        self.made += size
        mail = content or message()
        return [
            {"tenantId": tenants[n % len(tenants)].tenant_id, "requestId": f"{self.prefix}-{self.made}-{n}", "message": mail}
            for n in range(size)
        ]
