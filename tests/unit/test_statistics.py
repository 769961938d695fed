"""The changes of counts by each write of a record, and sums of hours as days."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.domain.delivery import ERASED_CONTENT, Delivery, Status
from mailer.domain.errors import ErrorInfo
from mailer.domain.facts import FeedbackCounts
from mailer.domain.statistics import NOTHING, Bucket, Counts, account_series, by_period, ceil, changed, counted, floor
from support.fakes.ports import NOON, a_delivery

ACCOUNT = {"account": "222222222222", "region": "eu-west-1"}
SERIES = account_series("222222222222", "eu-west-1")
LATER = NOON + timedelta(hours=2, minutes=5)


def sent(recipients: int = 3, *, at: datetime = NOON, **fields: Any) -> Delivery:
    return a_delivery(status=Status.SENT, recipients=recipients, sent_at=at, updated_at=LATER, **fields)


def feedback(**counts: int) -> FeedbackCounts:
    return FeedbackCounts(first_at=NOON, last_at=LATER, rank=sum(counts.values()), **counts)


def of_acme(record: Delivery) -> Counts:
    return counted(record).get(Bucket("acme", NOON), NOTHING)


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (sent(), Counts(sent=3)),
        (sent(suppressed=1), Counts(sent=2, suppressed=1)),
        (sent(feedback=feedback(delivered=2, bounced=1)), Counts(sent=3, delivered=2, bounced=1)),
        (sent(feedback=feedback(soft_bounced=1, complained=1, delayed=1)), Counts(sent=3, soft_bounced=1, complained=1)),
        (sent(feedback=feedback(rejected=3)), Counts(sent=3)),
        (sent(feedback=feedback(bounced=2, bounced_unsent=1)), Counts(sent=3, bounced=1)),  # like SES's rates, which leave them out
        (sent(feedback=feedback(complained=2, complained_unsent=2)), Counts(sent=3)),
        (a_delivery(status=Status.FAILED, recipients=3), Counts(failed=3)),
        (a_delivery(status=Status.FAILED, recipients=3, suppressed=1), Counts(failed=2, suppressed=1)),
        (a_delivery(status=Status.FAILED, recipients=3, error=ErrorInfo("recipient_suppressed", "all")), Counts(suppressed=3)),
        (a_delivery(status=Status.UNKNOWN, recipients=3, suppressed=1), Counts(unknown=2, suppressed=1)),
        (a_delivery(status=Status.UNKNOWN, recipients=3, on_unknown="resend"), Counts(unknown=3)),
        (a_delivery(status=Status.CANCELLED), NOTHING),
        (a_delivery(status=Status.QUEUED), NOTHING),
        (a_delivery(status=Status.DEFERRED), NOTHING),
        (a_delivery(status=Status.SENDING, recipients=3, suppressed=1), NOTHING),
    ],
)
def test_each_recipient_is_counted_by_outcome(record: Delivery, counts: Counts) -> None:
    """Each counts once as sent, failed, unknown or suppressed; sent ones once more by SES's events."""
    assert of_acme(record) == counts


def test_mail_is_counted_in_the_hour_of_sending() -> None:
    """Later events count in that hour too; unsent mail counts in the hour of its end."""
    late = sent(at=NOON + timedelta(minutes=59, seconds=59), feedback=feedback(complained=1))
    assert set(counted(late)) == {Bucket("acme", NOON)}
    failed = a_delivery(status=Status.FAILED, updated_at=LATER)
    assert set(counted(failed)) == {Bucket("acme", NOON + timedelta(hours=2))}


def test_the_account_is_counted_besides_the_tenant() -> None:
    """Each region of an account is counted separately; mail without an account counts only for the tenant."""
    assert set(counted(sent(**ACCOUNT))) == {Bucket("acme", NOON), Bucket(SERIES, NOON)}
    assert set(counted(sent(account="222222222222"))) == {Bucket("acme", NOON)}


