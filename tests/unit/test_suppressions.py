"""Which report of SES suppresses an address, and what a suppression goes through."""

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
    """SES classifies badly at times: the status counts beside type and subtype."""
    kind, kind_of, subtype, status = report
    assert verdict_of(a_report(kind, type=kind_of, subtype=subtype, status=status)) is verdict


def test_an_out_of_office_reply_is_no_bounce() -> None:
    """It comes as a transient bounce without a delivery status notification; one with a notification counts."""
    reply = a_report(type="Transient", subtype="General", has_dsn=False)
    assert verdict_of(reply) is Verdict.NOTHING
    assert verdict_of(replace(reply, has_dsn=True)) is Verdict.SOFT
    assert judge(BLANK, reply) is BLANK


# ── hard bounces, complaints ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hard_bounce_suppresses_for_good_and_says_which_request() -> None:
    """At once, and with no end."""
    s = after(hard(request_id="r7")).suppression
    assert s == Suppression(reason=Reason.HARD_BOUNCE, at=NOON, request_id="r7")
    assert after(hard()).in_force(NOON + 3650 * DAY) is not None


def test_an_address_on_ses_s_own_list_is_suppressed_for_14_days() -> None:
    """SES forgets it; so do we, to the second."""
    entry = after(hard(subtype="Suppressed"))
    assert entry.suppression is not None
    assert entry.suppression.reason is Reason.HARD_BOUNCE
    assert entry.in_force(NOON + SUPPRESSED_BY_SES - MINUTE) is not None
    assert entry.in_force(NOON + SUPPRESSED_BY_SES) is None
    assert entry.forget_at == NOON + timedelta(days=14)


def test_an_address_on_the_account_s_list_is_marked_so() -> None:
    """Lifting it takes a call to SES too."""
    s = after(hard(subtype="OnAccountSuppressionList")).suppression
    assert s is not None
    assert (s.reason, s.expires_at) == (Reason.SES_LIST, None)


def test_a_complaint_of_one_of_several_recipients_says_that_it_may_be_another_s() -> None:
    """SES names everybody at the domain."""
    for shared in (True, False):
        s = after(a_report("complaint", type="abuse", is_one_of_several=shared)).suppression
        assert s is not None
        assert (s.reason, s.may_have_complained) == (Reason.COMPLAINT, shared)


def test_a_bounce_of_one_of_several_recipients_is_certain() -> None:
    """Only complaints are not told apart."""
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


def test_a_delivery_between_starts_the_count_anew() -> None:
    """Only what bounced before it is forgotten."""
    four = after(*softs(SOFT_BOUNCES - 1))
    cleared = after(delivery(NOON + 20 * DAY), entry=four)
    assert cleared.soft_bounces == {}
    assert after(*softs(SOFT_BOUNCES - 1, start=NOON + 30 * DAY), entry=cleared).suppression is None
    assert after(*softs(SOFT_BOUNCES, start=NOON + 30 * DAY), entry=cleared).suppression is not None
    assert set(after(delivery(NOON + DAY), entry=four).soft_bounces) == {"r2", "r3"}


def test_a_soft_bounce_that_arrives_after_a_later_delivery_does_not_count() -> None:
    """Events are days late at times."""
    cleared = after(*softs(2), delivery(NOON + 20 * DAY))
    assert judge(cleared, soft("r9", NOON + 10 * DAY)) is cleared


def test_an_earlier_delivery_changes_nothing() -> None:
    """It came late, and a later one is known."""
    cleared = after(*softs(2), delivery(NOON + 20 * DAY), soft("r9", NOON + 30 * DAY))
    assert judge(cleared, delivery(NOON + 19 * DAY)) is cleared


def test_a_delivery_of_an_address_that_is_not_counted_writes_nothing() -> None:
    """Most mail is of that kind."""
    assert judge(BLANK, delivery(NOON)) is BLANK


def test_a_delivery_lifts_no_suppression() -> None:
    """A mail that was under way may arrive all the same."""
    entry = after(*softs(SOFT_BOUNCES), delivery(NOON + 50 * DAY))
    assert entry.in_force(NOON + 51 * DAY) is not None


