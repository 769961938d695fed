"""Protection against other sites in the operator's browser, and against hostile content of mails and ids."""

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
"""For the console's pages: their own style and script, and frames that show a mail."""

MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; font-src data:; img-src data:{images}; frame-ancestors 'self'"
"""For a mail in its frame: inline styles only. No scripts, no forms, no remote requests, except images if the operator loads them."""

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
"""Headers of every response that does not set its own."""


class Token:
    """CSRF token of this process, carried by every form: another site can submit a form, but cannot read the token."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(32)

    def fits(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode(), self.text.encode())


def mail_headers(*, remote_images: bool) -> Mapping[str, str]:
    """Return the headers of a mail's HTML."""
    policy = MAIL_POLICY.format(images=" https: http:" if remote_images else "")
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


class Guard:
    """Middleware that rejects requests of other sites and under other host names, and adds the security headers."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
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
        if host not in self._hosts:  # DNS rebinding: a foreign name that resolves to this machine
            return PlainTextResponse("The console accepts requests under its own address only.", 421)
        if method in ("GET", "HEAD"):
            foreign = headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
        else:
            foreign = headers.get("origin") != f"http://{host}"
        return PlainTextResponse("The console rejects requests of other sites.", 403) if foreign else None
