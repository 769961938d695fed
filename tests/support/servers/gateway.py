"""A minimal in-process API Gateway: converts an HTTP request to the REST proxy event of a function.

Path and query have the form of a REST API's: the path is still percent-encoded, the query decoded, every header present twice.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Handler = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]

STAGE = "v1"


@dataclass(frozen=True)
class Answer:
    """The response to the caller."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def paths(self) -> list[str]:
        """Return the paths of the errors of a rejection."""
        return [error["path"] for error in self.json["errors"]]

    def is_problem(self, status: int, code: str) -> bool:
        """Return whether this is problem+json with that status and code."""
        problem = self.json if self.headers["Content-Type"] == "application/problem+json" else {}
        return (self.status, problem.get("status"), problem.get("code")) == (status, status, code)


def proxy_event(
    method: str, target: str, body: str | bytes | None = None, headers: Iterable[tuple[str, str]] = (), **fields: Any
) -> dict[str, Any]:
    """Return an event of a catch-all resource; `target` is the path under the stage with its query, percent-encoded.

    `fields` replace those of the event.
    """
    path, query = urlsplit(target).path, urlsplit(target).query
    pairs, lines = parse_qsl(query, keep_blank_values=True), list(headers)
    text, encoded = _body(body)
    return {
        "resource": "/{proxy+}",
        "httpMethod": method,
        "path": path,
        "headers": dict(lines) or None,
        "multiValueHeaders": _grouped(lines),
        "queryStringParameters": dict(pairs) or None,
        "multiValueQueryStringParameters": _grouped(pairs),
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {"stage": STAGE, "path": f"/{STAGE}{path}", "httpMethod": method, "requestId": "correlation-1"},
        "body": text,
        "isBase64Encoded": encoded,
        **fields,
    }


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]] | None:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped or None


def _body(body: str | bytes | None) -> tuple[str | None, bool]:
    if body is None or isinstance(body, str):
        return body, False
    try:
        return body.decode() or None, False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True


@cache
def _operations() -> Sequence[tuple[str, re.Pattern[str], set[int]]]:
    from mailer.handlers.messages import api_document  # noqa: PLC0415 - takes longer to import than all the rest

    return [
        (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), {500, *map(int, operation["responses"])})
        for path, item in api_document()["paths"].items()
        for method, operation in item.items()
    ]


def must_be_documented(event: Mapping[str, Any], status: int) -> None:
    """Fail if a response is not in the OpenAPI document, except a 500."""
    method, path = event["httpMethod"], event["path"]
    for name, pattern, statuses in _operations():
        if name == method and pattern.fullmatch(path):
            assert status in statuses, f"{method} {path} returns {status}, which the OpenAPI document does not have"


def _is_for_providers(path: str) -> bool:
    return path == "/tenants" or "/provider" in path or "/suppressions" in path


class Gateway:
    """The functions behind one URL, callable and as a WSGI app; every response must be in the OpenAPI document."""

    def __init__(self, messages: Handler, providers: Handler | None = None) -> None:
        self._messages = messages
        self._providers = providers

    def call(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """Call a route; encode a body that is neither text nor bytes as JSON."""
        raw = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        return self.handle(proxy_event(method, target, raw, (headers or {}).items(), **fields))

    def handle(self, event: Mapping[str, Any]) -> Answer:
        handler = self._providers if self._providers and _is_for_providers(event["path"]) else self._messages
        answer = handler(event, None)
        headers = {name: values[-1] for name, values in answer.get("multiValueHeaders", {}).items()}
        must_be_documented(event, status := int(answer["statusCode"]))
        return Answer(status, headers, answer.get("body") or "")

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Handle a WSGI request."""
        headers = [(name[5:].replace("_", "-").title(), value) for name, value in environ.items() if name.startswith("HTTP_")]
        if environ.get("CONTENT_TYPE"):
            headers.append(("Content-Type", environ["CONTENT_TYPE"]))
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        path = environ["REQUEST_URI"].partition("?")[0].removeprefix(f"/{STAGE}")
        target = f"{path}?{environ.get('QUERY_STRING', '')}"
        answer = self.handle(proxy_event(environ["REQUEST_METHOD"], target, body, headers))
        phrase = HTTPStatus(answer.status).phrase
        start_response(f"{answer.status} {phrase}", list(answer.headers.items()))
        return [answer.text.encode()]
