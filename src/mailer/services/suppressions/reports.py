"""Suppress what SES's events call for, before the event is acknowledged: an event that was acknowledged has left its mark."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mailer.domain.addresses import AddressError
from mailer.domain.errors import RequestError
from mailer.domain.suppressions import Entry, Report, judge, suppression_key
from mailer.ports import Listed, SuppressionMarks, SuppressionsTable
from mailer.services.suppressions.entries import change_entry, read_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDependencies:
    """What taking reports depends on."""

    suppressions: SuppressionsTable
    marks: SuppressionMarks


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
