"""Who sweeps a shard of the sweep index: items of the pacing table beside the accounts' rates.

Key (template.yaml): account, here `sweep/` and the shard, as no sending account is called. Times are epoch milliseconds, `ttl` epoch
seconds.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.codec import Item, encode

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LONGEST = timedelta(minutes=2)
"""No run lasts as long: a lease that ends later was taken by a clock that is wrong, and is none."""

KEPT = timedelta(days=1)


class DynamoSweepLeases:
    """`ports.SweepLeases` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def take(self, shard: int, owner: str, now: datetime, until: datetime) -> bool:
        """Take a shard by one conditional write; also where it is ours already, because the reply was lost."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(shard),
                    UpdateExpression="SET #owner = :owner, #until = :until, #ttl = :ttl",
                    ConditionExpression="attribute_not_exists(#until) OR #until <= :now OR #until > :longest OR #owner = :owner",
                    ExpressionAttributeNames={"#owner": "owner", "#until": "until", "#ttl": "ttl"},
                    ExpressionAttributeValues={
                        ":owner": encode(owner),
                        ":until": encode(until),
                        ":now": encode(now),
                        ":longest": encode(now + LONGEST),
                        ":ttl": codec.expiry(now + KEPT),
                    },
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def release(self, shard: int, owner: str) -> None:
        """End a lease that is still ours."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException), dependency_errors("DynamoDB", "UpdateItem"):
            self._client.update_item(
                TableName=self._table,
                Key=_key(shard),
                UpdateExpression="REMOVE #until",
                ConditionExpression="#owner = :owner",
                ExpressionAttributeNames={"#owner": "owner", "#until": "until"},
                ExpressionAttributeValues={":owner": encode(owner)},
            )


def _key(shard: int) -> Item:
    return {"account": {"S": f"sweep/{shard}"}}
