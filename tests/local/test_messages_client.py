"""The client on the deployed stack: signatures, callers separated by IAM, real uploads."""

import email
import json
import os
from email import policy
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

from mailer.domain.uploads import MAX_UPLOAD
from mailer_client import ApiError, MailClient, Status
from support.fakes.messages import a_body
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant


def a_caller_of(aws: LocalAws, tenant: Tenant) -> MailClient:
    """Create an IAM user with the policy of docs/api.md, for one tenant."""
    iam, name = aws.client("iam"), f"caller-of-{tenant.tenant_id}"
    resource = f"arn:aws:execute-api:*:*:*/v1/*/tenants/{tenant.tenant_id}/*"
    rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": resource}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="call", PolicyDocument=json.dumps(rights))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return aws.mail_client(key["AccessKeyId"], key["SecretAccessKey"])


def test_a_caller_gets_no_data_of_another_tenant(aws: LocalAws) -> None:
    """Its own tenant's calls succeed; every call for the other is a 403 before the function."""
    acme, bravo = aws.active_tenant(), aws.active_tenant()
    caller = a_caller_of(aws, acme)
    aws.mail.send(bravo.tenant_id, a_body("of-bravo"))
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
        aws.mail.get(bravo.tenant_id, "sneaked-in")


def test_a_large_attachment_arrives_as_it_was_uploaded(aws: LocalAws, tenant: Tenant) -> None:
    """Near the maximum size: uploaded, sent, and in the mail byte by byte."""
    content = os.urandom(MAX_UPLOAD - 10_000)
    attachment = aws.mail.upload_attachment(tenant.tenant_id, "large.bin", content)
    sent = aws.mail.send(tenant.tenant_id, a_body(None, message={"attachments": [attachment]}))
    assert aws.mail.wait(tenant.tenant_id, sent.request_id).status is Status.SENT
    [raw] = [m.raw for m in aws.control.mails(account=tenant.account) if m.size > len(content)]
    [part] = email.message_from_bytes(raw, policy=policy.default).iter_attachments()
    assert part.get_content() == content


@pytest.mark.parametrize(("change", "value"), [("Content-Type", "text/html"), ("Content-Length", None)])
def test_an_upload_of_another_type_or_length_is_refused(aws: LocalAws, tenant: Tenant, change: str, value: str | None) -> None:
    """The signature does not cover it."""
    granted = aws.mail._api.call("POST", f"/tenants/{tenant.tenant_id}/attachments", {"filename": "a.pdf", "size": 4})["upload"]
    body = b"%PDF" if value else b"%PDF and more"
    headers = {name: text for name, text in granted["headers"].items() if name != "Content-Length"} | ({change: value} if value else {})
    answer = URLLib3Session().send(AWSRequest("PUT", granted["url"], headers, body).prepare())
    assert answer.status_code == 403
    assert URLLib3Session().send(AWSRequest("PUT", granted["url"], granted["headers"], b"%PDF").prepare()).status_code == 200
