"""The client: calls, retries and parsed responses. The API behind it is the real handler with fakes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, NoRegionError

from mailer.domain.delivery import Status
from mailer.domain.errors import ErrorInfo
from mailer.handlers import messages
from mailer.handlers.rest.problem import problem_document
from mailer.services.api.messages import MessagesDependencies
from mailer_client import ApiError, MailClient
from mailer_client import Status as Shown
from mailer_client.connection import ATTEMPTS, LONGEST_ASKED, LONGEST_WAIT, Connection
from support.fakes.messages import a_body, fake_deps, serve_from
from support.fakes.ports import NOON, FakeProvidersTable, a_delivery, a_provider
from support.servers.gateway import STAGE, Gateway

URL = f"https://api.example/{STAGE}"


@dataclass
class Answer:
    status_code: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class InProcess:
    """Passes requests to the handler; each of `faults`, a status or an exception, is the result of one request before that."""

    def __init__(self, *faults: int | Exception) -> None:
        self.gateway = Gateway(messages.handler)
        self.faults = list(faults)
        self.upload_faults: list[int | Exception] = []
        self.requests: list[Any] = []
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def send(self, request: Any) -> Answer:
        self.requests.append(request)
        url = urlsplit(request.url)
        if url.hostname == "bucket.example" and self.upload_faults:
            return self._fault(self.upload_faults.pop(0))
        if url.hostname == "bucket.example":
            return Answer(200, b"", {"x-amz-version-id": "v1"})
        if self.faults:
            return self._fault(self.faults.pop(0))
        body = request.body.decode() if request.body else None
        target = f"{url.path.removeprefix(f'/{STAGE}')}?{url.query}"
        answer = self.gateway.call(request.method, target, body, dict(request.headers.items()))
        return Answer(answer.status, answer.text.encode(), answer.headers)

    def _fault(self, fault: int | Exception) -> Answer:
        if isinstance(fault, Exception):
            raise fault
        code = {429: "too_many_requests", 503: "dependency_unavailable"}.get(fault, "internal_error")
        return Answer(fault, json.dumps(problem_document(ErrorInfo(code, "no"))).encode(), {"Retry-After": "1"} if fault == 429 else {})

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_wait()


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> MessagesDependencies:
    fakes = fake_deps(providers=FakeProvidersTable(a_provider()))
    serve_from(fakes, monkeypatch)
    return fakes


def a_client(transport: InProcess) -> MailClient:
    session = botocore.session.Session()
    session.set_credentials("AKIACALLER", "secret")
    return MailClient(URL + "/", region="eu-central-1", session=session, transport=transport, sleep=transport.wait)


@pytest.mark.usefixtures("deps")
def test_a_request_is_sent_signed() -> None:
    """The signature is SigV4 for API Gateway in the API's region."""
    transport = InProcess()
    assert a_client(transport).send("acme", a_body("r1")).status is Shown.QUEUED
    [request] = transport.requests
    assert request.url == f"{URL}/tenants/acme/messages"
    assert request.headers["Content-Type"] == "application/json"
    authorization = str(request.headers["Authorization"])
    assert "Credential=AKIACALLER/" in authorization
    assert "/eu-central-1/execute-api/aws4_request" in authorization


def test_a_retry_sends_nothing_twice(deps: MessagesDependencies) -> None:
    """The id is generated before the first try, so all tries are one request."""
    transport = InProcess(503, EndpointConnectionError(endpoint_url=URL), 429)
    record = a_client(transport).send("acme", a_body(None))
    ids = {json.loads(request.body)["requestId"] for request in transport.requests}
    assert ids == {record.request_id}
    assert len(transport.requests) == 4
    assert len(deps.queue.messages) == 1


@pytest.mark.usefixtures("deps")
def test_retries_back_off_and_respect_retry_after() -> None:
    """A wait is random, at least Retry-After, and below a bound that doubles."""
    transport = InProcess(429, 503, 503, 503)
    a_client(transport).send("acme", a_body())
    assert transport.waits[0] >= 1.0
    assert all(wait <= bound for wait, bound in zip(transport.waits, [1.5, 1.0, 2.0, 4.0], strict=True))


