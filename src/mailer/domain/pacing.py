"""Decide when a sending account's messages may go to SES: one rate limiter per account, at the rate that SES allows.

Each account (an AWS account in one region) has a clock. It advances by one for each recipient that the account may send to: it runs at the
account's rate, slower after a throttle, and stops while the account backs off. A *slot* is a reading of that clock; a message may be sent
when the clock shows its slot. Slots are assigned one after the other, each as long as its message has recipients. This is GCRA, with
`booked` as the theoretical arrival time; because slots are clock readings, a change of rate does not change them.

    idle ──book──▶ slot now ──▶ sent           slot ≤ 1 s away: wait for it
    busy ──book──▶ slot after the last one     slot ≤ 900 s away: a delayed message carries it; missed by > 1 s: forfeited
    full ──promise──▶ about when to retry      not reserved: parked
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from math import floor, inf
from typing import Any, Literal

# -- what tunes it -------------------------------------------------------------------------------------------------------

LONGEST_WAIT = 1.0
"""Seconds that a function waits for a slot; longer waits cost less as delayed messages, where those come in time."""

FORGIVEN = 1.0
"""Seconds' worth of the rate that SES lets an account catch up after silence. A slot missed by more than that, less its own length, is
forfeited: after a stall the missed slots must not all be used at once."""

HORIZON = 900.0
"""Seconds ahead up to which slots are assigned: SQS's longest delay."""

JITTER = 1.2
"""Seconds that a message may be visible before it is received: the event source gathers batches for up to 1 s. Delays in whole seconds
bring it up to 1 s earlier still."""

PARKED_EARLY = 120.0
"""Seconds before its time at which a parked message is fetched: two runs of the sweeper, so that the account is never idle."""

FURTHEST = 1_209_600.0
"""Longest time ahead of a retry, in seconds: two weeks, when every request has ended. A backlog of millions could exceed the year 9999."""

HEADROOM = 0.97
"""Share of a known rate that is used: clocks differ a little, and the account may have other senders."""

FIRST_RATE = 1.0
"""Recipients per second of an account about which nothing is known: the sandbox's rate."""

LEARNING = (10.0, 2.0)
"""Until the first throttle: after so many seconds of saturated sending the rate is multiplied by so much. From 1/s to the 14/s that
many accounts have takes 40 s."""

PROBING = (60.0, 1.05)
"""The same below a known rate or after a throttle: quotas grow, and another sender's burst may have caused the throttle."""

SLOWED = 0.9
"""Share of the rate that is kept after a throttle: a deeper cut would cost more than a second throttle."""

LEAST_RATE = 0.1
"""Lowest rate after throttles, in recipients per second: one message in 10 s finds out when throttling is over."""

THROTTLE_BACKOFF = 1.0
"""Seconds of silence after a throttle: SES's bucket of one second's worth has refilled by then."""

THROTTLE_SETTLES = 5.0
"""Seconds in which further throttles count as the same one: messages that were in flight get it too."""

QUOTA_BACKOFF = 1200.0
"""Seconds that an account backs off once its daily quota is used up. The quota's window rolls, and SES does not say when some is free:
72 tries a day find out. Longer than HORIZON, so the mail is parked and nothing is received meanwhile. The account then starts at
FIRST_RATE, so a try costs one call or two."""

KNOWN_FOR = 600.0
"""Seconds before SES is asked for the quota again, and before a higher `maxSendRate` replaces a lower one: of several tenants on one
account the lowest holds."""

NAMED_FOR = 86400.0
"""Seconds after which a known rate is dropped if no tenant of the account names it any more."""

LEARNER_OPTIMISM = 16.0
"""Factor by which a learning account's rate is assumed to grow within the horizon when slots are assigned."""

UNREPORTED = 1.0
"""Seconds' worth of the rate that all functions together may send without a booking while the account is idle. SES accepts such a burst;
it halves the writes for accounts that send a message now and then."""


# -- what is known -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSource:
    """The known rates of an account, in recipients per second; if there is none, the rate is learned."""

    configured: float | None = None
    """`maxSendRate` of the tenant's config; it takes precedence."""
    quota: float | None = None
    """What GetSendQuota said at verify."""
    ask: Callable[[], float | None] | None = None
    """Asks GetSendQuota again (None: no answer); given where verify found it allowed, used when mail waits, at most once in KNOWN_FOR."""

    @property
    def known(self) -> float | None:
        """Return the rate without asking."""
        return self.configured or self.quota


