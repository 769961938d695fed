"""Client of the REST API: every request is signed with AWS Signature Version 4."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from tools.local_aws.server import REGION
from tools.local_aws.stack import platform_session

END_STATUSES = frozenset({"sent", "failed", "unknown", "cancelled"})
POLL = 0.05  # seconds between two polls of a record
WAIT = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the API; `body` is parsed JSON, None if there is none."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Api:
    """Signs with one session's credentials, by default the platform's; thread-safe."""

    def __init__(self, url: str, session: boto3.Session | None = None) -> None:
        self._url = url
        self._credentials = (session or platform_session()).get_credentials()
        self._pool = urllib3.PoolManager(maxsize=32, timeout=60, retries=False)

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, *, signed: bool = True) -> Answer:
        """Send one request; a `body` of bytes is sent unchanged, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = self._url + path
        request = AWSRequest(method, url, headers={"Content-Type": "application/json", **(headers or {})}, data=data)
        if signed:
            assert self._credentials
            SigV4Auth(self._credentials, "execute-api", REGION).add_auth(request)
        answer = self._pool.request(method, url, body=data, headers=dict(request.headers.items()))
        return Answer(answer.status, answer.headers, json.loads(answer.data) if answer.data else None)

    def put_provider(self, tenant_id: str, provider: Mapping[str, Any]) -> Answer:
        return self.call("PUT", f"/tenants/{tenant_id}/provider", provider)

    def provider(self, tenant_id: str) -> Answer:
        return self.call("GET", f"/tenants/{tenant_id}/provider")

    def verify(self, tenant_id: str, *, simulate: bool = False) -> Answer:
        return self.call("POST", f"/tenants/{tenant_id}/provider/verify", {"simulate": True} if simulate else None)

    def wait_for_provider(self, tenant_id: str, reached: Callable[[dict[str, Any]], bool], seconds: float = WAIT) -> dict[str, Any]:
        """Poll a tenant's provider record until `reached` is true for it."""
        deadline = time.monotonic() + seconds
        while True:
            record: dict[str, Any] = self.provider(tenant_id).body
            if reached(record):
                return record
            if time.monotonic() > deadline:
                raise TimeoutError(f"{tenant_id} after {seconds} s: {record}")
            time.sleep(POLL)

    def onboarding(self, tenant_id: str) -> Answer:
        return self.call("GET", f"/tenants/{tenant_id}/provider/onboarding")

    def submit(self, tenant_id: str, request: Mapping[str, Any]) -> Answer:
        return self.call("POST", f"/tenants/{tenant_id}/messages", request)

    def status(self, tenant_id: str, request_id: str) -> Answer:
        return self.call("GET", f"/tenants/{tenant_id}/messages/{quote(request_id)}")

    def wait_for(
        self, tenant_id: str, request_id: str, reached: Callable[[dict[str, Any]], bool] | None = None, seconds: float = WAIT
    ) -> dict[str, Any]:
        """Poll a request's record until it has ended or `reached` is true for it; return the record, or the last error response."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.status(tenant_id, request_id)
            record: dict[str, Any] = answer.body
            if answer.status == 200 and (reached(record) if reached else record["status"] in END_STATUSES):
                return record
            if time.monotonic() > deadline:
                raise TimeoutError(f"{tenant_id}/{request_id} after {seconds} s: {record}")
            time.sleep(POLL)