@pytest.mark.parametrize(("retry_after", "least"), [("86400", LONGEST_ASKED), ("Wed, 25 Nov 2026 08:00:00 GMT", 0)])
def test_a_proxy_s_retry_after_is_limited(retry_after: str, least: float) -> None:
    """It may ask for hours, or name a date, which is ignored; the caller gets the error before."""
    transport = InProcess()
    transport.send = lambda _: Answer(503, b"", {"Retry-After": retry_after})  # type: ignore[method-assign]  # a proxy
    with pytest.raises(ApiError):
        a_client(transport).get("acme", "r1")
    assert all(least <= wait <= least + LONGEST_WAIT for wait in transport.waits)
    assert len(transport.waits) == ATTEMPTS - 1


@pytest.mark.usefixtures("deps")
def test_retries_are_limited() -> None:
    """The caller gets the last response's error."""
    transport = InProcess(*[503] * 10)
    with pytest.raises(ApiError) as error:
        a_client(transport).get("acme", "r1")
    assert (error.value.status, error.value.code) == (503, "dependency_unavailable")
    assert len(transport.requests) == ATTEMPTS


@pytest.mark.usefixtures("deps")
def test_a_rejection_is_not_retried() -> None:
    """A caller's error is permanent."""
    transport = InProcess()
    with pytest.raises(ApiError) as error:
        a_client(transport).send("acme", {"message": {}})
    assert error.value.code == "invalid_request"
    assert str(error.value).startswith("400 invalid_request: message")
    assert error.value.problem is not None
    assert "message.subject" in [fault.path for fault in error.value.problem.errors]
    assert len(transport.requests) == 1


@pytest.mark.parametrize("answer", [Answer(403, b"<html>"), Answer(200, b"<html>"), Answer(302, b""), Answer(403, b"[" * 100_000)])
def test_a_foreign_response_is_an_error(answer: Answer) -> None:
    """A proxy may return anything."""
    transport = InProcess()
    transport.send = lambda _: answer  # type: ignore[method-assign]  # a foreign response
    with pytest.raises(ApiError) as error:
        a_client(transport).get("acme", "r1")
    assert (error.value.status, error.value.code) == (answer.status_code, None)


def test_a_session_without_region_or_credentials_is_refused() -> None:
    """The errors are botocore's."""
    session = botocore.session.Session(profile=None)
    session.set_config_variable("region", None)
    session.get_credentials = lambda: None  # type: ignore[method-assign]
    with pytest.raises(NoRegionError):
        MailClient(URL, session=session)
    with pytest.raises(NoCredentialsError):
        MailClient(URL, session=session, region="eu-central-1")


def test_unknown_response_fields_are_ignored() -> None:
    """A newer API may return more fields."""
    transport = InProcess()
    record = {
        "tenantId": "acme",
        "requestId": "r1",
        "status": "sent",
        "provider": "ses",
        "messageId": "0100",
        "attempts": 1,
        "recipients": 1,
        "onUnknown": "hold",
        "feedback": None,
        "suppressed": 0,
    }
    times = dict.fromkeys(("createdAt", "updatedAt", "sentAt"), "2026-11-24T12:00:00Z")
    answer = json.dumps({**record, **times, "error": None, "color": "blue"}).encode()
    transport.send = lambda _: Answer(200, answer)  # type: ignore[method-assign]  # a newer API
    assert a_client(transport).get("acme", "r1").message_id == "0100"


@pytest.mark.usefixtures("deps")
def test_a_batch_has_one_result_per_request() -> None:
    """Each result is a record or a problem, in order."""
    good, bad = a_client(InProcess()).send_batch("acme", [a_body("r1"), {"message": {}}])
    assert good.record is not None
    assert (good.status, good.record.request_id) == (202, "r1")
    assert bad.problem is not None
    assert (bad.status, bad.problem.code) == (400, "invalid_request")


