"""Delete an address from the tables with addresses: its suppressions, and SES's reports of mail to it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors, readable
from mailer.adapters.dynamodb.feedback_table import facts_of, item_of
from mailer.domain.addresses import AddressError
from mailer.domain.errors import DependencyError
from mailer.domain.facts import Facts
from mailer.domain.suppressions import suppression_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoAddressEraser:
    """`ports.AddressEraser` on DynamoDB."""

    def __init__(self, dynamodb: "DynamoDBClient", *, suppressions: str, feedback: str, providers: str) -> None:
        self._dynamodb = dynamodb
        self._suppressions = suppressions
        self._feedback = feedback
        self._providers = providers

    def erase_suppressions_of(self, tenant_id: str) -> int:
        """Delete all suppressions of a tenant; return how many there were."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._suppressions,
            KeyConditionExpression="tenantId = :tenant",
            ProjectionExpression="tenantId, email",
            ExpressionAttributeValues={":tenant": {"S": tenant_id}},
            ConsistentRead=True,
        )
        with dependency_errors("DynamoDB", "Query"):
            keys = [item for page in pages for item in page["Items"]]
        return sum(self._delete(self._suppressions, key) for key in keys)

    def erase_suppressed(self, email: str) -> int:
        """Delete the entries of a normalized address, of all tenants, soft bounces included; return how many there were."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._providers,
            ProjectionExpression="tenantId",
            ConsistentRead=True,
        )
        with dependency_errors("DynamoDB", "Scan"):
            tenants = [item["tenantId"] for page in pages for item in page["Items"]]
        return sum(self._delete(self._suppressions, {"tenantId": tenant, "email": {"S": email}}) for tenant in tenants)

    def erase_facts(self, email: str) -> int:
        """Delete SES's reports about a normalized address, in any spelling; return of how many requests."""
        return sum(self._without(item, email) for item in self._facts())

    def _facts(self) -> Iterator[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._feedback, FilterExpression="attribute_exists(facts)", ConsistentRead=True
        )
        with dependency_errors("DynamoDB", "Scan"):
            for page in pages:
                yield from page["Items"]

    def _without(self, item: dict[str, Any], email: str) -> bool:
        """Remove an address from an item of facts; False if it is not in it."""
        with readable("DynamoDB", "Scan"):
            known = facts_of(item)
            left = {recipient: facts for recipient, facts in known.items() if not _is(recipient, email)}
            if len(left) == len(known):
                return False
            unchanged: Any = {"ConditionExpression": "digest = :read", "ExpressionAttributeValues": {":read": item["digest"]}}
        try:
            self._write(item, left, unchanged)
        except self._dynamodb.exceptions.ConditionalCheckFailedException as refusal:  # an event was recorded in between
            raise DependencyError("DynamoDB", "PutItem (contention)") from refusal
        return True

    def _write(self, item: dict[str, Any], left: Facts, unchanged: Any) -> None:
        if left:
            rest = item_of(item["tenantId"]["S"], item["requestId"]["S"], left)
            with dependency_errors("DynamoDB", "PutItem"):
                self._dynamodb.put_item(TableName=self._feedback, Item=rest, **unchanged)
        else:
            key = {name: item[name] for name in ("pk", "sk")}
            with dependency_errors("DynamoDB", "DeleteItem"):
                self._dynamodb.delete_item(TableName=self._feedback, Key=key, **unchanged)

    def _delete(self, table: str, key: Any) -> bool:
        with dependency_errors("DynamoDB", "DeleteItem"):
            gone = self._dynamodb.delete_item(TableName=table, Key=key, ReturnValues="ALL_OLD")
        return bool(gone.get("Attributes"))


def _is(recipient: str, email: str) -> bool:
    try:
        return suppression_key(recipient) == email
    except AddressError:  # an event may contain an invalid one
        return recipient.lower() == email
