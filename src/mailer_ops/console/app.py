"""Wire the console: its routes and their pages."""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mailer_ops.console.pages import compose, dead_letters, inbox, messages, now, onboarding, tenants
from mailer_ops.console.safety import Guard, Token
from mailer_ops.console.web import Console, Form, Sources

STATIC = Path(__file__).parent / "static"

type Page = Callable[[Request, Console], Response]
type Act = Callable[[Request, Form, Console], Response]


def create_app(sources: Sources, port: int) -> ASGIApp:
    """Create the console of one stack, to be served on a port of 127.0.0.1."""
    console = Console(sources, Token())
    app = Starlette(
        routes=[*_pages(console), *_forms(console), Mount("/static", StaticFiles(directory=STATIC))],
        exception_handlers={HTTPException: _error_page(console), Exception: _failure_page(console)},
    )
    return Guard(app, port)


def _pages(console: Console) -> list[Route]:
    pages: dict[str, Page] = {
        "/now": now.now,
        "/find": messages.find,
        "/tenants": tenants.tenants,
        "/onboard": tenants.onboard,
        "/tenants/{tenant}": tenants.tenant,
        "/tenants/{tenant}/statistics": tenants.statistics,
        "/tenants/{tenant}/suppressions": tenants.suppressions,
        "/tenants/{tenant}/onboarding": onboarding.onboarding,
        "/tenants/{tenant}/onboarding/template": onboarding.template,
        "/tenants/{tenant}/messages/{request}": messages.message,
        "/messages": messages.messages,
        "/dead-letters": dead_letters.dead_letters,
        "/dead-letters/work/{work}": dead_letters.work,
        "/compose": compose.compose,
        "/inbox": inbox.inbox,
        "/inbox/{number:int}": inbox.mail,
        "/inbox/{number:int}/html": inbox.mail_html,
        "/inbox/{number:int}/source": inbox.source,
        "/inbox/{number:int}/files/{file:int}": inbox.attachment,
    }
    home = Route("/", lambda _: RedirectResponse("/now"))
    return [home, *(Route(path, _answer(page, console), methods=["GET"]) for path, page in pages.items())]


def _answer(page: Page, console: Console) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        return page(request, console)

    return endpoint


def _forms(console: Console) -> list[Route]:
    previews = compose.Previews()
    forms: dict[str, Act] = {
        "/tenants/{tenant}/provider": onboarding.store,
        "/tenants/{tenant}/suppressions": tenants.suppress,
        "/compose": lambda request, form, console: compose.submit(request, form, console, previews),
        **{f"/tenants/{{tenant}}/provider/{action}": _named(tenants.act, action) for action in ("verify", "disable", "enable", "delete")},
        **{f"/tenants/{{tenant}}/messages/{{request}}/{action}": _named(messages.act, action) for action in ("cancel", "resolve")},
        **{f"/dead-letters/{action}": _named(dead_letters.start, action) for action in ("redrive", "drop")},
    }
    frame = Route("/compose/previews/{key}", lambda request: inbox.preview_html(request, previews), methods=["GET"])
    return [frame, *(Route(path, console.form(_bound(act, console)), methods=["POST"]) for path, act in forms.items())]


def _named(act: Callable[[Request, Form, Console, str], Response], action: str) -> Act:
    return lambda request, form, console: act(request, form, console, action)


def _bound(act: Act, console: Console) -> Callable[[Request, Form], Response]:
    return lambda request, form: act(request, form, console)


def _error_page(console: Console) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = "There is no such page." if status == HTTPStatus.NOT_FOUND else "This page does not support that method."
        return console.page(request, "error.html", http_status=status, text=text)

    return answer


def _failure_page(console: Console) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, _: Exception) -> Response:
        text = "The console itself failed; the traceback is in its terminal."
        return console.page(request, "error.html", http_status=500, text=text)

    return answer
