"""Each function has exactly the rights that it needs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytest

from mailer.domain.delivery import RECORD_RETENTION
from mailer.domain.message import MAX_AHEAD
from support.aws import tables

FUNCTIONS = sorted(tables.resources("AWS::Serverless::Function"))
ACTING_ROLES = {"SendFunctionRole", "ProvidersFunctionRole"}
NAMED_IN_TENANT_POLICIES = {*ACTING_ROLES, "FeedbackBus"}
"""Resources whose names ProvidersFunction needs only for tenants' policies and rules."""
WRITES = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem", "dynamodb:TransactWriteItems"}


@dataclass(frozen=True)
class Grant:
    """One action on one resource, allowed or denied by a statement of a role."""

    effect: str
    action: str
    resource: str


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(resource: Any) -> str:
    """Return an ARN expression as one string: `MessagesTable`, `MessagesTable/index/bySweep`, `MessagesTable stream`, `arn:…`, `*`."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn"]}:
            return str(name)
        case {"Fn::GetAtt": [name, "StreamArn"]}:
            return f"{name} stream"
        case {"Fn::Sub": str(pattern)}:
            pattern = pattern.replace("${AWS::Partition}", "aws").removeprefix("arn:aws:ssm:${AWS::Region}:${AWS::AccountId}:parameter/")
            return pattern.replace(".Arn}", "}").replace("${", "", 1).replace("}", "", 1)
        case str():
            return resource
    raise AssertionError(resource)


def statements(role: str) -> Iterator[dict[str, Any]]:
    own = tables.template()["Resources"][role]["Properties"]["Policies"]
    apart = [policy["Properties"] for policy in tables.resources("AWS::IAM::Policy").values()]
    for policy in [*own, *(policy for policy in apart if {"Ref": role} in policy["Roles"])]:
        for statement in policy["PolicyDocument"]["Statement"]:
            yield statement["Fn::If"][1] if "Fn::If" in statement else statement


def grants(function: str) -> set[Grant]:
    return {
        Grant(statement["Effect"], action, text(resource))
        for statement in statements(f"{function}Role")
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def allowed(function: str, action: str) -> set[str]:
    """Return the resources on which a function may do something."""
    return {grant.resource for grant in grants(function) if grant.effect == "Allow" and fnmatchcase(action, grant.action)}


def who_may(action: str, resource: str) -> set[str]:
    return {function for function in FUNCTIONS if resource in allowed(function, action)}


def named(value: Any) -> Iterator[str]:
    """Yield the references of an expression."""
    match value:
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            yield name
        case {"Fn::If": [_, *outcomes]}:
            for outcome in outcomes:
                yield from named(outcome)


def key_statements(effect: str, key: str = "ProviderKey") -> list[dict[str, Any]]:
    policy = tables.template()["Resources"][key]["Properties"]["KeyPolicy"]
    return [statement for statement in policy["Statement"] if statement["Effect"] == effect]


# ── the tenants' secrets ────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_sending_and_verifying_may_decrypt_a_config() -> None:
    """The key's own policy names them; no other principal of the account can use the key."""
    allowed_actions: dict[str, set[str]] = {}
    for statement in key_statements("Allow"):
        principal = statement["Principal"]["AWS"]
        name = principal["Fn::GetAtt"][0] if "Fn::GetAtt" in principal else "account"
        allowed_actions[name] = set(as_list(statement["Action"]))
    uses = {"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncrypt*", "kms:CreateGrant", "kms:*", "*"}
    assert allowed_actions["SendFunctionRole"] == {"kms:Decrypt"}
    assert allowed_actions["ProvidersFunctionRole"] == {"kms:GenerateDataKey", "kms:Decrypt"}
    assert not allowed_actions["account"] & uses
    assert set(allowed_actions) == {"SendFunctionRole", "ProvidersFunctionRole", "account"}


def test_functions_that_send_to_the_queue_may_sign_messages() -> None:
    """No other function may use the key; IAM may allow operators, so it is for signing only."""
    key = tables.template()["Resources"]["QueueKey"]["Properties"]
    assert (key["KeySpec"], key["KeyUsage"]) == ("HMAC_256", "GENERATE_VERIFY_MAC")
    _, signing = key_statements("Allow", "QueueKey")
    assert signing["Action"] == "kms:GenerateMac"
    assert {role["Fn::GetAtt"][0] for role in signing["Principal"]["AWS"]} == {
        f"{one}Role" for one in who_may("sqs:SendMessage", "SendQueue")
    }


