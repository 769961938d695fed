"""The pacing of a sending account: slots, learning, throttles and quota."""

import re
from dataclasses import replace
from datetime import timedelta
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.domain import pacing
from mailer.domain.pacing import (
    FIRST_RATE,
    FORGIVEN,
    FURTHEST,
    HEADROOM,
    HORIZON,
    KNOWN_FOR,
    LEARNING,
    LEAST_RATE,
    NAMED_FOR,
    PARKED_EARLY,
    PROBING,
    QUOTA_BACKOFF,
    SLOWED,
    THROTTLE_BACKOFF,
    THROTTLE_SETTLES,
    AccountRate,
    Booking,
    RateSource,
    RetryAt,
    Slot,
    account_key,
    moment,
)

PAGE = Path(__file__).resolve().parents[2] / "docs/pacing.md"
NOW = 1_800_000_000.0
KNOWN = RateSource(configured=14.0)
UNKNOWN = RateSource()


def booked(account_rate: AccountRate, weights: list[int], now: float) -> tuple[AccountRate, list[float]]:
    """Book recipients; return the rate after that, and the slots."""
    booking = account_rate.book(weights, now)
    assert booking is not None
    after = account_rate.after(booking)
    return after, list(accumulate(weights[: booking.count], initial=after.booked - booking.weight))[:-1]


# -- GCRA ----------------------------------------------------------------------------------------------------------------

batches = st.lists(st.tuples(st.floats(0, 60), st.lists(st.integers(1, 50), min_size=1, max_size=10)), min_size=1, max_size=30)
rates = st.floats(0.5, 500)


def schedule(rate: float, plan: list[tuple[float, list[int]]]) -> list[tuple[float, int]]:
    """Book batches in sequence; return the time of each slot, and its message's weight."""
    account_rate, now, sends = AccountRate(since=NOW, rate=rate, cap=rate, cap_at=NOW), NOW, []
    for gap, weights in plan:
        now += gap
        if account_rate.book(weights, now) is None:
            continue
        account_rate, slots = booked(account_rate, weights, now)
        sends += [(account_rate.shows(slot, now), weight) for slot, weight in zip(slots, weights, strict=False)]
    return sends


@given(rates, batches)
def test_no_window_exceeds_the_rate_by_more_than_one_message(rate: float, plan: list[tuple[float, list[int]]]) -> None:
    """The time between any two sends is enough for all sent before the second; idle time is not accumulated."""
    sends = schedule(rate, plan)
    for first in range(len(sends)):
        weight = 0
        for (_, earlier), (time, _) in pairwise(sends[first:]):
            weight += earlier
            assert time - sends[first][0] >= weight / rate - 1e-3


@given(rates, batches)
def test_messages_are_sent_in_order(rate: float, plan: list[tuple[float, list[int]]]) -> None:
    """Messages that are booked first are sent first."""
    times = [time for time, _ in schedule(rate, plan)]
    assert times == sorted(times)


@given(rates, st.lists(st.integers(1, 50), min_size=1, max_size=50))
def test_every_slot_is_reached(rate: float, weights: list[int]) -> None:
    """A message with a slot that returns at its time is sent within the horizon."""
    account_rate, slots = booked(AccountRate(since=NOW, rate=rate, cap=rate, cap_at=NOW), weights, NOW)
    for slot in slots:
        now, answer = NOW, account_rate.answer(slot, NOW)
        while isinstance(answer, RetryAt):
            now = max(answer.at.timestamp() + 0.5, now + 0.5)
            answer = account_rate.answer(slot, now)
        assert isinstance(answer, Slot)
        assert answer.at.timestamp() <= NOW + HORIZON + 1


def test_an_idle_account_sends_at_once() -> None:
    """Pacing does not delay an idle account."""
    account_rate, [slot] = booked(AccountRate.initial(KNOWN, NOW), [3], NOW + 100)
    assert account_rate.answer(slot, NOW + 100) == Slot(moment(NOW + 100))


