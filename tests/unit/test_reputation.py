"""The reputation guard: which counts reach a limit, and what the guard does then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.facts import FeedbackCounts
from mailer.domain.provider import Provider, ProviderStatus, Resumption
from mailer.domain.reputation import GuardMode, Limit, first_hour, judge, read_limits
from mailer.domain.statistics import NOTHING, Bucket, Counts, received_badly
from mailer.ports import Counted, RecordWrite
from mailer.services.statistics.guard import GuardDependencies, guard
from support.aws import tables
from support.fakes.ports import NOON, FakeClock, FakeTelemetry, a_delivery, a_provider

HOUR = timedelta(hours=1)
LIMITS = read_limits(tables.template()["Parameters"]["ReputationLimits"]["Default"])
NOW = NOON + timedelta(minutes=30)


def actions(counts: Counts, *, spread: int = 1, reported_at: datetime = NOON) -> list[str]:
    """Return the findings for mail of this hour, or spread evenly over some hours."""
    hours = dict.fromkeys([NOON - number * HOUR for number in range(spread)], counts)
    return [f"{finding.limit.action} {finding.limit.hours} {finding.limit.signal}" for finding in judge(hours, LIMITS, [reported_at], NOW)]


WARN_BOUNCES, WARN_COMPLAINTS = "warn 24 bounces", "warn 24 complaints"
PAUSE_HOUR, PAUSE_DAY, PAUSE_COMPLAINTS = "pause 1 bounces", "pause 24 bounces", "pause 24 complaints"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(sent=13, bounced=1), []),
        (Counts(sent=13, bounced=13, complained=13), []),
        (Counts(sent=199, bounced=199), []),
        (Counts(sent=200, bounced=19), []),
        (Counts(sent=200, bounced=20), [PAUSE_HOUR]),
        (Counts(sent=201, bounced=20), []),
        (Counts(sent=999, bounced=99), []),
        (Counts(sent=1000, bounced=49), []),
        (Counts(sent=1000, bounced=50), [WARN_BOUNCES, PAUSE_DAY]),
        (Counts(sent=1001, bounced=50), []),
        (Counts(sent=1000, bounced=99), [WARN_BOUNCES, PAUSE_DAY]),
        (Counts(sent=1000, bounced=100), [WARN_BOUNCES, PAUSE_HOUR, PAUSE_DAY]),
        (Counts(sent=999, complained=9), []),
        (Counts(sent=1000, complained=1), [WARN_COMPLAINTS]),
        (Counts(sent=1001, complained=1), []),
        (Counts(sent=1000, complained=9), [WARN_COMPLAINTS]),
        (Counts(sent=1000, complained=10), [WARN_COMPLAINTS, PAUSE_COMPLAINTS]),
        (Counts(sent=3333, complained=10), [WARN_COMPLAINTS, PAUSE_COMPLAINTS]),
        (Counts(sent=3334, complained=10), [WARN_COMPLAINTS]),
        (Counts(sent=1000, soft_bounced=1000, failed=1000, suppressed=1000, unknown=1000), []),
    ],
)
def test_the_default_limits_are_exact(counts: Counts, expected: list[str]) -> None:
    """They limit share, number and volume: one bounce of thirteen is no finding, and soft bounces are not counted."""
    assert actions(counts) == expected


@pytest.mark.parametrize(("spread", "expected"), [(23, []), (24, [WARN_BOUNCES, PAUSE_DAY]), (25, [WARN_BOUNCES, PAUSE_DAY])])
def test_a_day_is_twenty_four_hours(spread: int, expected: list[str]) -> None:
    """Mail of each hour counts, but none of the hour before; a day's mail does not reach an hour's limit."""
    assert actions(Counts(sent=42, bounced=4), spread=spread) == expected


def test_a_bounce_is_judged_with_the_mail_of_its_own_day() -> None:
    """A late bounce belongs to its mail's day, including the hours after the mail."""
    hours = {NOON - 10 * HOUR: Counts(sent=1000, bounced=60), NOON: Counts(sent=9000)}
    assert {finding.limit.signal for finding in judge(hours, LIMITS, [NOON - 10 * HOUR], NOW)} == {"bounces"}
    assert judge(hours, LIMITS, [NOON - 11 * HOUR], NOW) != []
    assert judge({NOON: Counts(sent=1000, bounced=60)}, LIMITS, [NOON - HOUR], NOW - HOUR) == []


