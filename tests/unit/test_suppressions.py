"""Which reports of SES suppress an address, and the life cycle of a suppression."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.domain.addresses import AddressError, ascii_address
from mailer.domain.suppressions import (
    LIFTING_KEPT,
    MOST_SOFT_BOUNCES,
    SOFT_BOUNCES,
    SOFT_BOUNCES_KEPT,
    SUPPRESSED_BY_SES,
    Entry,
    Lifting,
    Reason,
    Report,
    Suppression,
    Verdict,
    digest,
    judge,
    lift,
    suppress_manually,
    suppression_key,
    verdict_of,
)
from support.fakes.ports import NOON

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BLANK = Entry(tenant_id="acme", email="jo@example.com")


def a_report(kind: Any = "bounce", *, request_id: str = "r1", at: datetime = NOON, **fields: Any) -> Report:
    return Report(kind=kind, request_id=request_id, at=at, **fields)


def hard(**fields: Any) -> Report:
    return a_report(**{"type": "Permanent", "subtype": "General", "status": "5.1.1", **fields})


def soft(request_id: str = "r1", at: datetime = NOON) -> Report:
    return a_report(type="Transient", subtype="MailboxFull", status="4.2.2", request_id=request_id, at=at)


def delivery(at: datetime, request_id: str = "r1") -> Report:
    return a_report("delivery", at=at, request_id=request_id)


def after(*reports: Report, entry: Entry = BLANK) -> Entry:
    for report in reports:
        entry = judge(entry, report)
    return entry


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        # kind, type, subtype, status
        (("bounce", "Permanent", "General", "5.1.1"), Verdict.HARD),
        (("bounce", "Permanent", "NoEmail", ""), Verdict.HARD),
        (("bounce", "Permanent", "SomethingNew", "5.7.1"), Verdict.HARD),
        (("bounce", "Permanent", "Suppressed", "5.1.1"), Verdict.HARD_FOR_A_TIME),
        (("bounce", "Permanent", "OnAccountSuppressionList", "5.1.1"), Verdict.SES_LIST),
        (("bounce", "Transient", "General", "5.1.1"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.1.0"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.1.6"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.1.10"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.1.59"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.1.5"), Verdict.SOFT),
        (("bounce", "Transient", "General", "5.1.9"), Verdict.SOFT),
        (("bounce", "Transient", "General", "5.1.7"), Verdict.NOTHING),
        (("bounce", "Transient", "General", "5.1.8"), Verdict.NOTHING),
        (("bounce", "Permanent", "General", "5.1.7"), Verdict.NOTHING),
        (("bounce", "Permanent", "General", "5.1.8"), Verdict.NOTHING),
        (("bounce", "Permanent", "General", "5.1.80"), Verdict.HARD),
        (("bounce", "Undetermined", "Undetermined", "5.1.8"), Verdict.NOTHING),
        (("bounce", "Permanent", "General", "5.7.26"), Verdict.NOTHING),
        (("bounce", "Transient", "General", "5.7.20"), Verdict.NOTHING),
        (("bounce", "Permanent", "General", "5.7.30"), Verdict.HARD),
        (("bounce", "Permanent", "OnAccountSuppressionList", "5.1.8"), Verdict.SES_LIST),
        (("bounce", "Transient", "General", "5.2.3"), Verdict.NOTHING),
        (("bounce", "Transient", "SomethingNew", "5.3.4"), Verdict.NOTHING),
        (("bounce", "Transient", "General", "5.6.1"), Verdict.NOTHING),
        (("bounce", "Transient", "General", "5.2.30"), Verdict.SOFT),
        (("bounce", "Permanent", "General", "5.6.1"), Verdict.HARD),
        (("bounce", "Transient", "MailboxFull", "5.1.2"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.4.4"), Verdict.HARD),
        (("bounce", "Transient", "General", "5.4.40"), Verdict.SOFT),
        (("bounce", "Transient", "MailboxFull", "4.2.2"), Verdict.SOFT),
        (("bounce", "Transient", "MailboxFull", ""), Verdict.SOFT),
        (("bounce", "Transient", "General", "4.0.0"), Verdict.SOFT),
        (("bounce", "Transient", "General", "5.7.1"), Verdict.SOFT),
        (("bounce", "Transient", "SomethingNew", "5.2.1"), Verdict.SOFT),
        (("bounce", "Transient", "CustomTimeoutExceeded", "4.4.7"), Verdict.SOFT),
        (("bounce", "Transient", "SomethingNew", "4.4.1"), Verdict.NOTHING),
        (("bounce", "Transient", "SomethingNew", ""), Verdict.NOTHING),
        (("bounce", "Transient", "MessageTooLarge", "5.3.4"), Verdict.NOTHING),
        (("bounce", "Transient", "ContentRejected", "5.6.0"), Verdict.NOTHING),
        (("bounce", "Transient", "AttachmentRejected", "5.1.1"), Verdict.NOTHING),
        (("bounce", "Undetermined", "Undetermined", ""), Verdict.SOFT),
        (("complaint", "abuse", "", ""), Verdict.COMPLAINT),
        (("complaint", "", "", ""), Verdict.COMPLAINT),
        (("complaint", "not-spam", "", ""), Verdict.NOTHING),
        (("complaint", "abuse", "OnAccountSuppressionList", ""), Verdict.SES_LIST),
        (("delivery", "", "", ""), Verdict.DELIVERED),
    ],
)
def test_each_report_has_its_verdict(report: Sequence[str], verdict: Verdict) -> None:
    """SES's classification may be wrong: the status counts besides type and subtype."""
    kind, kind_of, subtype, status = report
    assert verdict_of(a_report(kind, type=kind_of, subtype=subtype, status=status)) is verdict


