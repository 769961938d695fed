"""What keeps others out: the pages of other sites in the operator's browser, and what a mail or an id brings along."""

import hmac
import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page of ours may load: its own style and script, and frames that hold a mail."""

MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; font-src data:; img-src data:{images}; frame-ancestors 'self'"
"""What a mail may do in its frame: look like itself. No script, no form, no request to anybody, unless its images are asked for."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
}
"""On every answer that does not bring its own."""


class Token:
    """A secret of this process that every form carries: another site's page can send a form, but cannot read this."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(32)

    def fits(self, given: str) -> bool:
        """Compare without telling by the time how much of it fits."""
        return hmac.compare_digest(given.encode(), self.text.encode())


def mail_headers(*, remote_images: bool) -> Mapping[str, str]:
    """Return the headers of a mail's HTML."""
    policy = MAIL_POLICY.format(images=" https: http:" if remote_images else "")
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


class Guard:
    """Answers only what this very site's pages ask, under one of this machine's own names, and puts the headers on."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refuse(scope["method"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, with_headers)

    def _refuse(self, method: str, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if host not in self._hosts:  # a name that another site has pointed at this machine (DNS rebinding)
            return PlainTextResponse("This console answers under its own address only.", 421)
        if method in ("GET", "HEAD"):
            foreign = headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
        else:
            foreign = headers.get("origin") != f"http://{host}"
        return PlainTextResponse("Another site's page may not ask this.", 403) if foreign else None
