"""Reservations of functions that share a pacing table, and their costs."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.domain.errors import DependencyError
from mailer.domain.pacing import HEADROOM, QUOTA_BACKOFF, SLOWED, AccountRate, RateSource, RetryAt, Slot, moment
from mailer.services.pacing.pacing import CACHED_RATES, TRIES, TRUSTED, Pacing
from support.fakes.pacing import FakePacingTable

NOON = moment(1_800_000_000.0)
SECOND = timedelta(seconds=1)
ACCOUNT = "123456789012/eu-central-1"
KNOWN = RateSource(configured=14.0)
UNKNOWN = RateSource()


def functions(count: int, table: FakePacingTable) -> list[Pacing]:
    """Return functions that share a table."""
    return [Pacing(table, functions=count) for _ in range(count)]


def test_a_batch_costs_one_write() -> None:
    """One write reserves for all messages of an account."""
    table = FakePacingTable()
    [pacing] = functions(1, table)
    answers = pacing.reserve(ACCOUNT, KNOWN, [1] * 100, [None] * 100, NOON)
    assert table.writes == 1
    assert [type(a) for a in answers[:14]] == [Slot] * 14
    assert all(isinstance(a, RetryAt) and a.slot is not None for a in answers[20:])


def test_an_occasional_message_costs_half_a_write() -> None:
    """Every second message is reported with the next."""
    table = FakePacingTable()
    pacing = functions(10, table)[0]
    for second in range(100):
        assert pacing.reserve(ACCOUNT, KNOWN, [1], [None], NOON + second * SECOND) == [Slot(NOON + second * SECOND)]
    assert table.writes == 50
    account_rate = table.account_rates[ACCOUNT]
    assert account_rate.booked - account_rate.clock((NOON + 99 * SECOND).timestamp()) == pytest.approx(2)


def test_a_busy_account_reports_every_message() -> None:
    """Only messages of idle accounts may be unreported."""
    table = FakePacingTable()
    flooding, other = functions(10, table)[:2]
    flooding.reserve(ACCOUNT, KNOWN, [1] * 50, [None] * 50, NOON)
    [answer] = other.reserve(ACCOUNT, KNOWN, [1], [None], NOON)
    assert isinstance(answer, RetryAt)
    assert answer.slot == 50


def test_a_valid_slot_costs_no_write() -> None:
    """The message with the slot is sent, or waits on, according to the rate."""
    table = FakePacingTable()
    first, second = functions(2, table)
    answers = first.reserve(ACCOUNT, KNOWN, [1] * 50, [None] * 50, NOON)
    slots = [a.slot for a in answers if isinstance(a, RetryAt)]
    writes = table.writes
    [due, early] = second.reserve(ACCOUNT, KNOWN, [1, 1], [slots[0], slots[-1]], NOON + SECOND)
    assert isinstance(due, Slot)
    assert isinstance(early, RetryAt)
    assert early.slot == slots[-1]
    assert table.writes == writes


def test_a_forfeited_slot_is_replaced_by_one_at_the_end() -> None:
    """The new slot is reserved with the batch's other messages in one write."""
    table = FakePacingTable()
    [pacing] = functions(1, table)
    pacing.reserve(ACCOUNT, KNOWN, [1] * 100, [None] * 100, NOON)
    writes = table.writes
    answers = pacing.reserve(ACCOUNT, KNOWN, [1, 1], [1.0, None], NOON + 5 * SECOND)
    assert [a.slot for a in answers if isinstance(a, RetryAt)] == [100, 101]
    assert table.writes == writes + 1


def test_two_functions_never_get_the_same_slot() -> None:
    """A function that planned with an old rate is rejected and plans again with the new one."""
    table = FakePacingTable()
    first, second = functions(2, table)
    late: list[Slot | RetryAt] = []
    table.meanwhile = lambda: late.extend(second.reserve(ACCOUNT, KNOWN, [1] * 7, [None] * 7, NOON))
    early = first.reserve(ACCOUNT, KNOWN, [1] * 7, [None] * 7, NOON)
    assert len({a.at for a in [*early, *late] if isinstance(a, Slot)}) == 14
    assert table.writes == 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400), st.lists(st.integers(1, 3), min_size=1, max_size=4)), max_size=60))