def test_an_out_of_office_reply_is_not_a_bounce() -> None:
    """It is a transient bounce without a delivery status notification; one with a notification counts."""
    reply = a_report(type="Transient", subtype="General", has_dsn=False)
    assert verdict_of(reply) is Verdict.NOTHING
    assert verdict_of(replace(reply, has_dsn=True)) is Verdict.SOFT
    assert judge(BLANK, reply) is BLANK


# ── hard bounces, complaints ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hard_bounce_suppresses_without_an_expiry() -> None:
    """One is enough, and the suppression has its request."""
    s = after(hard(request_id="r7")).suppression
    assert s == Suppression(reason=Reason.HARD_BOUNCE, at=NOON, request_id="r7")
    assert after(hard()).in_force(NOON + 3650 * DAY) is not None


def test_an_address_on_ses_s_own_list_is_suppressed_for_14_days() -> None:
    """SES removes it then; the expiry is exact."""
    entry = after(hard(subtype="Suppressed"))
    assert entry.suppression is not None
    assert entry.suppression.reason is Reason.HARD_BOUNCE
    assert entry.in_force(NOON + SUPPRESSED_BY_SES - MINUTE) is not None
    assert entry.in_force(NOON + SUPPRESSED_BY_SES) is None
    assert entry.forget_at == NOON + timedelta(days=14)


def test_an_address_on_the_account_s_list_has_its_own_reason() -> None:
    """A lift of it needs a call of SES too."""
    s = after(hard(subtype="OnAccountSuppressionList")).suppression
    assert s is not None
    assert (s.reason, s.expires_at) == (Reason.SES_LIST, None)


def test_a_complaint_with_several_recipients_is_marked_as_uncertain() -> None:
    """SES names all recipients at the domain."""
    for shared in (True, False):
        s = after(a_report("complaint", type="abuse", is_one_of_several=shared)).suppression
        assert s is not None
        assert (s.reason, s.may_have_complained) == (Reason.COMPLAINT, shared)


def test_a_bounce_with_several_recipients_is_certain() -> None:
    """Only complaints are ambiguous."""
    s = after(hard(is_one_of_several=True)).suppression
    assert s is not None
    assert not s.may_have_complained


# ── soft bounces ────────────────────────────────────────────────────────────────────────────────────────────────────────


def softs(count: int, *, start: datetime = NOON) -> list[Report]:
    return [soft(f"r{n}", start + n * DAY) for n in range(count)]


def test_soft_bounces_of_five_distinct_requests_suppress() -> None:
    """Four do not, and the same request counts once."""
    four = after(*softs(SOFT_BOUNCES - 1))
    assert four.suppression is None
    assert after(soft("r0", NOON + 30 * DAY), entry=four).suppression is None
    s = after(soft("r9", NOON + 9 * DAY), entry=four).suppression
    assert s == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 9 * DAY, request_id="r9")


