"""The operations of SES that take a raw message: v1's SendRawEmail, and v2's SendEmail for messages that are too large for it.

Only the size decides. Sender and recipients are always given, so that the headers do not decide delivery.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailer.adapters.providers import ses_errors, ses_v2_errors
from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.ses_errors import Row
from mailer.domain.large_mail import is_large
from mailer.domain.mime import Mail

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: how it is called, what it is told, and what its errors mean."""

    call: Callable[[TenantClients, str], Callable[..., Answer]]
    """Takes the clients and the region."""
    message: Callable[[Mail], dict[str, Any]]
    """Names sender, recipients and message."""
    tags: str
    """The parameter that takes the tags."""
    errors: Sequence[Row]

    def request(self, mail: Mail, configuration_set: str | None, tags: Mapping[str, str]) -> dict[str, Any]:
        """Return the parameters of the call; SES publishes tags through a configuration set, and refuses them without one."""
        if not configuration_set:
            return self.message(mail)
        named = {"ConfigurationSetName": configuration_set, self.tags: [{"Name": name, "Value": tag} for name, tag in tags.items()]}
        return named | self.message(mail)


SEND_RAW_EMAIL = Operation(
    call=lambda clients, region: clients.ses(region).send_raw_email,
    message=lambda mail: {"Source": mail.mail_from, "Destinations": list(mail.recipients), "RawMessage": {"Data": mail.mime}},
    tags="Tags",
    errors=ses_errors.TABLE,
)

SEND_EMAIL = Operation(
    call=lambda clients, region: clients.sesv2(region).send_email,
    message=lambda mail: {
        "FromEmailAddress": mail.mail_from,
        "Destination": {"ToAddresses": list(mail.recipients)},
        "Content": {"Raw": {"Data": mail.mime}},
    },
    tags="EmailTags",
    errors=ses_v2_errors.TABLE,
)


def operation_for(mail: Mail) -> Operation:
    """Return the operation that takes a mail of this size."""
    return SEND_EMAIL if is_large(len(mail.mime)) else SEND_RAW_EMAIL
