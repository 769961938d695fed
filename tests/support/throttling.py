"""A DynamoDB that throttles by partition, in simulated time.

Each partition of a table or an index takes 1 000 write units a second, with what it has not used of the last second. A write is refused as
a whole if one partition that it goes to has none left: an index holds up the writes of its table (DynamoDB developer guide, "Global
secondary indexes", provisioned throughput considerations). With `at_once` each value of a partition key has a partition of its own, as hot
keys come to have; else values share as many partitions as the table has, as they do before DynamoDB has told the hot ones apart.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.aws.write_units import PartitionWrite

UNITS = 1000.0
"""Write units a second that one partition takes."""


@dataclass
class Partitions:
    """The partitions of a table and its indexes, each a token bucket."""

    shared: int | None = None
    """How many partitions the table and each index have; None: one for each value of the key."""
    _tokens: dict[tuple[str, str | int], tuple[float, float]] = field(default_factory=dict)

    def write(self, writes: Sequence[PartitionWrite], now: float) -> bool:
        """Take a write that was made at a second; False: it is throttled, and costs nothing."""
        needed: dict[tuple[str, str | int], float] = {}
        for write in writes:
            place = write.index, write.partition if self.shared is None else zlib.crc32(write.partition.encode()) % self.shared
            needed[place] = needed.get(place, 0.0) + write.units
        left = {place: self._left(place, now) - units for place, units in needed.items()}
        if min(left.values()) < 0:
            return False
        self._tokens |= {place: (tokens, now) for place, tokens in left.items()}
        return True

    def _left(self, place: tuple[str, str | int], now: float) -> float:
        tokens, then = self._tokens.get(place, (UNITS / 10, now))
        return min(UNITS, tokens + (now - then) * UNITS)


def highest(holds: Callable[[int], bool], upto: int, step: int) -> int:
    """Return the highest multiple of a step, up to a bound, for which something holds that holds for all below; 0: for none."""
    low, high = 0, upto // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle * step) else (low, middle - 1)
    return low * step
