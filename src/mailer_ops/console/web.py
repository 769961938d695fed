"""Shared by all pages: rendering, forms, notices, and formats of times and sizes."""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode
from uuid import uuid4

from jinja2 import Environment, FileSystemLoader, pass_context
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mailer_ops.console.safety import Token
from mailer_ops.console.sources.answers import Answer, Trouble
from mailer_ops.console.sources.api import Api, path_of
from mailer_ops.console.sources.dead_letters import DeadLetterSource
from mailer_ops.console.sources.health import Health
from mailer_ops.console.sources.mails import Mails
from mailer_ops.console.sources.requests import RequestLog
from mailer_ops.console.views.charts import bars

HERE = Path(__file__).parent
MAX_FORM = 16 * 1024 * 1024
"""Most bytes of a form: a mail of 10 MB in base64, and the other fields."""

NOTICES = 100
"""Most notices in memory; each is shown by the page to which an action redirects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The stack that the console shows, and the caller's identity."""

    stack: str
    region: str
    account: str
    identity: str
    is_local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The pages' sources of data."""

    place: Place
    api: Api
    health: Health
    requests: RequestLog
    dead_letters: DeadLetterSource
    mails: Mails | None
    """None on AWS, where SES does not show its mail."""
    runbook: str
    """The text of docs/runbook.md."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Notice:
    """Result of an action: a sentence or a trouble, and further data for its page."""

    text: str = ""
    trouble: Trouble | None = None
    value: Any = None


type Form = Mapping[str, str]


class Console:
    """Dependencies of the pages: sources, templates, notices, and the forms' token."""

    def __init__(self, sources: Sources, token: Token) -> None:
        self.sources = sources
        self.token = token
        self._notices: OrderedDict[str, Notice] = OrderedDict()
        self._shared = {
            "token": token.text,
            "place": sources.place,
            "has_inbox": sources.mails is not None,
            "bars": bars,
            "path_of": path_of,
            "query": query_with,
        }

    def page(self, request: Request, template: str, *, http_status: int = 200, **shown: Any) -> HTMLResponse:
        """Render a page."""
        notice = self._notices.get(request.query_params.get("said", ""))
        asked = {"path": request.url.path, "params": dict(request.query_params), "asked_at": self.sources.now()}
        shared = {**self._shared, **asked}
        parts = _templates().get_template("parts.html").make_module(shared)
        text = _templates().get_template(template).render({**shared, "parts": parts, "notice": notice, **shown})
        return HTMLResponse(text, http_status)

    def go(self, url: str, notice: Notice | None = None) -> RedirectResponse:
        """Redirect to another page of the console, which shows the notice."""
        if notice:
            key = uuid4().hex
            self._notices[key] = notice
            while len(self._notices) > NOTICES:
                self._notices.popitem(last=False)
            path, hash_sign, anchor = url.partition("#")
            url = f"{path}{'&' if '?' in path else '?'}said={key}{hash_sign}{anchor}"
        return RedirectResponse(url, 303)

    def outcome(self, answer: Answer[Any], text: str) -> Notice:
        """Return the notice of an action's result."""
        return Notice(trouble=answer.trouble) if answer.trouble else Notice(text, value=answer.value)

    def form(self, act: Callable[[Request, Form], Response]) -> Callable[[Request], Any]:
        """Return the endpoint of a form, which reads it and checks its token."""

        async def endpoint(request: Request) -> Response:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM:
                    return self._error_page(request, 413, "The form is too large.")
            try:
                form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
            except ValueError:  # invalid UTF-8, or too many fields
                return self._error_page(request, 400, "The form cannot be read.")
            if not self.token.fits(form.pop("token", "")):
                return self._error_page(
                    request, 403, "The console was restarted since this form was loaded: reload its page and repeat it."
                )
            return await run_in_threadpool(act, request, form)

        return endpoint

    def _error_page(self, request: Request, status: int, text: str) -> HTMLResponse:
        return self.page(request, "error.html", http_status=status, text=text)


@cache
def _templates() -> Environment:
    """Return the templates, each compiled once."""
    templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters |= {
        "ago": pass_context(lambda context, moment: ago(moment, context["asked_at"])),
        "clock": clock,
        "size": size,
        "count": lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "url": lambda text: quote(str(text), safe=""),
        "external": external,
        "hint_parts": hint_parts,
    }
    return templates


def query_with(params: Mapping[str, str], **changes: Any) -> str:
    """Return the query of the page with some fields changed; an empty value removes a field."""
    kept = {name: value for name, value in {**params, **changes}.items() if value not in (None, "") and name != "said"}
    return f"?{urlencode(kept)}" if kept else "?"


def moment(text: Any) -> datetime | None:
    """Parse a time from the API; return None if it is not one."""
    if isinstance(text, datetime):
        return text
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def clock(value: Any) -> str:
    """Format a time in UTC."""
    read = moment(value)
    return f"{read.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if read else str(value or "")


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def ago(value: Any, now: datetime) -> str:
    """Format a time relative to `now`, past or future."""
    read = moment(value)
    if read is None:
        return ""
    seconds = int((now - read) / timedelta(seconds=1))
    if abs(seconds) < 1:
        return "now"
    unit, name = next((unit, name) for unit, name in _UNITS if abs(seconds) >= unit)
    return f"{seconds // unit} {name} ago" if seconds > 0 else f"in {-seconds // unit} {name}"


def size(number: int) -> str:
    """Format a number of bytes."""
    for unit, name in ((1024 * 1024, "MB"), (1024, "KB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"


def external(url: Any) -> str:
    """Return an external URL if a browser may open it, else an empty text."""
    return str(url) if str(url).startswith("https://") else ""


def hint_parts(hint: Any) -> tuple[str, str]:
    """Split a hint into who must act and what to do; `Nobody:` counts as one."""
    who, colon, what = str(hint or "").partition(": ")
    return (who, what) if colon and who in ("Caller", "Tenant", "Operator", "Nobody") else ("", str(hint or ""))