def test_a_delivery_clears_earlier_soft_bounces() -> None:
    """Only bounces before it are cleared."""
    four = after(*softs(SOFT_BOUNCES - 1))
    cleared = after(delivery(NOON + 20 * DAY), entry=four)
    assert cleared.soft_bounces == {}
    assert after(*softs(SOFT_BOUNCES - 1, start=NOON + 30 * DAY), entry=cleared).suppression is None
    assert after(*softs(SOFT_BOUNCES, start=NOON + 30 * DAY), entry=cleared).suppression is not None
    assert set(after(delivery(NOON + DAY), entry=four).soft_bounces) == {"r2", "r3"}


def test_a_soft_bounce_from_before_a_known_delivery_does_not_count() -> None:
    """Events may be days late."""
    cleared = after(*softs(2), delivery(NOON + 20 * DAY))
    assert judge(cleared, soft("r9", NOON + 10 * DAY)) is cleared


def test_an_earlier_delivery_changes_nothing() -> None:
    """A later delivery is known."""
    cleared = after(*softs(2), delivery(NOON + 20 * DAY), soft("r9", NOON + 30 * DAY))
    assert judge(cleared, delivery(NOON + 19 * DAY)) is cleared


def test_a_delivery_of_an_address_without_counts_writes_nothing() -> None:
    """Most deliveries are of that kind."""
    assert judge(BLANK, delivery(NOON)) is BLANK


def test_a_later_delivery_does_not_lift_a_suppression() -> None:
    """A mail in flight may still arrive."""
    entry = after(*softs(SOFT_BOUNCES), delivery(NOON + 50 * DAY))
    assert entry.in_force(NOON + 51 * DAY) is not None


def test_a_late_event_of_an_earlier_delivery_lifts_the_suppression() -> None:
    """By the times of the events there were never five soft bounces without a delivery between."""
    entry = after(*softs(SOFT_BOUNCES), delivery(NOON + 2.5 * DAY))
    assert entry.suppression is None
    assert entry == after(*softs(3), delivery(NOON + 2.5 * DAY), *softs(SOFT_BOUNCES)[3:])


def test_a_late_delivery_keeps_other_suppressions() -> None:
    """Others are a manual suppression, or enough soft bounces after it."""
    manual = suppress_manually(after(*softs(SOFT_BOUNCES)), MANUAL, NOON + 9 * DAY)
    assert after(delivery(NOON + DAY), entry=manual).suppression == MANUAL
    assert after(delivery(NOON + DAY), entry=manual).by_ses is None
    six_more = after(*softs(SOFT_BOUNCES + 3), delivery(NOON + 2.5 * DAY))
    assert six_more.suppression == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 7 * DAY, request_id="r7")
    assert after(*softs(SOFT_BOUNCES), hard(at=NOON), delivery(NOON + DAY)).in_force(NOON + DAY) is not None


MANUAL = Suppression(reason=Reason.MANUAL, at=NOON + DAY, by="arn:caller", why="asked by phone")
ENDING = hard(at=NOON, subtype="Suppressed")  # for 14 days
UNTIL = replace(MANUAL, at=NOON, expires_at=NOON + 30 * DAY)


@pytest.mark.parametrize("first", [0, 3, SOFT_BOUNCES])
def test_a_suppression_with_an_expiry_is_restored_by_a_late_delivery(first: int) -> None:
    """It may have come before, between or after the soft bounces that had replaced it."""
    before, later, late = softs(SOFT_BOUNCES)[:first], softs(SOFT_BOUNCES)[first:], delivery(NOON + 2.5 * DAY)
    by_ses = after(*before, ENDING, *later, late)
    assert by_ses.suppression == after(ENDING).suppression
    entry_before = suppress_manually(after(*before), UNTIL, NOON)
    assert after(*later, entry=entry_before).suppression == after(*softs(SOFT_BOUNCES)).suppression
    assert after(*later, late, entry=entry_before).suppression == UNTIL
    both = after(*later, late, entry=suppress_manually(after(*before, ENDING), UNTIL, NOON))
    assert (both.suppression, both.by_ses, both.shorter) == (UNTIL, after(ENDING).suppression, ())


