"""Make chosen calls of a botocore client without its layers: once as botocore would make it, then each by that pattern."""

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.client import BaseClient
from botocore.compat import get_current_datetime
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, HTTPClientError
from botocore.handlers import add_recursion_detection_header
from botocore.hooks import first_non_none_response
from urllib3.connectionpool import HTTPConnectionPool

from mailer.adapters.botocore_patches.connections import OwnSession
from mailer.adapters.botocore_patches.signing import signed_host
from mailer.adapters.transport.exchange import Reply, exchange
from mailer.adapters.transport.formats import Format
from mailer.adapters.transport.signature import DATE, SESSION, SigningScope


def call_directly(client: BaseClient, formats: Mapping[str, Format], again: Callable[[], BaseClient] | None = None) -> None:
    """Let a client, whose connections are ours, make these operations directly; all others stay botocore's.

    `again` returns the client that repeats a call after a direct attempt without a clear answer, so that it can be told to make one attempt
    less; without it the client does that by itself.
    """
    made: Any = client
    made._make_api_call = _DirectCalls(made, formats, again)  # noqa: SLF001  # see the package
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register_first(f"before-send.{service}", _stop_rehearsal)


class _DirectCalls:
    """Takes the place of a client's `_make_api_call`."""

    def __init__(self, client: Any, formats: Mapping[str, Format], again: Callable[[], Any] | None) -> None:
        self._botocore = client._make_api_call  # noqa: SLF001  # see the package
        self._direct = {name: DirectCall(client, name, form, again) for name, form in formats.items()}

    def __call__(self, operation_name: str, api_params: dict[str, Any]) -> dict[str, Any]:
        direct = self._direct.get(operation_name)
        answer: dict[str, Any] = direct(api_params) if direct else self._botocore(operation_name, api_params)
        return answer


