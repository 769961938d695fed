"""The effect of provider changes on mail: the provider API, SendFunction and SweepFunction together, over the stack in moto."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from moto.ses.models import ses_backends

from mailer import wiring
from mailer.adapters.dynamodb.providers_table import RELEASE_MARKED
from mailer.adapters.dynamodb.table_stream import read_write
from mailer.domain.delivery import Delivery, WaitsFor
from mailer.domain.events import events_of
from mailer.handlers import providers, send, sweep
from support.aws.api_calls import Context, SendContext, call, event
from support.aws.streams import read_stream

FROM, SES_REGION = "billing@acme.example", "eu-west-1"
KEY = json.loads(event("provider-put")["body"])


class Stack:
    """Three functions and their queue."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.queue = environment["SEND_QUEUE_URL"]
        self.providers = environment["PROVIDERS_TABLE"]
        self.sqs = boto3.client("sqs")

    def ask(self, name: str, tenant: str = "acme", **config: Any) -> Any:
        body = {**KEY, "config": {**KEY["config"], **config}} if name == "put" else None
        answer = call(providers.handler, event(f"provider-{name}"), tenant=tenant, body=body)
        assert answer.status < 300, answer.text
        return answer.text and answer.json

    def activate(self, tenant: str = "acme", **config: Any) -> None:
        self.ask("put", tenant, **config)
        self.ask("verify", tenant)
        self.forget_sent()

    def enqueue(self, *requests: str, tenant: str = "acme") -> None:
        for request in requests:
            message = {"to": [{"email": "jo@customer.example"}], "subject": request, "text": "Hello"}
            body = json.dumps({"tenantId": tenant, "requestId": request, "message": message})
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=body, MessageGroupId=tenant)

    def work(self) -> None:
        """Pass everything that is on the queue now to SendFunction, in one batch."""
        records = []
        while got := self.sqs.receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in got:
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
                attributes = {name: {"stringValue": value["StringValue"]} for name, value in message.get("MessageAttributes", {}).items()}
                records.append(
                    {
                        "messageId": message["MessageId"],
                        "body": message["Body"],
                        "attributes": message["Attributes"],
                        "messageAttributes": attributes,
                    }
                )
        assert send.handler({"Records": records}, SendContext()) == {"batchItemFailures": []}

    def sweep(self) -> None:
        sweep.handler({}, Context())

    def record(self, request: str, tenant: str = "acme") -> Delivery:
        found = wiring.messages_table().get(tenant, request)
        assert found is not None
        return found

    @property
    def sent(self) -> list[str]:
        """Subjects that SES accepted since `forget_sent`."""
        messages = ses_backends["123456789012"][SES_REGION].sent_messages
        return [line.removeprefix("Subject: ") for m in messages for line in m.raw_data.splitlines() if line.startswith("Subject: ")]

    def forget_sent(self) -> None:
        ses_backends["123456789012"][SES_REGION].sent_messages.clear()


@pytest.fixture
def stack(aws: Mapping[str, str]) -> Stack:
    boto3.client("ses", region_name=SES_REGION).verify_email_identity(EmailAddress=FROM)
    return Stack(aws)


def test_disable_stops_the_next_batch(stack: Stack) -> None:
    """No send starts after the call and one batch, although the config is still cached; enable releases everything."""
    stack.activate()
    stack.enqueue("before")
    stack.work()
    stack.ask("disable")
    stack.enqueue("waits-1", "waits-2")
    stack.work()
    assert stack.sent == ["before"]
    assert [stack.record(f"waits-{n}").waits_for for n in (1, 2)] == [WaitsFor.PROVIDER] * 2

    stack.ask("enable")
    stack.sweep()
    stack.work()
    assert sorted(stack.sent) == ["before", "waits-1", "waits-2"]


def test_mail_parked_by_a_late_batch_is_released_too(stack: Stack) -> None:
    """A batch that read the disabled row parks after the release: the tenant is still marked for the next run."""
    stack.activate()
    stack.ask("disable")
    stale = wiring.providers_table().get_many(["acme"])
    stack.ask("enable")
    stack.sweep()
    stack.enqueue("late")
    with patch.object(wiring.providers_table(), "get_many", return_value=stale):
        stack.work()
    assert stack.sent == []
    stack.sweep()
    stack.work()
    assert stack.sent == ["late"]
    assert wiring.providers_table().releasing() == ["acme"]
    assert wiring.providers_table().released("acme", datetime.now(UTC) + RELEASE_MARKED)


