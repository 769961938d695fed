"""The statistics table: one item per series, hour and shard of the messages table's stream; each write of a record is counted once.

Key: series (a tenant's id, or `account#{account}#{region}`) + hourShard (`2026-11-24T12#{shard}`). `seq` is the sequence number of the last
write that an item counts. A shard delivers its writes in order the first time, one batch after the other; what it redelivers is never
above `seq`. Each shard has its own item, because sequence numbers of different shards cannot be compared.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.codec import Item, operands
from mailer.domain.errors import DependencyError
from mailer.domain.moments import utc_hour
from mailer.domain.statistics import COLUMNS, NOTHING, RETENTION, Bucket, Counts, total
from mailer.ports import Counted

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_TRIES = 5
"""Writes of one item before the batch fails; a second one is needed only if an earlier invocation still runs."""

_TTL = RETENTION + timedelta(days=2)  # a list by days begins with the day that is 90 days ago, and DynamoDB deletes late

_DIGITS = 40
"""Maximum length of a sequence number (DynamoDB's limit), more than a number attribute stores: they are compared as padded text."""


class DynamoStatisticsTable:
    """`ports.StatisticsTable` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def add(self, bucket: Bucket, shard: str, counted: Sequence[Counted]) -> None:
        """Add the counts of one shard's writes, given in its order; those that were added before add nothing."""
        left = list(counted)
        for _ in range(_TRIES):
            last = self._add(bucket, shard, left) if left else None
            if last is None:
                return
            left = [one for one in left if _text(one.sequence_number) > last]
        raise DependencyError("DynamoDB", "UpdateItem (kept changing)")

    def _add(self, bucket: Bucket, shard: str, counted: Sequence[Counted]) -> str | None:
        """Add all or nothing; return the item's sequence number if it is not below these, else None."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(bucket, shard),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **_expressions(bucket, counted),
                )
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            current: Any = refusal.response.get("Item")
            with readable("DynamoDB", "UpdateItem"):
                return codec.text(current["seq"])
        return None

    def read(self, series: str, since: datetime, until: datetime) -> Mapping[datetime, Counts]:
        """Return the counts of each hour from `since` on that begins before `until`; hours without counts are left out."""
        hours: dict[datetime, Counts] = {}
        query: dict[str, Any] = {}
        while True:
            with dependency_errors("DynamoDB", "Query"):
                page = self._client.query(
                    TableName=self._table,
                    ConsistentRead=True,
                    KeyConditionExpression="series = :series AND hourShard BETWEEN :since AND :until",
                    # A key continues after its hour, so keys of `until` itself sort after the bound.
                    ExpressionAttributeValues=operands(series=series, since=_hour(since), until=_hour(until)),
                    **query,
                )
            with readable("DynamoDB", "Query"):
                for item in page["Items"]:
                    hour = utc_hour(codec.text(item["hourShard"]).partition("#")[0])
                    hours[hour] = hours.get(hour, NOTHING) + _counts(item)
            if "LastEvaluatedKey" not in page:
                return hours
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _expressions(bucket: Bucket, counted: Sequence[Counted]) -> dict[str, Any]:
    sums = total(one.counts for one in counted)
    added = {name: getattr(sums, name) for name in COLUMNS if getattr(sums, name)}
    adds = f" ADD {', '.join(f'#{name} :{name}' for name in added)}" if added else ""
    first, last = _text(counted[0].sequence_number), _text(counted[-1].sequence_number)
    return {
        "UpdateExpression": f"SET seq = :last, #ttl = :ttl{adds}",
        "ConditionExpression": "attribute_not_exists(seq) OR seq < :first",
        "ExpressionAttributeNames": {"#ttl": "ttl", **{f"#{name}": name for name in added}},
        "ExpressionAttributeValues": operands(first=first, last=last, **added) | {":ttl": codec.expiry(bucket.hour + _TTL)},
    }


def _counts(item: Mapping[str, Any]) -> Counts:
    return Counts(**{name: codec.integer(item[name]) for name in COLUMNS if name in item})


def _key(bucket: Bucket, shard: str) -> Item:
    return {"series": {"S": bucket.series}, "hourShard": {"S": f"{_hour(bucket.hour)}#{shard}"}}


def _hour(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H")


def _text(sequence_number: str) -> str:
    return sequence_number.zfill(_DIGITS)
