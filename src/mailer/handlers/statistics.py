"""StatisticsFunction, called by the messages table's stream with the writes to count.

A redelivered batch counts nothing twice (`adapters.dynamodb.statistics_table`), so any failure is an error of the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailer import wiring
from mailer.adapters.dynamodb.table_stream import record_write, tenant_of
from mailer.ports import RecordWrite
from mailer.services.statistics.count import count
from mailer.services.statistics.guard import guard


def handler(event: Mapping[str, Any], _context: Any) -> Mapping[str, Any]:
    """Count a batch of writes of one shard, and judge the tenants with new bounces or complaints.

    Lambda passes the shard's id only with a tumbling window. Such a function returns a state, and gets a batch without records at the
    window's end.
    """
    try:
        writes = count(_writes(event["Records"]), event.get("shardId", _ONLY_SHARD), wiring.statistics_table())
        guard(writes, wiring.guard_dependencies())
    finally:
        wiring.telemetry().flush()
    return {"state": {}}


_ONLY_SHARD = "shard"
"""Name of the only shard of a stream on the local AWS, which passes no id."""


def _writes(records: Sequence[Mapping[str, Any]]) -> Iterator[RecordWrite]:
    for record in records:
        try:
            yield record_write(record)
        except Exception as error:  # noqa: BLE001  # an unreadable record must not block its shard for a day
            wiring.telemetry().failed("count", tenant_of(record), error)
