"""Change entries of the suppressions table by optimistic locking; the tenant's row is marked before its first entry is written."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from mailer.domain.errors import DependencyError, Problem, RequestError, UnreadableError
from mailer.domain.suppressions import Entry
from mailer.ports import Listed, SuppressionMarks, SuppressionsReader, SuppressionsTable

_TRIES = 10
"""Tries of an entry that other writers keep changing."""


class EntryDependencies(Protocol):
    """What a change depends on."""

    @property
    def suppressions(self) -> SuppressionsTable:
        """Return the suppressions table."""
        ...

    @property
    def marks(self) -> SuppressionMarks:
        """Return the marks of tenants that have suppressions."""
        ...


def find_entries(addresses: Iterable[Listed], table: SuppressionsReader) -> Mapping[Listed, Entry | UnreadableError]:
    """Return the entry of each address, an empty one if there is none; for an unreadable one its error.

    Raises:
        DependencyError: DynamoDB did not answer.
    """
    addresses = list(addresses)
    found = table.get_many(addresses) if addresses else {}
    return {listed: found.get(listed) or Entry(tenant_id=listed[0], email=listed[1]) for listed in addresses}


def read_entries(addresses: Iterable[Listed], table: SuppressionsReader) -> Mapping[Listed, Entry]:
    """Return the entry of each address, an empty one if there is none.

    Raises:
        DependencyError: DynamoDB did not answer, or an entry cannot be read.
    """
    return {listed: entry_or_raise(entry) for listed, entry in find_entries(addresses, table).items()}


def entry_or_raise(entry: Entry | UnreadableError) -> Entry:
    """Return an entry of `find_entries`.

    Raises:
        UnreadableError: it cannot be read.
    """
    if isinstance(entry, UnreadableError):
        raise entry
    return entry


def change_entry(entry: Entry, deps: EntryDependencies, decide: Callable[[Entry], Entry]) -> Entry:
    """Write what `decide` makes of an entry, or of its newer revision if another writer was first; return the entry as it is then.

    A crash between the mark and the entry leaves a marked tenant without suppressions: only its look-ups are superfluous.

    Raises:
        RequestError: what `decide` raises; provider_not_configured: the tenant has no row to mark.
        DependencyError: DynamoDB did not answer, or other writers keep changing the entry; the write may have happened.
    """
    for _ in range(_TRIES):
        decided = decide(entry)
        if decided is entry:
            return entry
        if decided.suppression is not None:
            mark(entry.tenant_id, deps.marks)
        if deps.suppressions.replace(decided):
            return decided
        [entry] = read_entries([(entry.tenant_id, entry.email)], deps.suppressions).values()
    raise DependencyError("DynamoDB", "PutItem (others keep writing)")


def mark(tenant_id: str, marks: SuppressionMarks) -> None:
    """Make sending look up a tenant's suppressions from its next batch on.

    Raises:
        RequestError: provider_not_configured: there is no row, and one created later would lack the mark.
        DependencyError: DynamoDB did not answer.
    """
    if not marks.mark_suppressions(tenant_id):
        problem = Problem("", "the tenant has no mail provider; GET …/provider/onboarding or PUT …/provider comes first")
        raise RequestError([problem], "provider_not_configured")
