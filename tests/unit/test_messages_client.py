"""The client: what it calls, what it repeats, and what it makes of the answers. The API behind it is the real handler over fakes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.exceptions import EndpointConnectionError

from mailer.domain.delivery import Status
from mailer.domain.errors import ErrorInfo
from mailer.handlers import messages
from mailer.handlers.rest.problem import problem_document
from mailer.services.api.messages import MessagesDependencies
from mailer_client import ApiError, MailClient
from mailer_client import Status as Shown
from mailer_client.connection import ATTEMPTS, Connection
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
    """Carries requests to the handler; `faults` are met first, one a request: a status, or an exception."""

    def __init__(self, *faults: int | Exception) -> None:
        self.gateway = Gateway(messages.handler)
        self.faults = list(faults)
        self.requests: list[Any] = []
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def send(self, request: Any) -> Answer:
        self.requests.append(request)
        url = urlsplit(request.url)
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
    """By SigV4, for API Gateway in the API's region."""
    wire = InProcess()
    assert a_client(wire).send("acme", a_body("r1")).status is Shown.QUEUED
    [request] = wire.requests
    assert request.url == f"{URL}/tenants/acme/messages"
    authorization = str(request.headers["Authorization"])
    assert "Credential=AKIACALLER/" in authorization
    assert "/eu-central-1/execute-api/aws4_request" in authorization


def test_a_retry_sends_nothing_twice(deps: MessagesDependencies) -> None:
    """The id is made before the first try, so that the tries are one request."""
    wire = InProcess(503, EndpointConnectionError(endpoint_url=URL), 429)
    record = a_client(wire).send("acme", a_body(None))
    ids = {json.loads(request.body)["requestId"] for request in wire.requests}
    assert ids == {record.request_id}
    assert len(wire.requests) == 4
    assert len(deps.queue.messages) == 1


@pytest.mark.usefixtures("deps")
def test_waits_grow_and_obey_retry_after() -> None:
    """At least what the API asks for, below a bound that doubles, and at random."""
    wire = InProcess(429, 503, 503, 503)
    a_client(wire).send("acme", a_body())
    assert wire.waits[0] >= 1.0
    assert all(wait <= bound for wait, bound in zip(wire.waits, [1.5, 1.0, 2.0, 4.0], strict=True))


@pytest.mark.usefixtures("deps")
def test_an_api_that_keeps_failing_is_given_up() -> None:
    """The last answer is what the caller gets to see."""
    wire = InProcess(*[503] * 10)
    with pytest.raises(ApiError) as error:
        a_client(wire).get("acme", "r1")
    assert (error.value.status, error.value.code) == (503, "dependency_unavailable")
    assert len(wire.requests) == ATTEMPTS


@pytest.mark.usefixtures("deps")
def test_a_refusal_is_not_repeated() -> None:
    """A fault of the caller does not pass by itself."""
    wire = InProcess()
    with pytest.raises(ApiError) as error:
        a_client(wire).send("acme", {"message": {}})
    assert error.value.code == "invalid_request"
    assert error.value.problem is not None
    assert "message.subject" in [fault.path for fault in error.value.problem.errors]
    assert len(wire.requests) == 1


def test_an_answer_that_is_not_the_api_s_is_an_error_too() -> None:
    """A proxy in between may answer anything."""
    wire = InProcess()
    wire.send = lambda _: Answer(403, b"<html>")  # type: ignore[method-assign]  # a stranger's answer
    with pytest.raises(ApiError) as error:
        a_client(wire).get("acme", "r1")
    assert (error.value.status, error.value.code) == (403, None)


def test_a_newer_api_may_answer_more() -> None:
    """Fields that this client does not know are passed over."""
    wire = InProcess()
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
    wire.send = lambda _: Answer(200, answer)  # type: ignore[method-assign]  # an API of next year
    assert a_client(wire).get("acme", "r1").message_id == "0100"


@pytest.mark.usefixtures("deps")
def test_a_batch_gives_one_answer_for_each() -> None:
    """In their order, each with its record or its problem."""
    good, bad = a_client(InProcess()).send_batch("acme", [a_body("r1"), {"message": {}}])
    assert good.record is not None
    assert (good.status, good.record.request_id) == (202, "r1")
    assert bad.problem is not None
    assert (bad.status, bad.problem.code) == (400, "invalid_request")


def test_waiting_ends_with_the_request(deps: MessagesDependencies) -> None:
    """The record is looked at until it has ended."""
    wire = InProcess()
    client = a_client(wire)
    client.send("acme", a_body("r1"))

    def send() -> None:
        deps.messages.records["acme", "r1"] = replace(deps.messages.records["acme", "r1"], status=Status.SENT, message_id="0100")

    wire.on_wait = send
    assert client.wait("acme", "r1").message_id == "0100"
    assert len(wire.waits) == 1


