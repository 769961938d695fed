"""The messages table's stream calls StatisticsFunction with what was written, to be counted once.

A batch that is delivered again counts nothing twice (`adapters.dynamodb.statistics_table`), so any failure is an error of the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailer import wiring
from mailer.adapters.dynamodb.table_stream import record_write, tenant_of
from mailer.ports import RecordWrite
from mailer.services.statistics.count import count
from mailer.services.statistics.guard import guard


def handler(event: Mapping[str, Any], _context: Any) -> Mapping[str, Any]:
    """Count a batch of writes of one shard, and judge the tenants whose mail was received badly.

    Lambda names the shard to functions with a tumbling window alone; those answer a state, and get batches without records at its end.
    """
    try:
        writes = count(_writes(event["Records"]), event.get("shardId", _ONLY_SHARD), wiring.statistics_table())
        guard(writes, wiring.guard_dependencies())
    finally:
        wiring.telemetry().flush()
    return {"state": {}}


_ONLY_SHARD = "shard"
"""Of a stream on the local AWS, which has one and does not name it."""


def _writes(records: Sequence[Mapping[str, Any]]) -> Iterator[RecordWrite]:
    for record in records:
        try:
            yield record_write(record)
        except Exception as error:  # noqa: BLE001  # an unreadable record must not hold up those behind it for a day
            wiring.telemetry().failed("count", tenant_of(record), error)
