"""Show a tenant's statistics and those of its sending account, which other tenants may share."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.domain.errors import Problem, RequestError, UnreadableError
from mailer.domain.provider import Provider
from mailer.domain.statistics import RETENTION, Counts, Period, account_series, by_period, ceil, floor
from mailer.ports import ProvidersTable, StatisticsTable

DEFAULT_RANGE: Mapping[Period, timedelta] = {"hour": timedelta(hours=24), "day": timedelta(days=30)}
"""The range shown if the caller gives no `from`."""


@dataclass(frozen=True, slots=True)
class AccountStatistics:
    """Counts of all tenants that send from one account."""

    account: str
    region: str
    buckets: Mapping[datetime, Counts]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts by the beginning of each period."""

    buckets: Mapping[datetime, Counts]
    account: AccountStatistics | None
    """None if the tenant has no provider, or its account is not known."""


def show_statistics(
    tenant_id: str,
    providers: ProvidersTable,
    table: StatisticsTable,
    now: datetime,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    period: Period = "hour",
) -> Statistics:
    """Return a tenant's counts by hours or days of UTC, from the period of `since` to the one before `until`.

    Raises:
        RequestError: `from` is not before `to`, or one of them is longer ago than counts are kept.
    """
    until = min(until or now, now)
    if until < floor(now - RETENTION, "day"):
        raise RequestError([_kept("to")])
    end = ceil(until, period)
    begin = floor(since, period) if since else end - DEFAULT_RANGE[period]
    _must_be_kept(begin, since, until, now)
    account = _account_of(providers.get_many([tenant_id]).get(tenant_id))

    def read(series: str) -> Mapping[datetime, Counts]:
        return by_period(table.read(series, begin, end), begin, end, period)

    of_account = AccountStatistics(*account, read(account_series(*account))) if account else None
    return Statistics(read(tenant_id), of_account)


def _must_be_kept(begin: datetime, since: datetime | None, until: datetime, now: datetime) -> None:
    if since is not None and since >= until:
        raise RequestError([Problem("from", "must be before to, and in the past")])
    if begin < floor(now - RETENTION, "day"):
        raise RequestError([_kept("from")])


def _kept(parameter: str) -> Problem:
    return Problem(parameter, f"must be at most {RETENTION.days} days ago: counts are kept no longer")


def _account_of(row: Provider | UnreadableError | None) -> tuple[str, str] | None:
    config = row.active if isinstance(row, Provider) else None
    return (config.account, config.region) if config and config.account else None