def test_a_delivery_between_that_is_told_late_takes_the_suppression_back() -> None:
    """The fifth soft bounce was processed before it; by the times of the events there were never five without a delivery between."""
    entry = after(*softs(SOFT_BOUNCES), delivery(NOON + 2.5 * DAY))
    assert entry.suppression is None
    assert entry == after(*softs(3), delivery(NOON + 2.5 * DAY), *softs(SOFT_BOUNCES)[3:])


def test_a_late_delivery_leaves_what_else_suppresses() -> None:
    """A caller's word, or more soft bounces after it."""
    word = suppress_manually(after(*softs(SOFT_BOUNCES)), WORD, NOON + 9 * DAY)
    assert after(delivery(NOON + DAY), entry=word).suppression == WORD
    assert after(delivery(NOON + DAY), entry=word).told is None
    six_more = after(*softs(SOFT_BOUNCES + 3), delivery(NOON + 2.5 * DAY))
    assert six_more.suppression == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 7 * DAY, request_id="r7")
    assert after(*softs(SOFT_BOUNCES), hard(at=NOON), delivery(NOON + DAY)).in_force(NOON + DAY) is not None


WORD = Suppression(reason=Reason.MANUAL, at=NOON + DAY, by="arn:caller", why="asked by phone")
ENDING = hard(at=NOON, subtype="Suppressed")  # for 14 days
UNTIL = replace(WORD, at=NOON, expires_at=NOON + 30 * DAY)


@pytest.mark.parametrize("first", [0, 3, SOFT_BOUNCES])
def test_what_ends_stands_again_once_a_late_delivery_takes_back_what_outlasted_it(first: int) -> None:
    """Whenever it came: before the soft bounces, among them or after."""
    before, later, late = softs(SOFT_BOUNCES)[:first], softs(SOFT_BOUNCES)[first:], delivery(NOON + 2.5 * DAY)
    by_ses = after(*before, ENDING, *later, late)
    assert by_ses.suppression == after(ENDING).suppression
    said = suppress_manually(after(*before), UNTIL, NOON)
    assert after(*later, entry=said).suppression == after(*softs(SOFT_BOUNCES)).suppression
    assert after(*later, late, entry=said).suppression == UNTIL
    both = after(*later, late, entry=suppress_manually(after(*before, ENDING), UNTIL, NOON))
    assert (both.suppression, both.told, both.outlasted) == (UNTIL, after(ENDING).suppression, ())


def test_what_ends_stands_again_beneath_a_word_that_does_not_end() -> None:
    """Soft bounces had outlasted it there too."""
    said = suppress_manually(after(ENDING), WORD, NOON)
    entry = after(*softs(SOFT_BOUNCES), delivery(NOON + 2.5 * DAY), entry=said)
    assert (entry.suppression, entry.told) == (WORD, after(ENDING).suppression)


def test_beneath_soft_bounces_a_later_word_replaces_an_earlier_one() -> None:
    """As it does without them."""
    shorter = replace(UNTIL, expires_at=NOON + DAY)
    entry = suppress_manually(suppress_manually(after(*softs(SOFT_BOUNCES)), UNTIL, NOON), shorter, NOON)
    assert entry.outlasted == (shorter,)
    assert after(delivery(NOON + 2.5 * DAY), entry=entry).suppression == shorter


def test_lifting_takes_away_what_stands_beneath_too() -> None:
    """Nothing of it stands again later."""
    entry = suppress_manually(after(*softs(SOFT_BOUNCES), ENDING), UNTIL, NOON)
    assert len(entry.outlasted) == 2
    lifted = lift(entry, Lifting(NOON + 9 * DAY, None, None))
    assert (lifted.suppression, lifted.outlasted) == (None, ())


def test_what_is_stronger_than_soft_bounces_leaves_nothing_beneath() -> None:
    """It has no end, and cannot be taken back."""
    entry = after(hard(at=NOON), entry=suppress_manually(after(*softs(SOFT_BOUNCES)), UNTIL, NOON))
    assert (entry.suppression and entry.suppression.reason, entry.outlasted) == (Reason.HARD_BOUNCE, ())


