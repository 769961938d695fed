"""Count a batch of writes of the messages table's stream: one write per hour and tenant or account in the batch."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mailer.domain.statistics import Bucket, changed
from mailer.ports import Counted, RecordWrite, StatisticsTable


def count(writes: Iterable[RecordWrite], shard: str, table: StatisticsTable) -> Sequence[RecordWrite]:
    """Count writes of one shard, in its order, and return them; those that were counted before change nothing.

    Raises:
        DependencyError: DynamoDB did not answer. Some buckets may have been counted; a retry with the same writes completes the others.
    """
    writes = list(writes)
    for bucket, counted in _by_bucket(writes).items():
        table.add(bucket, shard, counted)
    return writes


def _by_bucket(writes: Iterable[RecordWrite]) -> Mapping[Bucket, Sequence[Counted]]:
    buckets: dict[Bucket, list[Counted]] = defaultdict(list)
    for write in writes:
        for bucket, counts in changed(write.old, write.new).items():
            buckets[bucket].append(Counted(write.sequence_number, counts))
    return buckets
