"""The stack in moto is the one declared by the template."""

from collections.abc import Mapping

import boto3
import pytest

from mailer.settings import settings


def test_each_table_has_the_keys_and_indexes_of_the_template(aws: Mapping[str, str]) -> None:
    """The functional tests use the deployed schema."""
    table = boto3.client("dynamodb").describe_table(TableName=aws["MESSAGES_TABLE"])["Table"]
    assert [k["AttributeName"] for k in table["KeySchema"]] == ["tenantShard", "requestId"]
    assert {i["IndexName"] for i in table["GlobalSecondaryIndexes"]} == {"byCreated", "byStatus", "bySweep"}


@pytest.mark.usefixtures("aws")
def test_settings_name_the_created_resources() -> None:
    """The environment names the resources of this test."""
    sqs = boto3.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=settings().send_queue_url, AttributeNames=["MaximumMessageSize"])["Attributes"]
    assert attributes["MaximumMessageSize"] == "1048576"
    assert boto3.client("kms").describe_key(KeyId=settings().provider_key_arn)["KeyMetadata"]["Enabled"]
