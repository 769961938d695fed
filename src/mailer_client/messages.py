"""The calls of the messages API, by name."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from mailer_client.connection import ApiClient, ApiError, tenant_path
from mailer_client.models import BatchAnswer, PreviewAnswer, Status, StatusPage, StatusRecord, UploadAnswer, parse

Request = Mapping[str, Any]
"""A send request as in JSON: at least `message`; without a `requestId` one is made, so that a retry sends nothing twice."""

_FIRST_LOOK, _LONGEST_LOOK = 0.2, 3.0  # seconds between two looks at a record


class MailClient(ApiClient):
    """The messages API, for one caller; every method takes the tenant it is about."""

    def send(self, tenant_id: str, request: Request) -> StatusRecord:
        """Enqueue one request.

        Raises:
            ApiError: `invalid_request`, `request_id_reused`, `provider_not_configured` and so on.
        """
        return parse(StatusRecord, self._api.call("POST", tenant_path(tenant_id, "messages"), _with_id(request)))

    def send_batch(self, tenant_id: str, requests: Sequence[Request]) -> list[BatchAnswer]:
        """Enqueue up to 100 requests, each accepted or refused by itself; the answers are in the same order."""
        body = [_with_id(request) for request in requests]
        return [parse(BatchAnswer, answer) for answer in self._api.call("POST", tenant_path(tenant_id, "messages", "batch"), body)]

    def get(self, tenant_id: str, request_id: str) -> StatusRecord:
        """Return the state of a request."""
        return parse(StatusRecord, self._api.call("GET", tenant_path(tenant_id, "messages", request_id)))

    def list(self, tenant_id: str, *, status: Status | None = None) -> Iterator[StatusRecord]:
        """Yield a tenant's records, newest first, page by page as they are taken."""
        for page in self._api.pages(tenant_path(tenant_id, "messages"), {"status": status} if status else {}):
            yield from parse(StatusPage, page).messages

    def wait(self, tenant_id: str, request_id: str, *, timeout: float = 60) -> StatusRecord:
        """Poll until a request has ended, and return its record; an `unknown` that will be sent again has not ended.

        A request that is not found is waited for too: it may be on the queue, and have no record yet.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
            ApiError: as `get`; `not_found`: there was no record for `timeout` seconds.
        """
        ends_at, pause = time.monotonic() + timeout, _FIRST_LOOK
        while (left := ends_at - time.monotonic()) > 0:
            record = self._found(tenant_id, request_id)
            if record is not None and record.ended:
                return record
            self._api.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_LOOK)
        last = self.get(tenant_id, request_id)
        if not last.ended:
            raise TimeoutError(f"{request_id} is still {last.status}")
        return last

    def _found(self, tenant_id: str, request_id: str) -> StatusRecord | None:
        try:
            return self.get(tenant_id, request_id)
        except ApiError as refusal:
            if refusal.code != "not_found":
                raise
            return None

    def cancel(self, tenant_id: str, request_id: str) -> StatusRecord:
        """Cancel a request that is queued or deferred.

        Raises:
            ApiError: `not_cancellable`.
        """
        return parse(StatusRecord, self._api.call("POST", tenant_path(tenant_id, "messages", request_id, "cancel")))

    def preview(self, tenant_id: str, request: Request) -> PreviewAnswer:
        """Build a message as it would be sent, or list the problems."""
        return parse(PreviewAnswer, self._api.call("POST", tenant_path(tenant_id, "messages", "preview"), dict(request)))

    def resolve(
        self, tenant_id: str, request_id: str, outcome: Literal["sent", "resend"], *, by: str, why: str, message_id: str | None = None
    ) -> StatusRecord:
        """Resolve an `unknown` on an operator's word.

        Raises:
            ApiError: `not_resolvable`.
        """
        word = {"outcome": outcome, "by": by, "why": why} | ({"messageId": message_id} if message_id else {})
        return parse(StatusRecord, self._api.call("POST", tenant_path(tenant_id, "messages", request_id, "resolve"), word))

    def upload_attachment(self, tenant_id: str, filename: str, content: bytes, *, content_type: str | None = None) -> dict[str, Any]:
        """Upload a file and return the attachment that refers to it, ready for `message.attachments`."""
        wanted = {"filename": filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        wanted |= {"contentType": content_type} if content_type else {}
        answer = parse(UploadAnswer, self._api.call("POST", tenant_path(tenant_id, "attachments"), wanted))
        version = self._api.put(answer.upload.url, content, answer.upload.headers).get("x-amz-version-id")
        s3 = {"key": answer.s3.key} | ({"versionId": version} if version else {})
        return {"filename": filename, "contentType": answer.upload.headers["Content-Type"], "s3": s3}


def _with_id(request: Request) -> dict[str, Any]:
    return {"requestId": str(uuid4()), **request}