def test_feedback_adds_only_its_difference() -> None:
    """The mail is not counted again; a recipient with a delivery and then a complaint moves from one count to the other."""
    first, then = sent(feedback=feedback(delivered=2)), sent(feedback=feedback(delivered=1, complained=1))
    assert changed(sent(), first) == {Bucket("acme", NOON): Counts(delivered=2)}
    assert changed(first, then) == {Bucket("acme", NOON): Counts(delivered=-1, complained=1)}
    assert changed(first, first) == {}


def test_an_unknown_that_is_proven_sent_moves_to_sent() -> None:
    """It moves from the hour of the unknown to the hour of the acceptance, and to its account."""
    lost = a_delivery(status=Status.UNKNOWN, updated_at=LATER)
    assert changed(lost, sent(1, **ACCOUNT)) == {
        Bucket("acme", NOON + timedelta(hours=2)): Counts(unknown=-1),
        Bucket("acme", NOON): Counts(sent=1),
        Bucket(SERIES, NOON): Counts(sent=1),
    }
    assert changed(lost, a_delivery(status=Status.QUEUED)) == {Bucket("acme", NOON + timedelta(hours=2)): Counts(unknown=-1)}


def test_an_erased_request_stays_counted() -> None:
    """The erased record has no recipients, and the counts have no personal data."""
    assert changed(sent(), replace(sent(recipients=0), content_hash=ERASED_CONTENT)) == {}


RECORDS = st.builds(
    a_delivery,
    status=st.sampled_from(Status),
    recipients=st.integers(1, 50),
    suppressed=st.integers(0, 50),
    updated_at=st.sampled_from([NOON, LATER]),
    sent_at=st.sampled_from([None, NOON, LATER]),
    account=st.sampled_from([None, "111111111111", "222222222222"]),
    region=st.sampled_from([None, "eu-west-1"]),
    feedback=st.none() | st.builds(feedback, delivered=st.integers(0, 9), bounced=st.integers(0, 9), complained=st.integers(0, 9)),
)


@given(history=st.lists(RECORDS, min_size=1, max_size=8), order=st.randoms())
def test_all_writes_together_count_the_last_state(history: Sequence[Delivery], order: Any) -> None:
    """This holds for any history, and any order of the writes."""
    writes = list(zip([None, *history], history, strict=False))
    order.shuffle(writes)
    sums: dict[Bucket, Counts] = {}
    for old, new in writes:
        for bucket, counts in changed(old, new).items():
            sums[bucket] = sums.get(bucket, NOTHING) + counts
    assert {bucket: counts for bucket, counts in sums.items() if counts} == counted(history[-1])


def test_hours_add_up_to_days_of_utc() -> None:
    """The result has every day of the range, also without mail, nothing outside it, and no negative counts."""
    day = floor(NOON, "day")
    hours: Mapping[datetime, Counts] = {
        day - timedelta(hours=1): Counts(sent=100),
        day: Counts(sent=1),
        day + timedelta(hours=23): Counts(sent=2, unknown=-1),
        day + timedelta(days=2): Counts(sent=4),
    }
    days = by_period(hours, day, day + timedelta(days=2), "day")
    assert days == {day: Counts(sent=3), day + timedelta(days=1): NOTHING}


@pytest.mark.parametrize(
    ("moment", "begin", "end"),
    [
        (NOON, NOON, NOON),
        (NOON + timedelta(minutes=1), NOON, NOON + timedelta(hours=1)),
        (datetime(2026, 11, 24, 17, 45, tzinfo=timezone(timedelta(hours=5, minutes=30))), NOON, NOON + timedelta(hours=1)),
    ],
)
def test_hours_are_those_of_utc(moment: datetime, begin: datetime, end: datetime) -> None:
    """This is so also for time zones with half hours."""
    assert (floor(moment), ceil(moment)) == (begin, end)
    assert floor(moment, "day") == datetime(2026, 11, 24, tzinfo=UTC)
    assert ceil(moment, "day") == datetime(2026, 11, 25, tzinfo=UTC)
