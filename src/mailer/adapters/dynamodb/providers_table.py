"""The providers table: one row a tenant, its configs encrypted, every write conditional on what its writer had read.

Key: tenantId. Index `byRelease`, sparse: releaseShard + releaseAt, only tenants whose waiting mail is to be set free.
The provider API replaces a row it has read (`revision` counts the writes); sending counts faults and suspends by updates whose
conditions name the version at fault, which raise `revision` too. Times are epoch milliseconds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import batched
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from mailer.adapters.aws import UNREADABLE, dependency_errors, readable
from mailer.domain.errors import DependencyError, ErrorInfo, UnreadableError
from mailer.domain.provider import SUSPEND_AFTER, Provider, ProviderStatus, StoredConfig
from mailer.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RELEASE_MARKED = timedelta(minutes=5)
"""How long a tenant stays marked at least: longer than any batch may run that has read the row as it was before."""

_BATCH_GET = 100
"""Keys in one BatchGetItem (DynamoDB's limit)."""

_RELEASES = 1000
"""Tenants that one run of the sweeper takes on."""

_SHARD = "release"  # one partition of the index will do: a provider is enabled or verified by hand

Item = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DynamoProvidersTable:
    """`ports.ProvidersTable`, `ports.ProviderStore` and `ports.Releases` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str, clock: Clock) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    # -- what the provider API does --------------------------------------------------------------------------------------

    def get(self, tenant_id: str) -> Provider | None:
        """Read a row, consistently; a tombstone is a row."""
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key=_key(tenant_id), ConsistentRead=True)
        with readable("DynamoDB", "GetItem"):
            return _row(found["Item"]) if "Item" in found else None

    def replace(self, row: Provider) -> bool:
        """Write a row over the revision that it was read as (0: there was none); False when another write came first."""
        item = to_item(row)
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(tenantId)"}
        if row.revision:
            condition = {"ConditionExpression": "revision = :read", "ExpressionAttributeValues": _values(read=row.revision)}
        try:
            with dependency_errors("DynamoDB", "PutItem"):
                self._client.put_item(
                    TableName=self._table,
                    Item=item,
                    # Tells without a second read whether a lost reply hid our own success.
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **condition,
                )
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            stands: Any = refusal.response.get("Item")
            return stands is not None and _row(stands) == from_item(item)
        return True

    # -- what sending does -----------------------------------------------------------------------------------------------

    def get_many(self, tenant_ids: Collection[str]) -> Mapping[str, Provider | UnreadableError]:
        """Return the rows that exist, read consistently (a tombstone is a row); of one that cannot be read, why."""
        rows: dict[str, Provider | UnreadableError] = {}
        for some in batched(sorted(set(tenant_ids)), _BATCH_GET, strict=False):
            for item in self._read(some):
                with readable("DynamoDB", "BatchGetItem"):
                    tenant_id = item["tenantId"]["S"]
                try:
                    rows[tenant_id] = _row(item)
                except UnreadableError as error:
                    rows[tenant_id] = error
        return rows

    def _read(self, tenant_ids: Sequence[str]) -> Iterator[Item]:
        pending: Any = {self._table: {"Keys": [_key(t) for t in tenant_ids], "ConsistentRead": True}}
        while pending:
            with dependency_errors("DynamoDB", "BatchGetItem"):
                answer = self._client.batch_get_item(RequestItems=pending)
            with readable("DynamoDB", "BatchGetItem"):
                found = answer["Responses"]
            yield from found.get(self._table, [])
            if answer.get("UnprocessedKeys") == pending:
                raise DependencyError("DynamoDB", "BatchGetItem (throttled)")
            pending = answer.get("UnprocessedKeys")

    def record_fault(self, tenant_id: str, version: int, request_id: str, error: ErrorInfo) -> bool:
        """Count a tenant-class error of a request against a version; True when this one suspended it.

        Two writes, for the set must hold the request before its size can decide; a crash in between is made good by the next fault.
        """
        count = self._update(
            tenant_id,
            version,
            "ADD faultyRequests :request, revision :one",
            "(attribute_not_exists(faultyRequests) OR size(faultyRequests) < :enough)",
            _values(request={request_id}, one=1, enough=SUSPEND_AFTER),
        )
        if count is not None and len(count.faulty_requests) < SUSPEND_AFTER:
            return False
        suspended = self._update(
            tenant_id,
            version,
            "SET #status = :suspended, #error = :error, updatedAt = :now REMOVE updatedBy ADD revision :one",
            "size(faultyRequests) >= :enough",
            _values(
                suspended=ProviderStatus.SUSPENDED.value,
                error=_from_error(error),
                now=_millis(self._clock.now()),
                enough=SUSPEND_AFTER,
                one=1,
            ),
            {"#error": "error"},
        )
        return suspended is not None

    def clear_faults(self, tenant_id: str, version: int) -> None:
        """Forget the counted errors of a version that has just sent; those of a suspended one stay."""
        self._update(tenant_id, version, "REMOVE faultyRequests ADD revision :one", "attribute_exists(faultyRequests)", _values(one=1))

    def learn_sandbox(self, tenant_id: str, version: int) -> None:
        """Note that the account of a version is in the sandbox."""
        self._update(tenant_id, version, "SET sandbox = :yes ADD revision :one", "sandbox <> :yes", _values(yes="true", one=1))

    def _update(
        self, tenant_id: str, version: int, update: str, condition: str, values: Item, names: Mapping[str, str] | None = None
    ) -> Provider | None:
        """Update a row while the version is the active one and sending; None where it is not, or the condition does not hold."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException), dependency_errors("DynamoDB", "UpdateItem"):
            written = self._client.update_item(
                TableName=self._table,
                Key=_key(tenant_id),
                UpdateExpression=update,
                ConditionExpression=f"#status = :active AND active.version = :version AND {condition}",
                ExpressionAttributeNames={"#status": "status", **(names or {})},
                ExpressionAttributeValues=values | _values(active=ProviderStatus.ACTIVE.value, version=version),
                ReturnValues="ALL_NEW",
            )
            with readable("DynamoDB", "UpdateItem"):
                return from_item(written["Attributes"])
        return None

    # -- what the sweeper does -------------------------------------------------------------------------------------------

    def releasing(self) -> Sequence[str]:
        """Return the tenants whose waiting mail is to be set free, longest marked first."""
        with dependency_errors("DynamoDB", "Query"):
            page = self._client.query(
                TableName=self._table,
                IndexName="byRelease",
                KeyConditionExpression="releaseShard = :shard",
                ExpressionAttributeValues=_values(shard=_SHARD),
                Limit=_RELEASES,
            )
        with readable("DynamoDB", "Query"):
            return [item["tenantId"]["S"] for item in page["Items"]]

    def released(self, tenant_id: str, now: datetime) -> bool:
        """Take a tenant off the list; False while its mark is younger than RELEASE_MARKED, also when it was marked anew meanwhile."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant_id),
                    UpdateExpression="REMOVE releaseShard, releaseAt ADD revision :one",
                    ConditionExpression="releaseAt <= :before",
                    ExpressionAttributeValues=_values(before=_millis(now - RELEASE_MARKED), one=1),
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


# -- the row and its item ------------------------------------------------------------------------------------------------

_write = TypeSerializer().serialize
_read = TypeDeserializer().deserialize


def to_item(row: Provider) -> Item:
    """Write a row as it stands after its next write: under the revision that follows the one it was read as."""
    fields: dict[str, Any] = {
        "tenantId": row.tenant_id,
        "status": row.status.value,
        "versions": row.versions,
        "encryptedExternalId": row.encrypted_external_id,
        "active": row.active and _from_config(row.active),
        "candidate": row.candidate and _from_config(row.candidate),
        "sandbox": row.sandbox,
        "verifiedAt": row.verified_at and _millis(row.verified_at),
        "updatedAt": _millis(row.updated_at),
        "updatedBy": row.updated_by,
        "deletedAt": row.deleted_at and _millis(row.deleted_at),
        "warnings": list(row.warnings),
        "error": row.error and _from_error(row.error),
        "faultyRequests": set(row.faulty_requests),
        "releaseAt": row.release_at and _millis(row.release_at),
        "releaseShard": row.release_at and _SHARD,
        "revision": row.revision + 1,
    }
    return _without_empty(fields, _write)


def _row(item: Mapping[str, Any]) -> Provider:
    """Read a row.

    Raises:
        UnreadableError: it is damaged, or has what only a later version knows.
    """
    try:
        return from_item(item)
    except UNREADABLE as error:
        raise UnreadableError("providers table", item.get("tenantId", {}).get("S", "?")) from error


def from_item(item: Mapping[str, Any]) -> Provider:
    """Read a row from its item."""
    fields = {name: _read(value) for name, value in item.items()}
    return Provider(
        tenant_id=fields["tenantId"],
        status=ProviderStatus(fields["status"]),
        versions=int(fields["versions"]),
        encrypted_external_id=bytes(fields["encryptedExternalId"]),
        active=_to_config(fields.get("active")),
        candidate=_to_config(fields.get("candidate")),
        sandbox=fields.get("sandbox", "unknown"),
        verified_at=_to_moment(fields.get("verifiedAt")),
        updated_at=_moment(fields["updatedAt"]),
        updated_by=fields.get("updatedBy"),
        deleted_at=_to_moment(fields.get("deletedAt")),
        warnings=tuple(fields.get("warnings", ())),
        error=_to_error(fields.get("error")),
        faulty_requests=frozenset(fields.get("faultyRequests", ())),
        release_at=_to_moment(fields.get("releaseAt")),
        revision=int(fields["revision"]),
    )


def _from_config(config: StoredConfig) -> Item:
    fields = {
        "provider": config.provider,
        "version": config.version,
        "ciphertext": config.ciphertext,
        "region": config.region,
        "fromAddress": config.from_address,
        "fromName": config.from_name,
        "credentials": dict(config.credentials),
        "configurationSet": config.configuration_set,
        "maxSendRate": _decimal(config.max_send_rate),
        "account": config.account,
        "quotaRate": _decimal(config.quota_rate),
        "quota24h": _decimal(config.quota_24h),
        "error": config.error and _from_error(config.error),
    }
    return _without_empty(fields)


def _to_config(fields: Mapping[str, Any] | None) -> StoredConfig | None:
    if fields is None:
        return None
    return StoredConfig(
        provider=fields["provider"],
        version=int(fields["version"]),
        ciphertext=bytes(fields["ciphertext"]),
        region=fields["region"],
        from_address=fields["fromAddress"],
        from_name=fields["fromName"],
        credentials=fields["credentials"],
        configuration_set=fields.get("configurationSet"),
        max_send_rate=_to_float(fields.get("maxSendRate")),
        account=fields.get("account"),
        quota_rate=_to_float(fields.get("quotaRate")),
        quota_24h=_to_float(fields.get("quota24h")),
        error=_to_error(fields.get("error")),
    )


def _from_error(error: ErrorInfo) -> Item:
    return _without_empty({"code": error.code, "message": error.message, "remediation": error.remediation})


def _to_error(fields: Mapping[str, Any] | None) -> ErrorInfo | None:
    return ErrorInfo(fields["code"], fields["message"], fields.get("remediation")) if fields else None


def _without_empty(fields: Mapping[str, Any], write: Any = lambda value: value) -> Item:
    """Leave out what is not set; DynamoDB takes no empty sets, and a sparse index no null."""
    return {name: write(value) for name, value in fields.items() if value is not None and value != set()}


def _decimal(number: float | None) -> Decimal | None:
    return None if number is None else Decimal(str(number))


def _to_float(number: Decimal | None) -> float | None:
    return None if number is None else float(number)


def _millis(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(millis: Decimal) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(millis))


def _to_moment(millis: Decimal | None) -> datetime | None:
    return None if millis is None else _moment(millis)


def _values(**values: Any) -> Item:
    return {f":{name}": _write(value) for name, value in values.items()}


def _key(tenant_id: str) -> Item:
    return {"tenantId": {"S": tenant_id}}
