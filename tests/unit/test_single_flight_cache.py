"""The single-flight cache: concurrent misses compute once; entries expire and are bounded; failures are not cached."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mailer.adapters.single_flight_cache import RENEW_AGAIN_AFTER, SingleFlightCache
from mailer.domain.errors import DependencyError, ErrorInfo, NotSentError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    time = NOON

    def __call__(self) -> datetime:
        return self.time


class Counter:
    """Returns successive numbers."""

    count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def compute() -> Counter:
    return Counter()


def get_by_all(cache: SingleFlightCache[str, int], compute: Callable[[], int], threads: int = 32) -> list[int | Exception]:
    """Get the key in all threads at the same time; return the results."""
    barrier = threading.Barrier(threads)

    def get(_: int) -> int | Exception:
        barrier.wait()
        try:
            return cache.get("key", compute)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(get, range(threads)))


def test_concurrent_misses_compute_once(clock: Clock, compute: Counter) -> None:
    """32 concurrent threads cause one call, and all get its result."""
    release = threading.Event()

    def slowly() -> int:
        release.wait(0.05)
        return compute()

    assert get_by_all(SingleFlightCache(10, clock), slowly) == [1] * 32
    assert compute.count == 1


def test_waiting_threads_share_a_failure_that_is_not_cached(clock: Clock, compute: Counter) -> None:
    """A later thread computes again."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)
    tries = Counter()

    def fails() -> int:
        threading.Event().wait(0.05)
        raise ValueError(tries())

    outcomes = get_by_all(cache, fails)
    assert all(isinstance(outcome, ValueError) for outcome in outcomes)
    assert tries.count < 32
    assert cache.get("key", compute) == 1


def test_an_expired_value_is_computed_again(clock: Clock, compute: Counter) -> None:
    """A value expires exactly at its `until`."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)
    until = NOON + timedelta(minutes=5)
    assert cache.get("key", compute, lambda _: until) == 1
    clock.time = until - timedelta(microseconds=1)
    assert cache.get("key", compute, lambda _: until) == 1
    clock.time = until
    assert cache.get("key", compute, lambda _: until) == 2


def test_the_least_recently_used_value_is_evicted(clock: Clock, compute: Counter) -> None:
    """With more keys than the bound, the one that was not used for the longest time is evicted."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(2, clock)
    for key in ("a", "b", "a", "c"):
        cache.get(key, compute)
    assert cache.get("a", compute) == 1
    assert cache.get("b", compute) == 4


def test_eviction_is_by_weight(clock: Clock) -> None:
    """A heavy entry evicts as many light ones as needed; one above the bound is returned but not cached."""
    cache: SingleFlightCache[str, str] = SingleFlightCache(10, clock, lambda key, value: len(key) + len(value))
    for key in "abcd":
        cache.get(key, lambda: "x")
    cache.get("e", lambda: "xxxx")
    assert (cache.weight, [cache.find(key) for key in "abcde"]) == (9, [None, None, "x", "x", "xxxx"])
    cache.keep("c", "xx")
    assert (cache.weight, cache.find("c")) == (10, "xx")
    assert cache.get("f", lambda: "x" * 10) == "x" * 10
    assert (cache.weight, cache.find("f")) == (0, None)


def test_expired_entries_are_evicted_first(clock: Clock, compute: Counter) -> None:
    """They are evicted with the next cached value, even if there is space for both."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)
    for key in "abc":
        cache.get(key, compute, lambda _: NOON + timedelta(minutes=1))
    clock.time = NOON + timedelta(minutes=1)
    assert cache.find("a") is None
    cache.keep("d", 4)
    assert (cache.weight, cache.find("d")) == (1, 4)


def test_forgetting_releases_the_weight(clock: Clock) -> None:
    """Otherwise the cache would shrink with each forgotten value."""
    cache: SingleFlightCache[str, str] = SingleFlightCache(10, clock, lambda _, value: len(value))
    cache.forget("key", cache.get("key", lambda: "xxxx"))
    assert cache.weight == 0


# ── early renewal ───────────────────────────────────────────────────────────────────────────────────────────────────────


class RenewingCache:
    """A cache whose value of noon is renewed from 12:05 on and expires at 12:10; the next value an hour later."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)

    def get(self, compute: Callable[[], int]) -> int:
        return self.cache.get("key", compute, lambda value: self.until(value, 10), lambda value: self.until(value, 5))

    def until(self, value: int, minutes: int) -> datetime:
        return NOON + timedelta(hours=value - 1, minutes=minutes)


