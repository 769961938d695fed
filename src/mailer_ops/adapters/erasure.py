"""Delete the data of a request or a tenant from tables and bucket: the record, every version of an object, an account's rate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb.codec import expiry, operands
from mailer.adapters.dynamodb.feedback_table import facts_key, message_key
from mailer.adapters.dynamodb.messages_table import FIELDS, from_item, read_record, record_key, tenant_shards
from mailer.domain.delivery import ERASED_CONTENT, Delivery
from mailer.domain.errors import DependencyError
from mailer.ports import RefusedError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

_BATCH = 1000
"""Keys in one DeleteObjects (S3's limit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Names of the tables that are erased from."""

    messages: str
    feedback: str
    providers: str
    pacing: str
    statistics: str


class AwsEraser:
    """`ports.Eraser` on DynamoDB and S3."""

    def __init__(self, dynamodb: "DynamoDBClient", s3: "S3Client", tables: Tables, bucket: str) -> None:
        self._dynamodb = dynamodb
        self._s3 = s3
        self._tables = tables
        self._bucket = bucket

    def records(self, tenant_id: str) -> Iterator[Delivery]:
        """Yield a tenant's records that are not erased yet, read consistently."""
        for shard in tenant_shards(tenant_id):
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._tables.messages,
                KeyConditionExpression="tenantShard = :shard",
                FilterExpression="contentHash <> :erased",
                ExpressionAttributeValues={":shard": {"S": shard}, ":erased": {"S": ERASED_CONTENT}},
                ConsistentRead=True,
            )
            with dependency_errors("DynamoDB", "Query"):
                for page in pages:
                    with readable("DynamoDB", "Query"):
                        items = page["Items"]
                    yield from [read_record(item) for item in items]

    def erase_record(self, record: Delivery, *, keep_until: datetime | None) -> None:
        """Delete an ended record, or all of it but its ids and its status; see `ports.Eraser.erase_record`."""
        unchanged: Any = {
            "ConditionExpression": "#status = :status AND updatedAt = :updated_at",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {f":{name}": FIELDS[name][1](getattr(record, name)) for name in ("status", "updated_at")},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        key = record_key(record.tenant_id, record.request_id)
        try:
            if keep_until is None:
                with dependency_errors("DynamoDB", "DeleteItem"):
                    self._dynamodb.delete_item(TableName=self._tables.messages, Key=key, **unchanged)
            else:
                with dependency_errors("DynamoDB", "PutItem"):
                    self._dynamodb.put_item(TableName=self._tables.messages, Item=_stub(record, keep_until), **unchanged)
        except self._dynamodb.exceptions.ConditionalCheckFailedException as refusal:
            current: Any = refusal.response.get("Item")
            raise RefusedError(from_item(current) if current else None) from None

    def erase_objects(self, prefix: str) -> int:
        """Delete every version of the objects with a key prefix, and their delete markers."""
        return self._erase(self._versions(prefix))

    def erase_object(self, key: str) -> int:
        """Delete every version of one object, and its delete markers."""
        return self._erase(version for version in self._versions(key) if version["Key"] == key)

    def _erase(self, versions: Iterable[Any]) -> int:
        erased = 0
        for some in batched(versions, _BATCH, strict=False):
            with dependency_errors("S3", "DeleteObjects"):
                answer = self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": list(some), "Quiet": True})
            if failed := answer.get("Errors"):
                raise DependencyError("S3", f"DeleteObjects ({failed[0].get('Code')})")
            erased += len(some)
        return erased

    def _versions(self, prefix: str) -> Iterator[Any]:
        with dependency_errors("S3", "ListObjectVersions"):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                    yield {"Key": entry["Key"], "VersionId": entry["VersionId"]}

    def erase_feedback(self, tenant_id: str, request_id: str, record: Delivery | None) -> int:
        """Delete the facts of a request, and the messageIds by which SES knows its mail; see `ports.Eraser.erase_feedback`."""
        if record and record.earlier_attempts:  # their messageIds are only in the items themselves
            return self._erase_found("tenantId = :tenant AND requestId = :request", tenant=tenant_id, request=request_id)
        keys = [facts_key(tenant_id, request_id)]
        if record and record.account and record.region and record.message_id:
            keys.append(message_key(record.account, record.region, record.message_id))
        return sum(map(self._erase_fed_back, keys))

    def erase_all_feedback(self, tenant_id: str) -> int:
        """Delete the facts of a tenant's requests and the messageIds of its mail."""
        return self._erase_found("tenantId = :tenant", tenant=tenant_id)

    def _erase_found(self, condition: str, **ids: str) -> int:
        """Delete the items of feedback of a tenant, or of a request; reads the whole table."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._tables.feedback,
            FilterExpression=condition,
            ProjectionExpression="pk, sk",
            ExpressionAttributeValues=operands(**ids),
            ConsistentRead=True,
        )
        with dependency_errors("DynamoDB", "Scan"):
            keys = [item for page in pages for item in page["Items"]]
        return sum(map(self._erase_fed_back, keys))

    def _erase_fed_back(self, key: Any) -> int:
        return self._erase_item(self._tables.feedback, key)

    def _erase_item(self, table: str, key: Any) -> int:
        with dependency_errors("DynamoDB", "DeleteItem"):
            gone = self._dynamodb.delete_item(TableName=table, Key=key, ReturnValues="ALL_OLD")
        return int(bool(gone.get("Attributes")))

    def erase_statistics(self, tenant_id: str) -> int:
        """Delete the counts of a tenant; those of its account are all tenants' together, and name none."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._tables.statistics,
            KeyConditionExpression="series = :series",
            ProjectionExpression="series, hourShard",
            ExpressionAttributeValues={":series": {"S": tenant_id}},
            ConsistentRead=True,
        )
        with dependency_errors("DynamoDB", "Query"):
            keys = [item for page in pages for item in page["Items"]]
        return sum(self._erase_item(self._tables.statistics, key) for key in keys)

    def erase_account_rate(self, account: str) -> bool:
        """Delete an account's rate; return whether there was one."""
        return bool(self._erase_item(self._tables.pacing, {"account": {"S": account}}))

    def shares_account(self, tenant_id: str, account: str) -> bool:
        """Tell whether another tenant's config sends through an AWS account."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._tables.providers,
            FilterExpression="tenantId <> :tenant AND (active.account = :account OR candidate.account = :account)",
            ProjectionExpression="tenantId",
            ExpressionAttributeValues={":tenant": {"S": tenant_id}, ":account": {"S": account}},
        )
        with dependency_errors("DynamoDB", "Scan"):
            return any(page["Items"] for page in pages)


def _stub(record: Delivery, keep_until: datetime) -> dict[str, Any]:
    """Return the attributes that stay of a record; without the indexes' sort keys, so that no list shows it."""
    fields: dict[str, Any] = {
        "tenant_id": record.tenant_id,
        "request_id": record.request_id,
        "status": record.status,
        "content_hash": ERASED_CONTENT,
        "created_at": record.updated_at,
        "updated_at": record.updated_at,
        "expires_at": record.updated_at,
        "recipients": 0,
        "generation": record.generation,
    }
    encoded = {FIELDS[name][0]: FIELDS[name][1](value) for name, value in fields.items()}
    return record_key(record.tenant_id, record.request_id) | encoded | {"ttl": expiry(keep_until)}
