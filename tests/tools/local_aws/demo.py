"""Demonstrate the main case: tenants' mail is sent through their own SES, and every request gets an outcome.

    make demo

Deploys the real template to its own local AWS, creates four tenants' AWS accounts, and sends through the queue and the API.
"""

import argparse
import base64
import shutil
import struct
import textwrap
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mailer_client import ApiError
from tools.local_aws.api import END_STATUSES
from tools.local_aws.running import LocalAws, NotStartedError, local_aws
from tools.local_aws.server import ROOT
from tools.local_aws.ses_events import SIMULATOR
from tools.local_aws.stack import SamError
from tools.local_aws.tenants import Tenant
from tools.local_aws.terminal import console

DIRECTORY = ROOT / ".local/demo"
FRIEND, STRANGER = "friend@example.com", "stranger@example.com"
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the case, how it was sent, and its outcome."""

    case: str
    way: str
    tenant: str
    outcome: str
    said: str
    eml: Path | None = None


class Demo:
    """Runs the cases on a local AWS."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._count = 0

    def open_tenants(self) -> dict[str, Tenant]:
        """Create the accounts: one with production access, one in the sandbox, one with a wrong secret, one that gives a role."""
        tenants = self._aws.tenants
        return {
            "acme": tenants.open("acme"),
            "globex": tenants.open("globex", sandbox=True, verified=[FRIEND]),
            "initech": tenants.open("initech"),
            "umbrella": tenants.open("umbrella"),
        }

    def verify(self, tenant: Tenant, **changes: Any) -> Row:
        """Store a config through the API and verify it."""
        case = "store an access key and verify" + (" a wrong secret" if changes else "")
        return self._verified(case, tenant, tenant.provider(**changes))

    def _verified(self, case: str, tenant: Tenant, provider: dict[str, Any]) -> Row:
        self._aws.api.put_provider(tenant.tenant_id, provider)
        verified = self._aws.api.verify(tenant.tenant_id)
        if verified.status != 200:
            return self._refused(case, tenant.tenant_id, verified.status, verified.body)
        return Row(case, "API", tenant.tenant_id, "active", "", self._eml(verified.body["messageId"]))

    def verify_role(self, tenant: Tenant) -> Row:
        """Launch the onboarding template in the tenant's account, store its role, and verify it."""
        role = self._aws.tenants.launch_role(tenant, self._aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"])
        return self._verified("launch the role's template and verify", tenant, tenant.provider_by_role(role))

    def verify_with_feedback(self, tenant: Tenant) -> Row:
        """Launch the template for feedback in the tenant's account, store its key with the configuration set, and verify it."""
        template = self._aws.api.onboarding(tenant.tenant_id).body["cloudFormationTemplate"]
        made = self._aws.tenants.launch(tenant, template, CreateRole="false")
        row = self._verified(
            "launch the feedback template, store an access key, verify", tenant, tenant.provider(configurationSet=made["ConfigurationSet"])
        )
        record = self._aws.api.wait_for_provider(tenant.tenant_id, lambda seen: seen["feedback"] == "proven")
        return replace(row, said=f"feedback: {record['feedback']}")

    def reported(self, case: str, tenant: Tenant, message: dict[str, Any], status: str) -> Row:
        """Send, and wait for SES's events after it has accepted the mail."""
        request = self._request(tenant, message)
        self._aws.enqueue_request(request)
        sent = self._ended(case, "SQS", request)
        self._aws.api.wait_for(tenant.tenant_id, request["requestId"], lambda seen: bool((seen["feedback"] or {}).get(status)))
        told = self._aws.api.call("GET", f"/tenants/{tenant.tenant_id}/messages/{request['requestId']}/feedback").body
        [recipient] = told["recipients"]
        said = " ".join(filter(None, [recipient["email"], recipient.get("diagnostic")]))
        return replace(sent, outcome=recipient["status"], said=said)

    def by_api(self, case: str, tenant: Tenant, message: dict[str, Any]) -> Row:
        request = self._request(tenant, message)
        try:
            self._aws.mail.send(tenant.tenant_id, request)
        except ApiError as refusal:
            if refusal.problem is None:  # not from our API
                raise
            return self._refused(case, tenant.tenant_id, refusal.status, asdict(refusal.problem))
        return self._ended(case, "API", request)

    def by_queue(self, case: str, tenant: Tenant, message: dict[str, Any]) -> Row:
        request = self._request(tenant, message)
        self._aws.enqueue_request(request)
        return self._ended(case, "SQS", request)

    def with_revoked_key(self, case: str, tenant: Tenant, message: dict[str, Any]) -> Row:
        """Send after the tenant has deleted its access key: the mail is deferred and does not fail."""
        self._aws.tenants.revoke_key(tenant)
        return self.by_queue(case, tenant, message)

    def garbage(self) -> Row:
        self._aws.enqueue('{"tenantId": "acme", "message":')
        [letter] = self._aws.dead_letters()
        said = {name: value["StringValue"] for name, value in letter.get("MessageAttributes", {}).items()}
        return Row("a body that is not JSON", "SQS", "?", "dead letter", said.get("reason", ""))

    def _request(self, tenant: Tenant, message: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        return {"tenantId": tenant.tenant_id, "requestId": f"demo-{self._count}", "message": message}

    def _ended(self, case: str, way: str, request: dict[str, Any]) -> Row:
        record = self._aws.api.wait_for(
            request["tenantId"], request["requestId"], lambda seen: seen["status"] in END_STATUSES or bool(seen["error"])
        )
        error = record["error"]
        said = f"{error['code']}: {error['message']}\n{error['hint']}" if error else ""
        return Row(case, way, request["tenantId"], record["status"], said, self._eml(record.get("messageId")))

    def _refused(self, case: str, tenant_id: str, status: int, problem: Mapping[str, Any]) -> Row:
        said = "\n".join(filter(None, [f"{problem['code']}: {problem['detail']}", problem.get("hint")]))
        return Row(case, "API", tenant_id, str(status), said)

    def _eml(self, message_id: str | None) -> Path | None:
        mails = self._aws.control.mails(message_id=message_id) if message_id else []
        return mails[0].eml if mails else None


def run(aws: LocalAws) -> Iterator[Row]:
    """Run every case; yield each row when its outcome is known."""
    demo = Demo(aws)
    tenants = demo.open_tenants()
    acme, globex, initech, umbrella = tenants.values()
    yield demo.verify_with_feedback(acme)
    yield demo.verify(globex)
    yield demo.verify(initech, secretAccessKey="mistyped")
    yield demo.verify_role(umbrella)
    yield demo.reported("plain text, delivered", acme, mail_to(STRANGER, "Your invoice", text="Thank you."), "delivered")
    yield demo.reported("a mailbox that does not exist", acme, mail_to(f"bounce@{SIMULATOR}", "Hello", text="Hello"), "bounced")
    yield demo.reported("a recipient who complains", acme, mail_to(f"complaint@{SIMULATOR}", "Hello", text="Hello"), "complained")
    html = "<p>Vielen Dank für Ihre <b>Bestellung</b>."
    yield demo.by_queue("HTML and text, German", acme, mail_to(STRANGER, "Grüße aus Köln – Ihre Rechnung über 1.250 €", html=html))
    yield demo.by_queue(
        "HTML and text, Japanese", acme, mail_to(STRANGER, "請求書のお知らせ", html="<p>ありがとうございます", text="ありがとうございます")
    )
    yield demo.by_api("a PDF and an inline image", acme, with_files(mail_to(STRANGER, "With files", html='<p><img src="cid:logo">')))
    yield demo.by_queue("sent with a role, no key", umbrella, mail_to(STRANGER, "Hello", text="Hello"))
    yield demo.by_queue("sandbox, verified recipient", globex, mail_to(FRIEND, "Hello", text="Hello"))
    yield demo.by_api("sandbox, unverified recipient", globex, mail_to(STRANGER, "Hello", text="Hello"))
    yield demo.by_queue("a tenant that is not verified", initech, mail_to(STRANGER, "Hello", text="Hello"))
    yield demo.with_revoked_key("a key that the tenant revoked", globex, mail_to(FRIEND, "Hello", text="Hello"))
    yield demo.by_api("a malformed request", acme, {"to": [{"email": "nobody"}], "subject": "two\r\nlines", "colour": "red"})
    yield demo.garbage()


def mail_to(address: str, subject: str, **bodies: str) -> dict[str, Any]:
    return {"to": [{"email": address, "name": "Jo Ünger"}], "subject": subject, **bodies}


def with_files(message: dict[str, Any]) -> dict[str, Any]:
    invoice = {"filename": "invoice.pdf", "content": base64.b64encode(PDF).decode()}
    logo = {"filename": "logo.png", "content": base64.b64encode(png(32, 32)).decode(), "disposition": "inline", "contentId": "logo"}
    return {**message, "attachments": [invoice, logo]}


def png(width: int, height: int) -> bytes:
    """Draw a plain orange image."""
    rows = (b"\0" + b"\xff\x99\x00" * width) * height
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + body


def show(console: Console, row: Row) -> None:
    """Print the case, its outcome, and the path of the mail; only paths may be wider than the terminal."""
    style = "green" if row.outcome in ("sent", "active", "delivered") else "yellow"
    console.print(f"[{style}]{row.outcome:<12}[/]{row.case} [dim]({row.tenant}, {row.way})[/]", soft_wrap=True)
    indent = " " * 12
    for line in row.said.splitlines():
        options: Any = {"initial_indent": indent, "subsequent_indent": indent, "break_long_words": False, "break_on_hyphens": False}
        console.print(textwrap.fill(line, console.width, **options), soft_wrap=True, markup=False)
    if row.eml:
        console.print(f"{indent}{row.eml.relative_to(ROOT)}", soft_wrap=True, markup=False)


@contextmanager
def timed(console: Console, doing: str) -> Iterator[None]:
    """Show the current step, then its duration."""
    began = time.monotonic()
    with console.status(f"{doing} …"):
        yield
    console.print(f"[green]✓[/green] {doing} [dim]{time.monotonic() - began:.1f} s[/dim]")


def main(arguments: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="local_aws demo", description="Demonstrate the main case on a local AWS.").parse_args(arguments)
    screen = console()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    began = time.monotonic()
    try:
        with local_aws(DIRECTORY, front=(), step=lambda doing: timed(screen, doing)) as aws:
            screen.print("Cases and their outcomes:\n")
            for row in run(aws):
                show(screen, row)
    except (SamError, NotStartedError, TimeoutError) as error:
        screen.print(str(error), style="red", markup=False)
        return 1
    screen.print(f"\nDone in {time.monotonic() - began:.0f} s; the .json next to each .eml has its envelope.")
    return 0
