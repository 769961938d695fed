"""Cache tenants' configs: KMS decrypts each of them once in a sandbox's life, and something every few minutes.

    the row's ciphertext ── KMS Decrypt ──▶ plaintext ──▶ provider, for a minute
                                              ▲  │ encrypted under a key of this process (cache_keys.py)
                                              │  ▼
                                          in memory; those of roles are shared, too (shared_cache.py)

A config is found by tenant, provider, version and the ciphertext of the row that the batch has read: that of a row that changed is not in
the cache. Cached configs are used while KMS has decrypted one in the last `KMS_GOOD_FOR`; then the next goes to KMS, whichever it is. So a
KMS key that is disabled, or a right that is lost, counts within that time and `provider_factory.KEPT_FOR`: five minutes together.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Protocol

from mailer.adapters.aws import ReportFailure, report_nothing
from mailer.adapters.providers.cache_keys import CacheKeys
from mailer.adapters.providers.shared_cache import SharedCache
from mailer.adapters.single_flight_cache import SingleFlightCache
from mailer.domain.errors import DependencyError
from mailer.domain.provider import StoredConfig
from mailer.ports import ConfigCipher

KMS_GOOD_FOR = timedelta(minutes=4)
"""How long after KMS decrypted a config others are taken from the cache."""

CHECK_BEFORE = timedelta(minutes=1)
"""How long before that end one thread has KMS decrypt again: if KMS fails for some seconds, no mail is deferred."""

CHECK_AGAIN_AFTER = timedelta(seconds=15)
"""How soon that is tried again."""

IN_MEMORY_FOR = timedelta(hours=2)
"""How long a config stays in memory, encrypted; one that was replaced or erased is not used, and is gone by then."""

SHARED_FOR = timedelta(hours=1)
"""How long a role's config is shared."""

_OVERHEAD = 320
"""Bytes of an entry besides its content: the digest that finds it, the objects around both, its place in the cache. A test measures it."""


@dataclass(frozen=True, slots=True)
class OpenedConfig:
    """A config's JSON."""

    plaintext: bytes = field(repr=False)
    by_kms: bool
    """Whether KMS has decrypted it now."""


class ConfigReader(Protocol):
    """Decrypts the configs of rows."""

    def open(self, tenant_id: str, config: StoredConfig) -> OpenedConfig:
        """Return the config's JSON.

        Raises:
            NotSentError: config_unreadable.
            DependencyError: KMS did not do its part.
        """
        ...


@dataclass(frozen=True, slots=True)
class UncachedConfigs:
    """`ConfigReader` that has KMS decrypt each."""

    cipher: ConfigCipher

    def open(self, tenant_id: str, config: StoredConfig) -> OpenedConfig:
        """See `ConfigReader.open`."""
        return OpenedConfig(self.cipher.decrypt(tenant_id, config.provider, config.version, config.ciphertext), by_kms=True)


class ConfigCache:
    """`ConfigReader` that caches; threads may share it."""

    def __init__(
        self,
        cipher: ConfigCipher,
        keys: CacheKeys,
        now: Callable[[], datetime],
        *,
        shared: SharedCache | None,
        size: int,
        report: ReportFailure = report_nothing,
    ) -> None:
        """`size` is the memory that may be taken, in bytes; `report` is told what failed to be cached."""
        self._cipher = cipher
        self._keys = keys
        self._now = now
        self._shared = shared
        self._report = report
        self._own_key = f"sandbox {secrets.token_hex(16)}"
        self._sealed: SingleFlightCache[bytes, bytes] = SingleFlightCache(size, now, lambda _, sealed: len(sealed) + _OVERHEAD)
        self._good_until = self._check_at = datetime.min.replace(tzinfo=UTC)
        self._is_first = True

    def open(self, tenant_id: str, config: StoredConfig) -> OpenedConfig:
        """See `ConfigReader.open`."""
        context = _context(tenant_id, config)
        now = self._now()
        cached = self._cached(tenant_id, config, context) if now < self._good_until else None
        if cached is not None and now < self._check_at:
            return OpenedConfig(cached, by_kms=False)
        self._check_at = now + CHECK_AGAIN_AFTER  # the other threads go on with what is cached
        try:
            plaintext = self._cipher.decrypt(tenant_id, config.provider, config.version, config.ciphertext)
        except DependencyError as failure:
            if cached is None:
                raise
            self._report("check that KMS still decrypts", tenant_id, failure)
            return OpenedConfig(cached, by_kms=True)
        self._good_until, self._check_at = now + KMS_GOOD_FOR, now + KMS_GOOD_FOR - CHECK_BEFORE
        if self._is_first:  # to cache it would take a second call of KMS, and this is a cold start
            self._is_first = False
        else:
            self._keep(tenant_id, context, plaintext)
            if self._shared and _is_of_a_role(plaintext):
                self._shared.keep(_SHARED, context, plaintext, now + SHARED_FOR)
        return OpenedConfig(plaintext, by_kms=True)

    def _cached(self, tenant_id: str, config: StoredConfig, context: bytes) -> bytes | None:
        sealed = self._sealed.find(context)
        try:
            if sealed is not None and (plaintext := self._keys.open(self._own_key, sealed, context)) is not None:
                return plaintext
        except DependencyError as failure:
            self._report("open cached config", tenant_id, failure)
            return None
        found = self._shared.find(_SHARED, context) if self._shared and config.credentials.get("type") == "role" else None
        if found is None:
            return None
        self._keep(tenant_id, context, found.plaintext)
        return found.plaintext

    def _keep(self, tenant_id: str, context: bytes, plaintext: bytes) -> None:
        try:
            self._sealed.keep(context, self._keys.seal(self._own_key, plaintext, context), self._now() + IN_MEMORY_FOR)
        except DependencyError as failure:
            self._report("cache config", tenant_id, failure)


_SHARED = "config"


def _context(tenant_id: str, config: StoredConfig) -> bytes:
    """Return a digest of everything that a config is bound to."""
    parts = (tenant_id.encode(), config.provider.encode(), str(config.version).encode(), config.ciphertext)
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _is_of_a_role(plaintext: bytes) -> bool:
    """Return whether a config names a role: it has no long-term key, and may be shared."""
    try:
        config = json.loads(plaintext)
    except ValueError:
        return False
    return isinstance(config, dict) and "roleArn" in config and "secretAccessKey" not in config
