"""Sign what our functions add to a message of the queue, so that nobody who may only send to it can make it up.

The key is what KMS answers to one GenerateMac, asked once per process: it is stored nowhere, and whoever lacks the right on
the KMS key does not get it. A MAC stands over what was added and over the body, so neither goes with another one.
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
"""What KMS is asked to sign: the same for all functions of a stack, so that all have the same key."""

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
            DependencyError: KMS did not give the key.
        """
        return f"{self._mac(text, body)}.{text}"

    def read(self, signed: str, body: str) -> str | None:
        """Return the text that was signed with this body; None where it was not, or not by us.

        Raises:
            DependencyError: KMS did not give the key.
        """
        mac, found, text = signed.partition(".")
        is_ours = found and hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), self._mac(text, body).encode())
        return text if is_ours else None

    def fetch_key(self) -> bytes:
        """Return the key, from KMS where this process does not have it yet.

        Raises:
            DependencyError: KMS did not give it, now or a moment ago.
        """
        if self._key is None:
            with self._lock:
                if self._key is None:
                    self._key = self._ask()
        return self._key

    def _ask(self) -> bytes:
        if self._now() < self._failed_until:
            raise DependencyError("KMS", "GenerateMac")  # a new one: the traceback of one that is kept would grow, and keep what it saw
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
        # The length first: or the end of the one could pass for the beginning of the other.
        signed = b"".join((len(head).to_bytes(8, "big"), head, body.encode("utf-8", "surrogatepass")))
        return base64.urlsafe_b64encode(hmac.digest(key, signed, "sha256")).decode().rstrip("=")
