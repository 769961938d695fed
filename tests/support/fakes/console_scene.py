"""Console data of a typical working day: most mail is sent, some tenants are in trouble."""

import json
from datetime import datetime, timedelta
from pathlib import Path

from mailer.domain.errors import CODES
from mailer.ports import QueueMessage
from mailer_ops.console.sources.health import Alarm, Queue
from mailer_ops.ports import DeadLetter
from support.fakes.console import NOW, FakeApi, FakeMails, Json, Platform, error, mail_of, provider, record, written


def busy_platform(folder: Path) -> Platform:
    """Return sources with a typical working day."""
    platform = Platform(mails=FakeMails(folder))
    _tenants_of(platform.api)
    _mail_of(platform)
    _trouble_of(platform)
    return platform


def _tenants_of(api: FakeApi) -> None:
    rows = [
        provider("acme", fromAddress="billing@acme.example", fromName="Acme Billing"),
        provider("globex", sandbox="true", feedback="unproven", region="us-east-1", warnings=["The account is in the sandbox."]),
        provider("hooli", status="suspended", error=error("credentials_invalid", "the security token is invalid")),
        provider("initech", status="unverified", verifiedAt=None, feedback="off", configurationSet=None, sandbox="unknown"),
        provider("stark-industries-europe-transactional", status="disabled", feedback="silent"),
        provider("umbrella", credentials={"type": "role", "roleArn": "arn:aws:iam::444455556666:role/mail", "externalId": "tm-51"}),
    ]
    api.providers = {row["tenantId"]: row for row in rows}
    api.providers["umbrella"]["candidate"] = {
        **provider("umbrella", version=4),
        "error": error("from_address_not_verified", "not verified"),
    }
    for tenant_id, bounced in (("acme", 4), ("globex", 0), ("hooli", 62), ("umbrella", 1)):
        api.buckets[tenant_id] = [bucket(NOW.replace(hour=0, minute=0) - timedelta(days=day), day, bounced) for day in range(6, -1, -1)]
    api.suppressions["acme"] = [
        {"email": "gone@example.com", "reason": "hard_bounce", "requestId": "invoice-2026-0117", "at": written(NOW - timedelta(hours=5))},
        {"email": "no-more@example.org", "reason": "complaint", "requestId": "news-2026-48", "at": written(NOW - timedelta(days=2))},
        {
            "email": "a-rather-long-mailbox-name.with.dots+and-a-label@subsidiary.customer.example",
            "reason": "manual",
            "at": written(NOW - timedelta(days=9)),
            "why": "asked by phone, ticket 4711",
            "by": "arn:aws:iam::111122223333:user/ops",
            "expiresAt": written(NOW + timedelta(days=21)),
        },
    ]


def bucket(start: datetime, number: int, bounced: int) -> Json:
    """Return one bucket of statistics."""
    sent = 1240 + 170 * ((number * 5) % 4)
    counts = {"sent": sent, "delivered": sent - bounced - 9, "bounced": bounced, "softBounced": 6, "complained": 1 if number == 3 else 0}
    return {"from": written(start), **counts, "failed": number % 3, "unknown": 0, "suppressed": 2 * number}


