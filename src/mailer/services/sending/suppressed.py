"""Look up which recipients of a batch are suppressed: one read for the whole batch, and none for tenants that have no suppressions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import batched

from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.provider import Provider
from mailer.domain.suppressions import Entry
from mailer.ports import Listed
from mailer.services.sending.jobs import Job, SendDependencies

AT_ONCE = 100
"""Addresses in one read (DynamoDB's limit); the reads of a large batch run in parallel."""

ALL_SUPPRESSED = ErrorInfo("recipient_suppressed", "every recipient is suppressed")

Rows = Mapping[str, Provider | DependencyError]
"""The provider rows of a batch, or why they could not be read."""

Entries = Mapping[Listed, Entry | Exception]
"""The suppression entries of a batch's recipients, or why they could not be read."""


def look_up(jobs: Sequence[Job], rows: Rows, deps: SendDependencies) -> Entries:
    """Read the entries of the recipients of tenants with suppressions; a failure affects only the requests of that read."""
    addresses: dict[Listed, None] = {}
    for job in jobs:
        row = rows.get(job.tenant_id)
        if isinstance(row, Provider) and row.has_suppressions:
            addresses |= dict.fromkeys((job.tenant_id, email) for email in job.send.message.listed_recipients)
    reads = deps.workers.map(lambda some: _read(some, deps), batched(addresses, AT_ONCE, strict=False))
    return {listed: entry for read in reads for listed, entry in read.items()}


def _read(addresses: Sequence[Listed], deps: SendDependencies) -> Entries:
    try:
        return deps.suppressions.get_many(addresses)
    except Exception as failure:  # noqa: BLE001  # raised again per message, where the message can be deferred
        return dict.fromkeys(addresses, failure)


def suppressed_of(job: Job, entries: Entries, now: datetime) -> frozenset[str]:
    """Return the suppressed recipients of a request, normalized.

    Raises:
        Exception: the failed read of an entry, usually a DependencyError: the request must not be sent unchecked.
    """
    if not entries:
        return frozenset()
    found: set[str] = set()
    for email in job.send.message.listed_recipients:
        entry = entries.get((job.tenant_id, email))
        if isinstance(entry, Exception):
            raise entry
        if entry is not None and entry.in_force(now):
            found.add(email)
    return frozenset(found)
