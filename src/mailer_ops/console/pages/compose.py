"""Compose: write a request, see the mail that it becomes, send it as a tenant, and take the call home as code."""

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
from mailer_ops.console.views.mail import Shown, take_apart
from mailer_ops.console.web import Console, Form, Notice

KEPT = 20
"""Previews whose frames can still be loaded."""

FIELDS = ("tenant", "requestId", "to", "cc", "bcc", "replyTo", "subject", "text", "html", "sendAt", "onUnknown", "files", "json")

EXAMPLE = {"subject": "Hello from the console", "text": "Hello,\n\nthis is a test.\n"}


class Previews:
    """The mails that were previewed last, for the frames that show their HTML."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Shown] = OrderedDict()

    def keep(self, shown: Shown) -> str:
        """Keep a mail; return the id that its frame asks for."""
        key = uuid4().hex
        self._kept[key] = shown
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> Shown | None:
        """Return a mail that is still kept."""
        return self._kept.get(key)


def compose(request: Request, console: Console) -> Response:
    """Show the form, for a tenant if one is named: its mail goes to its own from-address, until somebody else is named."""
    tenant_id = request.query_params.get("tenant", "").strip()
    typed = {**dict.fromkeys(FIELDS, ""), **EXAMPLE, "tenant": tenant_id}
    if tenant_id:
        provider = console.sources.api.call("GET", path_of(tenant_id, "provider")).value or {}
        typed["to"] = provider.get("fromAddress", "")
    return console.page(request, "compose.html", typed=typed)


def submit(request: Request, form: Form, console: Console, previews: Previews) -> Response:
    """Preview what was written, or send it."""
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
            return console.go(path_of(tenant_id, "messages", answer.value["requestId"]), Notice("It is accepted."))
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
    """Return the call in every form that somebody may want to take along; files are shortened for reading, in none that is copied."""
    api, region = console.sources.api, console.sources.api.region
    return {
        "request_json": json.dumps(wanted, indent=2, ensure_ascii=False),
        "curl": samples.curl(api.url, region, tenant_id, wanted),
        "python": samples.python(api.url, tenant_id, wanted),
    }


def _shown(answer: Answer[Any]) -> Shown | None:
    mime = (answer.value or {}).get("mime")
    return take_apart(mime.encode()) if mime else None


def request_of(typed: Form) -> Json:
    """Make the request that a form stands for; what the API would refuse is left for it to refuse.

    Raises:
        ValueError: a field cannot be read at all; the text says which.
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
        raise ValueError(f"{what} must be an object.")  # noqa: TRY004 - one kind of fault for a form
    return read


def _mailboxes(line: str) -> list[Json]:
    """Read a line of addresses as a mail program takes them: `Jo Ünger <jo@example.com>, ann@example.com`."""
    found = getaddresses([line], strict=False)
    return [{"email": email, **({"name": name} if name else {})} for name, email in found if email or name]


def written(boxes: list[Json]) -> str:
    """Write addresses as a mail program does."""
    return ", ".join(str(Address(box.get("name", ""), addr_spec=box["email"])) for box in boxes)
