"""The providers table: one row per tenant, its configs encrypted, every write conditional on what its writer had read.

Key: tenantId. Index `byRelease`, sparse: releaseShard + releaseAt, only tenants whose waiting mail is to be released. Index `byStatus`:
status + tenantId.
The provider API replaces a row it has read (`revision` counts the writes); sending counts faults and suspends by updates whose
conditions name the version at fault, which raise `revision` too. Times are epoch milliseconds.
"""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

from mailer.adapters.aws import UNREADABLE, ReportFailure, dependency_errors, readable, report_nothing
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.batch_get import batch_get
from mailer.adapters.dynamodb.codec import Item, operands
from mailer.adapters.dynamodb.codec import optional as _optional
from mailer.domain.cursors import LISTED_PROVIDER, from_cursor, to_cursor
from mailer.domain.errors import ErrorInfo, UnreadableError
from mailer.domain.provider import SUSPEND_AFTER, Provider, ProviderStatus, ProviderType, Resumption, Sandbox, Simulation, StoredConfig
from mailer.domain.statistics import COLUMNS, Counts
from mailer.ports import Clock, ProviderPage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RELEASE_MARKED = timedelta(minutes=5)
"""How long a tenant stays marked at least: longer than a batch that has read the old row can run."""

_RELEASES = 1000
"""Tenants per run of the sweeper."""

_SHARD = "release"  # one partition of the index is enough: providers are enabled or verified by hand


_LISTED = sorted(status for status in ProviderStatus if status is not ProviderStatus.DELETED)
"""The statuses that a list of providers goes through, in this order."""