def test_a_suppression_with_an_expiry_is_restored_beneath_a_manual_one() -> None:
    """Soft bounces had replaced it there too."""
    entry_before = suppress_manually(after(ENDING), MANUAL, NOON)
    entry = after(*softs(SOFT_BOUNCES), delivery(NOON + 2.5 * DAY), entry=entry_before)
    assert (entry.suppression, entry.by_ses) == (MANUAL, after(ENDING).suppression)


def test_beneath_soft_bounces_a_later_manual_suppression_replaces_an_earlier_one() -> None:
    """This is the same as without soft bounces."""
    shorter = replace(UNTIL, expires_at=NOON + DAY)
    entry = suppress_manually(suppress_manually(after(*softs(SOFT_BOUNCES)), UNTIL, NOON), shorter, NOON)
    assert entry.shorter == (shorter,)
    assert after(delivery(NOON + 2.5 * DAY), entry=entry).suppression == shorter


def test_a_late_delivery_does_not_restore_a_replaced_manual_suppression() -> None:
    """Soft bounces covered the earlier one, with an end; the later one has none and is above them."""
    covered = after(*softs(SOFT_BOUNCES), entry=suppress_manually(BLANK, UNTIL, NOON))
    entry = suppress_manually(covered, MANUAL, NOON + 9 * DAY)
    assert after(delivery(NOON + 2.5 * DAY), entry=entry).suppression == MANUAL


def test_a_lift_removes_covered_suppressions_too() -> None:
    """None of them is restored later."""
    entry = suppress_manually(after(*softs(SOFT_BOUNCES), ENDING), UNTIL, NOON)
    assert len(entry.shorter) == 2
    lifted = lift(entry, Lifting(NOON + 9 * DAY, None, None))
    assert (lifted.suppression, lifted.shorter) == (None, ())


def test_a_hard_bounce_removes_covered_suppressions() -> None:
    """It has no expiry and cannot be undone by a delivery."""
    entry = after(hard(at=NOON), entry=suppress_manually(after(*softs(SOFT_BOUNCES)), UNTIL, NOON))
    assert (entry.suppression and entry.suppression.reason, entry.shorter) == (Reason.HARD_BOUNCE, ())


@given(st.permutations(softs(SOFT_BOUNCES + 2)))
def test_soft_bounces_count_by_event_time(shuffled: list[Report]) -> None:
    """The fifth suppresses, in any order of processing."""
    assert after(*shuffled) == after(*softs(SOFT_BOUNCES + 2))
    assert after(*shuffled).suppression == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 4 * DAY, request_id="r4")


@given(st.permutations([*softs(4), *softs(8)[4:], delivery(NOON + 3.5 * DAY), delivery(NOON + 1.5 * DAY)]))
def test_deliveries_count_by_event_time_once_all_soft_bounces_are_known(shuffled: list[Report]) -> None:
    """Repeated after all other events, they give the same count for any order."""
    deliveries = [delivery(NOON + 3.5 * DAY), delivery(NOON + 1.5 * DAY)]
    assert set(after(*shuffled, *deliveries).soft_bounces) == {"r4", "r5", "r6", "r7"}
    assert after(*shuffled, *deliveries).suppression is None


def test_a_delivery_that_is_processed_before_any_soft_bounce_is_not_stored() -> None:
    """Storing each delivery would cost a write per mail; the next delivery clears the count."""
    counted = after(delivery(NOON + 20 * DAY), soft("r0", NOON))
    assert set(counted.soft_bounces) == {"r0"}
    assert after(delivery(NOON + 21 * DAY), entry=counted).soft_bounces == {}


def test_the_number_of_stored_soft_bounces_is_limited() -> None:
    """The stored ones are enough to suppress."""
    many = after(*softs(MOST_SOFT_BOUNCES + 3))
    assert len(many.soft_bounces) == MOST_SOFT_BOUNCES
    assert after(soft("late", NOON + 99 * DAY), entry=many) is many
    assert "early" in after(soft("early", NOON - DAY), entry=many).soft_bounces