def test_only_sending_may_decrypt_its_cached_sessions() -> None:
    """Sessions with tenants' roles are in a table that operators may read; the key policy lets only SendFunction derive their key."""
    key = tables.template()["Resources"]["CacheKey"]["Properties"]
    assert (key["KeySpec"], key["KeyUsage"]) == ("HMAC_256", "GENERATE_VERIFY_MAC")
    administration, derivation = key_statements("Allow", "CacheKey")
    assert not [action for action in administration["Action"] if re.match(r"kms:(\*|Generate|Verify|Create)", action)]
    assert derivation["Action"] == "kms:GenerateMac"
    assert derivation["Principal"] == {"AWS": {"Fn::GetAtt": ["SendFunctionRole", "Arn"]}}
    assert who_may("dynamodb:GetItem", "SessionsTable") == {"SendFunction"}


def test_no_role_has_rights_on_keys_besides_the_key_policy() -> None:
    """Only the key policy decides who may decrypt."""
    assert not [grant for function in FUNCTIONS for grant in grants(function) if grant.action.startswith("kms:")]


def test_the_key_requires_a_tenant_in_the_encryption_context() -> None:
    """A data key can be created or decrypted only by a call that names its tenant."""
    [denial] = key_statements("Deny")
    assert denial["Principal"] == "*"
    assert {"kms:GenerateDataKey*", "kms:Decrypt"} <= set(denial["Action"])
    assert denial["Condition"]["Null"] == {"kms:EncryptionContext:tenant_id": "true"}


def test_only_sending_and_verifying_act_as_tenants() -> None:
    """Other functions cannot assume a tenant's role."""
    anyone = "arn:aws:iam::*:role/*"
    assert who_may("sts:AssumeRole", anyone) == {"SendFunction", "ProvidersFunction"}


def test_the_roles_in_tenants_trust_policies_have_fixed_names() -> None:
    """Every tenant's trust policy has their ARNs, which must be the same after the roles or the stack are created again."""
    role_arns = {name: value for name, value in tables.variables("ProvidersFunction").items() if name.endswith("_ROLE_ARN")}
    assert role_arns == {
        "SEND_ROLE_ARN": {"Fn::GetAtt": ["SendFunctionRole", "Arn"]},
        "PROVIDERS_ROLE_ARN": {"Fn::GetAtt": ["ProvidersFunctionRole", "Arn"]},
    }
    for role in ACTING_ROLES:
        name = tables.template()["Resources"][role]["Properties"]["RoleName"]["Fn::Sub"]
        assert len(name.replace("${AWS::StackName}", "tenantmail").replace("${AWS::Region}", "ap-southeast-2")) <= 64
        assert set(re.findall(r"\$\{(.+?)\}", name)) == {
            "AWS::StackName",
            "AWS::Region",
        }  # distinct for two stacks, and for one stack in two regions


@pytest.mark.parametrize("function", ["SendFunction", "ProvidersFunction"])
def test_sessions_with_tenants_roles_are_named_after_the_platform(function: str) -> None:
    """A tenant's CloudTrail shows the platform, for either function."""
    assert tables.variables(function)["PLATFORM_NAME"] == {"Ref": "PlatformName"}


@pytest.mark.parametrize("function", ["SendFunction", "ProvidersFunction"])
def test_no_role_of_our_own_account_can_be_assumed(function: str) -> None:
    """A tenant that stores the ARN of one of our roles gets no access."""
    assert Grant("Deny", "sts:AssumeRole", "arn:aws:iam::AWS::AccountId:role/*") in grants(function)


def test_no_function_may_send_from_our_own_account() -> None:
    """Mail is sent only with a tenant's credentials."""
    assert not [grant for function in FUNCTIONS for grant in grants(function) if grant.action.startswith("ses:")]


# ── tables, queues, bucket ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("table", "writers"),
    [
        (
            "ProvidersTable",
            {"FeedbackFunction", "ProvidersFunction", "PublishFunction", "SendFunction", "StatisticsFunction", "SweepFunction"},
        ),
        ("MessagesTable", {"FeedbackFunction", "MessagesFunction", "SendFunction", "SweepFunction"}),
        ("FeedbackTable", {"FeedbackFunction"}),
        ("PacingTable", {"SendFunction", "SweepFunction"}),
        ("SessionsTable", {"SendFunction"}),
        ("SuppressionsTable", {"FeedbackFunction", "ProvidersFunction"}),
        ("StatisticsTable", {"StatisticsFunction"}),
    ],
)
def test_each_table_has_only_its_writers(table: str, writers: set[str]) -> None:
    """The messages API cannot write providers, the providers API cannot write records."""
    assert set().union(*(who_may(action, table) for action in WRITES)) == writers


