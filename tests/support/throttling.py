"""A DynamoDB that throttles by partition, in simulated time.

Each partition of a table or an index takes 1 000 write units a second, plus its unused ones of the last second. A write is rejected as
a whole if one of its partitions has none left: an index throttles the writes of its table (DynamoDB developer guide, "Global
secondary indexes", provisioned throughput considerations). Without `shared` each value of a partition key has its own partition, as hot
keys have after DynamoDB has split them; else the values share that many partitions, as before the split.
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
        """Take a write at a second; False: it is throttled and uses no units."""
        needed: dict[tuple[str, str | int], float] = {}
        for write in writes:
            key = write.index, write.partition if self.shared is None else zlib.crc32(write.partition.encode()) % self.shared
            needed[key] = needed.get(key, 0.0) + write.units
        left = {key: self._left(key, now) - units for key, units in needed.items()}
        if min(left.values()) < 0:
            return False
        self._tokens |= {key: (tokens, now) for key, tokens in left.items()}
        return True

    def _left(self, key: tuple[str, str | int], now: float) -> float:
        tokens, refilled_at = self._tokens.get(key, (UNITS / 10, now))
        return min(UNITS, tokens + (now - refilled_at) * UNITS)


def highest(holds: Callable[[int], bool], upto: int, step: int) -> int:
    """Return the highest multiple of a step, up to a bound, for which a monotonic condition holds; 0: for none."""
    low, high = 0, upto // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle * step) else (low, middle - 1)
    return low * step
