"""Call the messages API from Python: signed with your AWS credentials, retried where that is safe, typed.

    from mailer_client import MailClient

    mail = MailClient("https://….execute-api.eu-central-1.amazonaws.com/v1")
    queued = mail.send("acme", {"message": {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello, Jo."}})
    print(mail.wait("acme", queued.request_id).status)

For callers only: it needs botocore only, and is in no function's package.
"""

from mailer_client.connection import ApiError
from mailer_client.messages import MailClient
from mailer_client.models import BatchAnswer, PreviewAnswer, ProblemDocument, Status, StatusRecord

__all__ = ["ApiError", "BatchAnswer", "MailClient", "PreviewAnswer", "ProblemDocument", "Status", "StatusRecord"]
