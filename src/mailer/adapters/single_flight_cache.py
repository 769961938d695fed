"""Thread-safe bounded cache; concurrent misses compute once, values may expire."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from datetime import UTC, datetime
from threading import Lock

_NEVER = datetime.max.replace(tzinfo=UTC)


class SingleFlightCache[Key: Hashable, Value]:
    """Values by key; the least recently used is dropped first when there are more than `size`."""

    def __init__(self, size: int, now: Callable[[], datetime]) -> None:
        self._size = size
        self._now = now
        self._lock = Lock()
        self._kept: OrderedDict[Key, tuple[Value, datetime]] = OrderedDict()
        self._making: dict[Key, Future[Value]] = {}

    def get(self, key: Key, make: Callable[[], Value], until: Callable[[Value], datetime] = lambda _: _NEVER) -> Value:
        """Return the cached value, or compute it; `until` returns when it expires.

        Threads that ask while it is being computed wait and get its value or its exception; an exception is not cached.
        """
        mine = Future[Value]()
        with self._lock:
            kept = self._kept.get(key)
            if kept and self._now() < kept[1]:
                self._kept.move_to_end(key)
                return kept[0]
            future = self._making.setdefault(key, mine)
        if future is mine:
            self._make(key, mine, make, until)
        return future.result()

    def _make(self, key: Key, future: Future[Value], make: Callable[[], Value], until: Callable[[Value], datetime]) -> None:
        try:
            value = make()
            good_until = until(value)
        except BaseException as error:  # noqa: BLE001  # whatever it is, those who wait must not wait for ever
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._making[key]
            self._kept[key] = value, good_until
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        future.set_result(value)

    def forget(self, key: Key, value: Value) -> None:
        """Drop a value that is not valid any more, unless it has been replaced already."""
        with self._lock:
            kept = self._kept.get(key)
            if kept and kept[0] is value:
                del self._kept[key]
