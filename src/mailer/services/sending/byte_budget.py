"""Limit the bytes in memory: threads take bytes from a budget, and wait in order of arrival while too few are left."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class ByteBudget:
    """A number of bytes that may be held at once.

    No thread overtakes another that waits for many bytes. A weight above the whole budget takes all of it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._changed = Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def hold(self, weight: int) -> Iterator["Held"]:
        """Wait for `weight` bytes, and hold them until the block ends."""
        held = Held(self, min(weight, self._size))
        self._take(held)
        try:
            yield held
        finally:
            self.release(held.weight)

    def _take(self, held: "Held") -> None:
        with self._changed:
            self._line.append(held)
            self._changed.wait_for(lambda: self._line[0] is held and held.weight <= self._left)
            self._line.popleft()
            self._left -= held.weight
            self._changed.notify_all()

    def release(self, weight: int) -> None:
        """Return bytes, and wake the threads that wait for them."""
        with self._changed:
            self._left += weight
            self._changed.notify_all()


class Held:
    """The bytes that one thread holds; used by that thread only."""

    __slots__ = ("_budget", "weight")

    def __init__(self, budget: ByteBudget, weight: int) -> None:
        self._budget = budget
        self.weight = weight

    def shrink(self, weight: int) -> None:
        """Return the bytes that are not needed."""
        if weight < self.weight:
            self._budget.release(self.weight - weight)
            self.weight = weight
