"""Write lost outcomes into a restored status table while sending is paused; not by the rules of the transition table."""

from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors
from mailer.adapters.dynamodb.codec import expiry
from mailer.adapters.dynamodb.messages_table import (
    FIELDS,
    created_key_attribute,
    from_item,
    record_key,
    status_attribute,
    sweep_shard,
)
from mailer.domain.delivery import LOST_CONTENT, RECORD_RETENTION, Delivery, Status
from mailer.domain.errors import CODES, ErrorInfo
from mailer.ports import RefusedError
from mailer_ops.ports import FinalOutcome

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_NO_TIMERS = ("sweepShard", "sweepAt", "dueAt", "waitsFor", "deadline")


class DynamoOutcomeRestore:
    """`ports.OutcomeRestore` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def write(self, outcome: FinalOutcome) -> bool:
        """Write one final outcome; see `ports.OutcomeRestore.write`."""
        sets, initial = _sets(outcome), _initial_attributes(outcome)
        gone = [name for name in (*_NO_TIMERS, "error") if name not in sets]
        names = {f"#{name}": name for name in (*sets, *initial, *gone)}
        values: Any = {f":{name}": value for name, value in {**sets, **initial}.items()}
        assigned = [f"#{name} = :{name}" for name in sets] + [f"#{name} = if_not_exists(#{name}, :{name})" for name in initial]
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=record_key(outcome.tenant_id, outcome.request_id),
                    ConditionExpression=_ACCEPTED if outcome.status is Status.SENT else _NEWER,
                    UpdateExpression=f"SET {', '.join(assigned)} REMOVE {', '.join(f'#{name}' for name in gone)}",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values | _operands(outcome),
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def reopen(self, record: Delivery, over: Delivery | None) -> None:
        """Write an open record; see `ports.OutcomeRestore.reopen`."""
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(tenantShard)"}
        if over is not None:
            condition = {
                "ConditionExpression": "#status = :status AND updatedAt = :updated_at AND generation = :generation",
                "ExpressionAttributeNames": {"#status": "status"},
                "ExpressionAttributeValues": {f":{name}": _field(name, over) for name in ("status", "updated_at", "generation")},
            }
        try:
            with dependency_errors("DynamoDB", "PutItem"):
                self._client.put_item(TableName=self._table, Item=_item(record), ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition)
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            current: Any = refusal.response.get("Item")
            raise RefusedError(from_item(current) if current else None) from None


def _item(record: Delivery) -> dict[str, Any]:
    """Write a whole record, with what the indexes and DynamoDB's TTL need."""
    fields = {attribute: _field(name, record) for name, (attribute, _, _) in FIELDS.items() if getattr(record, name) is not None}
    derived = status_attribute(record.tenant_id, record.request_id, record.status)
    derived |= record_key(record.tenant_id, record.request_id) | created_key_attribute(record.created_at, record.request_id)
    if record.sweep_at is not None:
        derived["sweepShard"] = {"S": sweep_shard(record.tenant_id, record.request_id)}
    if record.forget_at is not None:
        derived["ttl"] = expiry(record.forget_at)
    if not record.maybe_sent:  # its condition asks whether it is there
        del fields["maybeSent"]
    return {**fields, **derived}


def _field(name: str, record: Delivery) -> Any:
    return FIELDS[name][1](getattr(record, name))


_ACCEPTED = "attribute_not_exists(#status) OR #status <> :sent"

_NEWER = (
    "attribute_not_exists(#status) OR ((attribute_not_exists(#attempt) OR #attempt <= :attempt)"
    " AND (#updatedAt < :updatedAt OR (#updatedAt = :updatedAt AND #status <> :unknown))"
    " AND NOT #status IN (:sent, :failed, :cancelled))"
)
"""The record is older, and open or `unknown`; another end is final."""


def _operands(outcome: FinalOutcome) -> dict[str, Any]:
    names = [Status.SENT] if outcome.status is Status.SENT else [Status.SENT, Status.FAILED, Status.CANCELLED, Status.UNKNOWN]
    return {f":{name}": {"S": name} for name in names}


def _sets(outcome: FinalOutcome) -> dict[str, Any]:
    fields: dict[str, Any] = {"status": outcome.status, "updated_at": outcome.at, "attempt": outcome.attempt, "on_unknown": "hold"}
    if outcome.account and outcome.region:
        fields |= {"account": outcome.account, "region": outcome.region}
    if outcome.status is Status.SENT:
        fields |= {"sent_at": outcome.at, "message_id": outcome.message_id}
    if outcome.code in CODES:
        fields |= {"error": ErrorInfo(outcome.code or "", "read from the log after a restore of the table")}
    encoded = {FIELDS[name][0]: FIELDS[name][1](value) for name, value in fields.items() if value is not None}
    status = status_attribute(outcome.tenant_id, outcome.request_id, outcome.status)
    return encoded | status | {"ttl": expiry(outcome.at + RECORD_RETENTION)}


def _initial_attributes(outcome: FinalOutcome) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "tenant_id": outcome.tenant_id,
        "content_hash": LOST_CONTENT,
        "created_at": outcome.at,
        "expires_at": outcome.at,
        "recipients": 0,
        "generation": 0,
    }
    return {FIELDS[name][0]: FIELDS[name][1](value) for name, value in fields.items()} | created_key_attribute(
        outcome.at, outcome.request_id
    )