def test_wait_ends_with_the_request(deps: MessagesDependencies) -> None:
    """The record is polled until it has ended."""
    transport = InProcess()
    client = a_client(transport)
    client.send("acme", a_body("r1"))

    def send() -> None:
        deps.messages.records["acme", "r1"] = replace(deps.messages.records["acme", "r1"], status=Status.SENT, message_id="0100")

    transport.on_wait = send
    assert client.wait("acme", "r1").message_id == "0100"
    assert len(transport.waits) == 1


def test_wait_continues_for_an_unknown_that_will_be_resent(deps: MessagesDependencies) -> None:
    """Its record has the time of the resend; a held unknown is an end."""
    lost = a_delivery("r1", Status.UNKNOWN, on_unknown="resend", deadline=NOON, error=ErrorInfo("outcome_unknown", "lost"))
    statuses = [replace(lost, status=Status.SENT), lost, lost]
    deps.messages.records["acme", "r1"] = lost  # type: ignore[attr-defined]  # the fake's
    transport = InProcess()
    client = a_client(transport)
    shown = client.get("acme", "r1")
    assert (shown.on_unknown, shown.due_at, shown.ended) == ("resend", NOON + timedelta(seconds=120), False)
    assert shown.error is not None
    assert shown.error.hint.startswith("Nobody:")
    assert [record.due_at for record in client.list("acme")] == [shown.due_at]
    transport.on_wait = lambda: deps.messages.records.update({("acme", "r1"): statuses.pop()})  # type: ignore[attr-defined]
    assert client.wait("acme", "r1").status is Shown.SENT
    deps.messages.records["acme", "r1"] = replace(lost, on_unknown="hold")  # type: ignore[attr-defined]
    held = client.wait("acme", "r1", timeout=0)
    assert (held.status, held.on_unknown, held.due_at) == (Status.UNKNOWN, "hold", None)


@pytest.mark.usefixtures("deps")
def test_every_record_has_on_unknown() -> None:
    """It is the caller's choice or the default."""
    client = a_client(InProcess())
    assert client.send("acme", a_body("r1")).on_unknown == "hold"
    assert client.send("acme", a_body("r2", onUnknown="resend")).on_unknown == "resend"


def test_wait_includes_a_record_that_is_not_written_yet(deps: MessagesDependencies) -> None:
    """A request is on the queue before it has a record, which SendFunction writes if the API could not."""
    transport = InProcess()
    transport.on_wait = lambda: deps.messages.records.update({("acme", "r1"): a_delivery("r1", Status.SENT)})  # type: ignore[attr-defined]
    assert a_client(transport).wait("acme", "r1").status is Shown.SENT
    assert len(transport.waits) == 1


@pytest.mark.usefixtures("deps")
def test_wait_for_an_unknown_id_ends_with_its_error() -> None:
    """After the timeout."""
    with pytest.raises(ApiError) as error:
        a_client(InProcess()).wait("acme", "r1", timeout=0)
    assert error.value.code == "not_found"


def test_wait_passes_on_other_errors() -> None:
    """Only a missing record is waited for."""
    transport = InProcess()
    transport.send = lambda _: Answer(403, b"{}")  # type: ignore[method-assign]  # API Gateway's own
    with pytest.raises(ApiError) as error:
        a_client(transport).wait("acme", "r1")
    assert error.value.status == 403
    assert not transport.waits


def test_wait_looks_less_often_with_time(deps: MessagesDependencies) -> None:
    """Pauses grow from a fifth of a second to three."""
    deps.messages.records["acme", "r1"] = a_delivery("r1")
    transport = InProcess()

    def end_after_ten_looks() -> None:
        if len(transport.waits) == 10:
            deps.messages.records["acme", "r1"] = a_delivery("r1", Status.SENT)

    transport.on_wait = end_after_ten_looks
    assert a_client(transport).wait("acme", "r1").status is Shown.SENT
    assert transport.waits == sorted(transport.waits)
    assert (transport.waits[0], transport.waits[1], transport.waits[-1]) == pytest.approx((0.2, 0.3, 3.0))