def test_a_suppression_without_stored_soft_bounces_is_kept() -> None:
    """An earlier version did not store them, so nothing can show that it was wrong."""
    by_ses = Suppression(reason=Reason.SOFT_BOUNCES, at=NOON, request_id="r4")
    entry = after(soft("r5", NOON + DAY), delivery(NOON + 2 * DAY), entry=replace(BLANK, suppression=by_ses))
    assert entry.suppression == by_ses


def test_soft_bounces_after_a_lift_are_counted_anew() -> None:
    """Those before the lift do not count."""
    lifted = lift(after(*softs(2 * SOFT_BOUNCES)), Lifting(NOON + 4.5 * DAY, None, None))
    assert lifted.suppression == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 9 * DAY, request_id="r9")
    assert lift(after(*softs(2 * SOFT_BOUNCES - 1)), Lifting(NOON + 4.5 * DAY, None, None)).suppression is None


# ── in any order, any number of times ───────────────────────────────────────────────────────────────────────────────────


def test_reports_in_any_order_have_the_same_result() -> None:
    """EventBridge does not keep the order."""
    reports = [
        hard(request_id="r1", at=NOON + DAY),
        hard(request_id="r2", at=NOON, subtype="Suppressed"),
        a_report("complaint", type="abuse", request_id="r3", at=NOON + 2 * DAY),
        a_report("complaint", type="abuse", request_id="r4", at=NOON, is_one_of_several=True),
        soft("r5", NOON + 3 * DAY),
    ]
    results = {after(*order).suppression for order in permutations(reports)}
    assert results == {Suppression(reason=Reason.COMPLAINT, at=NOON + 2 * DAY, request_id="r3")}


@pytest.mark.parametrize("report", [hard(), hard(subtype="Suppressed"), soft(), a_report("complaint"), delivery(NOON + DAY)])
def test_a_duplicate_report_changes_nothing(report: Report) -> None:
    """SQS and SES duplicate events."""
    entry = after(soft("r0"), report)
    assert judge(entry, report) is entry


def test_a_longer_suppression_is_not_replaced_by_a_shorter_one() -> None:
    """A bounce with 14 days must not replace one without an expiry, or a complaint."""
    for first in (hard(), a_report("complaint")):
        assert after(first, hard(subtype="Suppressed", at=NOON + DAY)).suppression == after(first).suppression


def test_an_expired_suppression_is_replaced() -> None:
    """A mailbox may still be full after SES's own list has forgotten it."""
    entry = after(hard(subtype="Suppressed"), *softs(SOFT_BOUNCES, start=NOON + 20 * DAY))
    assert entry.suppression is not None
    assert entry.suppression.reason is Reason.SOFT_BOUNCES


# ── manual suppressions ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manual_suppression_is_replaced_by_a_later_one() -> None:
    """The later one may expire earlier."""
    entry = suppress_manually(BLANK, MANUAL, NOON + DAY)
    shorter = replace(MANUAL, expires_at=NOON + 3 * DAY, why="until Friday")
    assert entry.suppression == MANUAL
    assert suppress_manually(entry, shorter, NOON + DAY).suppression == shorter


@pytest.mark.parametrize("reason", [Reason.HARD_BOUNCE, Reason.COMPLAINT, Reason.SES_LIST])
def test_a_manual_suppression_does_not_weaken_one_by_ses(reason: Reason) -> None:
    """An expiry by PUT must not allow mail to a bounced address."""
    entry = replace(BLANK, suppression=Suppression(reason=reason, at=NOON))
    assert suppress_manually(entry, replace(MANUAL, expires_at=NOON + 2 * DAY), NOON + DAY) is entry
    assert suppress_manually(entry, MANUAL, NOON + DAY) is entry


def test_a_manual_suppression_without_an_expiry_replaces_one_with_an_expiry() -> None:
    """It lasts longer."""
    entry = after(hard(subtype="Suppressed"))
    assert suppress_manually(entry, MANUAL, NOON + DAY).suppression == MANUAL