def _mail_of(platform: Platform) -> None:
    api, mails = platform.api, platform.mails
    assert mails
    later = {
        "messageId": "0100019-7c1e",
        "sentAt": written(NOW - timedelta(minutes=13.5)),
        "updatedAt": written(NOW - timedelta(minutes=12)),
    }
    api.records = [
        record("acme", "invoice-2026-0119", "queued", timedelta(seconds=3)),
        record("acme", "invoice-2026-0118", "sent", timedelta(minutes=2), feedback={"delivered": 1, "bounced": 0, "complained": 0}),
        record("acme", "invoice-2026-0117", "sent", timedelta(minutes=14), recipients=3, feedback={"delivered": 2, "bounced": 1}, **later),
        record("acme", "reminder-0042", "unknown", timedelta(minutes=31), error=error("outcome_unknown", "the connection was lost")),
        record("acme", "invoice-2026-0116", "failed", timedelta(hours=1), error=error("recipient_rejected", "SES refused an address")),
        record("hooli", "welcome-88213", "deferred", timedelta(minutes=20), error=error("credentials_invalid"), dueAt=written(NOW)),
        record("hooli", "welcome-88214", "deferred", timedelta(minutes=6), error=error("credentials_invalid")),
    ]
    api.recipients["invoice-2026-0117"] = [
        {"email": "jo@example.com", "status": "delivered", "at": written(NOW - timedelta(minutes=13)), "smtpStatus": "250 2.0.0 OK"},
        {"email": "ann@example.com", "status": "delivered", "at": written(NOW - timedelta(minutes=13)), "smtpStatus": "250 2.0.0 OK"},
        {
            "email": "gone@example.com",
            "status": "bounced",
            "at": written(NOW - timedelta(minutes=12)),
            "smtpStatus": "5.1.1",
            "diagnostic": "smtp; 550 5.1.1 <gone@example.com>: Recipient address rejected: User unknown in virtual mailbox table",
        },
    ]
    html = (
        "<body style='font:15px/1.5 Georgia,serif;margin:2em;color:#222'><h2 style='font-weight:normal'>Your invoice</h2>"
        "<p>Dear Jo,<p>thank you for your order. The invoice is attached.<p style='color:#777'>Acme Ltd, 1 Main Street"
        "<img src='https://track.example/open.gif' width=1 height=1>"
    )
    files = [{"filename": "invoice-0117.pdf"}]
    message = {"to": [{"email": "jo@example.com"}], "subject": "Your invoice 2026-0117", "text": "Thank you.", "html": html}
    tags = {"tenantmail-tenant": "acme", "tenantmail-request": "invoice-2026-0117"}
    text = {"to": [{"email": "billing@acme.example"}], "subject": "Leadmetrics — SES connection test", "text": "This is a test."}
    mails.add(mail_of(text), message_id="0100-verify", ago=timedelta(hours=3))
    mails.add(
        mail_of({**message, "subject": "Grüße aus Köln – Ihre Rechnung über 1.250 €"}), message_id="0100-koeln", ago=timedelta(hours=1)
    )
    sent = next(row for row in api.records if row["requestId"] == "invoice-2026-0117")
    mails.add(mail_of({**message, "attachments": files}), message_id=sent["messageId"], tags=tags, ago=timedelta(minutes=14))


def _trouble_of(platform: Platform) -> None:
    for row in reversed(platform.api.records):
        ago = NOW - datetime.fromisoformat(row["updatedAt"])
        code = {"code": row["error"]["code"], "hint": row["error"]["hint"]} if row["error"] else {}
        sent = {"message_id": row["messageId"]} if row["messageId"] else {}
        platform.log.add(row["tenantId"], row["requestId"], row["status"], ago, **code, **sent)
    throttled = {"code": "throttled", "hint": CODES["throttled"].hint}
    platform.log.lines = [line for line in platform.log.lines if "invoice-2026-0117" not in line]
    for minutes in (13.9, 13.8, 13.7):
        platform.log.add("acme", "invoice-2026-0117", "deferred", timedelta(minutes=minutes), **throttled)
    platform.log.add("acme", "invoice-2026-0117", "sent", timedelta(minutes=13.5), message_id="0100019-7c1e", attempt=1)
    platform.health.shown = [Queue("Send queue", 3, 2, 14), Queue("Feedback queue", 0, 0, 0), Queue("Dead letters", 4, 0, 0)]
    text = "Requests that could not be read, or whose worker died again and again, wait for an operator."
    link = "https://github.com/example/tenantmail/blob/main/docs/runbook.md#dead-letters"
    platform.health.on = [Alarm("DeadLettersAlarm", text, "dead-letters", link, NOW - timedelta(minutes=22))]
    rates = (9, 14, 21, 32, 30, 41, 38, 29)
    platform.health.series = {
        "sent": lambda step: rates[step % 8] * 4 + step,
        "failed": lambda step: 3 if step % 11 == 0 else 0,
        "deferred": lambda step: 40 - 2 * abs(step - 24) if abs(step - 24) < 10 else 0,
        "unknown": lambda step: 1 if step == 37 else 0,
        "bounced": lambda step: 2 if step % 5 == 2 else 0,
        "complained": lambda step: 1 if step == 30 else 0,
    }
    for number, (tenant_id, reason) in enumerate(
        (("acme", None), ("acme", "processing_crashed"), ("hooli", "processing_crashed"), (None, "invalid_request"))
    ):
        detail = "RecursionError in compose" if reason == "processing_crashed" else ""
        platform.dead_letters.messages.append(dead_letter(tenant_id, f"report-{number:04}", reason, detail, handle=str(number)))


def dead_letter(tenant_id: str | None, request_id: str, reason: str | None, detail: str = "", handle: str = "h") -> DeadLetter:
    """Return a dead letter; one without a tenant is unreadable."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "hi", "text": "hi"}
    body = json.dumps({"tenantId": tenant_id, "requestId": request_id, "message": message}) if tenant_id else "{"
    return DeadLetter(QueueMessage(body=body, tenant_id=tenant_id, created_at=NOW), reason, detail, handle)
