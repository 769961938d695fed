"""In-memory suppressions table and tenants' marks."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mailer.domain.cursors import SUPPRESSED_KEY, from_cursor, to_cursor
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.suppressions import Entry, Reason, Suppression, digest
from mailer.ports import Listed, SuppressionPage
from support.fakes.ports import NOON


def do_nothing(_: Entry) -> None:
    """Do nothing."""


class FakeSuppressionsTable:
    """Entries by tenant and address; `before` and `after` are called with each write, and may raise to simulate a lost call."""

    def __init__(self, *entries: Entry) -> None:
        self.entries: dict[Listed, Entry] = {(e.tenant_id, e.email): replace(e, revision=max(e.revision, 1)) for e in entries}
        self.reads: list[list[Listed]] = []
        self.before: Callable[[Entry], None] = do_nothing
        self.after: Callable[[Entry], None] = do_nothing
        self.broken: set[str] = set()
        """Addresses at which DynamoDB does not answer."""
        self.unreadable: set[str] = set()

    def get_many(self, addresses: Collection[Listed]) -> Mapping[Listed, Entry | UnreadableError]:
        self.reads.append(list(addresses))
        if self.broken & {email for _, email in addresses}:
            raise DependencyError("DynamoDB", "BatchGetItem")
        known = {listed: self.entries[listed] for listed in addresses if listed in self.entries}
        damaged = {listed: UnreadableError("suppressions table", listed[0]) for listed in addresses if listed[1] in self.unreadable}
        return {**known, **damaged}

    def replace(self, entry: Entry) -> bool:
        self.before(entry)
        stored = self.entries.get((entry.tenant_id, entry.email))
        if (stored.revision if stored else 0) != entry.revision:
            return False
        self.entries[entry.tenant_id, entry.email] = replace(entry, revision=entry.revision + 1)
        self.after(entry)
        return True

    def list(self, tenant_id: str, *, reason: Reason | None, limit: int, cursor: str | None) -> SuppressionPage:
        keys = {_list_key(e): e for e in self.entries.values() if e.tenant_id == tenant_id and e.suppression}
        wanted = [key for key in sorted(keys, reverse=True) if reason in (None, (s := keys[key].suppression) and s.reason)]
        name = (tenant_id, "suppressions", reason or "")
        if cursor is not None:
            last = from_cursor(cursor, *name, key=SUPPRESSED_KEY)
            wanted = [key for key in wanted if key < last]
        more = len(wanted) > limit
        return SuppressionPage([keys[key] for key in wanted[:limit]], to_cursor(*name, wanted[limit - 1]) if more else None)


def _list_key(entry: Entry) -> str:
    at = entry.suppression.at if entry.suppression else NOON
    return f"{at.isoformat(timespec='milliseconds')}#{digest(entry.email)}"


@dataclass
class FakeMarks:
    """Tenants that have suppressions; a tenant of `unknown` has no row."""

    marked: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    broken: bool = False

    def mark_suppressions(self, tenant_id: str) -> bool:
        if self.broken:
            raise DependencyError("DynamoDB", "UpdateItem")
        if tenant_id in self.unknown:
            return False
        self.marked.add(tenant_id)
        return True


def an_entry(email: str = "jo@example.com", *, tenant_id: str = "acme", **suppression: Any) -> Entry:
    """Return the entry of a permanently suppressed address, by default after a hard bounce."""
    given = {"reason": Reason.HARD_BOUNCE, "at": NOON, "request_id": "r0", **suppression}
    return Entry(tenant_id=tenant_id, email=email, suppression=Suppression(**given))