@pytest.mark.parametrize("reports", [[hard(subtype="Suppressed")], softs(SOFT_BOUNCES)])
def test_two_manual_suppressions_do_not_shorten_one_by_ses(reports: Sequence[Report]) -> None:
    """After the second one expires, that of SES is still in effect."""
    before = after(*reports)
    now = NOON + 5 * DAY
    entry = suppress_manually(before, replace(MANUAL, at=now), now)
    assert entry.suppression == replace(MANUAL, at=now)
    entry = suppress_manually(entry, replace(MANUAL, at=now, expires_at=now + DAY), now)
    assert (entry.suppression, entry.by_ses) == (before.suppression, None)


def test_a_suppression_by_ses_is_in_effect_after_a_manual_one_expires() -> None:
    """A weaker report is stored beneath the manual suppression."""
    now = NOON + DAY
    entry = after(hard(subtype="Suppressed", at=now), entry=suppress_manually(BLANK, MANUAL, NOON))
    assert entry.suppression == MANUAL
    assert suppress_manually(entry, replace(MANUAL, expires_at=now + MINUTE), now).in_force(now + 13 * DAY) is not None


def test_a_manual_suppression_keeps_soft_bounces() -> None:
    """Otherwise a manual suppression of a minute would reset the count."""
    entry = suppress_manually(
        after(*softs(SOFT_BOUNCES - 1)), replace(MANUAL, at=NOON + 4 * DAY, expires_at=NOON + 5 * DAY), NOON + 4 * DAY
    )
    assert after(soft("r9", NOON + 4 * DAY), entry=entry).in_force(NOON + 6 * DAY) is not None


def test_a_manual_suppression_replaces_any_expired_one() -> None:
    """An expired one has no priority."""
    entry = after(hard(subtype="Suppressed"))
    later = NOON + SUPPRESSED_BY_SES + DAY
    assert suppress_manually(entry, replace(MANUAL, expires_at=later + DAY), later).suppression is not entry.suppression


def test_a_hard_bounce_outlasts_a_manual_suppression_with_an_expiry() -> None:
    """Otherwise the address would be mailed again after the expiry."""
    entry = suppress_manually(BLANK, replace(MANUAL, expires_at=NOON + 3 * DAY), NOON)
    assert after(hard(at=NOON + 2 * DAY), entry=entry).in_force(NOON + 10 * DAY) is not None


MOMENTS = st.integers(0, 60).map(lambda days: NOON + days * DAY)
REQUESTS = st.sampled_from([f"r{n}" for n in range(7)])
REPORTS = st.one_of(
    st.builds(soft, REQUESTS, MOMENTS),
    st.builds(lambda r, at: hard(request_id=r, at=at), REQUESTS, MOMENTS),
    st.builds(lambda r, at: hard(request_id=r, at=at, subtype="Suppressed"), REQUESTS, MOMENTS),
    st.builds(lambda r, at: a_report("complaint", request_id=r, at=at), REQUESTS, MOMENTS),
    st.builds(delivery, MOMENTS, REQUESTS),
)
MANUAL_SUPPRESSIONS = st.builds(
    lambda at, days: replace(MANUAL, at=at, expires_at=days and at + days * DAY), MOMENTS, st.none() | st.integers(1, 30)
)


@given(st.lists(st.one_of(REPORTS, MANUAL_SUPPRESSIONS), max_size=12))
def test_manual_suppressions_never_shorten_those_of_ses(changes: Sequence[Report | Suppression]) -> None:
    """Only DELETE lifts: an address is suppressed at every moment at which it would be without manual suppressions."""
    with_manual, only_reports = BLANK, BLANK
    for change in changes:
        if isinstance(change, Report):
            with_manual, only_reports = judge(with_manual, change), judge(only_reports, change)
        else:
            with_manual = suppress_manually(with_manual, change, change.at)
    assert with_manual.strongest_by_ses == only_reports.suppression
    assert with_manual.soft_bounces == only_reports.soft_bounces
    moments = [NOON + days * DAY for days in range(120)]
    assert [m for m in moments if only_reports.in_force(m) and not with_manual.in_force(m)] == []


# ── lifting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LIFTING = Lifting(NOON + 2 * DAY, "arn:caller", "mailbox is back")


def test_a_lifted_address_stays_lifted_after_late_events() -> None:
    """An event may be days late, and come eight times."""
    entry = lift(after(hard(), *softs(2)), LIFTING)
    assert entry.in_force(NOON + 3 * DAY) is None
    assert entry.soft_bounces == {}
    assert judge(entry, hard()) is entry
    assert judge(entry, hard(at=LIFTING.at)) is entry


