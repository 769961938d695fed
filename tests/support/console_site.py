"""Test client of the console's pages, over data in memory and without sockets."""

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

from mailer_ops.console.app import create_app
from support.asgi import Response, request
from support.fakes.console import Platform

PORT = 4567
ORIGIN = f"http://127.0.0.1:{PORT}"

PAGES = (
    "/now",
    "/tenants",
    "/tenants?rates=1",
    "/tenants?q=ac",
    "/tenants/acme",
    "/tenants/acme/statistics",
    "/tenants/acme/suppressions",
    "/tenants/acme/suppressions?email=gone%40example.com",
    "/tenants/acme/onboarding?by=role",
    "/tenants/acme/onboarding?by=key",
    "/tenants/umbrella",
    "/tenants/hooli/onboarding",
    "/messages",
    "/messages?status=unknown",
    "/messages?tenant=acme",
    "/tenants/acme/messages/invoice-2026-0117",
    "/tenants/acme/messages/reminder-0042",
    "/tenants/hooli/messages/welcome-88213",
    "/dead-letters",
    "/dead-letters?reason=processing_crashed&tenant=acme",
    "/compose?tenant=acme",
    "/inbox",
    "/inbox/3",
    "/inbox/3?view=text",
    "/inbox/3?view=headers",
    "/inbox/3?view=source",
    "/find?q=nothing-like-it",
)


class Site:
    """The console of a platform, as a browser sees it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._app = create_app(platform.sources(), PORT)
        self._token = ""

    def get(self, url: str, **headers: str) -> Response:
        return request(self._app, "GET", url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    @property
    def token(self) -> str:
        if not self._token:
            fields = tags(self.get("/compose").text, "input")
            self._token = next(str(field["value"]) for field in fields if field.get("name") == "token")
        return self._token

    def post(self, url: str, form: Mapping[str, str] | None = None, *, origin: str = ORIGIN, token: str | None = None) -> Response:
        fields = {**(form or {}), "token": self.token if token is None else token}
        return request(self._app, "POST", url, headers={"origin": origin} if origin else {}, form=fields)

    def follow(self, response: Response) -> Response:
        assert response.status == 303, response.text
        return self.get(response.headers["location"].partition("#")[0])


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """List a page's elements with their attributes."""
    parser = _Elements()
    parser.feed(html)
    return parser.found


def tags(html: str, name: str) -> Iterator[dict[str, str | None]]:
    """Yield the attributes of each element of a kind."""
    return (attributes for tag, attributes in elements(html) if tag == name)


def words(html: str) -> str:
    """Return the text of a page."""
    parser = _Elements()
    parser.feed(html)
    return " ".join("".join(parser.words).split())
