"""Ends written back into a restored status table: over the machine's head, by an operator, while nobody sends."""

from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors
from mailer.adapters.messages_table import FIELDS
from mailer.domain.delivery import REMEMBERED, Status
from mailer.domain.errors import CODES, ErrorInfo
from mailer.ports import End

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LOST_CONTENT = "lost-v1:"
"""Stands for the hash of a content that nobody knows any more: of another scheme than requests have, so that any of them is the same."""

_AT_REST = ("sweepShard", "sweepAt", "dueAt", "waitsFor", "deadline")


class DynamoLostEnds:
    """`ports.LostEnds` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def write(self, end: End) -> bool:
        """Write one end; see `ports.LostEnds.write`."""
        sets, born = _sets(end), _born(end)
        names = {f"#{name}": name for name in (*sets, *born, *_AT_REST)}
        values: Any = {f":{name}": value for name, value in {**sets, **born}.items()}
        assigned = [f"#{name} = :{name}" for name in sets] + [f"#{name} = if_not_exists(#{name}, :{name})" for name in born]
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key={"tenantId": {"S": end.tenant_id}, "requestId": {"S": end.request_id}},
                    ConditionExpression="attribute_not_exists(#status) OR NOT #status IN (:ended0, :ended1, :ended2, :ended3)",
                    UpdateExpression=f"SET {', '.join(assigned)} REMOVE {', '.join(f'#{name}' for name in _AT_REST)}",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values | _ended(end),
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _ended(end: End) -> dict[str, Any]:
    """Return the ends that this one does not replace: all, or for what SES accepted only the same."""
    others = (Status.SENT, Status.FAILED, Status.CANCELLED, Status.UNKNOWN)
    kept = [Status.SENT] * len(others) if end.status is Status.SENT else others
    return {f":ended{number}": {"S": status} for number, status in enumerate(kept)}


def _sets(end: End) -> dict[str, Any]:
    fields: dict[str, Any] = {"status": end.status, "updated_at": end.at, "attempt": end.attempt, "on_unknown": "hold"}
    if end.status is Status.SENT:
        fields |= {"sent_at": end.at, "message_id": end.message_id}
    if end.code in CODES:
        fields |= {"error": ErrorInfo(end.code or "", "read from the log after a restore of the table")}
    encoded = {FIELDS[name][0]: FIELDS[name][1](value) for name, value in fields.items() if value is not None}
    ttl = int((end.at + REMEMBERED).timestamp())
    return encoded | {"tenantStatus": {"S": f"{end.tenant_id}#{end.status}"}, "ttl": {"N": str(ttl)}}


def _born(end: End) -> dict[str, Any]:
    fields: dict[str, Any] = {"content_hash": LOST_CONTENT, "created_at": end.at, "expires_at": end.at, "recipients": 0, "hop": 0}
    created_key = f"{end.at.isoformat(timespec='milliseconds')}#{end.request_id}"
    return {FIELDS[name][0]: FIELDS[name][1](value) for name, value in fields.items()} | {"createdKey": {"S": created_key}}