class DynamoProvidersTable:
    """`ports.ProvidersTable`, `ports.ProviderStore`, `ports.SuppressionMarks` and `ports.Releases` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str, clock: Clock, report: ReportFailure = report_nothing) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._report = report

    # -- what the provider API does --------------------------------------------------------------------------------------

    def get(self, tenant_id: str) -> Provider | None:
        """Read a row, consistently; a tombstone is a row."""
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key=_key(tenant_id), ConsistentRead=True)
        with readable("DynamoDB", "GetItem"):
            return _row(found["Item"]) if "Item" in found else None

    def replace(self, row: Provider) -> bool:
        """Replace the revision that was read (0: there was no row); False if another write came first."""
        item = to_item(row)
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(tenantId)"}
        if row.revision:
            condition = {"ConditionExpression": "revision = :read", "ExpressionAttributeValues": operands(read=row.revision)}
        try:
            with dependency_errors("DynamoDB", "PutItem"):
                self._client.put_item(
                    TableName=self._table,
                    Item=item,
                    # Shows without a second read whether a lost reply hid our own success.
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **condition,
                )
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            current: Any = refusal.response.get("Item")
            return current is not None and _row(current) == from_item(item)
        return True

    def list(self, *, status: ProviderStatus | None, limit: int, cursor: str | None) -> ProviderPage:
        """List the providers that exist, by status and then by tenant; an unreadable one is reported and left out.

        The index is a little behind the table: a provider whose status is just changing may be missing, or on two pages.
        """
        last = from_cursor(cursor, "providers", status or "", key=LISTED_PROVIDER) if cursor is not None else ""
        statuses = [one for one in _LISTED if status in (None, one) and one >= last.partition("#")[0]]
        found: list[str] = []
        for one in statuses:
            tenants, more = self._of_status(one, limit - len(found), last)
            found += [f"{one}#{tenant}" for tenant in tenants]
            if len(found) == limit and (more or one != statuses[-1]):
                return ProviderPage(self._listed(found, status), to_cursor("providers", status or "", found[-1]))
        return ProviderPage(self._listed(found, status), None)

    def _of_status(self, status: ProviderStatus, limit: int, last: str) -> tuple[Sequence[str], bool]:
        """Return tenants whose provider has a status, from the one after the last on, and whether there are more."""
        query: dict[str, Any] = {"ExpressionAttributeValues": operands(status=status.value), "KeyConditionExpression": "#status = :status"}
        if last.startswith(f"{status}#"):
            query["KeyConditionExpression"] += " AND tenantId > :last"
            query["ExpressionAttributeValues"] |= operands(last=last.partition("#")[2])
        with dependency_errors("DynamoDB", "Query"):
            page = self._client.query(
                TableName=self._table, IndexName="byStatus", ExpressionAttributeNames={"#status": "status"}, Limit=limit, **query
            )
        with readable("DynamoDB", "Query"):
            return [codec.text(item["tenantId"]) for item in page["Items"]], "LastEvaluatedKey" in page

    def _listed(self, places: Sequence[str], status: ProviderStatus | None) -> Sequence[Provider]:
        """Read the rows of a page, in its order; without a status one that has another by now is listed all the same."""
        rows = self.get_many([place.partition("#")[2] for place in places])
        for tenant_id, row in rows.items():
            if isinstance(row, UnreadableError):
                self._report("read provider", tenant_id, row)
        found = [rows.get(place.partition("#")[2]) for place in places]
        return [row for row in found if isinstance(row, Provider) and row.status in ([status] if status else _LISTED)]

    # -- what sending does -----------------------------------------------------------------------------------------------

    def get_many(self, tenant_ids: Collection[str]) -> Mapping[str, Provider | UnreadableError]:
        """Return the rows that exist, read consistently (a tombstone is a row); see `ports.ProvidersTable.get_many`."""
        rows: dict[str, Provider | UnreadableError] = {}
        for item in batch_get(self._client, self._table, [_key(tenant_id) for tenant_id in sorted(set(tenant_ids))]):
            with readable("DynamoDB", "BatchGetItem"):
                tenant_id = codec.text(item["tenantId"])
            try:
                rows[tenant_id] = _row_to_send(item)
            except UnreadableError as error:
                rows[tenant_id] = error
        return rows

    def record_fault(self, tenant_id: str, version: int, request_id: str, error: ErrorInfo, verified_at: datetime | None) -> bool:
        """Count a tenant-class error of a request against a version; True when this one suspended it.

        An error under the row of an earlier verify is not counted: what failed may have been mended since. Two writes, because the set must
        contain the request before its size is compared; after a crash in between the next fault suspends.
        """
        unchanged = "verifiedAt = :verifiedAt" if verified_at else "attribute_not_exists(verifiedAt)"
        read = operands(verifiedAt=verified_at) if verified_at else {}
        count = self._update(
            tenant_id,
            version,
            "ADD faultyRequests :request, revision :one",
            f"{unchanged} AND (attribute_not_exists(faultyRequests) OR size(faultyRequests) < :enough)",
            read | operands(request={request_id}, one=1, enough=SUSPEND_AFTER),
        )
        if count is not None and len(count.faulty_requests) < SUSPEND_AFTER:
            return False
        suspended = self._update(
            tenant_id,
            version,
            "SET #status = :suspended, #error = :error, updatedAt = :now REMOVE updatedBy ADD revision :one",
            f"{unchanged} AND size(faultyRequests) >= :enough",
            read
            | operands(
                suspended=ProviderStatus.SUSPENDED.value,
                error=codec.error_fields(error),
                now=self._clock.now(),
                enough=SUSPEND_AFTER,
                one=1,
            ),
            {"#error": "error"},
        )
        return suspended is not None

    def clear_faults(self, tenant_id: str, version: int) -> None:
        """Forget the counted errors of a version that has just sent; those of a suspended one stay."""
        self._update(tenant_id, version, "REMOVE faultyRequests ADD revision :one", "attribute_exists(faultyRequests)", operands(one=1))

    def learn_sandbox(self, tenant_id: str, version: int) -> None:
        """Note that the account of a version is in the sandbox."""
        self._update(tenant_id, version, "SET sandbox = :yes ADD revision :one", "sandbox <> :yes", operands(yes="true", one=1))

    def _update(
        self, tenant_id: str, version: int, update: str, condition: str, values: Item, names: Mapping[str, str] | None = None
    ) -> Provider | None:
        """Update a row if the version is active and the provider sends; None if not, or if the condition does not hold."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException), dependency_errors("DynamoDB", "UpdateItem"):
            written = self._client.update_item(
                TableName=self._table,
                Key=_key(tenant_id),
                UpdateExpression=update,
                ConditionExpression=f"#status = :active AND active.version = :version AND {condition}",
                ExpressionAttributeNames={"#status": "status", **(names or {})},
                ExpressionAttributeValues=values | operands(active=ProviderStatus.ACTIVE.value, version=version),
                ReturnValues="ALL_NEW",
            )
            with readable("DynamoDB", "UpdateItem"):
                return _row_to_send(written["Attributes"])
        return None

    # -- what suppressions do ---------------------------------------------------------------------------------------------

    def mark_suppressions(self, tenant_id: str) -> bool:
        """Mark that a tenant has suppressions; False if it has no row. The mark stays even if they are lifted."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant_id),
                    UpdateExpression="SET hasSuppressions = :yes ADD revision :one",
                    ConditionExpression="attribute_exists(tenantId) AND attribute_not_exists(hasSuppressions)",
                    ExpressionAttributeValues=operands(yes=True, one=1),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except self._client.exceptions.ConditionalCheckFailedException as refusal:
            return "Item" in refusal.response
        return True

    # -- what the reputation guard does ----------------------------------------------------------------------------------

    def suspend_at_risk(self, tenant_id: str, error: ErrorInfo, judged: Provider) -> bool:
        """Suspend an active provider, unless it was resumed since it was read; True if this call did it."""
        resumed = judged.resumption and judged.resumption.at
        condition = "resumption.#at = :resumed" if resumed else "attribute_not_exists(resumption)"
        compared, named = (operands(resumed=resumed), {"#at": "at"}) if resumed else ({}, {})
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant_id),
                    UpdateExpression="SET #status = :suspended, #error = :error, updatedAt = :now REMOVE updatedBy ADD revision :one",
                    ConditionExpression=f"#status = :active AND {condition}",
                    ExpressionAttributeNames={"#status": "status", "#error": "error", **named},
                    ExpressionAttributeValues=operands(
                        active=ProviderStatus.ACTIVE.value,
                        suspended=ProviderStatus.SUSPENDED.value,
                        error=codec.error_fields(error),
                        now=self._clock.now(),
                        one=1,
                    )
                    | compared,
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    # -- what the sweeper does -------------------------------------------------------------------------------------------

    def releasing(self) -> Sequence[str]:
        """Return the tenants whose waiting mail is to be released, longest marked first."""
        with dependency_errors("DynamoDB", "Query"):
            page = self._client.query(
                TableName=self._table,
                IndexName="byRelease",
                KeyConditionExpression="releaseShard = :shard",
                ExpressionAttributeValues=operands(shard=_SHARD),
                Limit=_RELEASES,
            )
        with readable("DynamoDB", "Query"):
            return [item["tenantId"]["S"] for item in page["Items"]]

    def released(self, tenant_id: str, now: datetime) -> bool:
        """Remove a tenant from the list; False while its mark is younger than RELEASE_MARKED, also if it was renewed meanwhile."""
        try:
            with dependency_errors("DynamoDB", "UpdateItem"):
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(tenant_id),
                    UpdateExpression="REMOVE releaseShard, releaseAt ADD revision :one",
                    ConditionExpression="releaseAt <= :before",
                    ExpressionAttributeValues=operands(before=now - RELEASE_MARKED, one=1),
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


# -- the row and its item ------------------------------------------------------------------------------------------------


def to_item(row: Provider) -> Item:
    """Encode a row for its next write: with the revision after the one that was read."""
    fields: dict[str, Any] = {
        "tenantId": row.tenant_id,
        "status": row.status.value,
        "versions": row.versions,
        "encryptedExternalId": row.encrypted_external_id,
        "active": row.active and _from_config(row.active),
        "candidate": row.candidate and _from_config(row.candidate),
        "sandbox": row.sandbox,
        "verifiedAt": row.verified_at,
        "updatedAt": row.updated_at,
        "updatedBy": row.updated_by,
        "deletedAt": row.deleted_at,
        "warnings": row.warnings,
        "error": row.error and codec.error_fields(row.error),
        "faultyRequests": row.faulty_requests,
        "resumption": row.resumption and _from_resumption(row.resumption),
        "releaseAt": row.release_at,
        "releaseShard": row.release_at and _SHARD,
        "hasSuppressions": row.has_suppressions or None,
        "revision": row.revision + 1,
    }
    return codec.encode_all(fields)


def _row(item: Mapping[str, Any]) -> Provider:
    """Read a row.

    Raises:
        UnreadableError: it is damaged, or a later version wrote it.
    """
    try:
        return from_item(item)
    except UNREADABLE as error:
        raise UnreadableError("providers table", item.get("tenantId", {}).get("S", "?")) from error


def _row_to_send(item: Mapping[str, Any]) -> Provider:
    """Read a row that is not written back; without its candidate, if that alone cannot be read.

    Raises:
        UnreadableError: as `_row`.
    """
    try:
        return _row(item)
    except UnreadableError:
        return _row({name: value for name, value in item.items() if name != "candidate"})


_CONFIGS: Mapping[ProviderStatus, AbstractSet[str]] = {
    ProviderStatus.ACTIVE: {"active"},
    ProviderStatus.SUSPENDED: {"active"},
    ProviderStatus.DISABLED: {"active", "candidate"},
    ProviderStatus.UNVERIFIED: {"candidate"},
}
"""The configs of which a row of each status has at least one; a tombstone has none."""


def from_item(item: Mapping[str, Any]) -> Provider:
    """Read a row from its item."""
    status = ProviderStatus(codec.text(item["status"]))
    if (configs := _CONFIGS.get(status)) and configs.isdisjoint(item):  # it would count as never verified, and its mail would fail
        raise ValueError("config")
    sandbox: Any = _optional(item, "sandbox", codec.text)
    return Provider(
        tenant_id=codec.text(item["tenantId"]),
        status=status,
        versions=codec.integer(item["versions"]),
        encrypted_external_id=codec.octets(item["encryptedExternalId"]),
        active=_optional(item, "active", _to_config),
        candidate=_optional(item, "candidate", _to_config),
        sandbox=sandbox if sandbox in get_args(Sandbox) else "unknown",
        verified_at=_optional(item, "verifiedAt", codec.moment),
        updated_at=codec.moment(item["updatedAt"]),
        updated_by=_optional(item, "updatedBy", codec.text),
        deleted_at=_optional(item, "deletedAt", codec.moment),
        warnings=tuple(map(codec.text, item["warnings"]["L"])) if "warnings" in item else (),
        error=_optional(item, "error", codec.error),
        faulty_requests=_optional(item, "faultyRequests", codec.texts) or frozenset(),
        resumption=_optional(item, "resumption", _to_resumption),
        release_at=_optional(item, "releaseAt", codec.moment),
        has_suppressions=_optional(item, "hasSuppressions", codec.flag) or False,
        revision=codec.integer(item["revision"]),
    )


def _from_resumption(resumption: Resumption) -> Mapping[str, Any]:
    fields = {
        "by": resumption.by,
        "why": resumption.why,
        "at": resumption.at,
        "principal": resumption.principal,
        "answered": None if resumption.answered is None else asdict(resumption.answered),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _to_resumption(value: Item) -> Resumption:
    fields = value["M"]
    principal = _optional(fields, "principal", codec.text)
    answered = _optional(fields, "answered", _to_counts)
    return Resumption(codec.text(fields["by"]), codec.text(fields["why"]), codec.moment(fields["at"]), principal, answered)


def _to_counts(value: Item) -> Counts:
    return Counts(**{name: codec.integer(value["M"][name]) for name in COLUMNS if name in value["M"]})


def _from_config(config: StoredConfig) -> Mapping[str, Any]:
    fields = {
        "provider": config.provider,
        "version": config.version,
        "ciphertext": config.ciphertext,
        "region": config.region,
        "fromAddress": config.from_address,
        "fromName": config.from_name,
        "credentials": config.credentials,
        "configurationSet": config.configuration_set,
        "maxSendRate": config.max_send_rate,
        "account": config.account,
        "quotaRate": config.quota_rate,
        "quota24h": config.quota_24h,
        "error": config.error and codec.error_fields(config.error),
        "feedbackAt": config.feedback_at,
        "unheardSince": config.unheard_since,
        "silentSince": config.silent_since,
        "simulation": config.simulation and _from_simulation(config.simulation),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _to_config(value: Item) -> StoredConfig:
    fields = value["M"]
    provider: Any = codec.text(fields["provider"])
    if provider not in get_args(ProviderType):  # it would be read as SES
        raise ValueError("provider")
    credentials = {name: codec.text(content) for name, content in fields["credentials"]["M"].items()}
    if "type" not in credentials:
        raise ValueError("credentials")
    return StoredConfig(
        provider=provider,
        version=codec.integer(fields["version"]),
        ciphertext=codec.octets(fields["ciphertext"]),
        region=codec.text(fields["region"]),
        from_address=codec.text(fields["fromAddress"]),
        from_name=codec.text(fields["fromName"]),
        credentials=credentials,
        configuration_set=_optional(fields, "configurationSet", codec.text),
        max_send_rate=_optional(fields, "maxSendRate", codec.positive),
        account=_optional(fields, "account", codec.text),
        quota_rate=_optional(fields, "quotaRate", codec.positive),
        quota_24h=_optional(fields, "quota24h", codec.number),
        error=_optional(fields, "error", codec.error),
        feedback_at=_optional(fields, "feedbackAt", codec.moment),
        unheard_since=_optional(fields, "unheardSince", codec.moment),
        silent_since=_optional(fields, "silentSince", codec.moment),
        simulation=_optional(fields, "simulation", _to_simulation),
    )


def _from_simulation(simulation: Simulation) -> Mapping[str, Any]:
    fields = {
        "startedAt": simulation.started_at,
        "bounceReportedAt": simulation.bounce_reported_at,
        "complaintReportedAt": simulation.complaint_reported_at,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _to_simulation(value: Item) -> Simulation:
    fields = value["M"]
    return Simulation(
        started_at=codec.moment(fields["startedAt"]),
        bounce_reported_at=_optional(fields, "bounceReportedAt", codec.moment),
        complaint_reported_at=_optional(fields, "complaintReportedAt", codec.moment),
    )


def _key(tenant_id: str) -> Item:
    return {"tenantId": {"S": tenant_id}}