def test_wait_takes_its_whole_time(deps: MessagesDependencies) -> None:
    """The last pause is cut, so that a request that ends just before the timeout is seen."""
    deps.messages.records["acme", "r1"] = a_delivery("r1")
    transport = InProcess()
    transport.on_wait = lambda: deps.messages.records.update({("acme", "r1"): a_delivery("r1", Status.SENT)})
    assert a_client(transport).wait("acme", "r1", timeout=0.1).status is Shown.SENT
    assert transport.waits[0] <= 0.1


def test_wait_has_a_timeout(deps: MessagesDependencies) -> None:
    """A request that does not end in time raises a TimeoutError with its status."""
    deps.messages.records["acme", "r1"] = a_delivery("r1")
    with pytest.raises(TimeoutError, match="still queued"):
        a_client(InProcess()).wait("acme", "r1", timeout=0)


def test_a_list_is_read_page_by_page(deps: MessagesDependencies) -> None:
    """Pages are requested only as the caller iterates."""
    for number in range(250):
        deps.messages.records["acme", f"r{number}"] = a_delivery(f"r{number}")
    transport = InProcess()
    assert len({record.request_id for record in a_client(transport).list("acme")}) == 250
    assert len(transport.requests) == 3
    assert not list(a_client(transport).list("acme", status=Shown.SENT))


def test_cancel_preview_and_resolve_work(deps: MessagesDependencies) -> None:
    """They return the API's responses."""
    client = a_client(InProcess())
    client.send("acme", a_body("a:1"))
    assert client.cancel("acme", "a:1").status is Shown.CANCELLED
    assert client.preview("acme", a_body()).mime
    deps.messages.records["acme", "r2"] = a_delivery("r2", Status.UNKNOWN)
    resolved = client.resolve("acme", "r2", "sent", by="ops", why="found it", message_id="0100")
    assert (resolved.status, resolved.message_id) == (Status.SENT, "0100")


def test_an_uploaded_file_can_be_attached(deps: MessagesDependencies) -> None:
    """The attachment has key and version; the upload has exactly the signed headers, without the API's signature."""
    transport = InProcess()
    client = a_client(transport)
    attachment = client.upload_attachment("acme", "report.pdf", b"%PDF")
    upload = transport.requests[-1]
    assert (upload.method, upload.body, upload.headers["Content-Type"]) == ("PUT", b"%PDF", "application/pdf")
    assert "Authorization" not in upload.headers
    assert attachment["s3"]["versionId"] == "v1"
    deps.attachments.kept[attachment["s3"]["key"], "v1"] = b"%PDF"
    assert client.send("acme", a_body(message={"attachments": [attachment]})).status is Shown.QUEUED


@pytest.mark.usefixtures("deps")
def test_an_upload_may_have_another_type_than_its_name() -> None:
    """Upload and attachment have the given one."""
    transport = InProcess()
    attachment = a_client(transport).upload_attachment("acme", "report.pdf", b"log", content_type="text/plain")
    assert attachment["contentType"] == "text/plain"
    assert transport.requests[-1].headers["Content-Type"] == "text/plain"


@pytest.mark.usefixtures("deps")
def test_an_upload_is_retried() -> None:
    """S3 asks for that with a 503 or 500; the same file under the same key is the same attachment."""
    transport = InProcess()
    transport.upload_faults = [503, EndpointConnectionError(endpoint_url=URL)]
    assert a_client(transport).upload_attachment("acme", "report.pdf", b"%PDF")["s3"]["versionId"] == "v1"
    assert [request.method for request in transport.requests] == ["POST", "PUT", "PUT", "PUT"]


def test_an_empty_response_is_none() -> None:
    """DELETE …/provider returns such a response."""

    class Deleted(InProcess):
        def send(self, request: Any) -> Answer:
            self.requests.append(request)
            return Answer(204, b"")

    credentials = botocore.session.get_session()
    credentials.set_credentials("key", "secret")
    connection = Connection(url=URL, region="eu-west-1", credentials=credentials.get_credentials(), transport=Deleted())
    assert connection.call("DELETE", "/tenants/acme/provider") is None
