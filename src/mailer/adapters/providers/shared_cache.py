"""Share sessions with tenants' roles, and the configs of roles, among SendFunction's sandboxes: in a table, encrypted, for an hour.

A sandbox that needs a session takes the one that another has begun, so that STS is asked once a tenant, and not once a tenant and sandbox.
An entry is encrypted under the key of the hour in which it ends (cache_keys.py), which KMS derives for SendFunction alone, and bound to its
name and its end. Access keys are never shared: the key of an hour must not open what is good for longer.

What fails here costs a call of KMS or STS, never a mail. After a failure the table is left alone for a moment, so that the mails of a batch
do not each wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from mailer.adapters.aws import ReportFailure, report_nothing
from mailer.adapters.providers.cache_keys import CacheKeys
from mailer.adapters.sealed_entry import SealedEntry
from mailer.domain.errors import DependencyError

ASK_AGAIN_AFTER = timedelta(seconds=10)


class SharedStore(Protocol):
    """A table of encrypted entries by name."""

    def find(self, name: str) -> SealedEntry | None:
        """Return an entry, which may be a moment old.

        Raises:
            DependencyError: the table did not answer.
        """
        ...

    def keep(self, name: str, entry: SealedEntry) -> None:
        """Write an entry over any that there is; raises as `find`."""
        ...


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """What an entry says."""

    plaintext: bytes = field(repr=False)
    until: datetime


class SharedCache:
    """Entries by kind and context; never raises."""

    def __init__(self, store: SharedStore, keys: CacheKeys, now: Callable[[], datetime], report: ReportFailure = report_nothing) -> None:
        """`report` is told what failed."""
        self._store = store
        self._keys = keys
        self._now = now
        self._report = report
        self._failed_until: datetime | None = None

    def find(self, kind: str, context: bytes) -> SharedEntry | None:
        """Return an entry that has not ended; None also for one that was encrypted for another context."""
        name = _name(kind, context)
        if self._is_left_alone():
            return None
        try:
            entry = self._store.find(name)
            if entry is None or entry.until <= self._now():
                return None
            plaintext = self._keys.open(_key(entry.until), entry.content, _bound_to(name, entry.until))
        except DependencyError as failure:
            self._failed(f"read shared {kind}", failure)
            return None
        return SharedEntry(plaintext, entry.until) if plaintext is not None else None

    def keep(self, kind: str, context: bytes, plaintext: bytes, until: datetime) -> None:
        """Share an entry until then, in whole seconds."""
        name, until = _name(kind, context), until.replace(microsecond=0)
        if self._is_left_alone():
            return
        try:
            sealed = self._keys.seal(_key(until), plaintext, _bound_to(name, until))
            self._store.keep(name, SealedEntry(sealed, until))
        except DependencyError as failure:
            self._failed(f"share {kind}", failure)

    def _is_left_alone(self) -> bool:
        return self._failed_until is not None and self._now() < self._failed_until

    def _failed(self, step: str, failure: DependencyError) -> None:
        self._failed_until = self._now() + ASK_AGAIN_AFTER
        self._report(step, None, failure)


def _name(kind: str, context: bytes) -> str:
    return f"{kind}#{context.hex()}"


def _key(until: datetime) -> str:
    return f"shared until {until:%Y-%m-%dT%H}"


def _bound_to(name: str, until: datetime) -> bytes:
    return f"{name} {until.timestamp():.0f}".encode()