def test_recipients_are_counted_instead_of_messages() -> None:
    """A message to fifty recipients takes as long as fifty messages, as SES counts."""
    account_rate, [_, second] = booked(AccountRate.initial(RateSource(configured=10.0), NOW), [50, 1], NOW)
    assert account_rate.shows(second, NOW) == pytest.approx(NOW + 50 / (10 * HEADROOM))


# -- slots and retry times -----------------------------------------------------------------------------------------------


def busy_rate(rate: float = 14.0, ahead: int = 12_000) -> AccountRate:
    """Return a known rate with a number of booked recipients."""
    return AccountRate(since=NOW, rate=rate, cap=rate, cap_at=NOW, booked=ahead, revision=1)


@pytest.mark.parametrize(("seconds", "waits_inside"), [(0.5, True), (1.27, True), (1.28, False), (800, False)])
def test_only_about_a_second_is_waited_inside_the_function(seconds: float, waits_inside: bool) -> None:  # noqa: FBT001  # a table's column
    """For longer waits the message is delayed and carries the slot."""
    answer = busy_rate().answer(14 * seconds, NOW)
    assert isinstance(answer, Slot) is waits_inside
    assert isinstance(answer, Slot) or answer is None or answer.slot == 14 * seconds


@given(st.floats(LEAST_RATE, 1000), st.floats(0, 899), st.booleans())
def test_no_message_is_requeued_without_a_delay(rate: float, seconds: float, is_learning: bool) -> None:  # noqa: FBT001  # drawn
    """The delay is at least a second; without one the message would find its slot as far away as before."""
    account_rate = replace(busy_rate(rate, ahead=1_000_000), cap=None if is_learning else rate)
    answer = account_rate.answer(rate * seconds, NOW)
    assert isinstance(answer, Slot) or (answer is not None and answer.at >= moment(NOW + 0.5))


@pytest.mark.parametrize(("late", "is_good"), [(FORGIVEN - 1 / 14 - 0.01, True), (FORGIVEN, False), (3600, False)])
def test_a_slot_that_was_missed_by_too_much_is_forfeited(late: float, is_good: bool) -> None:  # noqa: FBT001  # a table's column
    """Slots that were missed in a stall must not be used at once."""
    answer = busy_rate(ahead=100_000).answer(140, NOW + 10 + late)
    assert (answer is not None) is is_good


def test_a_slot_beyond_the_booked_recipients_is_invalid() -> None:
    """Its rate was deleted, or the slot is forged."""
    assert busy_rate(ahead=50).answer(51, NOW) is None


def test_messages_return_before_their_slot() -> None:
    """The retry time includes whole seconds of delay and the batching window; the rest is waited inside the function."""
    account_rate = busy_rate()
    for tenth in range(20, 8000, 7):
        answer = account_rate.answer(1.4 * tenth, NOW)
        assert isinstance(answer, RetryAt)
        visible = answer.at.timestamp() + 0.5  # the queue rounds up to whole seconds
        assert -1.3 <= visible - (NOW + tenth / 10) <= 0.0


def test_a_full_horizon_has_no_slots() -> None:
    """A message without a slot within the horizon is parked; the times are spread at the account's rate."""
    account_rate = busy_rate(ahead=round(14 * HORIZON) + 1)
    assert account_rate.book([1], NOW) is None
    booking = account_rate.promise([7, 7], NOW)
    after = account_rate.after(booking)
    first = after.promised - booking.weight
    assert after.booked == account_rate.booked
    assert after.retry_at(first, NOW) == RetryAt(moment(NOW + HORIZON - PARKED_EARLY))
    assert after.retry_at(first + 14, NOW).at - after.retry_at(first, NOW).at == timedelta(seconds=1)
    assert after.promise([1], NOW).is_idle is False


def test_a_retry_time_is_at_most_two_weeks_ahead() -> None:
    """With millions of messages at a low rate, the requests expire long before."""
    account_rate = AccountRate.initial(RateSource(configured=0.001), NOW)
    assert account_rate.retry_at(1e12, NOW).at == moment(NOW + FURTHEST)