@given(st.permutations(softs(SOFT_BOUNCES + 2)))
def test_soft_bounces_count_by_their_own_times(shuffled: list[Report]) -> None:
    """Whatever order they are processed in, the fifth suppresses."""
    assert after(*shuffled) == after(*softs(SOFT_BOUNCES + 2))
    assert after(*shuffled).suppression == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 4 * DAY, request_id="r4")


@given(st.permutations([*softs(4), *softs(8)[4:], delivery(NOON + 3.5 * DAY), delivery(NOON + 1.5 * DAY)]))
def test_deliveries_between_count_by_their_own_times_once_the_last_soft_bounce_is_known(shuffled: list[Report]) -> None:
    """Told again after all else, as SES may, they leave the same count whatever came first."""
    deliveries = [delivery(NOON + 3.5 * DAY), delivery(NOON + 1.5 * DAY)]
    assert set(after(*shuffled, *deliveries).soft_bounces) == {"r4", "r5", "r6", "r7"}
    assert after(*shuffled, *deliveries).suppression is None


def test_a_delivery_that_is_processed_before_any_soft_bounce_is_not_known_to_those_before_it() -> None:
    """Noting each delivery would cost a write a mail; the next delivery clears what was counted."""
    counted = after(delivery(NOON + 20 * DAY), soft("r0", NOON))
    assert set(counted.soft_bounces) == {"r0"}
    assert after(delivery(NOON + 21 * DAY), entry=counted).soft_bounces == {}


def test_much_mail_in_flight_does_not_make_an_entry_grow() -> None:
    """What is known by then suppresses."""
    many = after(*softs(MOST_SOFT_BOUNCES + 3))
    assert len(many.soft_bounces) == MOST_SOFT_BOUNCES
    assert after(soft("late", NOON + 99 * DAY), entry=many) is many
    assert "early" in after(soft("early", NOON - DAY), entry=many).soft_bounces


def test_a_suppression_whose_soft_bounces_are_not_known_stands() -> None:
    """Its count was not kept with it, as by an earlier version: nothing can show that it was wrong."""
    told = Suppression(reason=Reason.SOFT_BOUNCES, at=NOON, request_id="r4")
    entry = after(soft("r5", NOON + DAY), delivery(NOON + 2 * DAY), entry=replace(BLANK, suppression=told))
    assert entry.suppression == told


def test_soft_bounces_after_a_lifting_count_among_themselves() -> None:
    """The lifting was asked for while they came; those before it do not count."""
    lifted = lift(after(*softs(2 * SOFT_BOUNCES)), Lifting(NOON + 4.5 * DAY, None, None))
    assert lifted.suppression == Suppression(reason=Reason.SOFT_BOUNCES, at=NOON + 9 * DAY, request_id="r9")
    assert lift(after(*softs(2 * SOFT_BOUNCES - 1)), Lifting(NOON + 4.5 * DAY, None, None)).suppression is None


# ── in any order, any number of times ───────────────────────────────────────────────────────────────────────────────────


def test_reports_in_any_order_lead_to_one_suppression() -> None:
    """EventBridge keeps none."""
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
def test_a_report_that_comes_again_changes_nothing(report: Report) -> None:
    """SQS and SES double events."""
    entry = after(soft("r0"), report)
    assert judge(entry, report) is entry


def test_what_lasts_longer_is_not_replaced_by_what_ends() -> None:
    """A bounce for 14 days after one for good, or after a complaint, would let mail out again."""
    for first in (hard(), a_report("complaint")):
        assert after(first, hard(subtype="Suppressed", at=NOON + DAY)).suppression == after(first).suppression


def test_what_has_expired_is_replaced() -> None:
    """A mailbox that is full for good once SES's own list has forgotten it."""
    entry = after(hard(subtype="Suppressed"), *softs(SOFT_BOUNCES, start=NOON + 20 * DAY))
    assert entry.suppression is not None
    assert entry.suppression.reason is Reason.SOFT_BOUNCES


