"""The pacing table: one item per sending account and region, every change one conditional write.

Key (template.yaml): account, for example `123456789012/eu-central-1`. Times are seconds since 1970, slots and ends are recipients.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mailer.adapters.aws import UNREADABLE, dependency_errors, readable
from mailer.adapters.dynamodb import codec
from mailer.adapters.dynamodb.codec import Item, encode
from mailer.domain.errors import UnreadableError
from mailer.domain.pacing import AccountRate, Booking
from mailer.ports import RateConflictError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEPT = timedelta(days=7)
"""How long a rate is kept after its last write; after longer silence the quota may have changed."""

PACE_FIELDS = {
    "revision": "revision",
    "since": "since",
    "reading": "reading",
    "rate": "rate",
    "waited": "waited",
    "cap": "cap",
    "cap_at": "capAt",
    "throttled_at": "throttledAt",
    "is_spent": "isSpent",
}
"""The fields of `AccountRate` that a change of the rate writes, and their attributes."""

BOOKING_FIELDS = {"booked": "booked", "promised": "promised"}
"""Those that bookings move."""


class DynamoPacingTable:
    """`ports.PacingTable` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get(self, account: str) -> AccountRate | None:
        """Read an account's rate, consistently."""
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key=_key(account), ConsistentRead=True)
        with readable("DynamoDB", "GetItem"):
            return _account_rate(account, found["Item"]) if "Item" in found else None

    def start(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        """Store an account's first rate."""
        item = {**_key(account), **to_item(account_rate, PACE_FIELDS | BOOKING_FIELDS), "ttl": _ttl(now)}
        with dependency_errors("DynamoDB", "PutItem"), _conflicts():
            self._client.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression="attribute_not_exists(account)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        return account_rate

    def book(self, account: str, booking: Booking, now: datetime) -> AccountRate:
        """Book slots."""
        values = {
            ":revision": _number(booking.revision),
            ":start": _number(booking.start),
            ":weight": _number(booking.weight),
            ":ttl": _ttl(now),
        }
        sets = [f"#end = {':start' if booking.is_idle else '#end'} + :weight", "#ttl = :ttl"]
        if booking.behind:
            values[":behind"] = _number(booking.behind)
            sets.append("waited = waited + :behind")
        condition = "#revision = :revision AND #end <= :start" if booking.is_idle else "#revision = :revision AND #end > :start"
        if not booking.is_idle and isfinite(booking.latest):  # DynamoDB has no infinity
            condition += " AND #end <= :latest"
            values[":latest"] = _number(booking.latest)
        names = {"#end": BOOKING_FIELDS[booking.end], "#revision": "revision", "#ttl": "ttl"}
        return self._update(account, f"SET {', '.join(sets)}", condition, names, values)

    def repace(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        """Change an account's rate; what is booked and promised stays."""
        item = {**to_item(account_rate, PACE_FIELDS), "ttl": _ttl(now)}
        absent = [attribute for attribute in PACE_FIELDS.values() if attribute not in item]
        update = f"SET {', '.join(f'#{name} = :{name}' for name in item)}"
        if absent:
            update += f" REMOVE {', '.join(f'#{name}' for name in absent)}"
        names = {f"#{name}": name for name in [*item, *absent]}
        values = {f":{name}": value for name, value in item.items()} | {":before": _number(account_rate.revision - 1)}
        return self._update(account, update, "#revision = :before", names, values)

    def _update(self, account: str, update: str, condition: str, names: Mapping[str, str], values: Item) -> AccountRate:
        with dependency_errors("DynamoDB", "UpdateItem"), _conflicts():
            written = self._client.update_item(
                TableName=self._table,
                Key=_key(account),
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        with readable("DynamoDB", "UpdateItem"):
            return from_item(written["Attributes"])


@contextmanager
def _conflicts() -> Iterator[None]:
    """Raise RateConflictError, with the current rate, if a condition did not hold."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ConditionalCheckFailedException":
            raise
        item: Any = error.response.get("Item")
        with readable("DynamoDB", "UpdateItem"):
            account_rate = from_item(item) if item else None
        raise RateConflictError(account_rate) from None


def _account_rate(account: str, item: Mapping[str, Any]) -> AccountRate:
    """Read an account's rate.

    Raises:
        UnreadableError: it is damaged, or a later version wrote it.
    """
    try:
        return from_item(item)
    except UNREADABLE as error:
        raise UnreadableError("pacing table", account) from error


def _key(account: str) -> Item:
    return {"account": {"S": account}}


def _number(value: float) -> Item:
    """Encode a number, rounded to 6 digits: the further digits of a float are noise."""
    return encode(round(value, 6))


def _ttl(now: datetime) -> Item:
    return codec.expiry(now + KEPT)


def to_item(account_rate: AccountRate, fields: Mapping[str, str]) -> Item:
    """Encode some fields of a rate; None is left out."""
    values = {attribute: getattr(account_rate, name) for name, attribute in fields.items()}
    return {a: encode(v) if isinstance(v, bool) else _number(v) for a, v in values.items() if v is not None}


def from_item(item: Mapping[str, Any]) -> AccountRate:
    """Read a rate from its item."""
    fields = {name: _value(item[attribute]) for name, attribute in (PACE_FIELDS | BOOKING_FIELDS).items() if attribute in item}
    return AccountRate(**{**fields, "revision": int(fields["revision"]), "rate": codec.positive(item["rate"])})


def _value(attribute: Mapping[str, Any]) -> Any:
    return codec.flag(attribute) if "BOOL" in attribute else codec.number(attribute)