def test_functions_together_keep_the_rate(batches: list[tuple[int, int, list[int]]]) -> None:
    """For any sequence of batches no window has more than the rate, one message, and each function's unreported ones."""
    table = FakePacingTable()
    pacing, now, sends = functions(10, table), NOON, []
    rate = 14 * HEADROOM
    for function, milliseconds, weights in batches:
        now += timedelta(milliseconds=milliseconds)
        answers = pacing[function].reserve(ACCOUNT, KNOWN, weights, [None] * len(weights), now)
        account_rate = table.account_rates.get(ACCOUNT)
        for answer, weight in zip(answers, weights, strict=True):
            if isinstance(answer, RetryAt):  # its message returns in time and is sent at its slot
                assert account_rate is not None
                assert answer.slot is not None
                sends.append((moment(account_rate.shows(answer.slot, now.timestamp())), weight))
            else:
                sends.append((answer.at, weight))
    sends.sort()
    for first in range(len(sends)):
        total = 0
        for time, weight in sends[first:]:
            assert total <= (time - sends[first][0]).total_seconds() * rate + 3 + 10
            total += weight


def test_messages_without_a_slot_are_parked_and_spread() -> None:
    """Their times are spread at the account's rate, so they do not return at once; this costs one write per batch."""
    table = FakePacingTable()
    [pacing] = functions(1, table)
    pacing.reserve(ACCOUNT, KNOWN, [50] * 245, [None] * 245, NOON)
    writes = table.writes
    earlier = pacing.reserve(ACCOUNT, KNOWN, [50] * 10, [None] * 10, NOON)
    later = pacing.reserve(ACCOUNT, KNOWN, [50] * 10, [None] * 10, NOON)
    assert all(isinstance(a, RetryAt) and a.slot is None for a in [*earlier, *later])
    times = [a.at for a in [*earlier, *later]]
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(19 * 50 / (14 * HEADROOM) * SECOND, abs=SECOND)
    assert table.writes == writes + 2


def test_a_throttle_is_written_once() -> None:
    """Concurrent throttles of one function and others count as one."""
    table = FakePacingTable()
    first, second = functions(2, table)
    first.reserve(ACCOUNT, KNOWN, [1] * 50, [None] * 50, NOON)
    writes = table.writes
    assert {function.throttled(ACCOUNT, NOON + SECOND) for function in (first, first, second)} == {NOON + 2 * SECOND}
    assert table.writes == writes + 1
    assert table.account_rates[ACCOUNT].rate == 14 * HEADROOM * SLOWED
    reads = table.reads
    first.throttled(ACCOUNT, NOON + SECOND)
    assert table.reads == reads


def test_a_throttle_of_an_account_without_a_rate_is_recorded() -> None:
    """All its messages may have been unreported so far."""
    table = FakePacingTable()
    functions(1, table)[0].throttled(ACCOUNT, NOON)
    assert table.account_rates[ACCOUNT].throttled_at == NOON.timestamp()


def test_a_used_up_quota_stops_the_account_for_all_functions() -> None:
    """Nothing is sent or reserved until the end of the backoff."""
    table = FakePacingTable()
    first, second = functions(2, table)
    answers = first.reserve(ACCOUNT, KNOWN, [1] * 50, [None] * 50, NOON)
    until = first.quota_exhausted(ACCOUNT, NOON)
    assert until == NOON + QUOTA_BACKOFF * SECOND
    assert second.quota_exhausted(ACCOUNT, NOON + SECOND) == until
    slots = [a.slot for a in answers if isinstance(a, RetryAt)]
    backed_off = second.reserve(ACCOUNT, KNOWN, [1] * len(slots), slots, NOON + 2 * SECOND)
    assert all(isinstance(a, RetryAt) and a.slot is None and a.at > NOON + 900 * SECOND for a in backed_off)


def test_the_quota_is_read_by_one_function() -> None:
    """The others use its result."""
    reads: list[int] = []

    def read_quota() -> float:
        reads.append(1)
        return 50.0

    table = FakePacingTable()
    for function in functions(5, table):
        function.reserve(ACCOUNT, RateSource(ask=read_quota), [1] * 50, [None] * 50, NOON)
    assert len(reads) == 1
    assert table.account_rates[ACCOUNT].rate == 50 * HEADROOM


def test_an_unchanged_quota_changes_nothing() -> None:
    """One write records that it was read."""
    table = FakePacingTable()
    source = RateSource(quota=14.0, ask=lambda: 14.0)
    functions(1, table)[0].reserve(ACCOUNT, source, [1] * 50, [None] * 50, NOON)
    writes = table.writes
    functions(1, table)[0].reserve(ACCOUNT, source, [1] * 50, [None] * 50, NOON + 600 * SECOND)
    assert table.writes == writes + 2


