"""What is remembered: made once, bounded, forgotten in time, and failures not at all."""

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


def test_entries_are_dropped_by_what_they_weigh(clock: Clock) -> None:
    """A heavy one pushes out as many light ones as it takes; one that weighs more than all room is served and not kept."""
    cache: SingleFlightCache[str, str] = SingleFlightCache(10, clock, lambda key, value: len(key) + len(value))
    for key in "abcd":
        cache.get(key, lambda: "x")
    cache.get("e", lambda: "xxxx")
    assert (cache.weight, [cache.find(key) for key in "abcde"]) == (9, [None, None, "x", "x", "xxxx"])
    cache.keep("c", "xx")
    assert (cache.weight, cache.find("c")) == (10, "xx")
    assert cache.get("f", lambda: "x" * 10) == "x" * 10
    assert (cache.weight, cache.find("f")) == (0, None)


def test_what_has_expired_takes_no_room(clock: Clock, make: Counter) -> None:
    """With the next value that is cached it goes, though there was room for both."""
    cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)
    for key in "abc":
        cache.get(key, make, lambda _: NOON + timedelta(minutes=1))
    clock.time = NOON + timedelta(minutes=1)
    assert cache.find("a") is None
    cache.keep("d", 4)
    assert (cache.weight, cache.find("d")) == (1, 4)


def test_dropping_gives_the_weight_back(clock: Clock) -> None:
    """Else the cache would shrink with each value that was forgotten."""
    cache: SingleFlightCache[str, str] = SingleFlightCache(10, clock, lambda _, value: len(value))
    cache.forget("key", cache.get("key", lambda: "xxxx"))
    assert cache.weight == 0


# ── renewed early ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Renewed:
    """A cache whose value of noon is renewed from 12:05 on, and expires at 12:10; the next one an hour later."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.cache: SingleFlightCache[str, int] = SingleFlightCache(10, clock)

    def get(self, make: Callable[[], int]) -> int:
        return self.cache.get("key", make, lambda value: self.until(value, 10), lambda value: self.until(value, 5))

    def until(self, value: int, minutes: int) -> datetime:
        return NOON + timedelta(hours=value - 1, minutes=minutes)


def test_a_value_is_renewed_by_one_thread_while_the_others_use_it(clock: Clock, make: Counter) -> None:
    """No herd, and nobody waits but the thread that renews."""
    subject, asked, go_on = Renewed(clock), threading.Event(), threading.Event()
    assert subject.get(make) == 1
    clock.time = NOON + timedelta(minutes=5)

    def slowly() -> int:
        asked.set()
        assert go_on.wait(10)
        return make()

    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(subject.get, slowly)
        assert asked.wait(10)
        assert [subject.get(make) for _ in range(32)] == [1] * 32
        go_on.set()
        assert renewing.result() == 2
    assert (subject.get(make), make.made) == (2, 2)


def test_who_asks_once_it_has_expired_waits_for_the_renewal(clock: Clock, make: Counter) -> None:
    """It takes longer than the value is good for: one call all the same."""
    subject, asked, go_on = Renewed(clock), threading.Event(), threading.Event()
    subject.get(make)
    clock.time = NOON + timedelta(minutes=5)

    def slowly() -> int:
        asked.set()
        assert go_on.wait(10)
        return make()

    with ThreadPoolExecutor(2) as pool:
        renewing = pool.submit(subject.get, slowly)
        assert asked.wait(10)
        clock.time = NOON + timedelta(minutes=10)
        late = pool.submit(subject.get, make)
        go_on.set()
        assert (renewing.result(), late.result()) == (2, 2)


def test_a_renewal_that_a_service_fails_costs_nobody_anything(clock: Clock, make: Counter) -> None:
    """The old value is good for some minutes more; it is tried again after a while, and by all once it has expired."""
    subject, tries = Renewed(clock), Counter()

    def fails() -> int:
        tries()
        raise DependencyError("STS", "AssumeRole")

    subject.get(make)
    clock.time = NOON + timedelta(minutes=5)
    assert [subject.get(fails) for _ in range(10)] == [1] * 10
    assert tries.made == 1
    clock.time += RENEW_AGAIN_AFTER
    assert subject.get(fails) == 1
    assert tries.made == 2
    clock.time = NOON + timedelta(minutes=10)
    with pytest.raises(DependencyError):
        subject.get(fails)


def test_a_renewal_that_is_refused_is_told_at_once(clock: Clock, make: Counter) -> None:
    """Who refuses means it: the old value is not used to the end."""
    subject = Renewed(clock)
    subject.get(make)
    clock.time = NOON + timedelta(minutes=5)

    def refused() -> int:
        raise NotSentError(ErrorInfo("role_not_assumable", "x"))

    with pytest.raises(NotSentError):
        subject.get(refused)


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
