"""Suppress what SES's events call for, before the event is acknowledged: an event that was acknowledged has left its mark."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mailer.domain.addresses import AddressError
from mailer.domain.errors import RequestError
from mailer.domain.feedback import EventKind, MailRef, SesEvent
from mailer.domain.suppressions import Entry, Report, judge, suppression_key
from mailer.ports import Listed, SuppressionMarks, SuppressionsTable
from mailer.services.suppressions.entries import change_entry, read_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDependencies:
    """What taking reports depends on."""

    suppressions: SuppressionsTable
    marks: SuppressionMarks


_Kind = Literal["delivery", "bounce", "complaint"]

_KINDS: Mapping[EventKind, _Kind] = {
    EventKind.DELIVERY: "delivery",
    EventKind.BOUNCE: "bounce",
    EventKind.COMPLAINT: "complaint",
}
"""The events that say something about an address."""


def take_event(event: SesEvent, mail: MailRef, deps: ReportDependencies) -> None:
    """Suppress what an event calls for that is about a mail of ours; may be done again.

    Raises:
        DependencyError: DynamoDB did not do its part; the event must come again.
    """
    kind = _KINDS.get(event.kind)
    if kind is not None:
        take_reports(mail.tenant_id, _reports(event, kind, mail.request_id), deps)


def _reports(event: SesEvent, kind: _Kind, request_id: str) -> Iterator[tuple[str, Report]]:
    at_domain = Counter(_domain(told.email) for told in event.recipients)
    for told in event.recipients:
        yield (
            told.email,
            Report(
                kind=kind,
                at=event.at,
                request_id=request_id,
                spelling=told.email,
                type=event.type,
                subtype=event.subtype,
                status=told.fact.smtp_status,
                has_dsn=event.has_dsn,
                is_one_of_several=at_domain[_domain(told.email)] > 1,
            ),
        )


def _domain(email: str) -> str:
    return email.rpartition("@")[2].lower()


def take_reports(tenant_id: str, reports: Iterable[tuple[str, Report]], deps: ReportDependencies) -> None:
    """Write down what follows from what one event tells of its recipients, each given with its address; may be done again.

    An address that no mail could go to is passed over, and so is a tenant whose row is gone: nothing is sent for it.

    Raises:
        DependencyError: DynamoDB did not do its part; the event must come again.
    """
    by_address = _by_address(tenant_id, reports)
    for listed, entry in read_entries(by_address, deps.suppressions).items():
        try:
            change_entry(entry, deps, partial(_judged, by_address[listed]))
        except RequestError:
            continue


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