def test_no_function_may_delete_rows_or_scan_tables() -> None:
    """Records expire; neither a bug nor an intruder can empty or copy a table."""
    for action in ("dynamodb:DeleteItem", "dynamodb:BatchWriteItem", "dynamodb:Scan", "dynamodb:ExportTableToPointInTime"):
        assert not [function for function in FUNCTIONS if allowed(function, action)]


def test_suppressions_are_read_by_key_and_listed_only_by_the_api() -> None:
    """Sending and previews look recipients up by key; only operators can list them."""
    assert who_may("dynamodb:BatchGetItem", "SuppressionsTable") == {
        "SendFunction",
        "MessagesFunction",
        "ProvidersFunction",
        "FeedbackFunction",
    }
    for index in ("byAt", "byReason"):
        assert who_may("dynamodb:Query", f"SuppressionsTable/index/{index}") == {"ProvidersFunction"}


def test_only_sending_receives_from_the_queue() -> None:
    """It may also change a message's visibility, which SAM's policy does not include."""
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility"):
        assert who_may(action, "SendQueue") == {"SendFunction"}
        assert who_may(action, "DeadLetterQueue") == set()


def test_only_the_sweeper_reads_the_event_source_mapping() -> None:
    """It may also invoke itself; only operators may pause the mapping."""
    mine = {function: {grant.action for grant in grants(function) if grant.action.startswith("lambda:")} for function in FUNCTIONS}
    sweeper = {"lambda:GetEventSourceMapping", "lambda:InvokeFunction"}
    assert mine == {function: set() for function in FUNCTIONS} | {"SweepFunction": sweeper}
    assert who_may("lambda:InvokeFunction", "SweepFunction:live") == {"SweepFunction"}


def test_only_sending_dead_letters_requests() -> None:
    """The others only put requests on the send queue."""
    assert who_may("sqs:SendMessage", "SendQueue") == {"SendFunction", "MessagesFunction", "SweepFunction"}
    assert who_may("sqs:SendMessage", "DeadLetterQueue") == {"SendFunction"}


def test_only_sending_parks_bodies() -> None:
    """Other functions release or delete them; uploads are created only through the API."""
    assert who_may("s3:PutObject", "AttachmentsBucket/parked/*") == {"SendFunction"}
    assert who_may("s3:PutObject", "AttachmentsBucket/attachments/*") == {"MessagesFunction"}
    assert who_may("s3:DeleteObject", "AttachmentsBucket/attachments/*") == set()


def test_only_the_providers_api_publishes_the_onboarding_template() -> None:
    """It signs URLs to the template for tenants; it may not read mail."""
    assert who_may("s3:PutObject", "AttachmentsBucket/onboarding/*") == {"ProvidersFunction"}
    assert allowed("ProvidersFunction", "s3:GetObject") == {"AttachmentsBucket/onboarding/*"}


@pytest.mark.parametrize("function", ["SendFunction", "MessagesFunction"])
def test_functions_that_read_objects_may_list_the_bucket(function: str) -> None:
    """Without the right to list, S3 returns 403 for a missing key, which would look like our own fault."""
    assert allowed(function, "s3:ListBucket") == {"AttachmentsBucket"}
    assert allowed(function, "s3:ListBucketVersions") == {"AttachmentsBucket"}


def test_readers_of_uploads_may_read_their_versions() -> None:
    """A request is pinned to a version when it is accepted and sent with that one; each needs its own right."""
    for action in ("s3:GetObject", "s3:GetObjectVersion"):
        assert who_may(action, "AttachmentsBucket/attachments/*") == {"SendFunction", "MessagesFunction"}


