"""Data is kept for as long as documented, and no longer."""

import re
from typing import Any

import pytest

from mailer.domain.delivery import RECORD_RETENTION
from support.aws import tables

MAY_WAIT_DAYS = 14  # sendAt at most 7 days ahead, expiresAt at most 7 days after
IRREPLACEABLE = ("ProvidersTable", "MessagesTable", "SuppressionsTable", "ProviderKey", "AddressesKey", "AttachmentsBucket")


def resource(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tables.template()["Resources"][name]
    return found


def indexes(table: str) -> dict[str, tuple[list[str], dict[str, Any]]]:
    return {
        index["IndexName"]: ([key["AttributeName"] for key in index["KeySchema"]], index["Projection"])
        for index in resource(table)["Properties"].get("GlobalSecondaryIndexes", [])
    }


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("ProvidersTable", ["tenantId"]),
        ("MessagesTable", ["tenantShard", "requestId"]),
        ("PacingTable", ["account"]),
        ("SessionsTable", ["name"]),
        ("StatisticsTable", ["series", "hourShard"]),
        ("FeedbackTable", ["pk", "sk"]),
        ("SuppressionsTable", ["tenantId", "email"]),
    ],
)
def test_each_table_has_its_key(table: str, keys: list[str]) -> None:
    """One row per tenant, one record per request, one rate per sending account."""
    schema = resource(table)["Properties"]["KeySchema"]
    assert [key["AttributeName"] for key in schema] == keys


def test_the_messages_table_has_the_indexes_that_listing_and_sweeping_need() -> None:
    """By time, by status and time, and by the time of the next check; the last one is sparse and sharded."""
    assert indexes("MessagesTable") == {
        "byCreated": (["tenantShard", "createdKey"], {"ProjectionType": "KEYS_ONLY"}),
        "byStatus": (["statusShard", "createdKey"], {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["waitsFor", "parked"]}),
        "bySweep": (["sweepShard", "sweepAt"], {"ProjectionType": "KEYS_ONLY"}),
    }


def test_the_providers_table_has_the_indexes_of_tenants_to_release_and_of_all() -> None:
    """The sweeper finds the first without reading every tenant; operators list the others by status."""
    assert indexes("ProvidersTable") == {
        "byRelease": (["releaseShard", "releaseAt"], {"ProjectionType": "KEYS_ONLY"}),
        "byStatus": (["status", "tenantId"], {"ProjectionType": "KEYS_ONLY"}),
    }


def test_the_suppressions_table_has_the_indexes_that_listing_needs() -> None:
    """By time, and by reason and time; both contain keys only."""
    assert indexes("SuppressionsTable") == {
        "byAt": (["tenantId", "listKey"], {"ProjectionType": "KEYS_ONLY"}),
        "byReason": (["tenantReason", "listKey"], {"ProjectionType": "KEYS_ONLY"}),
    }


def test_no_index_has_an_encrypted_config() -> None:
    """Ciphertexts are stored once."""
    projections = [projection for table in tables.resources("AWS::DynamoDB::Table") for _, projection in indexes(table).values()]
    assert projections
    assert all(projection["ProjectionType"] != "ALL" for projection in projections)


def test_records_and_rates_expire_by_ttl() -> None:
    """The adapters set it: on ended records, and on rates and SES's events that no longer matter."""
    for table in ("MessagesTable", "PacingTable", "SessionsTable", "StatisticsTable", "FeedbackTable", "SuppressionsTable"):
        assert resource(table)["Properties"]["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert "TimeToLiveSpecification" not in resource("ProvidersTable")["Properties"]


@pytest.mark.parametrize("table", ["ProvidersTable", "MessagesTable", "StatisticsTable"])
def test_permanent_tables_have_point_in_time_recovery_and_encryption(table: str) -> None:
    """They can be restored to any second of the last 35 days."""
    properties = resource(table)["Properties"]
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["SSESpecification"] == {"SSEEnabled": True}
    assert properties["DeletionProtectionEnabled"] is True


def test_the_key_of_addresses_works_only_through_dynamodb() -> None:
    """No other account and no other service can decrypt data of recipients."""
    key = resource("AddressesKey")
    for table in ("FeedbackTable", "SuppressionsTable"):
        assert resource(table)["Properties"]["SSESpecification"] == {
            "SSEEnabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": {"Fn::GetAtt": ["AddressesKey", "Arn"]},
        }
    administration, use = key["Properties"]["KeyPolicy"]["Statement"]
    assert not [action for action in administration["Action"] if re.match(r"kms:(\*|Decrypt|Encrypt|ReEncrypt|Generate|Create)", action)]
    assert use["Condition"] == {
        "StringEquals": {
            "kms:CallerAccount": {"Ref": "AWS::AccountId"},
            "kms:ViaService": {"Fn::Sub": "dynamodb.${AWS::Region}.${AWS::URLSuffix}"},
        }
    }


def test_no_backup_keeps_an_address_for_longer_than_a_week() -> None:
    """SES's events are not backed up; suppressions can be restored, because otherwise bounced addresses would be mailed again."""
    feedback, suppressions = resource("FeedbackTable"), resource("SuppressionsTable")
    assert "PointInTimeRecoverySpecification" not in feedback["Properties"]
    assert feedback["DeletionPolicy"] == "Delete"
    recovery = suppressions["Properties"]["PointInTimeRecoverySpecification"]
    assert recovery == {"PointInTimeRecoveryEnabled": True, "RecoveryPeriodInDays": 7}
    assert suppressions["Properties"]["DeletionProtectionEnabled"] is True


@pytest.mark.parametrize("name", IRREPLACEABLE)
def test_irreplaceable_resources_are_retained_when_the_stack_is_deleted(name: str) -> None:
    """Deleting the stack by mistake loses no config and no request."""
    assert resource(name)["DeletionPolicy"] == "RetainExceptOnCreate"
    assert resource(name)["UpdateReplacePolicy"] == "Retain"


def test_parked_bodies_are_kept_while_they_can_be_resent() -> None:
    """A request waits at most 14 days and can be resent for 35 more; this also holds for older versions."""
    [forget] = [
        rule for rule in resource("AttachmentsBucket")["Properties"]["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule
    ]
    needed = RECORD_RETENTION.days + MAY_WAIT_DAYS
    assert forget["Status"] == "Enabled"
    assert forget["ExpirationInDays"] > needed
    assert forget["NoncurrentVersionExpiration"]["NoncurrentDays"] > needed
    assert "AbortIncompleteMultipartUpload" in forget


def test_the_bucket_is_private_encrypted_and_versioned() -> None:
    """Its objects cannot be made public, and overwritten ones are kept for a while."""
    properties = resource("AttachmentsBucket")["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    [rule] = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_the_bucket_requires_tls() -> None:
    """Presigned uploads use TLS too."""
    [statement] = resource("AttachmentsBucketPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"]["Bool"]["aws:SecureTransport"] == "false"


def test_the_key_is_rotated_and_deleted_only_after_30_days() -> None:
    """A deletion by mistake can be cancelled for 30 days."""
    properties = resource("ProviderKey")["Properties"]
    assert properties["EnableKeyRotation"] is True
    assert properties["PendingWindowInDays"] == 30
