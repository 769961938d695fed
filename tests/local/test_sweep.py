"""On the deployed stack SweepFunction invokes itself when one invocation would take too long."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, islice

from mailer.adapters.clock import SystemClock
from mailer.adapters.dynamodb.messages_table import DynamoMessagesTable, sweep_shard
from mailer.domain import changes
from mailer.domain.delivery import Status
from mailer.services.sweeping.dependencies import PAGE
from tools.local_aws import worker
from tools.local_aws.running import LocalAws

TENANT = "swept"
SOON = timedelta(seconds=10)
"""Until all of it is due at once: the schedule's own runs find nothing before."""
IN_TIME = 60.0
"""Seconds from then until a run that was invoked has ended, and its parts."""


def test_two_full_shards_are_swept_by_two_invocations(aws: LocalAws) -> None:
    """Each by one of them: expired requests end."""
    env = worker.environment(aws, "SweepFunction")
    table = DynamoMessagesTable(aws.client("dynamodb"), env["MESSAGES_TABLE"])
    requests = [*of_shard("7", PAGE), *of_shard("11", PAGE)]
    due = datetime.now(UTC) + SOON
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(expire, table, due), requests))
    SystemClock().wait_until(due)
    aws.sweep()
    until = time.monotonic() + IN_TIME
    while any(found.status is not Status.FAILED for request in requests if (found := table.get(TENANT, request))):
        assert time.monotonic() < until, "they are still open"
        time.sleep(1)
    assert owner(aws, env, 7) != owner(aws, env, 11)


def of_shard(shard: str, wanted: int) -> Iterator[str]:
    """Yield ids of requests in a shard of the index."""
    ids = (f"r{number}" for number in count())
    return islice((request_id for request_id in ids if sweep_shard(TENANT, request_id) == shard), wanted)


def expire(table: DynamoMessagesTable, at: datetime, request_id: str) -> None:
    """Write the record of a request that expires at a given time and has no message."""
    created = at - timedelta(days=1)
    request = changes.Request(
        tenant_id=TENANT, request_id=request_id, content_hash="-", created_at=created, expires_at=at, recipients=1, generation=1
    )
    table.apply(changes.defer(request, created, changes.Deferral(until=at, generation=1)))


def owner(aws: LocalAws, env: dict[str, str], shard: int) -> str:
    """Return the run that last leased a shard."""
    item = aws.client("dynamodb").get_item(TableName=env["PACING_TABLE"], Key={"account": {"S": f"sweep/{shard}"}})["Item"]
    return item["owner"]["S"]
