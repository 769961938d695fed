"""Console data in which every text is hostile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mailer_ops.console.sources.health import Alarm, Queue
from support.console_site import PAGES
from support.fakes.console import NOW, Platform, mail_of
from support.fakes.console_scene import busy_platform, dead_letter

HOSTILE = "'\"></textarea></title><xss onload=canary()><script>canary()</script>{{7*7}}"

KEPT = {
    "status",
    "createdAt",
    "updatedAt",
    "sentAt",
    "at",
    "dueAt",
    "verifiedAt",
    "lastFeedbackAt",
    "expiresAt",
    "from",
    "type",
    "provider",
}


def with_hostile_text(value: Any, name: str = "") -> Any:
    """Append hostile text to each text that is not an enumeration value or a time."""
    if isinstance(value, dict):
        return {key: with_hostile_text(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [with_hostile_text(each, name) for each in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) and name not in KEPT else value


def hostile_platform(folder: Path) -> Platform:
    platform = busy_platform(folder)
    api = platform.api
    api.providers = {tenant_id: with_hostile_text(row) for tenant_id, row in api.providers.items()}
    api.records = [{**with_hostile_text(row), "tenantId": row["tenantId"], "requestId": row["requestId"]} for row in api.records]
    api.records.append({**api.records[0], "requestId": HOSTILE})
    api.recipients = {request_id: with_hostile_text(recipients) for request_id, recipients in api.recipients.items()}
    api.suppressions = {tenant_id: with_hostile_text(entries) for tenant_id, entries in api.suppressions.items()}
    api.suppressions["acme"].append({"email": HOSTILE, "reason": "manual", "at": api.suppressions["acme"][0]["at"]})
    platform.log.lines = [
        line.replace('"hint": "', f'"hint": "{HOSTILE.replace(chr(34), chr(92) + chr(34))}') for line in platform.log.lines
    ]
    platform.health.shown.append(Queue(HOSTILE, 1, 1, 1))
    platform.health.on.append(Alarm(HOSTILE, HOSTILE, HOSTILE, f"javascript:{HOSTILE}", NOW))
    platform.runbook += f"\n## {HOSTILE}\n\nDo: {HOSTILE}\n"
    platform.dead_letters.messages.append(dead_letter("acme", "r", HOSTILE, HOSTILE, handle="hostile"))
    message = {"to": [{"email": "jo@example.com"}], "subject": HOSTILE, "text": HOSTILE, "html": HOSTILE}
    assert platform.mails
    platform.mails.add(mail_of({**message, "attachments": [{"filename": HOSTILE}]}), message_id=HOSTILE)
    return platform


def hostile_urls() -> Iterator[str]:
    yield from PAGES
    yield from ("/inbox/4", "/inbox/4?view=text", "/inbox/4?view=headers", "/inbox/4?view=source")
    encoded = quote(HOSTILE, safe="")
    for url in ("/tenants/{}", "/tenants/{}/messages/{}", "/tenants/{}/onboarding", "/tenants/{}/statistics", "/tenants/{}/suppressions"):
        yield url.replace("{}", encoded)
    for url in (
        "/find?q={}",
        "/tenants?q={}&status={}",
        "/messages?tenant={}&status={}&cursor={}",
        "/dead-letters?reason={}",
        "/compose?tenant={}",
    ):
        yield url.replace("{}", encoded)
    yield f"/tenants/acme/suppressions?email={encoded}&reason={encoded}"
    yield f"/tenants/acme/messages/{encoded}"
