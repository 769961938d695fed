"""Suppressions over the stack in moto: added by the API, left out of mail, lifted, and published on the bus."""

from collections.abc import Mapping
from typing import Any

import boto3

from mailer import wiring
from mailer.handlers import providers, send
from support.aws.api_calls import SendContext, call, event
from support.fakes.sending import a_body

FROM, SES_REGION = "billing@acme.example", "eu-west-1"


def ask(name: str, **changes: Any) -> Any:
    return call(providers.handler, event(name), **changes)


def deliver(request_id: str, *addresses: str) -> Any:
    """Send a request as the queue delivers it; return its record."""
    message = {"to": [{"email": one} for one in addresses], "subject": "Hi", "text": "Hello."}
    batch = event("send")
    batch["Records"] = [{**batch["Records"][0], "body": a_body(request_id, message=message)}]
    assert send.handler(batch, SendContext()) == {"batchItemFailures": []}
    return wiring.messages_table().get("acme", request_id)


def test_a_suppressed_address_gets_no_mail_until_it_is_lifted(aws: Mapping[str, str]) -> None:  # noqa: ARG001 - the stack
    """From the API to the batch, with the template's rights, tables and indexes."""
    boto3.client("ses", region_name=SES_REGION).verify_email_identity(EmailAddress=FROM)
    assert ask("provider-put").status == 200
    assert ask("provider-verify", body="").status == 200
    assert deliver("before", "jo@example.com", "ann@example.com").suppressed == 0
    assert ask("suppressions-put").json["reason"] == "manual"
    assert ask("suppressions-get").status == 200
    assert [one["email"] for one in ask("suppressions-list", body="").json["suppressions"]] == []  # of hard bounces only
    record = deliver("without", "Jo@Example.com", "ann@example.com")
    assert (record.status, record.suppressed) == ("sent", 1)
    record = deliver("nobody", "jo@example.com")
    assert (record.status, record.error.code, record.suppressed) == ("failed", "recipient_suppressed", 1)
    assert ask("suppressions-delete").json["sesList"]["command"].endswith("--region eu-west-1")
    assert deliver("again", "jo@example.com").status == "sent"
    assert ask("suppressions-batch").json[0]["status"] == 200