def test_a_batch_is_booked_up_to_the_horizon() -> None:
    """The first messages get slots, the others only a retry time."""
    booking = busy_rate(ahead=round(14 * HORIZON) - 2).book([1, 1, 1, 1, 1], NOW)
    assert booking is not None
    assert (booking.count, booking.weight) == (3, 3)
    assert booking.latest == pytest.approx(14 * HORIZON - 2)


def test_waiting_recipients_are_counted() -> None:
    """The count shows whether a higher rate could be used: on an idle rate the first message does not wait, on a busy one all do."""
    assert [booking.behind for account_rate in (busy_rate(ahead=0), busy_rate(ahead=5)) if (booking := account_rate.book([2, 3], NOW))] == [
        3,
        5,
    ]


def test_a_learning_account_has_slots_beyond_its_rate() -> None:
    """It will be faster at those slots; without them all messages would have to be parked."""
    booking = AccountRate.initial(UNKNOWN, NOW).book([50] * 100, NOW)
    assert booking is not None
    assert booking.count == 100


def test_the_capacity_is_the_number_of_free_slots() -> None:
    """That many recipients of a parked backlog may be released."""
    assert busy_rate(ahead=140).capacity(NOW) == 14 * HORIZON - 140
    assert busy_rate(ahead=140).capacity(NOW + 10) == 14 * HORIZON
    assert busy_rate(ahead=13_000).capacity(NOW) == 0


# -- changes of the rate -------------------------------------------------------------------------------------------------


def saturated(account_rate: AccountRate) -> AccountRate:
    """Return a rate with more waiting recipients than it can send in any step."""
    return replace(account_rate, waited=1e6)


def test_a_known_rate_is_used_with_headroom() -> None:
    """This holds for a configured rate and for SES's quota; the configured rate has priority."""
    assert AccountRate.initial(KNOWN, NOW).rate == 14 * HEADROOM
    assert AccountRate.initial(RateSource(quota=50.0), NOW).rate == 50 * HEADROOM
    assert AccountRate.initial(RateSource(configured=5.0, quota=50.0), NOW).rate == 5 * HEADROOM


def test_an_unknown_rate_doubles_while_it_is_saturated() -> None:
    """It doubles every ten seconds, from one per second."""
    account_rate, rates_seen = AccountRate.initial(UNKNOWN, NOW), []
    for step in range(5):
        rates_seen.append(account_rate.rate)
        assert account_rate.quickened(account_rate.since + LEARNING[0] - 0.1) is None
        account_rate = saturated(account_rate).quickened(NOW + LEARNING[0] * (step + 1)) or account_rate
    assert rates_seen == [FIRST_RATE * 2**n for n in range(5)]


def test_a_rate_that_is_not_saturated_does_not_change() -> None:
    """Mail that did not wait shows nothing about the limit."""
    assert AccountRate.initial(UNKNOWN, NOW).quickened(NOW + 1e6) is None


def test_the_clock_is_continuous() -> None:
    """A change of the rate neither repeats nor skips slots."""
    account_rate = AccountRate.initial(UNKNOWN, NOW)
    faster = saturated(account_rate).quickened(NOW + 10)
    assert faster is not None
    assert faster.clock(NOW + 10) == pytest.approx(account_rate.clock(NOW + 10))
    assert faster.clock(NOW + 11) - faster.clock(NOW + 10) == pytest.approx(2 * FIRST_RATE)
    assert faster.waited == 0


def test_a_throttle_reduces_the_rate_and_ends_learning() -> None:
    """After a second without sends the rate is 0.9 of the throttled one, and grows by five percent a minute."""
    account_rate = AccountRate(since=NOW, rate=16.0, booked=1e6)
    slower = account_rate.throttled(NOW + 5)
    assert slower is not None
    assert slower.rate == 16 * SLOWED
    assert slower.clock(NOW + 5 + THROTTLE_BACKOFF) == slower.clock(NOW + 5) == account_rate.clock(NOW + 5)
    assert slower.quickened(slower.since + PROBING[0] - 1) is None
    probing = saturated(slower).quickened(slower.since + PROBING[0])
    assert probing is not None
    assert probing.rate == pytest.approx(16 * SLOWED * PROBING[1])