def test_one_thread_renews_a_value_while_the_others_use_it(clock: Clock, compute: Counter) -> None:
    """Only the renewing thread waits."""
    cache, started, resume = RenewingCache(clock), threading.Event(), threading.Event()
    assert cache.get(compute) == 1
    clock.time = NOON + timedelta(minutes=5)

    def slowly() -> int:
        started.set()
        assert resume.wait(10)
        return compute()

    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(cache.get, slowly)
        assert started.wait(10)
        assert [cache.get(compute) for _ in range(32)] == [1] * 32
        resume.set()
        assert renewing.result() == 2
    assert (cache.get(compute), compute.count) == (2, 2)


def test_after_the_expiry_threads_wait_for_the_renewal(clock: Clock, compute: Counter) -> None:
    """A renewal that lasts longer than the value is still one call."""
    cache, started, resume = RenewingCache(clock), threading.Event(), threading.Event()
    cache.get(compute)
    clock.time = NOON + timedelta(minutes=5)

    def slowly() -> int:
        started.set()
        assert resume.wait(10)
        return compute()

    with ThreadPoolExecutor(2) as pool:
        renewing = pool.submit(cache.get, slowly)
        assert started.wait(10)
        clock.time = NOON + timedelta(minutes=10)
        late = pool.submit(cache.get, compute)
        resume.set()
        assert (renewing.result(), late.result()) == (2, 2)


def test_a_failed_renewal_keeps_the_old_value(clock: Clock, compute: Counter) -> None:
    """The old value is used until it expires; the renewal is retried after a while, and by all threads after the expiry."""
    cache, tries = RenewingCache(clock), Counter()

    def fails() -> int:
        tries()
        raise DependencyError("STS", "AssumeRole")

    cache.get(compute)
    clock.time = NOON + timedelta(minutes=5)
    assert [cache.get(fails) for _ in range(10)] == [1] * 10
    assert tries.count == 1
    clock.time += RENEW_AGAIN_AFTER
    assert cache.get(fails) == 1
    assert tries.count == 2
    clock.time = NOON + timedelta(minutes=10)
    with pytest.raises(DependencyError):
        cache.get(fails)


def test_a_rejected_renewal_raises_at_once(clock: Clock, compute: Counter) -> None:
    """A rejection is definite, so the old value is not used until its expiry."""
    cache = RenewingCache(clock)
    cache.get(compute)
    clock.time = NOON + timedelta(minutes=5)

    def refused() -> int:
        raise NotSentError(ErrorInfo("role_not_assumable", "x"))

    with pytest.raises(NotSentError):
        cache.get(refused)


def test_forget_removes_only_the_given_value(clock: Clock, compute: Counter) -> None:
    """Two threads with the same bad value replace it once."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(2, clock)
    first = cache.get("key", compute)
    cache.forget("key", first)
    second = cache.get("key", compute)
    cache.forget("key", first)
    assert cache.get("key", compute) == second == 2


def test_an_exception_in_the_expiry_blocks_no_thread(clock: Clock, compute: Counter) -> None:
    """After any exception the key can be computed again."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(2, clock)
    with pytest.raises(OverflowError):
        cache.get("key", compute, lambda _: NOON + timedelta.max)
    assert cache.get("key", compute) == 2
