"""Encrypted sessions with tenants' roles, and configs of roles, by name; `ttl` is when they end, in epoch seconds."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb import codec
from mailer.adapters.sealed_entry import SealedEntry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoSessionsTable:
    """`providers.shared_cache.SharedStore` on DynamoDB."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def find(self, name: str) -> SealedEntry | None:
        """Read an entry; one that was written a moment ago may be missing, which costs half as much as to be sure."""
        with dependency_errors("DynamoDB", "GetItem"):
            found = self._client.get_item(TableName=self._table, Key={"name": codec.encode(name)})
        with readable("DynamoDB", "GetItem"):
            if not (item := found.get("Item")):
                return None
            return SealedEntry(codec.octets(item["sealed"]), datetime.fromtimestamp(codec.integer(item["ttl"]), UTC))

    def keep(self, name: str, entry: SealedEntry) -> None:
        """Write an entry over any that there is: both are good."""
        item = codec.encode_all({"name": name, "sealed": entry.content}) | {"ttl": codec.expiry(entry.until)}
        with dependency_errors("DynamoDB", "PutItem"):
            self._client.put_item(TableName=self._table, Item=item)
