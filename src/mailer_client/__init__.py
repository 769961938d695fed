"""Call the API from Python: signed with your AWS credentials, retried where that is safe, typed.

    from mailer_client import MailClient

    mail = MailClient("https://….execute-api.eu-central-1.amazonaws.com/v1")
    queued = mail.send("acme", {"message": {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello, Jo."}})
    print(mail.wait("acme", queued.request_id).status)

`SuppressionsClient` has the addresses that a tenant's mail leaves out, `TenantsClient` the tenants and their statistics.

For callers only: it needs botocore only, and is in no function's package.
"""

from mailer_client.connection import ApiError
from mailer_client.messages import MailClient
from mailer_client.models import (
    BatchAnswer,
    LiftedSuppression,
    PreviewAnswer,
    ProblemDocument,
    StatisticsAnswer,
    Status,
    StatusRecord,
    SuppressionBatchAnswer,
    SuppressionRecord,
    TenantRecord,
)
from mailer_client.suppressions import SuppressionsClient
from mailer_client.tenants import TenantsClient

__all__ = [
    "ApiError",
    "BatchAnswer",
    "LiftedSuppression",
    "MailClient",
    "PreviewAnswer",
    "ProblemDocument",
    "StatisticsAnswer",
    "Status",
    "StatusRecord",
    "SuppressionBatchAnswer",
    "SuppressionRecord",
    "SuppressionsClient",
    "TenantRecord",
    "TenantsClient",
]
