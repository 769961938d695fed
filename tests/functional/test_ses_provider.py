"""The requirements of the original SesProvider's own tests, under their names, on moto."""

import base64
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage as Parsed
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ses.models import ses_backends

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.ses import SesProvider
from mailer.domain.delivery import NotSent, Outcome, Sent
from mailer.domain.message import EmailMessage
from mailer.domain.mime import compose
from support import tenants
from support.fakes.ports import NOON

TO = "jo@customer.example"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[SesProvider]:
    """Return a provider with a verified from-address, in moto."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        session = boto3.Session("testing", "testing", region_name=tenants.REGION)
        session.client("ses").verify_email_identity(EmailAddress=tenants.FROM)
        yield tenants.ses(TenantClients(width=2))


def send(provider: SesProvider, **fields: Any) -> Outcome:
    message = EmailMessage.model_validate({"to": [{"email": TO, "name": "Jo"}], "subject": "Hello", "text": "hi", **fields})
    return provider.send(compose(message, provider.sender, date=NOON), tags={})


def arrived() -> Parsed:
    [sent] = ses_backends[DEFAULT_ACCOUNT_ID][tenants.REGION].sent_messages
    parsed = message_from_bytes(sent.raw_data.encode() if isinstance(sent.raw_data, str) else sent.raw_data, policy=policy.default)
    assert isinstance(parsed, Parsed)
    return parsed


def test_send_builds_the_right_mime_fields(provider: SesProvider) -> None:
    """From, To, Cc, Reply-To, Subject and both bodies are the message's."""
    send(provider, cc=[{"email": "cc@customer.example"}], replyTo={"email": "reply@acme.example"}, subject="Grüße", html="<p>hi", text="hi")
    mail = arrived()
    assert (str(mail["From"]), str(mail["To"]), str(mail["Cc"])) == (f"Acme <{tenants.FROM}>", f"Jo <{TO}>", "cc@customer.example")
    assert (str(mail["Reply-To"]), str(mail["Subject"])) == ("reply@acme.example", "Grüße")
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content().strip() for part in mail.iter_parts()] == ["hi", "<p>hi"]  # type: ignore[attr-defined]  # parts of policy.default


def test_an_attachment_s_bytes_arrive_as_a_multipart_part(provider: SesProvider) -> None:
    """The part has the name, the type and the same bytes."""
    content = bytes(range(256)) * 40
    send(provider, attachments=[{"filename": "data.pdf", "content": base64.b64encode(content).decode()}])
    mail = arrived()
    [part] = mail.iter_attachments()
    assert mail.get_content_type() == "multipart/mixed"
    assert (part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) == ("data.pdf", "application/pdf", content)


def test_send_returns_the_message_id(provider: SesProvider) -> None:
    """SES's id."""
    [sent] = [send(provider)]
    assert isinstance(sent, Sent)
    assert sent.message_id == ses_backends[DEFAULT_ACCOUNT_ID][tenants.REGION].sent_messages[0].id


def test_an_unverified_from_address_propagates(provider: SesProvider) -> None:
    """SES's MessageRejected becomes the tenant's error."""
    boto3.Session("testing", "testing", region_name=tenants.REGION).client("ses").delete_identity(Identity=tenants.FROM)
    refused = send(provider)
    assert isinstance(refused, NotSent)
    assert refused.error.code == "from_address_not_verified"