def test_throttles_of_one_moment_count_once() -> None:
    """Messages in flight are throttled too; the rate must not fall for each of them."""
    slower = AccountRate(since=NOW, rate=16.0).throttled(NOW)
    assert slower is not None
    assert slower.throttled(NOW + THROTTLE_SETTLES - 0.1) is None
    assert slower.throttled(NOW + THROTTLE_SETTLES) is not None


def test_throttles_never_stop_an_account() -> None:
    """There is a minimum rate."""
    account_rate = AccountRate.initial(UNKNOWN, NOW)
    for step in range(100):
        account_rate = account_rate.throttled(NOW + 10 * step) or account_rate
    assert account_rate.rate == LEAST_RATE


def test_probing_ends_at_the_known_rate() -> None:
    """A throttle below it was caused by another sender of the account."""
    account_rate = saturated(replace(AccountRate.initial(KNOWN, NOW), rate=13.5, throttled_at=NOW))
    faster = account_rate.quickened(NOW + PROBING[0])
    assert faster is not None
    assert faster.rate == 14 * HEADROOM
    assert saturated(faster).quickened(NOW + 1e6) is None


def test_reserved_slots_follow_the_rate() -> None:
    """After a throttle a message arrives too early, keeps its slot and waits; nothing is reserved again."""
    account_rate = AccountRate(since=NOW, rate=14.0, throttled_at=NOW - 100, booked=7000)
    slower = account_rate.throttled(NOW)
    assert slower is not None
    answer = slower.answer(1400, NOW + 100)
    assert isinstance(answer, RetryAt)
    assert answer.slot == 1400
    assert slower.shows(1400, NOW) == pytest.approx(NOW + THROTTLE_BACKOFF + 100 / SLOWED)


@given(st.floats(0.5, 100), st.floats(1, 900), st.integers(1, 8))
def test_a_faster_rate_makes_no_message_late(rate: float, seconds: float, steps: int) -> None:
    """The delay assumes the highest rate that is possible by then."""
    account_rate = AccountRate(since=NOW, rate=rate, booked=1e9, waited=1e9)
    slot = rate * seconds
    best = account_rate.shows_at_best(slot, NOW)
    time = NOW
    for _ in range(steps):
        time += LEARNING[0]
        account_rate = saturated(account_rate).quickened(time) or account_rate
    assert best <= account_rate.shows(slot, NOW) + 1e-3


def test_a_used_up_quota_stops_the_account() -> None:
    """All slots are forfeited, none are reserved, and mail is parked until the end of the backoff; then the rate starts low."""
    account_rate = busy_rate(ahead=5000)
    backed_off = account_rate.quota_exhausted(NOW + 10)
    assert backed_off is not None
    assert backed_off.since == NOW + 10 + QUOTA_BACKOFF
    assert all(backed_off.answer(slot, NOW + 11) is None for slot in (0, 140, 154, 4999))
    assert backed_off.book([1], NOW + 11) is None
    assert backed_off.capacity(NOW + 11) == 0
    back = backed_off.retry_at(backed_off.after(backed_off.promise([1], NOW + 11)).promised - 1, NOW + 11)
    assert back.at >= moment(backed_off.since - PARKED_EARLY)
    assert backed_off.rate == FIRST_RATE
    assert backed_off.quota_exhausted(NOW + 20) is None


def test_after_the_backoff_the_rate_recovers_quickly() -> None:
    """It doubles up to the known rate instead of probing."""
    account_rate = busy_rate().quota_exhausted(NOW)
    assert account_rate is not None
    for _ in range(4):
        account_rate = saturated(account_rate).quickened(account_rate.since + LEARNING[0]) or account_rate
    assert account_rate.rate == pytest.approx(14 * HEADROOM)
    assert not account_rate.is_spent


def test_a_throttle_ends_the_recovery() -> None:
    """The account's limit is lower than before the backoff."""
    account_rate = busy_rate().quota_exhausted(NOW)
    slower = account_rate and account_rate.throttled(account_rate.since + 1)
    assert slower is not None
    assert not slower.is_learning


