"""The template's roles and key policies, on a server that evaluates them."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tools.local_aws.running import LocalAws
from tools.local_aws.server import REGION
from tools.local_aws.stack import NAME, platform_session

FUNCTIONS = ["MessagesFunction", "ProvidersFunction", "SendFunction", "SweepFunction", "PublishFunction", "StatisticsFunction"]
CONTEXT = {"tenant_id": "acme", "provider": "ses", "version": "1"}
DENIED = {"AccessDenied", "AccessDeniedException"}


def physical(aws: LocalAws, logical_id: str) -> str:
    """Return the physical id of a resource."""
    found = aws.client("cloudformation").describe_stack_resource(StackName=NAME, LogicalResourceId=logical_id)
    return str(found["StackResourceDetail"]["PhysicalResourceId"])


def role_arn(aws: LocalAws, function: str) -> str:
    return str(aws.client("iam").get_role(RoleName=physical(aws, f"{function}Role"))["Role"]["Arn"])


def acting_as(aws: LocalAws, function: str, service: Any) -> Any:
    """Return a client that has only a function's role."""
    sts = platform_session().client("sts", endpoint_url=aws.addresses.aws)
    given = sts.assume_role(RoleArn=role_arn(aws, function), RoleSessionName="test")["Credentials"]
    session = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], region_name=REGION)
    return session.client(service, endpoint_url=aws.addresses.aws)


def is_denied(call: Any, **arguments: Any) -> bool:
    """Return whether the caller lacks the right; other errors mean that it has it."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] in DENIED
    return False


@pytest.fixture
def sealed(aws: LocalAws) -> dict[str, Any]:
    """Return the arguments of Decrypt for a data key that ProvidersFunction created for a tenant."""
    key = aws.stack.outputs["ProviderKeyArn"]
    made = acting_as(aws, "ProvidersFunction", "kms").generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    return {"KeyId": key, "CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": CONTEXT}


@pytest.fixture
def administrator(aws: LocalAws) -> Iterator[Callable[[Any], Any]]:
    """Yield a factory of clients for an IAM user of our own account whose policy allows everything."""
    iam = aws.client("iam")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.create_user(UserName="administrator")
    iam.put_user_policy(UserName="administrator", PolicyName="all", PolicyDocument=json.dumps(everything))
    key = iam.create_access_key(UserName="administrator")["AccessKey"]
    session = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION)
    yield lambda service: session.client(service, endpoint_url=aws.addresses.aws)
    iam.delete_access_key(UserName="administrator", AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName="administrator", PolicyName="all")
    iam.delete_user(UserName="administrator")


def test_only_sending_and_the_providers_api_decrypt_a_config(aws: LocalAws, sealed: dict[str, Any]) -> None:
    """Other functions cannot, whatever they read from the table."""
    refused = {function for function in FUNCTIONS if is_denied(acting_as(aws, function, "kms").decrypt, **sealed)}
    assert refused == set(FUNCTIONS) - {"SendFunction", "ProvidersFunction"}


def test_only_the_providers_api_encrypts_a_config(aws: LocalAws) -> None:
    """A compromised SendFunction could read configs but write none."""
    request = {"KeyId": aws.stack.outputs["ProviderKeyArn"], "KeySpec": "AES_256", "EncryptionContext": CONTEXT}
    refused = {function for function in FUNCTIONS if is_denied(acting_as(aws, function, "kms").generate_data_key, **request)}
    assert refused == set(FUNCTIONS) - {"ProvidersFunction"}


def test_an_administrator_of_our_own_account_decrypts_nothing(administrator: Callable[[Any], Any], sealed: dict[str, Any]) -> None:
    """IAM alone gives nobody a tenant's config; the key policy would have to be changed, which CloudTrail shows."""
    assert is_denied(administrator("kms").decrypt, **sealed)
    assert not is_denied(administrator("kms").describe_key, KeyId=sealed["KeyId"])


def test_only_the_two_roles_of_the_platform_assume_a_tenant_s_role(aws: LocalAws, administrator: Callable[[Any], Any]) -> None:
    """The onboarding trust policy admits these two, and nobody else who knows the ExternalId."""
    tenant = aws.tenants.open()
    onboarding = aws.api.onboarding(tenant.tenant_id).body
    role = aws.tenants.launch_role(tenant, onboarding["cloudFormationTemplate"])
    request = {"RoleArn": role, "RoleSessionName": "test", "ExternalId": onboarding["externalId"]}
    assert is_denied(administrator("sts").assume_role, **request)
    refused = {function for function in FUNCTIONS if is_denied(acting_as(aws, function, "sts").assume_role, **request)}
    assert refused == set(FUNCTIONS) - {"SendFunction", "ProvidersFunction"}


