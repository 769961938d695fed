"""The local AWS enforces accounts' policies as AWS does: what passes here would pass there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tools.local_aws.processes import Process
from tools.local_aws.running import LocalAws, start_server, wait_for_server
from tools.local_aws.server import REGION
from tools.local_aws.tenants import Tenant

STRANGER = "stranger@elsewhere.example"


@pytest.fixture
def account(aws: LocalAws) -> Tenant:
    """An account whose owner has given its key, and no config, to this service."""
    return aws.tenants.open()


def ses(aws: LocalAws, access_key: str, secret_key: str) -> Any:
    session = boto3.Session(access_key, secret_key, region_name=REGION)
    return session.client("ses", endpoint_url=aws.addresses.services["ses"], config=Config(retries={"total_max_attempts": 1}))


def send(client: Any, source: str, to: str) -> str:
    raw = f"From: {source}\r\nTo: {to}\r\nSubject: Hello\r\n\r\nHello\r\n".encode()
    return str(client.send_raw_email(Source=source, Destinations=[to], RawMessage={"Data": raw})["MessageId"])


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_key_with_the_onboarding_policy_may_send(aws: LocalAws, account: Tenant) -> None:
    """`ses:SendRawEmail` is enough to send, and the ledger has the account of the mail."""
    message_id = send(ses(aws, account.access_key, account.secret_key), account.from_address, STRANGER)
    [mail] = aws.control.mails(account=account.account)
    assert (mail.message_id, mail.source, mail.destinations) == (message_id, account.from_address, [STRANGER])


def test_that_key_may_do_nothing_else(aws: LocalAws, account: Tenant) -> None:
    """Every other right is denied, harmless ones too."""
    with pytest.raises(ClientError) as caught:
        ses(aws, account.access_key, account.secret_key).get_send_quota()
    assert code_of(caught) == "AccessDenied"


def test_a_wrong_secret_gives_a_signature_error(aws: LocalAws, account: Tenant) -> None:
    """The signature is checked behind the proxy, over the client's bytes."""
    with pytest.raises(ClientError) as caught:
        send(ses(aws, account.access_key, "wrong"), account.from_address, STRANGER)
    assert code_of(caught) == "SignatureDoesNotMatch"


def test_an_unknown_key_gives_its_own_error(aws: LocalAws, account: Tenant) -> None:
    """It is distinguished from a wrong secret."""
    with pytest.raises(ClientError) as caught:
        send(ses(aws, "AKIANOBODYMADETHIS00", "secret"), account.from_address, STRANGER)
    assert code_of(caught) == "InvalidClientTokenId"


def test_an_unverified_sender_is_rejected_by_name(aws: LocalAws, account: Tenant) -> None:
    """SES names the identity that failed, and nothing is sent."""
    with pytest.raises(ClientError, match=r"not verified.*region US-EAST-1: nobody@acme\.example") as caught:
        send(ses(aws, account.access_key, account.secret_key), "nobody@acme.example", STRANGER)
    assert code_of(caught) == "MessageRejected"
    assert aws.control.mails(account=account.account) == []


def test_the_sandbox_names_the_recipient(aws: LocalAws) -> None:
    """In the sandbox verified recipients get mail, others are named in the error."""
    account = aws.tenants.open(sandbox=True, verified=["friend@example.com"])
    client = ses(aws, account.access_key, account.secret_key)
    assert send(client, account.from_address, "friend@example.com")
    with pytest.raises(ClientError, match=f"not verified.*{STRANGER}"):
        send(client, account.from_address, STRANGER)


def test_a_temporary_key_belongs_to_its_account(aws: LocalAws, account: Tenant) -> None:
    """Mail sent through an assumed role is found under the account of the role."""
    owner = aws.tenants.owner(account.account)
    trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}'
    iam = owner.client("iam", endpoint_url=aws.addresses.aws)
    arn = iam.create_role(RoleName="mail", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ses:SendRawEmail","Resource":"*"}]}'
    iam.put_role_policy(RoleName="mail", PolicyName="mail", PolicyDocument=policy)
    keys = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="tenant")["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=REGION)
    client = session.client("ses", endpoint_url=aws.addresses.services["ses"])
    send(client, account.from_address, STRANGER)
    [mail] = aws.control.mails(account=account.account)
    assert mail.access_key == keys["AccessKeyId"]


def test_every_service_can_be_made_to_fail(aws: LocalAws) -> None:
    """A fault in front of a service affects its callers; those that bypass the proxy are not affected."""
    aws.control.inject("error", service="kms", operation="ListKeys", code="ThrottlingException", times=1)
    behind = boto3.Session("test", "test", region_name=REGION).client(
        "kms", endpoint_url=aws.addresses.services["kms"], config=Config(retries={"total_max_attempts": 1})
    )
    with pytest.raises(ClientError) as caught:
        behind.list_keys()
    assert code_of(caught) == "ThrottlingException"
    assert aws.client("kms").list_keys()["Keys"]


def test_nothing_outlives_its_process(tmp_path: Path) -> None:
    """When its standard input closes, the server stops the emulator and exits."""
    server = start_server(tmp_path, with_parent=True)
    addresses = wait_for_server(tmp_path, server)
    assert server.stdin
    server.stdin.close()
    assert server.wait(timeout=20) == 0
    assert not addresses.ministack.runs()
    assert not (tmp_path / "tmp").exists()


def test_only_the_recorded_process_is_stopped() -> None:
    """A pid that belongs to another process by now is left alone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        Process(child.pid, "Thu Jan  1 00:00:00 1970").stop()
        assert child.poll() is None
        Process.of(child.pid).stop()
        assert child.wait() != 0