def test_a_new_rate_does_not_end_the_backoff() -> None:
    """A tenant may change its config during the backoff."""
    backed_off = busy_rate().quota_exhausted(NOW)
    assert backed_off is not None
    adopted = backed_off.adopted(RateSource(configured=5.0), NOW + 1)
    assert adopted is not None
    assert adopted.since == backed_off.since


def test_the_lowest_rate_of_an_accounts_tenants_is_used() -> None:
    """A lower rate is adopted at once, a higher one only if the lower was not used for a while."""
    account_rate = AccountRate.initial(KNOWN, NOW)
    lower = account_rate.adopted(RateSource(configured=5.0), NOW + 1)
    assert lower is not None
    assert lower.rate == 5 * HEADROOM
    assert lower.adopted(KNOWN, NOW + 2) is None
    assert lower.adopted(RateSource(configured=5.0), NOW + 2) is None
    higher = lower.adopted(KNOWN, NOW + 1 + KNOWN_FOR)
    assert higher is not None
    assert higher.rate == 14 * HEADROOM


def test_an_unused_rate_is_forgotten() -> None:
    """A tenant that removes its maxSendRate is not limited by it forever."""
    account_rate = AccountRate.initial(KNOWN, NOW)
    assert account_rate.adopted(UNKNOWN, NOW + NAMED_FOR - 1) is None
    forgotten = account_rate.adopted(UNKNOWN, NOW + NAMED_FOR + 1)
    assert forgotten is not None
    assert forgotten.is_learning


def test_ses_quota_is_read_only_if_mail_waits_and_the_last_one_is_old() -> None:
    """It is read at most once in ten minutes, and never for an idle account."""
    source = RateSource(ask=lambda: 14.0)
    account_rate = AccountRate.initial(source, NOW)
    assert not account_rate.is_to_ask(source, 1, NOW)
    assert account_rate.is_to_ask(source, 10, NOW)
    assert account_rate.is_to_ask(source, 0, NOW) is False
    assert replace(account_rate, booked=5).is_to_ask(source, 1, NOW)
    assert not account_rate.asking(NOW).is_to_ask(source, 10, NOW + KNOWN_FOR - 1)
    assert account_rate.asking(NOW).is_to_ask(source, 10, NOW + KNOWN_FOR)
    assert not account_rate.is_to_ask(RateSource(configured=1.0, ask=lambda: 14.0), 10, NOW)


def test_the_current_quota_replaces_that_of_verify() -> None:
    """The quota in the provider row is as old as the last verify."""
    source = RateSource(quota=14.0, ask=lambda: 50.0)
    account_rate = AccountRate.initial(source, NOW).capped(50.0, NOW + 700)
    assert account_rate.adopted(source, NOW + 5000) is None


def test_few_recipients_are_sent_unreported() -> None:
    """All functions together send no more than SES tolerates; for an account without a known rate, each sends one."""
    assert AccountRate.initial(RateSource(configured=100.0), NOW).unreported_allowed(10) == 9
    assert AccountRate.initial(KNOWN, NOW).unreported_allowed(10) == 1
    assert AccountRate.initial(KNOWN, NOW).unreported_allowed(100) == 0
    assert AccountRate.initial(UNKNOWN, NOW).unreported_allowed(100) == 1


def test_tenants_of_one_account_share_its_rate() -> None:
    """A tenant cannot use another account's rate by its name."""
    assert account_key("acme", "eu-central-1", "123456789012") == account_key("other", "eu-central-1", "123456789012")
    assert account_key("acme", "eu-central-1", "123456789012") != account_key("acme", "us-east-1", "123456789012")
    assert account_key("123456789012", "eu-central-1", None) != account_key("acme", "eu-central-1", "123456789012")


def test_a_booking_changes_one_end() -> None:
    """The other end does not change."""
    account_rate = busy_rate(ahead=100)
    promised = account_rate.after(Booking(end="promised", revision=1, is_idle=True, start=500, weight=5, count=5))
    assert (promised.booked, promised.promised) == (100, 505)


def test_the_docs_name_every_constant_with_its_value() -> None:
    """Operators find there the constants of the pacing."""
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE))
    assert documented == {name: str(value) for name, value in vars(pacing).items() if name.isupper() and name != "UTC"}
