"""Sign the attributes that our functions add to queue messages, so that principals who may only send to the queue cannot forge them.

The signing key is KMS's answer to one GenerateMac, called once per process: it is not stored, and it needs the right on the KMS key. The
MAC covers the attributes and the body, so neither can be combined with another.
"""

import base64
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING

from mailer.adapters.aws import ReportFailure, dependency_errors, readable, report_nothing
from mailer.domain.errors import DependencyError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

PURPOSE = b"tenantmail: message attributes of the send queue, version 1"
"""The message that KMS signs: the same for all functions of a stack, so that all have the same key."""

ASK_AGAIN_AFTER = timedelta(seconds=5)
"""While KMS does not answer, the other messages of a batch do not each wait for it."""

_NEVER = datetime.min.replace(tzinfo=UTC)


class Signer:
    """Signs text that goes with a body, and reads it back."""

    def __init__(
        self, client: Callable[[], "KMSClient"], key_arn: str, now: Callable[[], datetime], report: ReportFailure = report_nothing
    ) -> None:
        self._client = client
        self._key_arn = key_arn
        self._now = now
        self._report = report
        self._lock = Lock()
        self._key: bytes | None = None
        self._failed_until = _NEVER

    def sign(self, text: str, body: str) -> str:
        """Return the text with the MAC before it.

        Raises:
            DependencyError: KMS did not return the key.
        """
        return f"{self._mac(text, body)}.{text}"

    def read(self, signed: str, body: str) -> str | None:
        """Return the text if its MAC is valid for this body; else None.

        Raises:
            DependencyError: KMS did not return the key.
        """
        mac, found, text = signed.partition(".")
        is_ours = found and hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), self._mac(text, body).encode())
        return text if is_ours else None

    def fetch_key(self) -> bytes:
        """Return the key, from KMS if this process does not have it yet.

        Raises:
            DependencyError: KMS did not return it, now or a moment ago.
        """
        if self._key is None:
            with self._lock:
                if self._key is None:
                    self._key = self._ask()
        return self._key

    def _ask(self) -> bytes:
        if self._now() < self._failed_until:
            raise DependencyError("KMS", "GenerateMac")  # a new error: the traceback of a stored one would grow, and keep its frames alive
        try:
            with dependency_errors("KMS", "GenerateMac"):
                answer = self._client().generate_mac(KeyId=self._key_arn, MacAlgorithm="HMAC_SHA_256", Message=PURPOSE)
            with readable("KMS", "GenerateMac"):
                return answer["Mac"]
        except DependencyError as failure:
            self._report("ask for the queue's key", None, failure)
            self._failed_until = self._now() + ASK_AGAIN_AFTER
            raise

    def _mac(self, text: str, body: str) -> str:
        key, head = self.fetch_key(), text.encode("utf-8", "surrogatepass")
        # With the length first: else the boundary between the two would be ambiguous.
        signed = b"".join((len(head).to_bytes(8, "big"), head, body.encode("utf-8", "surrogatepass")))
        return base64.urlsafe_b64encode(hmac.digest(key, signed, "sha256")).decode().rstrip("=")
