"""Compose: write a request, preview its mail, send it as a tenant, and copy the call as code."""

import json
from collections import OrderedDict
from email.headerregistry import Address
from email.utils import getaddresses
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from mailer_ops.console.sources.answers import Answer, Trouble
from mailer_ops.console.sources.api import Json, path_of
from mailer_ops.console.views import samples
from mailer_ops.console.views.mail import ParsedMail, parse_mail
from mailer_ops.console.web import Console, Form, Notice

KEPT = 20
"""Most previews in memory; older ones can no longer be loaded."""

FIELDS = ("tenant", "requestId", "to", "cc", "bcc", "replyTo", "subject", "text", "html", "sendAt", "onUnknown", "files", "json")

EXAMPLE = {"subject": "Hello from the console", "text": "Hello,\n\nthis is a test.\n"}


class Previews:
    """The latest previews, for the frames that show their HTML."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, ParsedMail] = OrderedDict()

    def keep(self, shown: ParsedMail) -> str:
        """Store a mail; return its id, which the URL of its frame contains."""
        key = uuid4().hex
        self._kept[key] = shown
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> ParsedMail | None:
        """Return a stored mail; None if it was dropped."""
        return self._kept.get(key)


def compose(request: Request, console: Console) -> Response:
    """Show the form; if a tenant is given, the default recipient is its from-address."""
    tenant_id = request.query_params.get("tenant", "").strip()
    typed = {**dict.fromkeys(FIELDS, ""), **EXAMPLE, "tenant": tenant_id}
    if tenant_id:
        provider = console.sources.api.call("GET", path_of(tenant_id, "provider")).value or {}
        typed["to"] = provider.get("fromAddress", "")
    return console.page(request, "compose.html", typed=typed)


def submit(request: Request, form: Form, console: Console, previews: Previews) -> Response:
    """Preview the mail, or send it."""
    typed = {name: form.get(name, "") for name in FIELDS}
    tenant_id = typed["tenant"].strip()
    try:
        wanted = request_of(typed)
    except ValueError as fault:
        return console.page(request, "compose.html", http_status=400, typed=typed, trouble=Trouble(kind="refused", text=str(fault)))
    if form.get("action") == "send":
        wanted = {"requestId": f"console-{uuid4().hex[:12]}", **wanted}
        answer = console.sources.api.call("POST", path_of(tenant_id, "messages"), wanted)
        if answer.value:
            return console.go(path_of(tenant_id, "messages", answer.value["requestId"]), Notice("The request is accepted."))
        return console.page(
            request, "compose.html", http_status=400, typed=typed, trouble=answer.trouble, **_code(console, tenant_id, wanted)
        )
    answer = console.sources.api.call("POST", path_of(tenant_id, "messages", "preview"), wanted)
    preview, shown = answer.value, _shown(answer)
    return console.page(
        request,
        "compose.html",
        typed=typed,
        trouble=answer.trouble,
        preview=preview,
        shown=shown,
        frame=f"/compose/previews/{previews.keep(shown)}" if shown else "",
        **_code(console, tenant_id, wanted),
    )


def _code(console: Console, tenant_id: str, wanted: Json) -> Json:
    """Return the call as JSON, as a curl command and as Python."""
    api, region = console.sources.api, console.sources.api.region
    return {
        "request_json": json.dumps(wanted, indent=2, ensure_ascii=False),
        "curl": samples.curl(api.url, region, tenant_id, wanted),
        "python": samples.python(api.url, tenant_id, wanted),
    }


def _shown(answer: Answer[Any]) -> ParsedMail | None:
    mime = (answer.value or {}).get("mime")
    return parse_mail(mime.encode()) if mime else None


def request_of(typed: Form) -> Json:
    """Build the request of a form; the API validates it.

    Raises:
        ValueError: a field cannot be parsed; the text names it.
    """
    if typed["json"].strip():
        return _object(typed["json"], "The JSON")
    message: Json = {name: _mailboxes(typed[name]) for name in ("to", "cc", "bcc", "replyTo") if typed[name].strip()}
    message["subject"] = typed["subject"]
    message |= {name: typed[name].replace("\r\n", "\n") for name in ("text", "html") if typed[name].strip()}
    if typed["files"].strip():
        message["attachments"] = _object(f'{{"files": {typed["files"]}}}', "The list of files")["files"]
    wanted = {name: typed[name].strip() for name in ("requestId", "sendAt", "onUnknown") if typed[name].strip()}
    return {**wanted, "message": message}


def _object(text: str, what: str) -> Json:
    try:
        read = json.loads(text)
    except ValueError as fault:
        raise ValueError(f"{what} cannot be read: {fault}.") from None
    if not isinstance(read, dict):
        raise ValueError(f"{what} must be an object.")  # noqa: TRY004 - one error type for a form
    return read


def _mailboxes(line: str) -> list[Json]:
    """Parse a line of addresses as mail programs do: `Jo Ünger <jo@example.com>, ann@example.com`."""
    found = getaddresses([line], strict=False)
    return [{"email": email, **({"name": name} if name else {})} for name, email in found if email or name]


def written(boxes: list[Json]) -> str:
    """Format addresses as mail programs do."""
    return ", ".join(str(Address(box.get("name", ""), addr_spec=box["email"])) for box in boxes)