def test_events_during_a_lift_are_kept() -> None:
    """The call of SES takes seconds; the lift applies to the time before it."""
    meanwhile = after(hard(at=LIFTING.at + MINUTE), soft("r9", LIFTING.at + MINUTE))
    entry = lift(meanwhile, LIFTING)
    assert entry.suppression == meanwhile.suppression
    assert entry.soft_bounces == meanwhile.soft_bounces
    assert entry.lifted == LIFTING


@pytest.mark.parametrize("later", ["manual", "by SES"])
def test_suppressions_after_the_lift_are_kept(later: str) -> None:
    """A manual suppression and one by SES are lifted by their own times."""
    manual = replace(MANUAL, at=LIFTING.at + MINUTE if later == "manual" else NOON)
    by_ses = hard(subtype="Suppressed", at=LIFTING.at + MINUTE if later == "by SES" else NOON)
    entry = lift(after(by_ses, entry=suppress_manually(BLANK, manual, manual.at)), LIFTING)
    assert entry.by_ses is None
    assert entry.suppression == (manual if later == "manual" else after(by_ses).suppression)


def test_a_bounce_after_the_lift_suppresses_again() -> None:
    """The lift was premature."""
    entry = after(hard(at=LIFTING.at + MINUTE), entry=lift(after(hard()), LIFTING))
    assert entry.in_force(LIFTING.at + DAY) is not None


def test_an_entry_expires_when_no_part_of_it_is_needed() -> None:
    """A suppression without an expiry does not expire; a lift is kept longer than late events may arrive."""
    assert after(hard()).forget_at is None
    assert after(soft()).forget_at == NOON + SOFT_BOUNCES_KEPT
    assert lift(after(hard()), LIFTING).forget_at == LIFTING.at + LIFTING_KEPT
    assert after(soft(), delivery(NOON + DAY)).forget_at == NOON + DAY + LIFTING_KEPT
    assert after(soft("r2", NOON + DAY), entry=lift(after(hard()), Lifting(NOON, None, None))).forget_at == NOON + DAY + SOFT_BOUNCES_KEPT


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Jo@Example.COM", "jo@example.com"),
        ("jo+news@bücher.example", "jo+news@xn--bcher-kva.example"),
        ("jo@BÜCHER.example", "jo@xn--bcher-kva.example"),
        ("jo@XN--BCHER-KVA.example", "jo@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_listed_form(written: str, key: str) -> None:
    """It is lower-cased with the domain in punycode, so callers' and SES's spellings match."""
    assert suppression_key(written) == key


LOCAL = st.text("abcXYZ0189!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=20)
DOMAIN = st.sampled_from(["example.com", "EXAMPLE.com", "bücher.example", "ΣΊΣΥΦΟΣ.example", "straße.example", "日本語.example"])


@given(LOCAL, DOMAIN)
def test_the_listed_form_is_idempotent_and_ignores_case(local: str, domain: str) -> None:
    """It is ASCII, can be sent as it is, and is the same for every spelling on the wire."""
    key = suppression_key(f"{local}@{domain}")
    wire = ascii_address(f"{local}@{domain}")
    assert key.isascii()
    assert key == key.lower()
    assert suppression_key(key) == suppression_key(wire) == suppression_key(wire.upper()) == suppression_key(wire.lower()) == key
    assert ascii_address(key) == key


@pytest.mark.parametrize(
    "text", ["", "jo", "jo@", "@example.com", "jo@localhost", '"jo ann"@example.com', "jö@example.com", "jo@192.0.2.1"]
)
def test_an_invalid_address_is_refused_and_not_shown(text: str) -> None:
    """SES's events may contain any text as an address."""
    with pytest.raises(AddressError) as refusal:
        suppression_key(text)
    assert not text.strip("@") or text not in str(refusal.value)


def test_the_digest_is_the_sha_256_of_the_listed_form() -> None:
    """Receivers of events can compute it."""
    assert digest("jo@example.com") == "f4e19df2e6c609fbd59a42b9063d0fadf44260218531ea21ad8c575f205c0453"
