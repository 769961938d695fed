"""What the services need from the world, as Protocols; the adapters implement them, the tests fake them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from mailer.domain.delivery import Change, Delivery, Outcome, Status
from mailer.domain.errors import ErrorInfo
from mailer.domain.mime import Mail, Sender
from mailer.domain.provider import Provider, StoredConfig


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        ...


class EmailProvider(Protocol):
    """One tenant's way out, with that tenant's credentials in hand."""

    name: str
    """`ses` or `smtp`, as the status record shows it."""
    sender: Sender

    def send(self, mail: Mail, *, tags: Mapping[str, str]) -> Outcome:
        """Hand the message over, once; never raises for what the provider or the network does."""
        ...


class ProviderOpener(Protocol):
    """Turns a stored config into a usable provider: decrypts it and gets its credentials, both cached."""

    def open(self, tenant_id: str, config: StoredConfig) -> EmailProvider:
        """Open one version of a tenant's config.

        Raises:
            NotSentError: config_unreadable, role_not_assumable and the like: the tenant's fault.
            DependencyError: KMS or STS did not do its part.
        """
        ...


class ProvidersTable(Protocol):
    """The part of the providers table that sending needs; every read is consistent."""

    def get_many(self, tenant_ids: Collection[str]) -> Mapping[str, Provider]:
        """Return the rows that exist (a tombstone is a row)."""
        ...

    def record_fault(self, tenant_id: str, version: int, request_id: str, error: ErrorInfo) -> bool:
        """Count a tenant-class error of a request against a version; True when this one suspended it."""
        ...

    def clear_faults(self, tenant_id: str, version: int) -> None:
        """Forget the counted errors of a version that has just sent."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first; `cursor` is None on the last."""

    deliveries: Sequence[Delivery]
    cursor: str | None


class MessagesTable(Protocol):
    """The status table."""

    def get(self, tenant_id: str, request_id: str) -> Delivery | None:
        """Read one record, consistently."""
        ...

    def apply(self, change: Change) -> Delivery:
        """Make one conditional write and return the record after it.

        A change that turns out to have been made already (its reply was lost) succeeds.

        Raises:
            RefusedError: the record's state does not allow it.
            DependencyError: DynamoDB did not answer; the write may or may not have happened.
        """
        ...

    def list(self, tenant_id: str, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        """List a tenant's records, newest first; the cursor holds only a sort key.

        Raises:
            KeyError: the cursor is not one of this table's.
        """
        ...

    def due(self, shard: int, now: datetime, limit: int) -> Sequence[Delivery]:
        """Return open records whose time to be looked at has come, longest overdue first."""
        ...

    def waiting_for_provider(self, tenant_id: str, limit: int) -> Sequence[Delivery]:
        """Return parked records of a tenant that wait for its provider, oldest first."""
        ...


class RefusedError(Exception):
    """The record's state does not allow the change; `current` is the record as it stands (None: there is none)."""

    def __init__(self, current: Delivery | None) -> None:
        super().__init__(f"not allowed from {current.status if current else 'no record'}")
        self.current = current


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One send request as it travels on the queue."""

    body: str
    """The request's JSON; of a pointer, only its two ids."""
    tenant_id: str | None
    """The message group: SQS serves tenants fairly by it. None where the body tells no tenant."""
    created_at: datetime
    hop: int = 0
    """How many copies came before this one."""
    parked: str | None = None
    """Where in the bucket the body is; then this is a pointer."""
    slot: datetime | None = None
    """The sending slot reserved for it."""
    proof: str | None = None
    """What became of an attempt whose result could not be written: JSON of attempt, owner and outcome."""
    correlation_id: str | None = None


class SendQueue(Protocol):
    """The queue of send requests and its dead-letter queue."""

    def send(self, copies: Iterable[tuple[Copy, timedelta]]) -> Sequence[Copy]:
        """Send each copy with its delay (at most 900 s); return those that SQS did not take."""
        ...

    def bury(self, copy: Copy, *, reason: str, detail: str) -> None:
        """Put a copy on the dead-letter queue with the reason as an attribute.

        Raises:
            DependencyError: SQS did not take it.
        """
        ...


class ParkedBodies(Protocol):
    """Bodies that wait longer than the queue can hold them, in the private bucket under `parked/{tenantId}/`."""

    def park(self, tenant_id: str, request_id: str, body: str) -> str:
        """Store a body and return its key; the same request gets the same key."""
        ...

    def fetch(self, key: str) -> str:
        """Return a parked body.

        Raises:
            KeyError: there is none.
            DependencyError: S3 did not answer.
        """
        ...

    def discard(self, key: str) -> None:
        """Delete a parked body, all versions, if it is there."""
        ...