def test_an_account_without_a_readable_quota_is_learned() -> None:
    """Its policy may have changed since verify; the quota is not read again at once."""
    table = FakePacingTable()
    reads: list[int] = []
    for second in range(3):
        source = RateSource(ask=lambda: reads.append(1))
        functions(1, table)[0].reserve(ACCOUNT, source, [1] * 50, [None] * 50, NOON + second * SECOND)
    assert len(reads) == 1
    assert table.account_rates[ACCOUNT].is_learning


def test_a_saturated_account_gets_faster_by_itself() -> None:
    """This holds also without new mail: returning messages show that mail waits."""
    table = FakePacingTable()
    [pacing] = functions(1, table)
    answers = pacing.reserve(ACCOUNT, UNKNOWN, [1] * 200, [None] * 200, NOON)
    last = answers[-1]
    assert isinstance(last, RetryAt)
    for second in (10, 20, 30):
        pacing.reserve(ACCOUNT, UNKNOWN, [1], [last.slot], NOON + second * SECOND)
    assert table.account_rates[ACCOUNT].rate == 8


def test_a_cached_rate_is_used_only_for_a_moment() -> None:
    """An account that was idle may be flooded by another function now."""
    table = FakePacingTable()
    first, other = functions(10, table)[:2]
    for _ in range(2):  # the second one reports both, so the next may be unreported
        first.reserve(ACCOUNT, KNOWN, [1], [None], NOON)
    other.reserve(ACCOUNT, KNOWN, [1] * 500, [None] * 500, NOON + SECOND)
    [answer] = first.reserve(ACCOUNT, KNOWN, [1], [None], NOON + (TRUSTED + 0.1) * SECOND)
    assert isinstance(answer, RetryAt)


def test_slots_are_checked_with_the_current_rate() -> None:
    """Another function may have recorded a throttle just before."""
    table = FakePacingTable()
    first, second = functions(2, table)
    answers = first.reserve(ACCOUNT, KNOWN, [1] * 50, [None] * 50, NOON)
    second.throttled(ACCOUNT, NOON)
    due = next(a.slot for a in answers if isinstance(a, RetryAt))
    [answer] = first.reserve(ACCOUNT, KNOWN, [1], [due], NOON + 0.5 * SECOND)
    assert isinstance(answer, RetryAt)
    assert answer.slot == due


def test_the_cache_of_rates_is_bounded() -> None:
    """A function may serve many accounts; the least recently used rate is evicted."""
    table = FakePacingTable()
    [pacing] = functions(1, table)
    for number in range(CACHED_RATES + 1):
        pacing.reserve(f"{number:012}/eu-central-1", KNOWN, [1], [None], NOON)
    reads = table.reads
    pacing.reserve(f"{CACHED_RATES:012}/eu-central-1", KNOWN, [1], [None], NOON)
    assert table.reads == reads
    pacing.reserve("000000000000/eu-central-1", KNOWN, [1], [None], NOON)
    assert table.reads == reads + 1


def test_a_deleted_rate_is_created_again() -> None:
    """It expired while a function still had it in its cache."""
    table = FakePacingTable()
    [pacing] = functions(1, table)
    pacing.reserve(ACCOUNT, KNOWN, [1] * 20, [None] * 20, NOON)
    table.account_rates.clear()
    [answer, *_] = pacing.reserve(ACCOUNT, KNOWN, [1] * 20, [None] * 20, NOON)
    assert answer == Slot(NOON)
    assert table.account_rates[ACCOUNT].booked == 20


def test_endless_contention_is_a_dependency_error() -> None:
    """The request is then deferred instead of sent unpaced."""
    table = FakePacingTable()
    [pacing] = functions(1, table)

    def contend() -> None:
        table.account_rates.clear() if ACCOUNT in table.account_rates else table.account_rates.update({ACCOUNT: _foreign()})
        table.meanwhile = contend

    table.meanwhile = contend
    with pytest.raises(DependencyError):
        pacing.reserve(ACCOUNT, KNOWN, [1] * 20, [None] * 20, NOON)
    assert table.writes == TRIES


def _foreign() -> AccountRate:
    return replace(AccountRate.initial(KNOWN, NOON.timestamp()), revision=99)
