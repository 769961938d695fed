"""Keys that encrypt what is cached of tenants' secrets: KMS derives them, and a process has them for minutes.

A key is KMS's answer to one GenerateMac over its name: every sandbox that names it gets the same one, nobody without the right on the KMS
key gets any, and none is stored. After `GOOD_FOR` KMS is asked again, so what was encrypted cannot be decrypted for longer than that once
KMS no longer answers us.
"""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.domain.errors import DependencyError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

GOOD_FOR = timedelta(minutes=4)
"""How long a process has a key before it asks KMS again."""

RENEW_BEFORE = timedelta(minutes=1)
"""How long before that one thread asks already: if KMS fails for some seconds, the cache is used all the same."""

ASK_AGAIN_AFTER = timedelta(seconds=5)
"""While KMS does not answer, the mails of a batch do not each wait for it."""

_PURPOSE = "tenantmail: cache of SendFunction, version 1: "
_NONCE = 12  # bytes, as GCM wants them
_KEYS = 8  # in memory: the process's own, and those of two hours


class CacheKeys:
    """Encrypts and decrypts under keys that are named; threads may share it."""

    def __init__(self, client: Callable[[], "KMSClient"], key_arn: str, now: Callable[[], datetime]) -> None:
        self._client = client
        self._key_arn = key_arn
        self._now = now
        self._keys: SingleFlightCache[str, AESGCM] = SingleFlightCache(_KEYS, now)
        self._failed_until: datetime | None = None

    def seal(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under a key, bound to the context.

        Raises:
            DependencyError: KMS did not return the key.
        """
        nonce = os.urandom(_NONCE)
        return nonce + self._key(name).encrypt(nonce, plaintext, context)

    def open(self, name: str, sealed: bytes, context: bytes) -> bytes | None:
        """Decrypt what was encrypted under this key for this context; None for anything else.

        Raises:
            DependencyError: KMS did not return the key.
        """
        key = self._key(name)
        try:
            return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            return None

    def _key(self, name: str) -> AESGCM:
        good_until = self._now() + GOOD_FOR
        return self._keys.get(name, lambda: self._ask(name), lambda _: good_until, lambda _: good_until - RENEW_BEFORE)

    def _ask(self, name: str) -> AESGCM:
        if self._failed_until and self._now() < self._failed_until:
            raise DependencyError("KMS", "GenerateMac")
        try:
            with dependency_errors("KMS", "GenerateMac"):
                answer = self._client().generate_mac(KeyId=self._key_arn, MacAlgorithm="HMAC_SHA_256", Message=(_PURPOSE + name).encode())
            with readable("KMS", "GenerateMac"):
                return AESGCM(answer["Mac"])
        except DependencyError:
            self._failed_until = self._now() + ASK_AGAIN_AFTER
            raise
