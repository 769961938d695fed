"""The dependencies of the operators' programs, as Protocols; the adapters implement them, the tests fake them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mailer.domain.delivery import Delivery, Status
from mailer.ports import ParkedBody, QueueMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalOutcome:
    """How a request ended, as far as the log knows."""

    tenant_id: str
    request_id: str
    status: Status
    at: datetime
    attempt: int
    message_id: str | None = None
    account: str | None = None
    """The AWS account that the attempt sent from, where the log says so."""
    region: str | None = None
    code: str | None = None


class OutcomeRestore(Protocol):
    """A restored status table, into which lost outcomes are written."""

    def write(self, outcome: FinalOutcome) -> bool:
        """Write a final outcome over an older open record or `unknown`, or as a new record; False if the record is newer.

        An acceptance by SES (`sent`) overwrites everything.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...

    def reopen(self, record: Delivery, over: Delivery | None) -> None:
        """Replace the record that was read (None: there was none) by an open one.

        Raises:
            RefusedError: another write came in between.
            DependencyError: DynamoDB did not answer.
        """
        ...


class Eraser(Protocol):
    """Deletes the data of a request or a tenant; every method is idempotent."""

    def records(self, tenant_id: str) -> Iterator[Delivery]:
        """Yield a tenant's records that are not erased yet, read consistently.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...

    def erase_record(self, record: Delivery, *, keep_until: datetime | None) -> None:
        """Delete an ended record; with `keep_until`, leave its ids and its status until then.

        Raises:
            RefusedError: another write came in between.
            DependencyError: DynamoDB did not answer.
        """
        ...

    def erase_objects(self, prefix: str) -> int:
        """Delete every version of the objects with a key prefix; return how many were deleted.

        Raises:
            DependencyError: S3 did not answer.
        """
        ...

    def erase_object(self, key: str) -> int:
        """Delete every version of the object with exactly this key; return how many were deleted.

        Raises:
            DependencyError: S3 did not answer.
        """
        ...

    def erase_feedback(self, tenant_id: str, request_id: str, record: Delivery | None) -> int:
        """Delete SES's reports about a request's recipients, and the items of its mails' messageIds; return how many items were deleted.

        Reads the whole table where earlier attempts may have been sent: the record, as it was before its erasure, has no ids of those.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...

    def erase_all_feedback(self, tenant_id: str) -> int:
        """Delete SES's reports of a tenant's mail; reads the whole table. Return how many items were deleted.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...

    def erase_statistics(self, tenant_id: str) -> int:
        """Delete the counts of a tenant; return how many items were deleted.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...

    def erase_account_rate(self, account: str) -> bool:
        """Delete an account's rate; return whether there was one.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...

    def shares_account(self, tenant_id: str, account: str) -> bool:
        """Return whether another tenant's config sends through an AWS account.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...


class AddressEraser(Protocol):
    """Deletes the data of an address; every method is idempotent and may raise DependencyError."""

    def erase_suppressions_of(self, tenant_id: str) -> int:
        """Delete all suppressions of a tenant; return how many there were."""
        ...

    def erase_suppressed(self, email: str) -> int:
        """Delete the entries of a normalized address, of all tenants, soft bounces included; return how many there were."""
        ...

    def erase_facts(self, email: str) -> int:
        """Delete SES's reports about a normalized address, in any spelling; return of how many requests."""
        ...


class UnmarkedTenants(Protocol):
    """Finds tenants whose suppressions sending would not look up."""

    def unmarked(self) -> Iterator[str]:
        """Yield each tenant that has suppressions and no mark on its provider row.

        Raises:
            DependencyError: DynamoDB did not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message on the dead-letter queue, held until it is deleted or put back."""

    queue_message: QueueMessage
    reason: str | None
    """Our code; None if SQS moved the message itself."""
    detail: str | None
    handle: str
    is_readable: bool = True
    """Whether this version can read the attributes that our functions signed; if not, the queue message is without them."""


class DeadLetters(Protocol):
    """The dead-letter queue, for an operator's command."""

    def receive_all(self) -> Iterator[DeadLetter]:
        """Receive every message once; each stays hidden from others until it is deleted or put back, or ten minutes have passed.

        Raises:
            DependencyError: SQS did not answer.
        """
        ...

    def delete(self, dead_letter: DeadLetter) -> None:
        """Delete a message.

        Raises:
            DependencyError: SQS did not answer.
        """
        ...

    def put_back(self, dead_letters: Iterable[DeadLetter]) -> None:
        """Make messages visible again at once, as far as SQS answers."""
        ...


class ParkedList(Protocol):
    """The parked bodies, to be listed."""

    def list_all(self) -> Iterator[ParkedBody]:
        """Yield every parked body, by key.

        Raises:
            DependencyError: S3 did not answer.
        """
        ...