def test_delete_fails_waiting_mail(stack: Stack) -> None:
    """Waiting mail ends with the reason; later mail fails because there is no provider."""
    stack.activate()
    stack.ask("disable")
    stack.enqueue("waits")
    stack.work()
    stack.ask("delete")
    stack.sweep()
    stack.enqueue("later")
    stack.work()
    assert stack.sent == []
    errors = [stack.record(request).error for request in ("waits", "later")]
    assert [error and error.code for error in errors] == ["provider_deleted", "provider_not_configured"]


def test_a_new_provider_does_not_send_the_old_one_s_mail(stack: Stack) -> None:
    """Even if it was stored and verified before the sweeper ran, mail that waited for the old config fails."""
    stack.activate()
    stack.ask("disable")
    stack.enqueue("for-the-old-one")
    stack.work()
    stack.ask("delete")
    stack.activate()
    stack.sweep()
    stack.work()
    assert stack.sent == []
    error = stack.record("for-the-old-one").error
    assert error is not None
    assert error.code == "provider_deleted"


def test_rotation_has_no_gap(stack: Stack) -> None:
    """Mail goes out with the old config until the new one has passed verify, and with the new one from the next batch on."""
    stack.activate()
    stack.ask("put", fromName="Acme, new")
    stack.enqueue("old")
    stack.work()
    stack.ask("verify")
    stack.enqueue("new")
    stack.work()
    senders = [m.raw_data for m in ses_backends["123456789012"][SES_REGION].sent_messages]
    assert ['"Acme, new"' in raw for raw in senders if "Subject: old" in raw or "Subject: new" in raw] == [False, True]
    assert [stack.record(request).provider_version for request in ("old", "new")] == [1, 2]


def test_one_tenant_s_faults_do_not_affect_others(stack: Stack) -> None:
    """Three failing requests suspend their tenant, with an event; its mail waits, another tenant's in the same batches goes out."""
    stack.activate("acme")
    stack.activate("neighbour")
    bad = boto3.client("ses", region_name=SES_REGION)
    client = wiring.provider_factory()._clients.ses(SES_REGION)  # type: ignore[attr-defined]
    send_raw_email = client.send_raw_email

    def refuse_acme(**mail: Any) -> Any:
        if b"acme-" in mail["RawMessage"]["Data"]:
            raise bad.exceptions.ClientError(
                {"Error": {"Code": "AccessDenied", "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "SendRawEmail"
            )
        return send_raw_email(**mail)

    with patch.object(client, "send_raw_email", refuse_acme):
        for number in range(5):
            stack.enqueue(f"acme-{number}", tenant="acme")
            stack.enqueue(f"neighbour-{number}", tenant="neighbour")
            stack.work()
    assert sorted(stack.sent) == [f"neighbour-{number}" for number in range(5)]
    changes = [event.detail for record in read_stream(stack.providers) for event in events_of(read_write(record))]
    assert [(t["tenantId"], t["status"], t["error"]["code"]) for t in changes if t["change"] == "suspended"] == [
        ("acme", "suspended", "credentials_denied")
    ]
    assert stack.ask("get")["status"] == "suspended"
    assert stack.ask("get", "neighbour")["status"] == "active"

    stack.ask("verify")
    stack.sweep()
    stack.work()
    due = [n for n in range(5) if stack.record(f"acme-{n}").waits_for is WaitsFor.TIME and not stack.record(f"acme-{n}").ended]
    assert due == [0, 1]  # they were tried before the suspension and are retried automatically
    assert sorted(request for request in stack.sent if request.startswith("acme")) == ["acme-2", "acme-3", "acme-4"]


def test_a_release_mark_outlives_every_batch() -> None:
    """SendFunction times out long before the mark may be removed."""
    assert timedelta(seconds=wiring.settings().send_timeout_seconds) * 2 < RELEASE_MARKED
