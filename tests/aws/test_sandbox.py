"""The original's integration tests, on a real SES account."""

from support.aws import sandbox as integration
from support.aws.sandbox import Sandbox


def test_a_send_in_a_sandboxed_account(sandbox: Sandbox) -> None:
    """A verified recipient gets the mail, with SES's message id."""
    assert integration.send_in_a_sandboxed_account(sandbox).message_id


def test_an_attachment_is_accepted(sandbox: Sandbox) -> None:
    """SES takes a multipart/mixed message; look into the mailbox for the file."""
    assert integration.send_an_attachment(sandbox, b"%PDF-1.4\n%%EOF\n").message_id


def test_an_unverified_sender(sandbox: Sandbox) -> None:
    """SES's MessageRejected propagates as the tenant's error."""
    provider = sandbox.provider(from_address="nobody@elsewhere.example")
    assert integration.refused_code(provider.send(sandbox.mail(provider), tags={})) == "from_address_not_verified"