# ── a caller's word ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_word_suppresses_and_a_later_one_replaces_it_even_by_a_shorter_time() -> None:
    """It is the caller's own."""
    entry = suppress_manually(BLANK, WORD, NOON + DAY)
    shorter = replace(WORD, expires_at=NOON + 3 * DAY, why="until Friday")
    assert entry.suppression == WORD
    assert suppress_manually(entry, shorter, NOON + DAY).suppression == shorter


@pytest.mark.parametrize("reason", [Reason.HARD_BOUNCE, Reason.COMPLAINT, Reason.SES_LIST])
def test_a_word_does_not_weaken_what_ses_told(reason: Reason) -> None:
    """An end given by PUT must not let mail out to an address that bounced."""
    entry = replace(BLANK, suppression=Suppression(reason=reason, at=NOON))
    assert suppress_manually(entry, replace(WORD, expires_at=NOON + 2 * DAY), NOON + DAY) is entry
    assert suppress_manually(entry, WORD, NOON + DAY) is entry


def test_a_word_without_end_replaces_what_ends() -> None:
    """It lasts longer."""
    entry = after(hard(subtype="Suppressed"))
    assert suppress_manually(entry, WORD, NOON + DAY).suppression == WORD


@pytest.mark.parametrize("told", [[hard(subtype="Suppressed")], softs(SOFT_BOUNCES)])
def test_two_words_do_not_shorten_what_ses_told(told: Sequence[Report]) -> None:
    """The first outlasts it, the second ends: what SES told is still there beneath."""
    before = after(*told)
    now = NOON + 5 * DAY
    entry = suppress_manually(before, replace(WORD, at=now), now)
    assert entry.suppression == replace(WORD, at=now)
    entry = suppress_manually(entry, replace(WORD, at=now, expires_at=now + DAY), now)
    assert (entry.suppression, entry.told) == (before.suppression, None)


def test_what_ses_tells_beneath_a_word_stands_once_the_word_ends() -> None:
    """A weaker report is not lost because a caller's word stands."""
    now = NOON + DAY
    entry = after(hard(subtype="Suppressed", at=now), entry=suppress_manually(BLANK, WORD, NOON))
    assert entry.suppression == WORD
    assert suppress_manually(entry, replace(WORD, expires_at=now + MINUTE), now).in_force(now + 13 * DAY) is not None


def test_a_word_forgets_no_soft_bounces() -> None:
    """A minute's suppression by hand would start the count anew."""
    entry = suppress_manually(after(*softs(SOFT_BOUNCES - 1)), replace(WORD, at=NOON + 4 * DAY, expires_at=NOON + 5 * DAY), NOON + 4 * DAY)
    assert after(soft("r9", NOON + 4 * DAY), entry=entry).in_force(NOON + 6 * DAY) is not None


def test_a_word_replaces_what_has_expired_whatever_it_was() -> None:
    """What is over is not in its way."""
    entry = after(hard(subtype="Suppressed"))
    later = NOON + SUPPRESSED_BY_SES + DAY
    assert suppress_manually(entry, replace(WORD, expires_at=later + DAY), later).suppression is not entry.suppression


def test_a_hard_bounce_outlasts_a_word_that_ends() -> None:
    """After that Friday it would be mailed again."""
    entry = suppress_manually(BLANK, replace(WORD, expires_at=NOON + 3 * DAY), NOON)
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
WORDS = st.builds(lambda at, days: replace(WORD, at=at, expires_at=days and at + days * DAY), MOMENTS, st.none() | st.integers(1, 30))


@given(st.lists(st.one_of(REPORTS, WORDS), max_size=12))
def test_whatever_callers_say_what_ses_told_is_left_out_as_long(told: Sequence[Report | Suppression]) -> None:
    """Only DELETE lifts: an address is suppressed at every moment at which it would be if no caller had said a word."""
    with_words, reports_alone = BLANK, BLANK
    for one in told:
        if isinstance(one, Report):
            with_words, reports_alone = judge(with_words, one), judge(reports_alone, one)
        else:
            with_words = suppress_manually(with_words, one, one.at)
    assert with_words.told_by_ses == reports_alone.suppression
    assert with_words.soft_bounces == reports_alone.soft_bounces
    moments = [NOON + days * DAY for days in range(120)]
    assert [m for m in moments if reports_alone.in_force(m) and not with_words.in_force(m)] == []