def test_the_row_of_a_role_does_not_contain_it(aws: LocalAws) -> None:
    """A reader of the table gets neither its ARN nor its ExternalId."""
    tenant = aws.tenants.open()
    onboarding = aws.api.onboarding(tenant.tenant_id).body
    role = aws.tenants.launch_role(tenant, onboarding["cloudFormationTemplate"])
    aws.api.put_provider(tenant.tenant_id, tenant.provider_by_role(role))
    assert aws.api.verify(tenant.tenant_id).status == 200
    key = {"tenantId": {"S": tenant.tenant_id}}
    row = aws.client("dynamodb").get_item(TableName=aws.stack.outputs["ProvidersTableName"], Key=key)["Item"]
    assert row["active"]["M"]["account"] == {"S": tenant.account}
    assert not [name for name in (role, role.rpartition("/")[2], onboarding["externalId"]) if name in str(row)]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_assumes_a_role_of_our_own_account(aws: LocalAws, function: str) -> None:
    """Not even the two that assume tenants' roles."""
    for other in FUNCTIONS:
        request = {"RoleArn": role_arn(aws, other), "RoleSessionName": "test", "ExternalId": "guessed"}
        assert is_denied(acting_as(aws, function, "sts").assume_role, **request)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_sends_from_our_own_account(aws: LocalAws, function: str) -> None:
    """Mail is sent only as a tenant."""
    assert is_denied(acting_as(aws, function, "ses").send_raw_email, RawMessage={"Data": b"From: a@b.example\r\n\r\n"})


def test_only_sending_receives_from_the_queue(aws: LocalAws) -> None:
    """No other function can read or delete a message."""
    url = aws.stack.outputs["SendQueueUrl"]
    refused = {function for function in FUNCTIONS if is_denied(acting_as(aws, function, "sqs").receive_message, QueueUrl=url)}
    assert refused == set(FUNCTIONS) - {"SendFunction"}


def test_only_functions_that_queue_messages_can_sign(aws: LocalAws) -> None:
    """The others, and producers, get no key."""
    request = {"KeyId": aws.stack.outputs["QueueKeyArn"], "MacAlgorithm": "HMAC_SHA_256", "Message": b"tenantmail"}
    refused = {function for function in FUNCTIONS if is_denied(acting_as(aws, function, "kms").generate_mac, **request)}
    assert refused == set(FUNCTIONS) - {"MessagesFunction", "SendFunction", "SweepFunction"}


def test_only_sending_derives_the_keys_of_its_caches(aws: LocalAws, administrator: Callable[[Any], Any]) -> None:
    """Not even an operator with all rights of IAM."""
    request = {"KeyId": physical(aws, "CacheKey"), "MacAlgorithm": "HMAC_SHA_256", "Message": b"tenantmail"}
    allowed = {function for function in FUNCTIONS if not is_denied(acting_as(aws, function, "kms").generate_mac, **request)}
    assert allowed == {"SendFunction"}
    assert is_denied(administrator("kms").generate_mac, **request)


def test_a_shared_session_is_encrypted(aws: LocalAws) -> None:
    """Mail of a tenant with a role stores a session in the table, of which only name and end are readable."""
    tenant = aws.tenant_with_feedback(by_role=True)
    message = {"to": [{"email": "jo@customer.example"}], "subject": "hi", "text": "hello"}
    for number in (1, 2):
        aws.api.submit(tenant.tenant_id, {"requestId": f"invoice-{number}", "message": message})
        assert aws.api.wait_for(tenant.tenant_id, f"invoice-{number}")["status"] == "sent"
    items = aws.client("dynamodb").scan(TableName=physical(aws, "SessionsTable"))["Items"]
    assert any(item["name"]["S"].startswith("session#") for item in items)
    for item in items:
        assert item.keys() == {"name", "sealed", "ttl"}
        assert not re.search(rb"ASIA|roleArn|SecretAccessKey", item["sealed"]["B"])


def test_only_the_sweeper_reads_the_event_source(aws: LocalAws) -> None:
    """No function may change it."""
    uuid = physical(aws, "SendFunctionSendQueue")
    refused = {function for function in FUNCTIONS if is_denied(acting_as(aws, function, "lambda").get_event_source_mapping, UUID=uuid)}
    assert refused == set(FUNCTIONS) - {"SweepFunction"}
    for function in FUNCTIONS:
        assert is_denied(acting_as(aws, function, "lambda").update_event_source_mapping, UUID=uuid, Enabled=True)
        assert is_denied(acting_as(aws, function, "lambda").delete_event_source_mapping, UUID=uuid)
