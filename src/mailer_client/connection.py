"""Send signed requests, with retries: every call of the API is idempotent, because requests have ids."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ConnectionError as ConnectError
from botocore.exceptions import HTTPClientError, NoCredentialsError, NoRegionError
from botocore.httpsession import URLLib3Session

from mailer_client.models import ProblemDocument, parse

RETRIED = frozenset({429, 500, 502, 503, 504})
"""Transient statuses."""

UNREACHED = (HTTPClientError, ConnectError)
"""botocore's errors if there was no answer, before or after the request was sent."""

ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0  # seconds

LONGEST_ASKED = 60.0  # seconds
"""Maximum wait that an answer may ask for: the API asks for a few seconds, but a proxy may ask for hours."""


class Answer(Protocol):
    """An HTTP answer."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class Transport(Protocol):
    """Sends a prepared request; `botocore.httpsession.URLLib3Session` does."""

    def send(self, request: Any) -> Any:
        """Send a request.

        Raises:
            HTTPClientError, ConnectionError: there was no answer (both are botocore's).
        """
        ...


class ApiError(Exception):
    """The API refused a call, or the answer is not the API's; `problem` says why, `code` is for programs."""

    def __init__(self, status: int, problem: ProblemDocument | None) -> None:
        super().__init__(f"{status} {problem.code}: {problem.detail}" if problem else f"{status}, without a problem document")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str | None:
        """The code of the problem; None if the answer was not the API's own."""
        return self.problem.code if self.problem else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One API under one caller's credentials."""

    url: str
    """Of the stage, without a slash at the end."""
    region: str
    credentials: Any = field(repr=False)
    """botocore credentials; they are resolved for every call, because they may expire."""
    transport: Transport
    sleep: Callable[[float], None] = time.sleep

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call a route and return its JSON, after some retries with growing, random waits.

        Raises:
            ApiError: the API refused it, or kept failing.
            HTTPClientError, ConnectionError: the API was not reached (both are botocore's).
        """
        data = None if body is None else json.dumps(body).encode()
        return _content(self._retried(lambda: self._signed(method, path, data)))

    def pages(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """Yield the JSON of each page of a list, as they are taken.

        Raises:
            ApiError, HTTPClientError, ConnectionError: as `call`.
        """
        wanted = {"limit": "100", **query}
        while True:
            page = self.call("GET", f"{path}?{urlencode(wanted)}")
            yield page
            if page["cursor"] is None:
                return
            wanted["cursor"] = page["cursor"]

    def put(self, url: str, body: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Put a file to a presigned URL, with retries, and return the headers of the answer.

        Raises:
            ApiError: it was not taken.
            HTTPClientError, ConnectionError: as `call`.
        """
        answer = self._retried(lambda: AWSRequest("PUT", url, dict(headers), body))
        if answer.status_code != 200:  # noqa: PLR2004 - S3's only success
            raise ApiError(answer.status_code, None)
        return answer.headers

    def _retried(self, make: Callable[[], AWSRequest]) -> Answer:
        """Send a request, made anew for each try: a signature is valid for minutes. Return the last answer."""
        for attempt in range(1, ATTEMPTS):
            try:
                answer: Answer = self.transport.send(make().prepare())
            except UNREACHED:
                self.sleep(_wait(attempt, None))
                continue
            if answer.status_code not in RETRIED:
                return answer
            self.sleep(_wait(attempt, answer.headers.get("Retry-After")))
        last: Answer = self.transport.send(make().prepare())
        return last

    def _signed(self, method: str, path: str, data: bytes | None) -> AWSRequest:
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if data else {})
        request = AWSRequest(method, self.url + path, headers, data)
        SigV4Auth(self.credentials.get_frozen_credentials(), "execute-api", self.region).add_auth(request)
        return request


class ApiClient:
    """The API, for one caller."""

    def __init__(
        self,
        url: str,
        *,
        region: str | None = None,
        session: botocore.session.Session | None = None,
        transport: Transport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Call the API at `url` (the stack's output `ApiUrl`) with the session's credentials, by default those of the environment.

        Raises:
            NoRegionError, NoCredentialsError: the session has none (both are botocore's).
        """
        session = session or botocore.session.get_session()
        region, credentials = region or session.get_config_variable("region"), session.get_credentials()
        if region is None:
            raise NoRegionError
        if credentials is None:
            raise NoCredentialsError
        self._api = Connection(
            url=url.rstrip("/"),
            region=region,
            credentials=credentials,
            transport=transport or URLLib3Session(timeout=30),
            sleep=sleep,
        )


def tenant_path(tenant_id: str, *steps: str) -> str:
    """Return the path below a tenant, each step percent-encoded."""
    return "/".join(["/tenants", *(quote(step, safe=":") for step in (tenant_id, *steps))])


def _wait(attempt: int, retry_after: str | None) -> float:
    """Return how long to wait: at least what the API asks for, with jitter."""
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    return min(asked, LONGEST_ASKED) + random.uniform(0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT))  # noqa: S311 - no secret


def _content(answer: Answer) -> Any:
    problem = None
    try:  # a proxy in between may have answered
        content = json.loads(answer.content) if answer.content else None
        if 200 <= answer.status_code < 300:  # noqa: PLR2004 - the successes of HTTP
            return content
        problem = parse(ProblemDocument, content)
    except (LookupError, TypeError, ValueError, RecursionError):
        pass
    raise ApiError(answer.status_code, problem)