def test_waiting_goes_on_for_an_unknown_that_is_sent_again(deps: MessagesDependencies) -> None:
    """Its record names the time; an unknown that is held is an end."""
    lost = a_delivery("r1", Status.UNKNOWN, on_unknown="resend", deadline=NOON, error=ErrorInfo("outcome_unknown", "lost"))
    becoming = [replace(lost, status=Status.SENT), lost, lost]
    deps.messages.records["acme", "r1"] = lost  # type: ignore[attr-defined]  # the fake's
    wire = InProcess()
    client = a_client(wire)
    shown = client.get("acme", "r1")
    assert (shown.on_unknown, shown.due_at, shown.ended) == ("resend", NOON + timedelta(seconds=120), False)
    assert shown.error is not None
    assert shown.error.hint.startswith("Nobody:")
    assert [record.due_at for record in client.list("acme")] == [shown.due_at]
    wire.on_wait = lambda: deps.messages.records.update({("acme", "r1"): becoming.pop()})  # type: ignore[attr-defined]
    assert client.wait("acme", "r1").status is Shown.SENT
    deps.messages.records["acme", "r1"] = replace(lost, on_unknown="hold")  # type: ignore[attr-defined]
    held = client.wait("acme", "r1", timeout=0)
    assert (held.status, held.on_unknown, held.due_at) == (Status.UNKNOWN, "hold", None)


@pytest.mark.usefixtures("deps")
def test_every_record_says_what_becomes_of_an_unknown() -> None:
    """As its caller chose, or by default."""
    client = a_client(InProcess())
    assert client.send("acme", a_body("r1")).on_unknown == "hold"
    assert client.send("acme", a_body("r2", onUnknown="resend")).on_unknown == "resend"


def test_waiting_has_an_end(deps: MessagesDependencies) -> None:
    """A request that does not end in time is a TimeoutError that says where it stands."""
    deps.messages.records["acme", "r1"] = a_delivery("r1")
    with pytest.raises(TimeoutError, match="still queued"):
        a_client(InProcess()).wait("acme", "r1", timeout=0)


def test_a_list_is_read_to_its_end(deps: MessagesDependencies) -> None:
    """Page by page, as far as the caller takes them."""
    for number in range(250):
        deps.messages.records["acme", f"r{number}"] = a_delivery(f"r{number}")
    wire = InProcess()
    assert len({record.request_id for record in a_client(wire).list("acme")}) == 250
    assert len(wire.requests) == 3
    assert not list(a_client(wire).list("acme", status=Shown.SENT))


def test_the_other_calls_are_there_too(deps: MessagesDependencies) -> None:
    """Cancel, preview and resolve answer what the API does."""
    client = a_client(InProcess())
    client.send("acme", a_body("a:1"))
    assert client.cancel("acme", "a:1").status is Shown.CANCELLED
    assert client.preview("acme", a_body()).mime
    deps.messages.records["acme", "r2"] = a_delivery("r2", Status.UNKNOWN)
    resolved = client.resolve("acme", "r2", "sent", by="ops", why="found it", message_id="0100")
    assert (resolved.status, resolved.message_id) == (Status.SENT, "0100")


def test_an_uploaded_file_is_ready_to_be_attached(deps: MessagesDependencies) -> None:
    """The attachment names key and version; the upload has just the headers that were signed, and no signature of the API's."""
    wire = InProcess()
    client = a_client(wire)
    attachment = client.upload_attachment("acme", "report.pdf", b"%PDF")
    upload = wire.requests[-1]
    assert (upload.method, upload.body, upload.headers["Content-Type"]) == ("PUT", b"%PDF", "application/pdf")
    assert "Authorization" not in upload.headers
    assert attachment["s3"]["versionId"] == "v1"
    deps.attachments.kept[attachment["s3"]["key"], "v1"] = b"%PDF"
    assert client.send("acme", a_body(message={"attachments": [attachment]})).status is Shown.QUEUED


def test_an_answer_without_a_body_is_none() -> None:
    """As that to DELETE …/provider."""

    class Deleted(InProcess):
        def send(self, request: Any) -> Answer:
            self.requests.append(request)
            return Answer(204, b"")

    credentials = botocore.session.get_session()
    credentials.set_credentials("key", "secret")
    connection = Connection(url=URL, region="eu-west-1", credentials=credentials.get_credentials(), transport=Deleted())
    assert connection.call("DELETE", "/tenants/acme/provider") is None
