"""Call an ASGI app in this thread, without a socket."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the app."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def request(
    app: Any, method: str, url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
) -> Response:
    """Send one request; encode a `form` as a browser does."""
    split = urlsplit(url)
    body = urlencode(form or {}).encode()
    sent_headers = {
        "host": "127.0.0.1:4567",
        **({"content-type": "application/x-www-form-urlencoded"} if form is not None else {}),
        **(headers or {}),
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(split.path),
        "raw_path": split.path.encode(),
        "query_string": split.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent_headers.items()],
        "server": ("127.0.0.1", 4567),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    sent: list[Any] = []

    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(incoming, None) or await asyncio.Event().wait()  # the client stays connected

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    head = next(message for message in sent if message["type"] == "http.response.start")
    content = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return Response(head["status"], {name.decode().lower(): value.decode() for name, value in head["headers"]}, content)
