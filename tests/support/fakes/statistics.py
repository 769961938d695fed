"""In-memory statistics table that follows the contract of `mailer.ports.StatisticsTable`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from mailer.domain.statistics import NOTHING, Bucket, Counts, total
from mailer.ports import Counted


class FakeStatisticsTable:
    """Counts by bucket, and the last counted write of each bucket and shard."""

    def __init__(self, hours: Mapping[Bucket, Counts] | None = None) -> None:
        self.hours = defaultdict(lambda: NOTHING, hours or {})
        self.last: dict[tuple[Bucket, str], int] = {}

    def add(self, bucket: Bucket, shard: str, counted: Sequence[Counted]) -> None:
        new = [write for write in counted if int(write.sequence_number) > self.last.get((bucket, shard), -1)]
        if new:
            self.hours[bucket] += total(write.counts for write in new)
            self.last[bucket, shard] = int(new[-1].sequence_number)

    def read(self, series: str, since: datetime, until: datetime) -> Mapping[datetime, Counts]:
        return {bucket.hour: counts for bucket, counts in self.hours.items() if bucket.series == series and since <= bucket.hour < until}