class DirectCall:
    """One operation of one client; threads may share it."""

    def __init__(self, client: Any, name: str, form: Format, again: Callable[[], Any] | None = None) -> None:
        self._client = client
        self._again = again
        self._name = name
        self._format = form
        self._botocore = client._make_api_call  # noqa: SLF001  # see the package
        self.model = client.meta.service_model.operation_model(name)
        self._event = f"before-send.{client.meta.service_model.service_id.hyphenize()}.{name}"
        self._pattern: _Pattern | None = None
        self._is_rehearsed = False
        self._rehearsing = Lock()

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        """Make the call; answers and raises what the client would, but for `ResponseMetadata` in a success."""
        if not self._is_rehearsed:
            self._rehearse(params)
        credentials = self._client._request_signer._credentials.get_frozen_credentials()  # noqa: SLF001  # asked for each signature, as botocore does
        body = self._format.write(params) if self._pattern and _fit_headers(credentials) else None
        if self._pattern is None or body is None:
            return self._by_botocore(params)
        try:
            reply = self.send(self._pattern, credentials, body)
        except HTTPClientError:
            if self._format.refusals is None:
                raise
            return self._repeat(params)
        if reply.status == HTTPStatus.OK and (answer := self._format.read(reply.body)) is not None:
            return answer
        return self._read_by_botocore(reply) if self._format.refusals is None else self._refused_or_again(reply, params)

    def _by_botocore(self, params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._botocore(self._name, params)
        return answer

    def _refused_or_again(self, reply: Reply, params: dict[str, Any]) -> dict[str, Any]:
        if reply.status == HTTPStatus.BAD_REQUEST:
            try:
                self._read_by_botocore(reply)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in (self._format.refusals or ()):
                    raise
        return self._repeat(params)

    def _repeat(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have botocore make the call once more, with its own retries."""
        if self._again is None:
            return self._by_botocore(params)
        answer: dict[str, Any] = self._again()._make_api_call(self._name, params)  # noqa: SLF001  # see the package
        return answer

    def _rehearse(self, params: dict[str, Any]) -> None:
        """Have botocore make the call up to its first byte; raises what botocore raises before that."""
        with self._rehearsing:
            if self._is_rehearsed:
                return
            token = _REHEARSING.set(True)
            try:
                self._by_botocore(dict(params))
            except _Rehearsed as rehearsed:
                self._pattern = _pattern(rehearsed.request, self._client._endpoint.http_session)  # noqa: SLF001  # see the package
            finally:
                _REHEARSING.reset(token)
            self._is_rehearsed = True

    def send(self, pattern: "_Pattern", credentials: ReadOnlyCredentials, body: bytes) -> Reply:
        """Sign and send one request, once."""
        timestamp = get_current_datetime().strftime("%Y%m%dT%H%M%SZ")
        headers = pattern.headers(credentials, timestamp, body)
        shown: Any = headers
        request = AWSPreparedRequest("POST", pattern.url, shown, body, stream_output=False)
        answered = first_non_none_response(self._client.meta.events.emit(self._event, request=request))
        if answered is not None:  # an emulator in this process
            lower = {name.lower(): value for name, value in answered.headers.items()}
            return Reply(answered.status_code, lower, answered.content, keeps_open=False)
        return exchange(pattern.pool, pattern.url, pattern.head(headers), body)

    def _read_by_botocore(self, reply: Reply) -> dict[str, Any]:
        """Read an answer as botocore reads it, and raise what it raises."""
        endpoint = self._client._endpoint  # noqa: SLF001  # see the package
        response = {
            "headers": HeadersDict(reply.headers),
            "status_code": reply.status,
            "body": reply.body,
            "context": {"operation_name": self._name},
        }
        parser = endpoint._response_parser_factory.create_parser(self.model.service_model.resolved_protocol)  # noqa: SLF001  # see the package
        parsed: dict[str, Any] = parser.parse(response, self.model.output_shape)
        if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
            endpoint._add_modeled_error_fields(response, parsed, self.model, parser)  # noqa: SLF001  # see the package
            raise self._client.exceptions.from_code(parsed.get("Error", {}).get("Code"))(parsed, self._name)
        return parsed


# -- the pattern ---------------------------------------------------------------------------------------------------------

_REHEARSING: ContextVar[bool] = ContextVar("rehearsing", default=False)


class _Rehearsed(Exception):  # noqa: N818  # no error
    """Stops a call of botocore's as it is about to be sent."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__("a rehearsal")
        self.request = request


def _stop_rehearsal(request: AWSPreparedRequest, **_: Any) -> None:
    if _REHEARSING.get():
        raise _Rehearsed(request)


_CONSTANT = frozenset({"content-type", "user-agent", "x-amz-target", "amz-sdk-request"})
_CHANGING = frozenset({DATE, SESSION, "authorization", "amz-sdk-invocation-id", "x-amzn-trace-id", "content-length"})
"""The headers that we know how to write; a request with any other is botocore's to send."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, SignedHeaders=(?P<signed>[a-z0-9;-]+), .*"
)
_SIGNED = _CONSTANT | {DATE, SESSION, "host"}


def _fit_headers(credentials: ReadOnlyCredentials) -> bool:
    """Whether these may stand in headers: a line break would begin another one."""
    shown = f"{credentials.access_key}{credentials.token or ''}"
    return shown.isascii() and shown.isprintable()


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What all requests of an operation have in common."""

    pool: HTTPConnectionPool
    url: str
    host: str
    constant: Mapping[str, str]
    scope: SigningScope

    def headers(self, credentials: ReadOnlyCredentials, timestamp: str, body: bytes) -> dict[str, str]:
        """Return the headers of one request."""
        changing: dict[str, str] = {"X-Amz-Date": timestamp}
        if credentials.token:
            changing["X-Amz-Security-Token"] = credentials.token
        changing["Authorization"] = self.scope.authorization(credentials, timestamp, body)
        changing["amz-sdk-invocation-id"] = str(uuid4())
        add_recursion_detection_header({"headers": changing})
        return {**self.constant, **changing, "Content-Length": str(len(body))}

    def head(self, headers: Mapping[str, str]) -> bytes:
        """Return what goes out before the body."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST / HTTP/1.1\r\nHost: {self.host}\r\nAccept-Encoding: identity\r\n{lines}\r\n".encode("ascii")


def _pattern(request: AWSPreparedRequest, session: Any) -> _Pattern | None:
    """Make a pattern of a request; None where botocore has to send those that follow too."""
    written: Any = request.headers
    headers = {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in written.items()}
    by_name = {name.lower(): value for name, value in headers.items()}
    url = urlsplit(request.url)
    signed = _AUTHORIZATION.fullmatch(by_name.get("authorization", ""))
    pool = session.direct_pool(request.url) if isinstance(session, OwnSession) else None
    is_plain = request.method == "POST" and (url.path, url.query) == ("/", "") and by_name.keys() <= _CONSTANT | _CHANGING
    if not is_plain or signed is None or pool is None or not _SIGNED.issuperset(names := signed["signed"].split(";")):
        return None
    host = signed_host(request.url)
    constant = {name: value for name, value in headers.items() if name.lower() in _CONSTANT}
    fixed = [(name, host if name == "host" else by_name[name]) for name in names if name not in (DATE, SESSION)]
    return _Pattern(pool, request.url, host, constant, SigningScope(signed["region"], signed["service"], fixed))
