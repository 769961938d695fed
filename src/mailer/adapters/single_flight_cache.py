"""Thread-safe bounded cache; concurrent misses compute once, values may expire, and may be renewed before they do."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock

from mailer.domain.errors import DependencyError

RENEW_AGAIN_AFTER = timedelta(seconds=30)
"""How long a value that could not be renewed early is used before the next try."""

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Kept[Value]:
    value: Value
    until: datetime
    renew_at: datetime
    weight: int


class SingleFlightCache[Key: Hashable, Value]:
    """Values by key; the least recently used are dropped first when all together weigh more than `size`, and so are those that expired."""

    def __init__(self, size: int, now: Callable[[], datetime], weigh: Callable[[Key, Value], int] = lambda *_: 1) -> None:
        """`weigh` returns the weight of an entry, in the unit of `size`: bytes, or 1 where entries are counted."""
        self._size = size
        self._now = now
        self._weigh = weigh
        self._lock = Lock()
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()
        self._making: dict[Key, Future[Value]] = {}
        self.weight = 0

    def get(
        self,
        key: Key,
        make: Callable[[], Value],
        until: Callable[[Value], datetime] = lambda _: _NEVER,
        renew_at: Callable[[Value], datetime] = lambda _: _NEVER,
    ) -> Value:
        """Return the cached value, or compute it; `until` returns when it expires.

        Threads that ask while it is being computed wait and get its value or its exception; an exception is not cached. From `renew_at` on
        the first thread that asks computes the next value, while the others get the cached one. If a service fails, so does the first.
        """
        with self._lock:
            now = self._now()
            kept = self._current(key, now)
            future = self._making.get(key)
            if kept and (future or now < kept.renew_at):
                return kept.value
            is_mine = future is None
            future = future or self._making.setdefault(key, Future())
        if is_mine:
            self._make(key, future, make, until, renew_at)
        if kept and isinstance(future.exception(), DependencyError):
            kept.renew_at = self._now() + RENEW_AGAIN_AFTER
            return kept.value
        return future.result()

    def find(self, key: Key) -> Value | None:
        """Return the cached value, if there is one."""
        with self._lock:
            kept = self._current(key, self._now())
            return kept.value if kept else None

    def keep(self, key: Key, value: Value, until: datetime = _NEVER) -> None:
        """Cache a value that was computed elsewhere."""
        with self._lock:
            self._put(key, _Kept(value, until, _NEVER, self._weigh(key, value)))

    def _current(self, key: Key, now: datetime) -> _Kept[Value] | None:
        kept = self._kept.get(key)
        if kept is None or now >= kept.until:
            return None
        self._kept.move_to_end(key)
        return kept

    def _make(
        self,
        key: Key,
        future: Future[Value],
        make: Callable[[], Value],
        until: Callable[[Value], datetime],
        renew_at: Callable[[Value], datetime],
    ) -> None:
        try:
            value = make()
            made = _Kept(value, until(value), renew_at(value), self._weigh(key, value))
        except BaseException as error:  # noqa: BLE001  # whatever it is, those who wait must not wait for ever
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._making[key]
            self._put(key, made)
        future.set_result(value)

    def _put(self, key: Key, made: _Kept[Value]) -> None:
        self._drop(key)
        self._kept[key] = made
        self.weight += made.weight
        now = self._now()
        while self._kept:
            oldest = next(iter(self._kept))
            if self.weight <= self._size and now < self._kept[oldest].until:
                break
            self._drop(oldest)

    def _drop(self, key: Key) -> None:
        dropped = self._kept.pop(key, None)
        if dropped:
            self.weight -= dropped.weight

    def forget(self, key: Key, value: Value) -> None:
        """Drop a value that is not valid any more, unless it has been replaced already."""
        with self._lock:
            kept = self._kept.get(key)
            if kept and kept.value is value:
                self._drop(key)
