"""Count what became of recipients: by tenant and by sending account, in the hour that their mail was sent in or ended in.

Each write of a record changes the counts by what the record says now less what it said before. So the counts of all writes together are
those of the records as they stand, in whatever order the writes are counted, if each is counted once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Literal

from mailer.domain.delivery import ERASED_CONTENT, Delivery, Status

Period = Literal["hour", "day"]

LENGTHS: Mapping[Period, timedelta] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}

RETENTION = timedelta(days=90)
"""How long counts are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Recipients by what became of their mail.

    Each stands in one of sent, failed, unknown and suppressed; each that was sent to in at most one of delivered, bounced, soft_bounced
    and complained besides.
    """

    sent: int = 0
    delivered: int = 0
    bounced: int = 0
    soft_bounced: int = 0
    complained: int = 0
    failed: int = 0
    unknown: int = 0
    suppressed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in COLUMNS})

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(**{name: getattr(self, name) - getattr(other, name) for name in COLUMNS})

    def __bool__(self) -> bool:
        return self != NOTHING

    @property
    def shown(self) -> "Counts":
        """Return the counts without negative ones: a record from before the first count may take away what was never added."""
        return Counts(**{name: max(0, getattr(self, name)) for name in COLUMNS})


COLUMNS = tuple(field.name for field in fields(Counts))
NOTHING = Counts()


@dataclass(frozen=True, slots=True)
class Bucket:
    """One hour of a series."""

    series: str
    """The tenant's id, or an account as `account_series` writes it."""
    hour: datetime


def account_series(account: str, region: str) -> str:
    """Name the series of a sending account, which SES judges in each region by itself; no tenant's id has a #."""
    return f"account#{account}#{region}"


def floor(moment: datetime, period: Period = "hour") -> datetime:
    """Return the beginning of the hour or day, in UTC, that a moment is in."""
    moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return moment if period == "hour" else moment.replace(hour=0)


def ceil(moment: datetime, period: Period = "hour") -> datetime:
    """Return the end of the hour or day, in UTC, that is before a moment, or that it is in."""
    start = floor(moment, period)
    return start if start == moment else start + LENGTHS[period]


def counted(record: Delivery | None) -> Mapping[Bucket, Counts]:
    """Return what a record adds to which buckets as it stands."""
    counts = _counts(record) if record else NOTHING
    if record is None or not counts:
        return {}
    at = record.sent_at if record.status is Status.SENT and record.sent_at else record.updated_at
    series = [record.tenant_id]
    if record.account and record.region:
        series.append(account_series(record.account, record.region))
    return {Bucket(name, floor(at)): counts for name in series}


def _counts(record: Delivery) -> Counts:
    suppressed = min(record.suppressed, record.recipients)
    if record.error is not None and record.error.code == "recipient_suppressed":
        suppressed = record.recipients
    others = record.recipients - suppressed
    match record.status:
        case Status.SENT:
            told = record.feedback
            return Counts(
                sent=others,
                suppressed=suppressed,
                delivered=told.delivered if told else 0,
                bounced=told.bounced - told.bounced_unsent if told else 0,
                soft_bounced=told.soft_bounced if told else 0,
                complained=told.complained - told.complained_unsent if told else 0,
            )
        case Status.FAILED:
            return Counts(failed=others, suppressed=suppressed)
        case Status.UNKNOWN:
            return Counts(unknown=others, suppressed=suppressed)
        case _:
            return NOTHING


def changed(old: Delivery | None, new: Delivery | None) -> Mapping[Bucket, Counts]:
    """Return what a write of a record adds to which buckets; nothing for those that it leaves as they are.

    Of a request that is erased the counts stay: they name nobody.
    """
    if new is not None and new.content_hash == ERASED_CONTENT:
        return {}
    before, after = counted(old), counted(new)
    differences = {bucket: after.get(bucket, NOTHING) - before.get(bucket, NOTHING) for bucket in {**before, **after}}
    return {bucket: difference for bucket, difference in differences.items() if difference}


def received_badly(writes: Iterable[tuple[Delivery | None, Delivery]]) -> Mapping[str, frozenset[datetime]]:
    """Return the tenants of whose mail these writes tell more bounces or complaints, and the hours that it was sent in."""
    hours: dict[str, set[datetime]] = {}
    for old, new in writes:
        for bucket, counts in changed(old, new).items():
            if bucket.series == new.tenant_id and (counts.bounced > 0 or counts.complained > 0):
                hours.setdefault(new.tenant_id, set()).add(bucket.hour)
    return {tenant_id: frozenset(of_one) for tenant_id, of_one in hours.items()}


def by_period(hours: Mapping[datetime, Counts], begin: datetime, end: datetime, period: Period) -> Mapping[datetime, Counts]:
    """Add up hours by periods: every one between two bounds of periods, also where nothing happened."""
    length = LENGTHS[period]
    sums = {begin + number * length: NOTHING for number in range((end - begin) // length)}
    for hour, counts in hours.items():
        if (start := floor(hour, period)) in sums:
            sums[start] += counts
    return {start: counts.shown for start, counts in sums.items()}


def total(all_counts: Iterable[Counts]) -> Counts:
    """Add up counts."""
    return sum(all_counts, NOTHING)
