"""Integration tests with an SES account in the sandbox, local or real; the original service had the same."""

import base64
from dataclasses import dataclass
from typing import Any

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import StaticCredentials
from mailer.adapters.providers.ses import SesProvider
from mailer.adapters.providers.ses_account import AccountQuestions
from mailer.domain.delivery import NotSent, Outcome, Sent
from mailer.domain.message import EmailMessage
from mailer.domain.mime import Mail, Sender, compose
from mailer.domain.provider import AccessKeyConfig
from support.fakes.ports import NOON


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandboxed account: its key, a verified from-address, a verified recipient."""

    access_key_id: str
    secret_access_key: str
    region: str
    from_address: str
    recipient: str

    def provider(self, from_address: str = "", **changes: str) -> SesProvider:
        """Return a provider for the account, with changes of its config."""
        config = {
            "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key,
            "region": self.region,
            "fromAddress": from_address or self.from_address,
            "fromName": "Integration",
        }
        clients = TenantClients(width=2)
        return SesProvider(
            sender=Sender(config["fromAddress"], "Integration"),
            region=self.region,
            configuration_set=None,
            credentials=StaticCredentials(AccessKeyConfig.model_validate({**config, **changes})),
            clients=clients,
            questions=AccountQuestions(clients, self.region, None),
        )

    def mail(self, provider: SesProvider, **fields: Any) -> Mail:
        """Compose a mail to the verified recipient."""
        message = {"to": [{"email": self.recipient}], "subject": "Integration test", "text": "hi", **fields}
        return compose(EmailMessage.model_validate(message), provider.sender, date=NOON)


def send_in_a_sandboxed_account(sandbox: Sandbox) -> Sent:
    """Assert that mail to a verified recipient is accepted."""
    provider = sandbox.provider()
    return _sent(provider.send(sandbox.mail(provider), tags={}))


def send_an_attachment(sandbox: Sandbox, content: bytes) -> Sent:
    """Assert that a mail with a file is accepted."""
    provider = sandbox.provider()
    attachment = {"filename": "data.pdf", "contentType": "application/pdf", "content": base64.b64encode(content).decode()}
    return _sent(provider.send(sandbox.mail(provider, attachments=[attachment]), tags={}))


def refused_code(outcome: Outcome) -> str:
    """Return why a mail was not sent."""
    assert isinstance(outcome, NotSent)
    return outcome.error.code


def _sent(outcome: Outcome) -> Sent:
    assert isinstance(outcome, Sent), outcome
    return outcome
