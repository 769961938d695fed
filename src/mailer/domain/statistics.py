"""Count recipients by outcome, per tenant and per sending account, in the hour in which their mail was sent or ended.

Each write of a record adds the counts of its new state minus those of its old state. So the sum over all writes equals the counts of the
current records, in whatever order the writes are counted, if each is counted once.
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
    """Recipients by outcome.

    Each is counted in one of sent, failed, unknown and suppressed; each in `sent` also in at most one of delivered, bounced, soft_bounced
    and complained.
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
        """Return the counts with 0 for negative ones: a record older than the statistics may subtract what was never added."""
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
    """Name the series of a sending account, which SES judges separately in each region; no tenant id contains a #."""
    return f"account#{account}#{region}"


def floor(moment: datetime, period: Period = "hour") -> datetime:
    """Round a time down to the hour or day, in UTC."""
    moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return moment if period == "hour" else moment.replace(hour=0)


def ceil(moment: datetime, period: Period = "hour") -> datetime:
    """Round a time up to the hour or day, in UTC."""
    start = floor(moment, period)
    return start if start == moment else start + LENGTHS[period]


def counted(record: Delivery | None) -> Mapping[Bucket, Counts]:
    """Return the counts of a record's current state, by bucket."""
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
            feedback = record.feedback
            return Counts(
                sent=others,
                suppressed=suppressed,
                delivered=feedback.delivered if feedback else 0,
                bounced=feedback.bounced - feedback.bounced_unsent if feedback else 0,
                soft_bounced=feedback.soft_bounced if feedback else 0,
                complained=feedback.complained - feedback.complained_unsent if feedback else 0,
            )
        case Status.FAILED:
            return Counts(failed=others, suppressed=suppressed)
        case Status.UNKNOWN:
            return Counts(unknown=others, suppressed=suppressed)
        case _:
            return NOTHING


def changed(old: Delivery | None, new: Delivery | None) -> Mapping[Bucket, Counts]:
    """Return what a write of a record adds to the buckets whose counts it changes.

    The erasure of a request keeps its counts: they identify nobody.
    """
    if new is not None and new.content_hash == ERASED_CONTENT:
        return {}
    before, after = counted(old), counted(new)
    differences = {bucket: after.get(bucket, NOTHING) - before.get(bucket, NOTHING) for bucket in {**before, **after}}
    return {bucket: difference for bucket, difference in differences.items() if difference}


def received_badly(writes: Iterable[tuple[Delivery | None, Delivery]]) -> Mapping[str, frozenset[datetime]]:
    """Return the tenants for which these writes add bounces or complaints, and the hours in which that mail was sent."""
    hours: dict[str, set[datetime]] = {}
    for old, new in writes:
        for bucket, counts in changed(old, new).items():
            if bucket.series == new.tenant_id and (counts.bounced > 0 or counts.complained > 0):
                hours.setdefault(new.tenant_id, set()).add(bucket.hour)
    return {tenant_id: frozenset(of_one) for tenant_id, of_one in hours.items()}


def by_period(hours: Mapping[datetime, Counts], begin: datetime, end: datetime, period: Period) -> Mapping[datetime, Counts]:
    """Sum hours into periods from `begin` to `end`, both at bounds of periods; periods without counts are included."""
    length = LENGTHS[period]
    sums = {begin + number * length: NOTHING for number in range((end - begin) // length)}
    for hour, counts in hours.items():
        if (start := floor(hour, period)) in sums:
            sums[start] += counts
    return {start: counts.shown for start, counts in sums.items()}


def total(all_counts: Iterable[Counts]) -> Counts:
    """Add up counts."""
    return sum(all_counts, NOTHING)