def test_mail_of_more_than_a_day_ago_is_not_judged() -> None:
    """Its bounces are still counted."""
    hours = {NOON - 24 * HOUR: Counts(sent=1000, bounced=500)}
    assert judge(hours, LIMITS, [NOON - 24 * HOUR], NOW)
    assert judge(hours, LIMITS, [NOON - 24 * HOUR], NOW + HOUR) == []


def test_mail_before_a_resumption_is_not_judged() -> None:
    """Neither is the mail of its own hour until then; later mail is judged by itself."""
    hours = {NOON - HOUR: Counts(sent=1000, bounced=500), NOON: Counts(sent=200, bounced=20)}
    assert judge(hours, LIMITS, [NOON], NOW, resumed(NOON + timedelta(minutes=1))) == []
    [finding] = judge(hours, LIMITS, [NOON], NOW, resumed(NOON - timedelta(minutes=1)))
    assert finding.counts == Counts(sent=200, bounced=20)


def resumed(at: datetime, counts: Counts | None = None) -> Resumption:
    return Resumption("sam", "mended", at, answered=counts)


@pytest.mark.parametrize(
    ("sent", "bounced", "expected"),
    [(399, 60, []), (400, 49, []), (400, 50, [PAUSE_HOUR]), (200, 50, []), (100, 10, [])],
)
def test_mail_after_a_resumption_in_its_hour_is_judged(sent: int, bounced: int, expected: list[str]) -> None:
    """The counts since the resumption are judged, so the guard works within that hour."""
    resumption = resumed(NOON + timedelta(minutes=20), Counts(sent=200, bounced=30))
    hours = {NOON - HOUR: Counts(sent=1000, bounced=900), NOON: Counts(sent=sent, bounced=bounced)}
    findings = judge(hours, LIMITS, [NOON], NOW, resumption)
    assert [f"{finding.limit.action} {finding.limit.hours} {finding.limit.signal}" for finding in findings] == expected
    assert all(finding.counts == Counts(sent=200, bounced=20) for finding in findings)


def test_the_rest_of_a_resumption_s_hour_counts_towards_the_day() -> None:
    """Only the counts after the resumption are included."""
    resumption = resumed(NOON - timedelta(minutes=20), Counts(sent=200, bounced=30))
    hours = {NOON - HOUR: Counts(sent=700, bounced=60), NOON: Counts(sent=500, bounced=20)}
    assert [finding.counts for finding in judge(hours, LIMITS, [NOON], NOW, resumption)] == [Counts(sent=1000, bounced=50)] * 2


def test_the_error_has_the_counts_and_the_limit() -> None:
    """It has no address."""
    [finding] = judge({NOON: Counts(sent=200, bounced=30)}, LIMITS, [NOON], NOW)
    assert finding.error.code == "reputation_at_risk"
    assert "30 bounces of 200 recipients (15 %) in 1 h" in finding.error.message
    assert finding.error.hint.startswith("Operator: ")


def test_the_template_s_default_limits_are_parsed() -> None:
    """They are in the parameter's format."""
    assert [
        Limit("warn", 24, "bounces", Decimal(5), 1, 1000),
        Limit("warn", 24, "complaints", Decimal("0.1"), 1, 1000),
        Limit("pause", 1, "bounces", Decimal(10), 20, 200),
        Limit("pause", 24, "bounces", Decimal(5), 50, 1000),
        Limit("pause", 24, "complaints", Decimal("0.3"), 10, 1000),
    ] == LIMITS
    assert first_hour(LIMITS, NOON) == NOON - 23 * HOUR
    assert read_limits("") == []


def test_each_limit_is_reached_exactly() -> None:
    """For every share in hundredths of a percent: n of 10 000 recipients reach it, n of 10 001 do not."""
    for hundredths in range(1, 10_000):
        [limit] = read_limits(f"pause/1/bounces/{hundredths // 100}.{hundredths % 100:02}/1/10000")
        assert limit.reached_by(Counts(sent=10_000, bounced=hundredths))
        assert not limit.reached_by(Counts(sent=10_001, bounced=hundredths))


