"""The client against the deployed stack: signatures, callers kept apart by IAM, real uploads, and a thousand requests in batches."""

import email
import json
import os
import time
from collections.abc import Iterator
from email import policy
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

from desks import a_body
from local_aws.running import LocalAws, local_aws
from local_aws.server import REGION
from local_aws.stack import platform_session
from local_aws.tenants import Tenant
from mailer.client import ApiError, MailClient
from mailer.domain.delivery import Status
from mailer.domain.uploads import MAX_UPLOAD


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture(scope="module")
def acme(aws: LocalAws) -> Tenant:
    return aws.active_tenant()


@pytest.fixture(scope="module")
def bravo(aws: LocalAws) -> Tenant:
    return aws.active_tenant()


def a_client(aws: LocalAws, access_key: str, secret_key: str) -> MailClient:
    session = botocore.session.Session()
    session.set_credentials(access_key, secret_key)
    return MailClient(aws.stack.api_url, region=REGION, session=session)


@pytest.fixture(scope="module")
def mail(aws: LocalAws) -> MailClient:
    """The platform's own client, which may ask for any tenant."""
    keys = platform_session().get_credentials().get_frozen_credentials()
    return a_client(aws, keys.access_key, keys.secret_key)


def a_caller_of(aws: LocalAws, tenant: Tenant) -> MailClient:
    """Make an IAM user whose policy is the one that docs/api.md shows, for one tenant."""
    iam, name = aws.client("iam"), f"caller-of-{tenant.tenant_id}"
    resource = f"arn:aws:execute-api:*:*:*/v1/*/tenants/{tenant.tenant_id}/*"
    rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": resource}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="call", PolicyDocument=json.dumps(rights))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return a_client(aws, key["AccessKeyId"], key["SecretAccessKey"])


def test_a_caller_gets_nothing_of_another_tenant(aws: LocalAws, acme: Tenant, bravo: Tenant, mail: MailClient) -> None:
    """Its own tenant answers, every call for the other is a 403 before it reaches the function."""
    caller = a_caller_of(aws, acme)
    mail.send(bravo.tenant_id, a_body("of-bravo"))
    assert caller.send(acme.tenant_id, a_body("of-acme")).request_id == "of-acme"
    foreign: list[Any] = [
        lambda: caller.get(bravo.tenant_id, "of-bravo"),
        lambda: list(caller.list(bravo.tenant_id)),
        lambda: caller.send(bravo.tenant_id, a_body("sneaked-in")),
        lambda: caller.cancel(bravo.tenant_id, "of-bravo"),
        lambda: caller.preview(bravo.tenant_id, a_body()),
        lambda: caller.upload_attachment(bravo.tenant_id, "a.txt", b"x"),
        lambda: caller.get(acme.tenant_id + "2", "of-acme"),
    ]
    for call in foreign:
        with pytest.raises(ApiError) as refused:
            call()
        assert refused.value.status == 403
    with pytest.raises(ApiError) as unknown:
        caller.get(acme.tenant_id, "of-bravo")
    assert (unknown.value.status, unknown.value.code) == (404, "not_found")
    with pytest.raises(ApiError):
        mail.get(bravo.tenant_id, "sneaked-in")


def test_a_wrong_secret_is_turned_away(aws: LocalAws, acme: Tenant) -> None:
    """API Gateway checks the signature."""
    with pytest.raises(ApiError) as refused:
        a_client(aws, "AKIANOBODYMADETHIS00", "secret").get(acme.tenant_id, "r1")
    assert refused.value.status == 403


def test_a_large_attachment_arrives_as_it_was_uploaded(aws: LocalAws, acme: Tenant, mail: MailClient) -> None:
    """Near the largest that fits: uploaded, sent, and found in the mail byte by byte."""
    content = os.urandom(MAX_UPLOAD - 10_000)
    attachment = mail.upload_attachment(acme.tenant_id, "large.bin", content)
    sent = mail.send(acme.tenant_id, a_body(None, message={"attachments": [attachment]}))
    assert mail.wait(acme.tenant_id, sent.request_id).status is Status.SENT
    [raw] = [m.raw for m in aws.control.mails(account=acme.account) if m.size > len(content)]
    [part] = email.message_from_bytes(raw, policy=policy.default).iter_attachments()
    assert part.get_content() == content


@pytest.mark.parametrize(("change", "value"), [("Content-Type", "text/html"), ("Content-Length", None)])
def test_an_upload_of_another_type_or_length_is_refused(acme: Tenant, mail: MailClient, change: str, value: str | None) -> None:
    """The signature does not cover it."""
    granted = mail._api.call("POST", f"/tenants/{acme.tenant_id}/attachments", {"filename": "a.pdf", "size": 4})["upload"]
    body = b"%PDF" if value else b"%PDF and more"
    headers = {name: text for name, text in granted["headers"].items() if name != "Content-Length"} | ({change: value} if value else {})
    answer = URLLib3Session().send(AWSRequest("PUT", granted["url"], headers, body).prepare())
    assert answer.status_code == 403
    assert URLLib3Session().send(AWSRequest("PUT", granted["url"], granted["headers"], b"%PDF").prepare()).status_code == 200


def test_a_thousand_requests_in_batches_all_end_as_sent(acme: Tenant, mail: MailClient) -> None:
    """Ten batches of a hundred: each request gets its record, and its end."""
    ids = [f"batch-{number}" for number in range(1000)]
    began = time.monotonic()
    for start in range(0, len(ids), 100):
        answers = mail.send_batch(acme.tenant_id, [a_body(request_id) for request_id in ids[start : start + 100]])
        assert {answer.status for answer in answers} == {202}
    print(f"1 000 requests accepted in {time.monotonic() - began:.1f} s")
    ended = {request_id: mail.wait(acme.tenant_id, request_id, timeout=300).status for request_id in ids}
    print(f"all sent after {time.monotonic() - began:.1f} s")
    assert set(ended.values()) == {Status.SENT}
    assert set(ids) <= {record.request_id for record in mail.list(acme.tenant_id)}
