"""Find tenants that have suppressions and no mark on their row, for example because the row was restored from an older backup."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mailer.adapters.aws import dependency_errors

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoUnmarkedTenants:
    """`ports.UnmarkedTenants` on DynamoDB."""

    def __init__(self, dynamodb: "DynamoDBClient", *, providers: str, suppressions: str) -> None:
        self._dynamodb = dynamodb
        self._providers = providers
        self._suppressions = suppressions

    def unmarked(self) -> Iterator[str]:
        """Yield each such tenant; reads every row, and of each unmarked tenant one suppression."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._providers,
            FilterExpression="attribute_not_exists(hasSuppressions)",
            ProjectionExpression="tenantId",
            ConsistentRead=True,
        )
        with dependency_errors("DynamoDB", "Scan"):
            for page in pages:
                for item in page["Items"]:
                    if self._has_suppressions(item["tenantId"]):
                        yield item["tenantId"]["S"]

    def _has_suppressions(self, tenant_id: Any) -> bool:
        """Whether a tenant has suppressed addresses; those with soft bounces only do not count."""
        with dependency_errors("DynamoDB", "Query"):
            page = self._dynamodb.query(
                TableName=self._suppressions,
                IndexName="byAt",
                KeyConditionExpression="tenantId = :tenant",
                ExpressionAttributeValues={":tenant": tenant_id},
                Limit=1,
            )
        return bool(page["Items"])