@pytest.mark.parametrize(
    "text",
    ["stop/1/bounces/10/20/200", "pause/1/opens/10/20/200", "pause/1/bounces/10/20", "pause/x/bounces/1/1/1", "pause/1/bounces/x/1/1"],
)
def test_invalid_limits_are_refused(text: str) -> None:
    """A typing error must not disable the guard."""
    with pytest.raises((ValueError, TypeError)):
        read_limits(text)


# -- the guard -----------------------------------------------------------------------------------------------------------


@dataclass
class FakeStatistics:
    """Counts by series and hour; `failure` makes the reads of acme fail."""

    hours: Mapping[str, Mapping[datetime, Counts]] = field(default_factory=dict)
    failure: Exception | None = None
    reads: list[tuple[datetime, datetime]] = field(default_factory=list)

    def add(self, bucket: Bucket, shard: str, counted: Sequence[Counted]) -> None:
        raise NotImplementedError

    def read(self, series: str, since: datetime, until: datetime) -> Mapping[datetime, Counts]:
        self.reads.append((since, until))
        if self.failure and series == "acme":
            raise self.failure
        return {hour: counts for hour, counts in self.hours.get(series, {}).items() if since <= hour < until}


@dataclass
class FakeProviders:
    """Rows; stores each suspension."""

    rows: dict[str, Provider]
    suspended: list[tuple[str, ErrorInfo]] = field(default_factory=list)

    def get(self, tenant_id: str) -> Provider | None:
        return self.rows.get(tenant_id)

    def suspend_at_risk(self, tenant_id: str, error: ErrorInfo, judged: Provider) -> bool:
        row = self.rows[tenant_id]
        if row.status is not ProviderStatus.ACTIVE or row.resumption != judged.resumption:
            return False
        self.rows[tenant_id] = replace(row, status=ProviderStatus.SUSPENDED, error=error)
        self.suspended.append((tenant_id, error))
        return True


ABOVE_LIMIT = {NOON: Counts(sent=200, bounced=30)}


def a_guard(mode: GuardMode, *rows: Provider, **hours: Mapping[datetime, Counts]) -> GuardDependencies:
    return GuardDependencies(
        mode=mode,
        limits=LIMITS,
        statistics=FakeStatistics(hours or {"acme": ABOVE_LIMIT, "globex": ABOVE_LIMIT}),
        providers=FakeProviders({row.tenant_id: row for row in rows or (a_provider(), a_provider("globex"))}),
        telemetry=FakeTelemetry(),
        clock=FakeClock(NOW),
    )


def bounce(tenant_id: str = "acme", **counts: int) -> RecordWrite:
    feedback = FeedbackCounts(first_at=NOON, last_at=NOON, rank=1, **(counts or {"bounced": 1}))
    sent = a_delivery("r1", Status.SENT, tenant_id=tenant_id, sent_at=NOON)
    return RecordWrite("1", sent, replace(sent, feedback=feedback))


def events_of(deps: GuardDependencies) -> list[str]:
    fake: Any = deps.telemetry
    return [event for event, _ in fake.entries]


@pytest.mark.parametrize(("mode", "expected"), [("off", []), ("warn", ["at risk"]), ("pause", ["at risk", "suspended"])])
def test_the_mode_determines_the_action(mode: GuardMode, expected: list[str]) -> None:
    """The guard does nothing, warns, or warns and suspends."""
    deps = a_guard(mode)
    guard([bounce()], deps)
    assert events_of(deps) == expected
    providers: Any = deps.providers
    assert [tenant for tenant, _ in providers.suspended] == (["acme"] if mode == "pause" else [])


def test_a_tenant_is_suspended_once() -> None:
    """Redelivered and later bounces do not suspend it again."""
    deps = a_guard("pause")
    for _ in range(3):
        guard([bounce(), bounce()], deps)
    assert events_of(deps) == ["at risk", "suspended"]


def test_few_mails_do_not_suspend_at_any_bounce_rate() -> None:
    """Neither one bounce of thirteen nor thirteen of thirteen suspends."""
    for bounced in (1, 13):
        deps = a_guard("pause", acme={NOON: Counts(sent=13, bounced=bounced)})
        guard([bounce()], deps)
        assert events_of(deps) == []


