"""Apply SES's events to the suppressions, before the event is acknowledged."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mailer.domain.addresses import AddressError
from mailer.domain.errors import RequestError, UnreadableError
from mailer.domain.feedback import EventKind, MailRef, SesEvent
from mailer.domain.suppressions import Entry, Report, judge, suppression_key
from mailer.ports import Listed, SuppressionMarks, SuppressionsTable
from mailer.services.suppressions.entries import change_entry, entry_or_raise, find_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDependencies:
    """What applying reports depends on."""

    suppressions: SuppressionsTable
    marks: SuppressionMarks


_Kind = Literal["delivery", "bounce", "complaint"]

_KINDS: Mapping[EventKind, _Kind] = {
    EventKind.DELIVERY: "delivery",
    EventKind.BOUNCE: "bounce",
    EventKind.COMPLAINT: "complaint",
}
"""The events that affect suppressions."""


def take_event(event: SesEvent, mail: MailRef, deps: ReportDependencies) -> None:
    """Apply an event about mail of ours to its recipients' suppressions; idempotent.

    Raises:
        DependencyError: DynamoDB failed; the event must be redelivered.
    """
    kind = _KINDS.get(event.kind)
    if kind is not None:
        take_reports(mail.tenant_id, _reports(event, kind, mail.request_id), deps)


def _reports(event: SesEvent, kind: _Kind, request_id: str) -> Iterator[tuple[str, Report]]:
    at_domain = Counter(_domain(recipient.email) for recipient in event.recipients)
    for recipient in event.recipients:
        yield (
            recipient.email,
            Report(
                kind=kind,
                at=event.at,
                request_id=request_id,
                spelling=recipient.email,
                type=event.type,
                subtype=event.subtype,
                status=recipient.fact.smtp_status,
                has_dsn=event.has_dsn,
                is_one_of_several=at_domain[_domain(recipient.email)] > 1,
            ),
        )


def _domain(email: str) -> str:
    return email.rpartition("@")[2].lower()


def take_reports(tenant_id: str, reports: Iterable[tuple[str, Report]], deps: ReportDependencies) -> None:
    """Apply the reports of one event, each given with its address; idempotent.

    An invalid address is skipped, and so is a tenant without a row, for which nothing is sent.

    Raises:
        DependencyError: DynamoDB failed, or an entry cannot be read, after all others were changed; the event must be redelivered.
    """
    by_address = _by_address(tenant_id, reports)
    entries = find_entries(by_address, deps.suppressions)
    # Unreadable ones last, as they end the loop.
    for listed in sorted(entries, key=lambda listed: isinstance(entries[listed], UnreadableError)):
        with suppress(RequestError):
            change_entry(entry_or_raise(entries[listed]), deps, partial(_judged, by_address[listed]))


def _by_address(tenant_id: str, reports: Iterable[tuple[str, Report]]) -> Mapping[Listed, list[Report]]:
    found: dict[Listed, list[Report]] = defaultdict(list)
    for address, report in reports:
        try:
            found[tenant_id, suppression_key(address)].append(report)
        except AddressError:
            continue
    return found


def _judged(reports: Iterable[Report], entry: Entry) -> Entry:
    for report in reports:
        entry = judge(entry, report)
    return entry
