"""Fictitious tenants: configs, credentials and mail."""

from botocore.credentials import ReadOnlyCredentials

from mailer.adapters.providers.acting import TenantClients
from mailer.adapters.providers.credentials import CredentialSource, StaticCredentials
from mailer.adapters.providers.ses import SesProvider
from mailer.adapters.providers.ses_account import AccountQuestions
from mailer.domain.mime import Mail, Sender
from mailer.domain.provider import AccessKeyConfig, AssumableRole, RoleConfig, SmtpConfig

REGION = "eu-west-1"
FROM = "billing@acme.example"
ACCESS_KEY_ID = "AKIAACME000000000001"
SECRET = "canary/secret+of+acme/0123456789abcdefghij"
ROLE_ARN = "arn:aws:iam::222222222222:role/mail/sender"


def access_key(access_key_id: str = ACCESS_KEY_ID, secret: str = SECRET, from_address: str = FROM) -> AccessKeyConfig:
    return AccessKeyConfig.model_validate(
        {
            "accessKeyId": access_key_id,
            "secretAccessKey": secret,
            "region": REGION,
            "fromAddress": from_address,
            "fromName": "Acme",
        }
    )


def role(role_arn: str = ROLE_ARN) -> AssumableRole:
    fields = {"roleArn": role_arn, "region": REGION, "fromAddress": FROM, "fromName": "Acme"}
    return AssumableRole.of(RoleConfig.model_validate(fields), "external-id-of-acme")


def session(access_key_id: str) -> ReadOnlyCredentials:
    """Return a session of a role."""
    return ReadOnlyCredentials(access_key_id, "x", "token")


def smtp(host: str = "localhost", port: int = 1025, **more: object) -> SmtpConfig:
    return SmtpConfig.model_validate({"host": host, "port": port, "fromAddress": FROM, "fromName": "Acme", **more})


def mail(
    mime: bytes = b"Subject: hi\r\n\r\nhello\r\n", *, mail_from: str = FROM, recipients: tuple[str, ...] = ("jo@customer.example",)
) -> Mail:
    return Mail(mail_from, recipients, mime)


def ses(
    clients: TenantClients, keys: CredentialSource | None = None, configuration_set: str | None = None, account: str | None = None
) -> SesProvider:
    return SesProvider(
        sender=Sender(FROM, "Acme"),
        region=REGION,
        configuration_set=configuration_set,
        credentials=keys or StaticCredentials(access_key()),
        clients=clients,
        questions=AccountQuestions(clients, REGION, account),
    )