@pytest.mark.parametrize(
    "write",
    [
        RecordWrite("1", None, a_delivery("r1", Status.SENT, sent_at=NOON)),
        RecordWrite("1", a_delivery("r1"), a_delivery("r1", Status.FAILED)),
        bounce(delivered=1),
        bounce(soft_bounced=1),
    ],
)
def test_only_bounces_and_complaints_are_judged(write: RecordWrite) -> None:
    """Sends and deliveries cause no read."""
    deps = a_guard("pause")
    guard([write], deps)
    assert events_of(deps) == []
    assert received_badly([(write.old, write.new)]) == {}


def test_a_bounce_of_old_mail_causes_no_read() -> None:
    """It is not judged; with a bounce of today, only today and the day before are read."""
    deps = a_guard("pause", acme={NOON: Counts(sent=200, bounced=30)})
    fake: Any = deps.statistics
    old = bounce()
    late = replace(old, old=old.old and replace(old.old, sent_at=NOON - 500 * HOUR), new=replace(old.new, sent_at=NOON - 500 * HOUR))
    guard([late], deps)
    assert (fake.reads, events_of(deps)) == ([], [])
    guard([late, bounce()], deps)
    assert fake.reads == [(NOON - 23 * HOUR, NOW + HOUR)]
    assert events_of(deps) == ["at risk", "suspended"]


def test_a_complaint_is_judged_too() -> None:
    """It counts in the hour in which its mail was sent."""
    deps = a_guard("pause", acme={NOON: Counts(sent=1000, complained=10)})
    guard([bounce(complained=1)], deps)
    assert events_of(deps) == ["at risk", "at risk", "suspended"]


def test_a_failure_for_one_tenant_does_not_stop_others() -> None:
    """It is reported with its tenant; the tenant's next bounce is judged again."""
    deps = a_guard("pause")
    failing: Any = deps.statistics
    failing.failure = DependencyError("DynamoDB", "Query")
    guard([bounce(), bounce("globex")], deps)
    assert events_of(deps) == ["failed", "at risk", "suspended"]
    failing.failure = None
    guard([bounce()], deps)
    assert events_of(deps)[3:] == ["at risk", "suspended"]


@pytest.mark.parametrize("status", [ProviderStatus.DISABLED, ProviderStatus.SUSPENDED, ProviderStatus.DELETED])
def test_an_inactive_tenant_is_not_judged(status: ProviderStatus) -> None:
    """There is no warning either: bounces of earlier mail may still arrive."""
    deps = a_guard("pause", a_provider(status=status))
    guard([bounce()], deps)
    assert events_of(deps) == []


def test_a_resumed_tenant_is_not_suspended_for_the_same_mail() -> None:
    """Late bounces of that mail may still arrive."""
    deps = a_guard("pause", a_provider(resumption=Resumption("sam", "mended", NOON + timedelta(minutes=10))))
    guard([bounce()], deps)
    assert events_of(deps) == []


def test_a_resumed_tenant_is_suspended_for_later_mail() -> None:
    """This is so in the same hour too."""
    row = a_provider(resumption=resumed(NOON + timedelta(minutes=10), Counts(sent=200, bounced=30)))
    deps = a_guard("pause", row, acme={NOON: Counts(sent=400, bounced=60)})
    guard([bounce()], deps)
    assert events_of(deps) == ["at risk", "suspended"]


def test_a_concurrent_resumption_is_not_overwritten() -> None:
    """The tenant was resumed after the row was read: the suspension would be for mail before the resumption."""
    deps = a_guard("pause")
    providers: Any = deps.providers
    row_before = providers.rows["acme"]
    providers.rows["acme"] = replace(row_before, resumption=Resumption("sam", "mended", NOW))
    assert not deps.providers.suspend_at_risk("acme", ErrorInfo("reputation_at_risk", "x"), row_before)


def test_an_erased_or_unchanged_record_is_not_judged() -> None:
    """Only a count that rises is judged."""
    record: Delivery = bounce().new
    assert received_badly([(record, record)]) == {}
    assert received_badly([(record, replace(record, feedback=None))]) == {}
    assert Counts() == NOTHING
