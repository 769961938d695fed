"""Read many items by key; unprocessed keys are retried with backoff, a limited number of times."""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb.codec import Item
from mailer.domain.errors import DependencyError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEYS = 100
"""Keys in one BatchGetItem (DynamoDB's limit)."""

TRIES = 6
"""Calls for the same keys before the read fails."""

FIRST_WAIT = 0.05
"""Longest wait before the second call, in seconds; it doubles with each call, 1.5 s in all."""


def batch_get(client: "DynamoDBClient", table: str, keys: Sequence[Item]) -> Iterator[Item]:
    """Yield the items that exist, read consistently, in any order.

    Raises:
        DependencyError: DynamoDB did not answer, or still leaves keys unprocessed: it throttles the table.
    """
    for some in batched(keys, KEYS, strict=False):
        yield from _read(client, table, some)


def _read(client: "DynamoDBClient", table: str, keys: Sequence[Item]) -> Iterator[Item]:
    pending: Any = {table: {"Keys": list(keys), "ConsistentRead": True}}
    for number in range(TRIES):
        if number:
            time.sleep(random.uniform(0, FIRST_WAIT * 2 ** (number - 1)))  # noqa: S311  # no secret
        with dependency_errors("DynamoDB", "BatchGetItem"):
            answer = client.batch_get_item(RequestItems=pending)
        with readable("DynamoDB", "BatchGetItem"):
            found = answer["Responses"]
        yield from found.get(table, [])
        pending = answer.get("UnprocessedKeys")
        if not pending:
            return
    raise DependencyError("DynamoDB", "BatchGetItem (throttled)")