def test_old_versions_of_uploads_are_kept_while_a_request_may_wait() -> None:
    """Uploads are versioned; one that is replaced right after a 202 is kept as long as the request may wait: 7 + 7 days, and 35 more."""
    bucket = tables.template()["Resources"]["AttachmentsBucket"]["Properties"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = bucket["LifecycleConfiguration"]["Rules"]
    kept = [rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in rules if "NoncurrentVersionExpiration" in rule]
    assert min(kept) >= 2 * MAX_AHEAD.days + RECORD_RETENTION.days


def test_publishing_may_only_update_provider_rows() -> None:
    """It updates rows, without creating or deleting any, and reads tables only through their streams."""
    assert {grant.action for grant in grants("PublishFunction") if grant.resource == "ProvidersTable"} == {"dynamodb:UpdateItem"}
    for action in ("dynamodb:GetItem", "dynamodb:Query", "dynamodb:BatchGetItem"):
        assert allowed("PublishFunction", action) == set()


def test_feedback_may_only_record_ses_events() -> None:
    """Even with a hostile event it can neither send, decrypt a config nor assume a role."""
    assert {(grant.action, grant.resource) for grant in grants("FeedbackFunction") if grant.resource != "*"} == {
        *(("sqs:" + action, "FeedbackQueue") for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")),
        *(("dynamodb:" + action, "MessagesTable") for action in ("GetItem", "UpdateItem")),
        *(("dynamodb:" + action, "FeedbackTable") for action in ("GetItem", "PutItem")),
        *(("dynamodb:" + action, "SuppressionsTable") for action in ("BatchGetItem", "PutItem")),
        *(("dynamodb:" + action, "ProvidersTable") for action in ("GetItem", "UpdateItem")),
        ("s3:DeleteObject", "AttachmentsBucket/parked/*"),
        *(("logs:" + action, "FeedbackFunctionLogs") for action in ("CreateLogStream", "PutLogEvents")),
    }


def test_only_the_api_and_feedback_read_addresses() -> None:
    """No other function can read SES's events of a recipient."""
    assert who_may("dynamodb:GetItem", "FeedbackTable") == {"FeedbackFunction", "MessagesFunction"}
    for action in ("dynamodb:Query", "dynamodb:Scan", "dynamodb:BatchGetItem"):
        assert who_may(action, "FeedbackTable") == set()


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rights_name_their_resources(function: str) -> None:
    """Patterns are used only for X-Ray, which has no resources, and tenants' roles, which are not known in advance."""
    wide = {grant.action for grant in grants(function) if grant.effect == "Allow" and (grant.resource == "*" or ":*:" in grant.resource)}
    assert wide <= {"xray:PutTraceSegments", "xray:PutTelemetryRecords", "sts:AssumeRole"}
    assert {grant.action for grant in grants(function) if "*" in grant.action} <= {"sqs:SendMessage*"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_s_settings_name_exactly_its_resources(function: str) -> None:
    """A name without a right would fail in production; a right without a name is superfluous."""
    referenced = {name for value in tables.variables(function).values() for name in named(value)}
    referenced &= set(tables.template()["Resources"]) - NAMED_IN_TENANT_POLICIES
    may_use = {grant.resource.partition("/")[0] for grant in grants(function)} & set(tables.template()["Resources"])
    by_key_policy = {"ProviderKey"} if function in ("SendFunction", "ProvidersFunction") else set()
    by_key_policy |= {"CacheKey"} if function == "SendFunction" else set()
    by_key_policy |= {"QueueKey"} if function in who_may("sqs:SendMessage", "SendQueue") else set()
    assert referenced == (may_use | by_key_policy) - {f"{function}Logs", "FeedbackQueue"}  # whose messages Lambda itself receives


def test_roles_are_only_for_lambda_and_have_no_managed_policies() -> None:
    """AWS's managed policies include every queue and every log group."""
    for function in FUNCTIONS:
        role = tables.template()["Resources"][f"{function}Role"]["Properties"]
        [trust] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
        assert "ManagedPolicyArns" not in role


def test_only_publishing_and_statistics_read_streams_and_only_publishing_puts_events() -> None:
    """A shard supports at most two readers; publishing may write only to the tenant's row."""
    readers = {
        "MessagesTable": {"PublishFunction", "StatisticsFunction"},
        "ProvidersTable": {"PublishFunction"},
        "SuppressionsTable": {"PublishFunction"},
    }
    for table, allowed_readers in readers.items():
        for action in ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"):
            assert who_may(action, f"{table} stream") == allowed_readers
    assert who_may("events:PutEvents", "EventBus") == {"PublishFunction"}
    assert {grant.resource for grant in grants("PublishFunction")} - {"*"} == {
        "MessagesTable stream",
        "ProvidersTable stream",
        "SuppressionsTable stream",
        "ProvidersTable",
        "EventBus",
        "PublishFunctionLogs",
    }
