"""The suppressions table: one item per address of a tenant that is suppressed, has soft bounces, or was lifted recently.

Keys and indexes (template.yaml): tenantId + email; `byAt` tenantId + listKey and `byReason` tenantReason + listKey, sparse: suppressed
addresses only. A listKey is the time of the suppression and the digest of the address, so that cursors made of it contain no address.
Times are epoch milliseconds, `ttl` epoch seconds.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import UNREADABLE, dependency_errors, readable
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.batch_get import batch_get
from mailer.adapters.dynamodb.codec import Item, operands
from mailer.domain.cursors import SUPPRESSED_KEY, from_cursor, to_cursor
from mailer.domain.errors import UnreadableError
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression, digest
from mailer.ports import Listed, SuppressionPage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoSuppressionsTable:
    """`ports.SuppressionsTable` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get_many(self, addresses: Collection[Listed]) -> Mapping[Listed, Entry | UnreadableError]:
        """Return the entries that exist, read consistently; for an unreadable one its error."""
        entries: dict[Listed, Entry | UnreadableError] = {}
        for item in batch_get(self._client, self._table, [_key(*listed) for listed in sorted(set(addresses))]):
            with readable("DynamoDB", "BatchGetItem"):
                listed = (codec.text(item["tenantId"]), codec.text(item["email"]))
            try:
                entries[listed] = _entry(item)
            except UnreadableError as error:
                entries[listed] = error
        return entries

    def replace(self, entry: Entry) -> bool:
        """Replace the revision that was read (0: there was no entry); False if another write came first."""
        item = to_item(entry)
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(tenantId)"}
        if entry.revision:
            condition = {"ConditionExpression": "revision = :read", "ExpressionAttributeValues": operands(read=entry.revision)}
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
            return current is not None and from_item(current) == from_item(item)
        return True

    def list(self, tenant_id: str, *, reason: Reason | None, limit: int, cursor: str | None) -> SuppressionPage:
        """List a tenant's suppressed addresses, newest first; see `ports.SuppressionsTable.list`."""
        index, name, value = ("byReason", "tenantReason", f"{tenant_id}#{reason}") if reason else ("byAt", "tenantId", tenant_id)
        condition, values = f"{name} = :list", operands(list=value)
        if cursor is not None:
            condition += " AND listKey < :last"
            values |= operands(last=from_cursor(cursor, tenant_id, "suppressions", reason or "", key=SUPPRESSED_KEY))
        with dependency_errors("DynamoDB", "Query"):
            page = self._client.query(
                TableName=self._table,
                IndexName=index,
                ScanIndexForward=False,
                Limit=limit,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
            )
        with readable("DynamoDB", "Query"):
            wanted = [(codec.text(item["tenantId"]), codec.text(item["email"])) for item in page["Items"]]
            last = codec.text(page["Items"][-1]["listKey"]) if page.get("LastEvaluatedKey") else None
        found = self.get_many(wanted)
        entries = [entry for listed in wanted if isinstance(entry := found.get(listed), Entry)]
        return SuppressionPage(entries, to_cursor(tenant_id, "suppressions", reason or "", last) if last else None)


# -- the entry and its item ----------------------------------------------------------------------------------------------


def to_item(entry: Entry) -> Item:
    """Return the item of an entry's next write, with the next revision."""
    fields: dict[str, Any] = {
        "tenantId": entry.tenant_id,
        "email": entry.email,
        "suppression": entry.suppression and _from_suppression(entry.suppression),
        "bySes": entry.by_ses and _from_suppression(entry.by_ses),
        "shorter": [_from_suppression(one) for one in entry.shorter] or None,
        "softBounces": entry.soft_bounces or None,
        "deliveredAt": entry.delivered_at,
        "lifted": entry.lifted and {"at": entry.lifted.at, "by": entry.lifted.by, "why": entry.lifted.why},
        "revision": entry.revision + 1,
    }
    if entry.suppression is not None:
        fields["listKey"] = f"{entry.suppression.at.isoformat(timespec='milliseconds')}#{digest(entry.email)}"
        fields["tenantReason"] = f"{entry.tenant_id}#{entry.suppression.reason}"
    forget_at = entry.forget_at
    return codec.encode_all(fields) | ({"ttl": codec.expiry(forget_at)} if forget_at else {})


def _from_suppression(suppression: Suppression) -> Mapping[str, Any]:
    return {
        "reason": suppression.reason.value,
        "requestId": suppression.request_id,
        "at": suppression.at,
        "expiresAt": suppression.expires_at,
        "by": suppression.by,
        "why": suppression.why,
        "mayHaveComplained": suppression.may_have_complained or None,
        "spelling": suppression.spelling,
    }


def _entry(item: Mapping[str, Any]) -> Entry:
    """Read an entry.

    Raises:
        UnreadableError: it is damaged, or a later version wrote it.
    """
    try:
        return from_item(item)
    except UNREADABLE as error:
        raise UnreadableError("suppressions table", item.get("tenantId", {}).get("S", "?")) from error


def from_item(item: Mapping[str, Any]) -> Entry:
    """Read an entry from its item."""
    return Entry(
        tenant_id=codec.text(item["tenantId"]),
        email=codec.text(item["email"]),
        suppression=codec.optional(item, "suppression", _to_suppression),
        by_ses=codec.optional(item, "bySes", _to_suppression),
        shorter=tuple(map(_to_suppression, item["shorter"]["L"])) if "shorter" in item else (),
        soft_bounces={name: codec.moment(at) for name, at in item["softBounces"]["M"].items()} if "softBounces" in item else {},
        delivered_at=codec.optional(item, "deliveredAt", codec.moment),
        lifted=codec.optional(item, "lifted", _to_lifting),
        revision=codec.integer(item["revision"]),
    )


def _to_suppression(value: Item) -> Suppression:
    fields = value["M"]
    return Suppression(
        reason=Reason(codec.text(fields["reason"])),
        at=codec.moment(fields["at"]),
        request_id=codec.optional(fields, "requestId", codec.text),
        expires_at=codec.optional(fields, "expiresAt", codec.any_moment),
        by=codec.optional(fields, "by", codec.text),
        why=codec.optional(fields, "why", codec.text),
        may_have_complained="mayHaveComplained" in fields and codec.flag(fields["mayHaveComplained"]),
        spelling=codec.optional(fields, "spelling", codec.text),
    )


def _to_lifting(value: Item) -> Lifting:
    fields = value["M"]
    return Lifting(
        at=codec.moment(fields["at"]),
        by=codec.optional(fields, "by", codec.text),
        why=codec.optional(fields, "why", codec.text),
    )


def _key(tenant_id: str, email: str) -> Item:
    return {"tenantId": {"S": tenant_id}, "email": {"S": email}}
