"""The marks of messages that are tried alone: items of the status table beside its records.

Their tenant is one that no tenant can be, their requestId SQS's message id; they stand in no index. Times are epoch milliseconds,
`ttl` epoch seconds.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.codec import encode
from mailer.ports import Stage, Trial

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TENANT = "~trial"

KEPT = timedelta(days=15)
"""Longer than the queue keeps a message."""

_NAMES = {"#stage": "stage", "#by": "by", "#at": "at"}


class DynamoTrials:
    """`ports.Trials` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def find(self, sqs_message_id: str) -> Trial | None:
        """Read a mark, consistently."""
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key=_key(sqs_message_id), ConsistentRead=True)
        with readable("DynamoDB", "GetItem"):
            return _from_item(found.get("Item", {}))

    def begin(self, sqs_message_id: str, by: str, now: datetime) -> Trial | None:
        """Mark a message unless it is marked; see `ports.Trials.begin`."""
        try:
            self._write(sqs_message_id, Trial(Stage.READING, by, now), ConditionExpression="attribute_not_exists(#stage)")
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            old: Any = refusal.response.get("Item", {})
            with readable("DynamoDB", "UpdateItem"):
                trial = _from_item(old)
            # Our own mark: the reply to this write was lost, and the SDK repeated it.
            return None if trial is None or trial.by == by else trial
        return None

    def reach(self, sqs_message_id: str, trial: Trial) -> None:
        """Record how far the try got."""
        self._write(sqs_message_id, trial)

    def clear(self, sqs_message_id: str) -> None:
        """Remove the mark."""
        with dependency_errors("DynamoDB", "UpdateItem"):
            self._client.update_item(
                TableName=self._table,
                Key=_key(sqs_message_id),
                UpdateExpression="REMOVE #stage, #by, #at",
                ExpressionAttributeNames=_NAMES,
            )

    def _write(self, sqs_message_id: str, trial: Trial, **condition: Any) -> None:
        values = {
            ":stage": encode(trial.stage),
            ":by": encode(trial.by),
            ":at": encode(trial.at),
            ":ttl": codec.expiry(trial.at + KEPT),
        }
        with dependency_errors("DynamoDB", "UpdateItem"):
            self._client.update_item(
                TableName=self._table,
                Key=_key(sqs_message_id),
                UpdateExpression="SET #stage = :stage, #by = :by, #at = :at, #ttl = :ttl",
                ExpressionAttributeNames=_NAMES | {"#ttl": "ttl"},
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            )


def _key(sqs_message_id: str) -> dict[str, Any]:
    return {"tenantShard": {"S": TENANT}, "requestId": {"S": sqs_message_id}}


def _from_item(item: Mapping[str, Any]) -> Trial | None:
    """Read a mark from its item; None if it was removed."""
    if "stage" not in item:
        return None
    return Trial(Stage(codec.text(item["stage"])), codec.text(item["by"]), codec.moment(item["at"]))