@dataclass(frozen=True, slots=True)
class Slot:
    """Send it at `at`, which is at most LONGEST_WAIT and JITTER away."""

    at: datetime


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Retry at `at`: as a delayed message that carries `slot`, or, where nothing is reserved, parked."""

    at: datetime
    slot: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One conditional write: advances `booked` or `promised` by `weight`, at least from `start`, and not past `latest`."""

    end: Literal["booked", "promised"]
    revision: int
    """The revision of the rate that it was planned on."""
    is_idle: bool
    """Whether the end was expected at or before `start`; else the write is refused."""
    start: float
    weight: float
    latest: float = inf
    count: int
    """How many of the messages, counted from the first, it covers."""
    behind: float = 0.0
    """Recipients among them that have to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRate:
    """The rate limiter of one sending account. Times are seconds since 1970; slots, `booked` and `promised` are readings of its clock."""

    revision: int = 0
    """Counts the changes of pace; 0: not stored yet. Bookings are conditional on it, so none is made on an old pace."""
    since: float
    """The time from which the clock runs on from `reading` at `rate`; in the future while the account backs off."""
    reading: float = 0.0
    rate: float
    """Recipients per second, now."""
    booked: float = 0.0
    """The end of the assigned slots."""
    promised: float = 0.0
    """The end of the places promised to parked messages."""
    waited: float = 0.0
    """Recipients that had to wait since the pace changed: they show whether the account could use a higher rate."""
    cap: float | None = None
    """The known rate."""
    cap_at: float = 0.0
    """When the known rate was last set or asked for."""
    throttled_at: float | None = None
    is_spent: bool = False
    """Whether the daily quota was used up; until the account is back at its rate."""

    # -- reading the clock

    def clock(self, now: float) -> float:
        """Return what the account's clock shows."""
        return self.reading + self.rate * max(0.0, now - self.since)

    def is_busy(self, now: float) -> bool:
        """Whether the next message has to wait."""
        return self.booked > self.clock(now)

    @property
    def is_learning(self) -> bool:
        """Whether the rate may double: nothing has limited it yet, or it was reset after a backoff."""
        return self.is_spent or (self.cap is None and self.throttled_at is None)

    @property
    def _ceiling(self) -> float:
        return inf if self.cap is None else self.cap * HEADROOM

    @property
    def _grace(self) -> float:
        """Return for how many seconds a missed slot is still good."""
        return FORGIVEN if self.is_learning else max(0.0, FORGIVEN - 1 / self.rate)

    @property
    def _near(self) -> float:
        """Return for how many seconds a function waits for a slot: a message delayed by 1 s might miss it, an undelayed one would spin."""
        return LONGEST_WAIT + JITTER - self._grace

    @property
    def _step(self) -> tuple[float, float]:
        return LEARNING if self.is_learning else PROBING

    def shows(self, slot: float, now: float) -> float:
        """Return when the clock shows a slot at the present rate; now (or the end of the backoff) where it already did."""
        return max(now, self.since, self.since + (slot - self.reading) / self.rate)

    def shows_at_best(self, slot: float, now: float) -> float:
        """Return when the clock shows a slot if the rate grows whenever it may: never later than it will."""
        time, reading, rate = max(now, self.since), self.clock(now), self.rate
        span, factor = self._step
        step = max(self.since + span, time)
        while rate < self._ceiling and reading + rate * (step - time) < slot:
            reading, time = reading + rate * (step - time), step
            rate, step = min(rate * factor, self._ceiling), step + span
        return time + max(0.0, slot - reading) / rate

    # -- giving out slots

    def answer(self, slot: float, now: float) -> Slot | RetryAt | None:
        """Decide on the message that holds a slot; None: the slot is forfeited, or not one of this account."""
        if slot > self.booked or self.clock(now) - slot > self._grace * self.rate:
            return None
        at = self.shows(slot, now)
        if at - now < self._near:
            return Slot(moment(at))
        delay = min(max(floor(self.shows_at_best(slot, now) + self._grace - JITTER - now), 1), HORIZON)
        # SQS delays by whole seconds, rounded up from what is left when the message is sent.
        return RetryAt(moment(now + delay - 0.5), slot)

    def book(self, weights: Sequence[int], now: float, unreported: float = 0.0) -> Booking | None:
        """Plan slots for as many of the messages, in their order, as find one within the horizon; None: no slot is free."""
        start, limit = self.clock(now), self._limit(now)
        slots = list(accumulate(weights, initial=max(self.booked, start)))
        count = sum(slot <= limit for slot in slots[:-1])
        if not count:
            return None
        weight, busy = slots[count] - slots[0], self.is_busy(now)
        return Booking(
            end="booked",
            revision=self.revision,
            is_idle=not busy,
            start=start,
            weight=weight + unreported,
            latest=limit - (slots[count - 1] - slots[0]),
            count=count,
            behind=weight if busy else weight - weights[0],
        )

    def promise(self, weights: Sequence[int], now: float) -> Booking:
        """Plan about when messages that find no slot are retried: spread behind the horizon as slots would be."""
        start = max(self._limit(now), self.clock(now))
        is_idle = self.promised <= start
        return Booking(end="promised", revision=self.revision, is_idle=is_idle, start=start, weight=sum(weights), count=len(weights))

    def retry_at(self, place: float, now: float) -> RetryAt:
        """Return when a message that was promised a place behind the horizon is to be fetched."""
        return RetryAt(moment(min(max(now + PARKED_EARLY, self.shows_at_best(place, now) - PARKED_EARLY), now + FURTHEST)))

    def capacity(self, now: float) -> int:
        """Return how many more recipients find a slot within the horizon: what may be released of a parked backlog."""
        return max(0, floor(self._limit(now) - max(self.booked, self.clock(now))))

    def _limit(self, now: float) -> float:
        """Return the last slot that can be assigned; before the clock if the account backs off beyond the horizon."""
        optimism = LEARNER_OPTIMISM if self.is_learning else 1.0
        return self.clock(now) + self.rate * optimism * (now + HORIZON - max(now, self.since))

    def after(self, booking: Booking) -> "AccountRate":
        """Return the rate as the booking leaves it."""
        end = (booking.start if booking.is_idle else self.end(booking)) + booking.weight
        if booking.end == "promised":
            return replace(self, promised=end)
        return replace(self, booked=end, waited=self.waited + booking.behind)

    def end(self, booking: Booking) -> float:
        """Return where the end that a booking moves is."""
        return self.booked if booking.end == "booked" else self.promised

    def unreported_allowed(self, functions: int) -> float:
        """Return how many recipients each function may send without a booking while the account is idle.

        One at least while nothing limits the account: a throttle then only ends the learning.
        """
        return max(floor(self.rate * UNREPORTED / functions), 1 if self.is_learning else 0)

    # -- changes of pace

    @classmethod
    def initial(cls, source: RateSource, now: float) -> "AccountRate":
        """Return the rate of a new account."""
        known = source.known
        rate = FIRST_RATE if known is None else known * HEADROOM
        return cls(since=now, rate=rate, cap=known, cap_at=0.0 if known is None else now)

    def adopted(self, source: RateSource, now: float) -> "AccountRate | None":
        """Return the rate under the known limit that the source names, where it differs; None: nothing changes."""
        age = now - self.cap_at
        named = source.configured or (source.quota if self.cap is None or source.ask is None else None)
        if named is None:
            is_forgotten = self.cap is not None and source.ask is None and age > NAMED_FOR
            return self._paced(now, cap=None) if is_forgotten else None
        if named == self.cap or (self.cap is not None and named > self.cap and age < KNOWN_FOR):
            return None
        return self.capped(named, now)

    def is_to_ask(self, source: RateSource, weight: float, now: float) -> bool:
        """Whether it is time to ask SES for the quota: mail waits, and the last answer is old."""
        waits = self.is_busy(now) or weight > self.rate * LONGEST_WAIT
        return source.configured is None and source.ask is not None and waits and now - self.cap_at >= KNOWN_FOR

    def asking(self, now: float) -> "AccountRate":
        """Return the rate marked as being asked for, so that no other function asks."""
        return replace(self, revision=self.revision + 1, cap_at=now)

    def capped(self, known: float, now: float) -> "AccountRate":
        """Return the rate at a known limit."""
        return self._paced(now, rate=known * HEADROOM, cap=known, cap_at=now)

    def quickened(self, now: float) -> "AccountRate | None":
        """Return the next higher rate, if the present one was saturated for long enough; None: not yet."""
        span, factor = self._step
        if self.rate >= self._ceiling or now - self.since < span:
            return None
        if self.waited + self.booked - self.clock(now) < self.rate * span:
            return None
        rate = min(self.rate * factor, self._ceiling)
        return self._paced(now, rate=rate, is_spent=self.is_spent and rate < self._ceiling)

    def throttled(self, now: float) -> "AccountRate | None":
        """Return the rate after a throttle; None: it is the same throttle as the last one."""
        if self.throttled_at is not None and now - self.throttled_at < THROTTLE_SETTLES:
            return None
        rate = max(self.rate * SLOWED, min(self.rate, LEAST_RATE))
        return self._paced(now, rate=rate, backoff=THROTTLE_BACKOFF, throttled_at=now, is_spent=False)

    def quota_exhausted(self, now: float) -> "AccountRate | None":
        """Return the rate backing off because the daily quota is used up, with all slots forfeited; None: it does already."""
        if self.since - now > THROTTLE_BACKOFF:
            return None
        forfeited = max(self.booked, self.clock(now)) + 2 * FORGIVEN * self.rate
        rate = min(self.rate, FIRST_RATE)
        return self._paced(now, rate=rate, reading=forfeited, backoff=QUOTA_BACKOFF, is_spent=True)

    def _paced(self, now: float, *, backoff: float = 0.0, **changes: Any) -> "AccountRate":
        """Return the rate with its clock going on from here at another pace, after a backoff in seconds."""
        base = replace(self, revision=self.revision + 1, since=max(now, self.since) + backoff, reading=self.clock(now), waited=0.0)
        return replace(base, **changes)


def moment(seconds: float) -> datetime:
    """Return seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def bandwidth_key(account: str) -> str:
    """Return the key of the rate that paces an account's large mails; what it counts is megabytes instead of recipients."""
    return f"{account}/bandwidth"


def account_key(tenant_id: str, region: str, account: str | None) -> str:
    """Return the key of the rate that paces a tenant's mail; a tenant whose AWS account is not known has one of its own."""
    return f"{account}/{region}" if account else f"tenant/{tenant_id}/{region}"