# ── lifting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LIFTING = Lifting(NOON + 2 * DAY, "arn:caller", "mailbox is back")


def test_what_was_lifted_stays_lifted_whatever_comes_late() -> None:
    """An event may come days late, and eight times."""
    entry = lift(after(hard(), *softs(2)), LIFTING)
    assert entry.in_force(NOON + 3 * DAY) is None
    assert entry.soft_bounces == {}
    assert judge(entry, hard()) is entry
    assert judge(entry, hard(at=LIFTING.at)) is entry


def test_what_happens_while_an_address_is_lifted_stands() -> None:
    """SES is asked in between, which takes seconds; the lifting is of the time before."""
    meanwhile = after(hard(at=LIFTING.at + MINUTE), soft("r9", LIFTING.at + MINUTE))
    entry = lift(meanwhile, LIFTING)
    assert entry.suppression == meanwhile.suppression
    assert entry.soft_bounces == meanwhile.soft_bounces
    assert entry.lifted == LIFTING


@pytest.mark.parametrize("later", ["word", "told"])
def test_what_is_later_than_the_lifting_stands_beneath_or_above(later: str) -> None:
    """A caller's word and what SES told are each lifted or not by their own time."""
    word = replace(WORD, at=LIFTING.at + MINUTE if later == "word" else NOON)
    told = hard(subtype="Suppressed", at=LIFTING.at + MINUTE if later == "told" else NOON)
    entry = lift(after(told, entry=suppress_manually(BLANK, word, word.at)), LIFTING)
    assert entry.told is None
    assert entry.suppression == (word if later == "word" else after(told).suppression)


def test_what_bounces_again_after_the_lifting_is_suppressed_again() -> None:
    """It was lifted in vain."""
    entry = after(hard(at=LIFTING.at + MINUTE), entry=lift(after(hard()), LIFTING))
    assert entry.in_force(LIFTING.at + DAY) is not None


def test_an_entry_is_kept_as_long_as_anything_in_it_is_needed() -> None:
    """What is suppressed for good has no end; a lifting outlasts the events of the time before."""
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
def test_an_address_is_listed_in_one_form(written: str, key: str) -> None:
    """Lower-cased, its domain in punycode: what the caller writes and what SES reports meet."""
    assert suppression_key(written) == key


LOCAL = st.text("abcXYZ0189!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=20)
DOMAIN = st.sampled_from(["example.com", "EXAMPLE.com", "bücher.example", "ΣΊΣΥΦΟΣ.example", "straße.example", "日本語.example"])


@given(LOCAL, DOMAIN)
def test_the_listed_form_is_its_own_and_case_does_not_matter(local: str, domain: str) -> None:
    """It is ASCII, it goes out as it is, and however the wire writes it, it is the same."""
    key = suppression_key(f"{local}@{domain}")
    wire = ascii_address(f"{local}@{domain}")
    assert key.isascii()
    assert key == key.lower()
    assert suppression_key(key) == suppression_key(wire) == suppression_key(wire.upper()) == suppression_key(wire.lower()) == key
    assert ascii_address(key) == key


@pytest.mark.parametrize(
    "text", ["", "jo", "jo@", "@example.com", "jo@localhost", '"jo ann"@example.com', "jö@example.com", "jo@192.0.2.1"]
)
def test_what_mail_cannot_go_to_is_refused_and_not_shown(text: str) -> None:
    """An event of SES may hold anything."""
    with pytest.raises(AddressError) as refusal:
        suppression_key(text)
    assert not text.strip("@") or text not in str(refusal.value)


def test_the_digest_is_the_sha_256_of_the_listed_form() -> None:
    """So that receivers of events can compute it."""
    assert digest("jo@example.com") == "f4e19df2e6c609fbd59a42b9063d0fadf44260218531ea21ad8c575f205c0453"
