"""The requirements of the original SesProvider's integration tests, under their names, on the local AWS."""

from email import message_from_bytes, policy

import pytest

from support.aws import sandbox as integration
from support.aws.sandbox import Sandbox
from tools.local_aws.running import LocalAws
from tools.local_aws.tenants import Tenant

FRIEND = "friend@customer.example"


@pytest.fixture
def sandbox(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SES", aws.addresses.services["ses"])
    opened = aws.tenants.open(sandbox=True, verified=[FRIEND])
    return Sandbox(opened.access_key, opened.secret_key, opened.region, opened.from_address, FRIEND)


def test_a_send_in_a_sandboxed_account(sandbox: Sandbox) -> None:
    """A verified recipient gets the mail; the result has SES's message id."""
    assert integration.send_in_a_sandboxed_account(sandbox).message_id


def test_an_attachment_arrives_as_multipart_mixed_with_its_content_type(aws: LocalAws, sandbox: Sandbox) -> None:
    """SES gets the same bytes."""
    content = bytes(range(256)) * 10
    sent = integration.send_an_attachment(sandbox, content)
    [mail] = aws.control.mails(message_id=sent.message_id)
    parsed = message_from_bytes(mail.raw, policy=policy.default)
    [part] = parsed.iter_attachments()  # type: ignore[attr-defined]  # policy.default makes EmailMessages
    assert parsed.get_content_type() == "multipart/mixed"
    assert (part.get_content_type(), part.get_payload(decode=True)) == ("application/pdf", content)


def test_an_unverified_sender(sandbox: Sandbox) -> None:
    """SES's MessageRejected propagates as the tenant's error."""
    provider = sandbox.provider(from_address="nobody@elsewhere.example")
    assert integration.refused_code(provider.send(sandbox.mail(provider), tags={})) == "from_address_not_verified"


def test_invalid_credentials_propagate(sandbox: Sandbox) -> None:
    """An authentication failure is the tenant's error, too."""
    provider = sandbox.provider(secretAccessKey="x" * 40)
    assert integration.refused_code(provider.send(sandbox.mail(provider), tags={})) == "credentials_invalid"


def test_verify_mails_the_from_address_to_itself(aws: LocalAws, tenant: Tenant) -> None:
    """With the original's text."""
    [mail] = aws.control.mails(account=tenant.account)
    parsed = message_from_bytes(mail.raw, policy=policy.default)
    assert (mail.source, mail.destinations) == (tenant.from_address, [tenant.from_address])
    assert str(parsed["Subject"]) == "Leadmetrics — SES connection test"
