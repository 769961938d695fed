"""What is remembered: made once, bounded, forgotten in time, and failures not at all."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mailer.adapters.single_flight_cache import SingleFlightCache

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    time = NOON

    def __call__(self) -> datetime:
        return self.time


class Counter:
    """Makes one number after the other."""

    made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make() -> Counter:
    return Counter()


def asked_by_all(cache: SingleFlightCache[str, int], make: Callable[[], int], threads: int = 32) -> list[int | Exception]:
    """Let every thread ask at the same time, the maker finishing only when all have asked."""
    barrier = threading.Barrier(threads)

    def ask(_: int) -> int | Exception:
        barrier.wait()
        try:
            return cache.get("key", make)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, range(threads)))


def test_threads_that_ask_together_have_it_made_once(clock: Clock, make: Counter) -> None:
    """32 threads that need the same thing cause one call, and all get what it brought."""
    release = threading.Event()

    def slowly() -> int:
        release.wait(0.05)
        return make()

    assert asked_by_all(SingleFlightCache(10, clock), slowly) == [1] * 32
    assert make.made == 1


def test_threads_that_wait_share_a_failure_and_the_next_one_tries_anew(clock: Clock, make: Counter) -> None:
    """A failure is not kept: those who waited get it, who comes later does not."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)
    tries = Counter()

    def fails() -> int:
        threading.Event().wait(0.05)
        raise ValueError(tries())

    outcomes = asked_by_all(cache, fails)
    assert all(isinstance(outcome, ValueError) for outcome in outcomes)
    assert tries.made < 32
    assert cache.get("key", make) == 1


def test_a_value_is_made_anew_once_it_is_no_longer_good(clock: Clock, make: Counter) -> None:
    """`until` is asked of each value; at that very moment it is no longer served."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)
    until = NOON + timedelta(minutes=5)
    assert cache.get("key", make, lambda _: until) == 1
    clock.time = until - timedelta(microseconds=1)
    assert cache.get("key", make, lambda _: until) == 1
    clock.time = until
    assert cache.get("key", make, lambda _: until) == 2


def test_the_least_recently_used_value_goes_first(clock: Clock, make: Counter) -> None:
    """More keys than the bound push out the one that nobody asked for longest."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(2, clock)
    for key in ("a", "b", "a", "c"):
        cache.get(key, make)
    assert cache.get("a", make) == 1
    assert cache.get("b", make) == 4


def test_only_the_value_that_is_no_good_is_forgotten(clock: Clock, make: Counter) -> None:
    """Two threads that find the same value no good replace it once."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(2, clock)
    first = cache.get("key", make)
    cache.forget("key", first)
    second = cache.get("key", make)
    cache.forget("key", first)
    assert cache.get("key", make) == second == 2


def test_a_bad_expiry_does_not_leave_others_waiting(clock: Clock, make: Counter) -> None:
    """Whatever goes wrong while a value is made, the key can be asked for again."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(2, clock)
    with pytest.raises(OverflowError):
        cache.get("key", make, lambda _: NOON + timedelta.max)
    assert cache.get("key", make) == 2
