"""Reserve sending slots: cache each account's rate, keep it up to date, book the slots of a batch in one write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from threading import Lock

from mailer.domain.errors import DependencyError
from mailer.domain.pacing import AccountRate, Booking, RateSource, RetryAt, Slot, moment
from mailer.ports import PacingTable, RateConflictError

TRUSTED = 5.0
"""Seconds for which a cached rate is trusted while its account is idle."""

CACHED_RATES = 10_000
"""Account rates that one function caches, about 0.5 KB each."""

TRIES = 6
"""Writes for one reservation before it fails: a write only conflicts if another function has just turned the account from idle to busy
or back, filled its horizon or changed its pace."""


@dataclass(slots=True)
class _CachedRate:
    """An account's rate as this function read it last."""

    account_rate: AccountRate
    seen_at: float
    unreported: float = 0.0
    """Recipients sent without a booking since the last booking; the next one includes them."""


class Pacing:
    """`ports.Pacer` over a table that all functions share."""

    def __init__(self, table: PacingTable, *, functions: int) -> None:
        """Pace one of at most `functions` functions that send concurrently."""
        self._table = table
        self._functions = functions
        self._cached: dict[str, _CachedRate] = {}
        self._lock = Lock()

    def reserve(
        self, account: str, source: RateSource, weights: Sequence[int], carried: Sequence[float | None], now: datetime
    ) -> Sequence[Slot | RetryAt]:
        """Return when each message of an account may be sent; see `ports.Pacer.reserve`."""
        has_slots = any(slot is not None for slot in carried)
        cached = self._get(account, source, now, afresh=has_slots)
        self._keep_pace(account, cached, source, sum(weights), now)
        answers = [None if slot is None else cached.account_rate.answer(slot, now.timestamp()) for slot in carried]
        unplaced = [weight for weight, answer in zip(weights, answers, strict=True) if answer is None]
        placed = iter(self._place(account, cached, source, unplaced, now) if unplaced else [])
        return [next(placed) if answer is None else answer for answer in answers]

    def throttled(self, account: str, now: datetime) -> datetime:
        """Slow down an account that SES has throttled; return when it sends again."""
        return self._change_pace(account, AccountRate.throttled, now)

    def quota_exhausted(self, account: str, now: datetime) -> datetime:
        """Pause an account whose daily quota is used up; return until when."""
        return self._change_pace(account, AccountRate.quota_exhausted, now)

    # -- cache

    def _get(self, account: str, source: RateSource, now: datetime, *, afresh: bool = False) -> _CachedRate:
        with self._lock:
            cached = self._cached.pop(account, None)
            if cached is not None:
                self._cached[account] = cached  # the last used is the last dropped
        if cached is not None and not afresh and now.timestamp() - cached.seen_at <= TRUSTED:
            return cached
        account_rate = self._table.get(account) or AccountRate.initial(source, now.timestamp())
        return self._store(account, cached, account_rate, now)

    def _store(self, account: str, cached: _CachedRate | None, account_rate: AccountRate, now: datetime) -> _CachedRate:
        cached = cached or _CachedRate(account_rate, 0.0)
        cached.account_rate, cached.seen_at = account_rate, now.timestamp()
        with self._lock:
            self._cached[account] = cached
            while len(self._cached) > CACHED_RATES:
                del self._cached[next(iter(self._cached))]
        return cached

    # -- slots

    def _place(
        self, account: str, cached: _CachedRate, source: RateSource, weights: Sequence[int], now: datetime
    ) -> Sequence[Slot | RetryAt]:
        if self._is_free(cached, sum(weights), now):
            cached.unreported += sum(weights)
            return [Slot(now)] * len(weights)
        booking = self._book(
            account, cached, source, lambda account_rate: account_rate.book(weights, now.timestamp(), cached.unreported), now
        )
        if booking is None:
            return self._promise(account, cached, source, weights, now)
        cached.unreported = 0.0
        slots = _places(cached.account_rate, booking, weights)
        answers: list[Slot | RetryAt] = [cached.account_rate.answer(slot, now.timestamp()) or Slot(now) for slot in slots]
        if len(answers) < len(weights):
            answers += self._promise(account, cached, source, weights[booking.count :], now)
        return answers

    def _is_free(self, cached: _CachedRate, weight: int, now: datetime) -> bool:
        """Return whether an idle account may send `weight` recipients without a booking."""
        allowed = cached.account_rate.unreported_allowed(self._functions)
        return cached.unreported + weight <= allowed and not cached.account_rate.is_busy(now.timestamp())

    def _promise(
        self, account: str, cached: _CachedRate, source: RateSource, weights: Sequence[int], now: datetime
    ) -> Sequence[Slot | RetryAt]:
        booking = self._book(account, cached, source, lambda account_rate: account_rate.promise(weights, now.timestamp()), now)
        places = _places(cached.account_rate, booking, weights) if booking else []
        return [cached.account_rate.retry_at(place, now.timestamp()) for place in places]

    def _book(
        self, account: str, cached: _CachedRate, source: RateSource, plan: Callable[[AccountRate], Booking | None], now: datetime
    ) -> Booking | None:
        """Make the booking that `plan` returns, and plan again after each conflict; None if nothing is planned."""
        for _ in range(TRIES):
            booking = plan(cached.account_rate)
            if booking is None:
                return None
            try:
                if cached.account_rate.revision:
                    account_rate = self._table.book(account, booking, now)
                else:
                    account_rate = self._table.start(account, replace(cached.account_rate.after(booking), revision=1), now)
            except RateConflictError as conflict:
                account_rate = conflict.current or AccountRate.initial(source, now.timestamp())
                self._store(account, cached, account_rate, now)
            else:
                self._store(account, cached, account_rate, now)
                return booking
        raise DependencyError("DynamoDB", "the booking of slots, because of too many conflicts")

    # -- pace

    def _keep_pace(self, account: str, cached: _CachedRate, source: RateSource, weight: int, now: datetime) -> None:
        """Adopt a newly known rate, and ask SES for it, or raise it, when it is time."""
        time = now.timestamp()
        if (adopted := cached.account_rate.adopted(source, time)) is not None:
            self._repace(account, cached, adopted, now)
        if (
            source.ask is not None
            and cached.account_rate.is_to_ask(source, weight, time)
            and self._repace(account, cached, cached.account_rate.asking(time), now)
        ):
            known = source.ask()
            if known and known != cached.account_rate.cap:
                self._repace(account, cached, cached.account_rate.capped(known, time), now)
        if (quicker := cached.account_rate.quickened(time)) is not None:
            self._repace(account, cached, quicker, now)

    def _change_pace(self, account: str, change: Callable[[AccountRate, float], AccountRate | None], now: datetime) -> datetime:
        """Change the rate unless it is changed already; return when the account sends again."""
        cached = self._cached.get(account)
        for _ in range(TRIES):
            if cached is not None and change(cached.account_rate, now.timestamp()) is None:
                break
            cached = self._get(account, RateSource(), now, afresh=True)
            changed = change(cached.account_rate, now.timestamp())
            if changed is None or self._repace(account, cached, changed, now):
                break
        return max(now, moment(cached.account_rate.since)) if cached else now

    def _repace(self, account: str, cached: _CachedRate, account_rate: AccountRate, now: datetime) -> bool:
        """Change the rate; False if another function was first, whose rate counts then."""
        try:
            stored = (
                self._table.repace(account, account_rate, now)
                if cached.account_rate.revision
                else self._table.start(account, account_rate, now)
            )
        except RateConflictError as conflict:
            if conflict.current is not None:
                self._store(account, cached, conflict.current, now)
            return False
        self._store(account, cached, stored, now)
        return True


def _places(account_rate: AccountRate, booking: Booking, weights: Sequence[int]) -> Sequence[float]:
    """Return the slot of each message of a booking; recipients that were sent without one are counted after them."""
    first = account_rate.end(booking) - booking.weight
    return list(accumulate(weights[: booking.count], initial=first))[:-1]
