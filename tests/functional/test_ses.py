"""The outcome of a message handed to SES, over real sockets: accepted, refused, proven not sent, or unknown."""

import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from botocore.credentials import ReadOnlyCredentials

from mailer.adapters.botocore_patches import connections
from mailer.adapters.providers.acting import NotActingError, TenantClients, acting_as
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import DependencyError
from mailer.domain.tags import tagged
from support import tenants
from support.servers.ses_server import ACCEPTED, Answer, Close, Hang, Reaction, Request, Reset, SesServer, accepted, refused

Send = Callable[[], Outcome]


def opened(server: SesServer) -> TenantClients:
    """Return clients that call this server as SES."""
    clients = TenantClients(width=4, connect_timeout=2.0, read_timeout=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_SES", server.url)
        clients.ses(tenants.REGION)
    return clients


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[SesServer, TenantClients]]:
    with SesServer() as server:
        yield server, opened(server)


@pytest.fixture
def ses(shared: tuple[SesServer, TenantClients]) -> SesServer:
    """Reset the server: it accepts everything."""
    server = shared[0]
    server.react = lambda _: accepted()
    server.requests.clear()
    return server


@pytest.fixture
def clients(shared: tuple[SesServer, TenantClients]) -> TenantClients:
    return shared[1]


@pytest.fixture
def send(clients: TenantClients) -> Send:
    provider = tenants.ses(clients)
    return lambda: provider.send(tenants.mail(), tags={})


# ── accepted ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_send_returns_the_message_id(ses: SesServer, send: Send) -> None:
    """SES's MessageId is returned."""
    ses.react = lambda _: accepted("0100-abc")
    assert send() == Sent("0100-abc")


def test_the_request_has_the_envelope_and_the_message(ses: SesServer, clients: TenantClients) -> None:
    """The envelope decides delivery, so it is always given; the message arrives byte for byte."""
    mime = b"Subject: \xff\r\n\r\n" + bytes(range(256)) * 500
    sent = tenants.ses(clients).send(tenants.mail(mime, recipients=("jo@customer.example", "ann+x@customer.example")), tags={"a": "b"})
    [request] = ses.requests
    fields = dict(request.fields)
    assert sent == Sent("id-1")
    assert request.mime == mime
    del fields["RawMessage.Data"]
    assert fields == {
        "Action": "SendRawEmail",
        "Version": "2010-12-01",
        "Source": tenants.FROM,
        "Destinations.member.1": "jo@customer.example",
        "Destinations.member.2": "ann+x@customer.example",
    }


def test_tags_are_sent_only_with_a_configuration_set(ses: SesServer, clients: TenantClients) -> None:
    """SES publishes tags through a configuration set and refuses them without one."""
    tags = tagged({"campaign": "spring"}, tenant_id="acme", request_id="r.1", attempt=2)
    tenants.ses(clients, configuration_set="marketing").send(tenants.mail(), tags=tags)
    fields = ses.requests[0].fields
    assert fields["ConfigurationSetName"] == "marketing"
    sent = {fields[f"Tags.member.{n}.Name"]: fields[f"Tags.member.{n}.Value"] for n in range(1, 5)}
    assert sent == {"campaign": "spring", "tenantmail-tenant": "acme", "tenantmail-request": "r_d1", "tenantmail-attempt": "2"}


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "text", "means"),
    [
        ("InvalidClientTokenId", "The security token included in the request is invalid.", "credentials_invalid"),
        ("MessageRejected", f"Email address is not verified. … failed the check in region X: {tenants.FROM}", "from_address_not_verified"),
        (
            "MessageRejected",
            "Email address is not verified. … failed the check in region X: jo@customer.example",
            "sandbox_recipient_not_verified",
        ),
        ("BrandNewError", "…", "unclassified"),
    ],
)
def test_an_error_response_proves_that_nothing_was_sent(ses: SesServer, send: Send, code: str, text: str, means: str) -> None:
    """Codes and texts pass through botocore's parser to the error table."""
    ses.react = lambda _: refused(code, text)
    outcome = send()
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means


# ── unknown ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN: dict[str, Reaction] = {
    "hang": Hang(),
    "reset": Reset(),
    "close": Close(),
    "no HTTP": Answer("", status=0),
    "truncated answer": Answer(ACCEPTED[:60], length=len(ACCEPTED), close=True),
    "garbage": Answer("\x00\x01 not xml"),
    "empty": Answer(""),
    "another document": Answer("<html><body>OK</body></html>"),
    "no MessageId": Answer(ACCEPTED.replace("<MessageId>{id}</MessageId>", "")),
    "empty MessageId": accepted(""),
    "redirect": Answer("", status=307),
    "unreadable error": Answer("<oops", status=400),
    "500": refused("InternalFailure", status=500),
    "503": Answer("no xml at all", status=503),
    "throttling as 503": refused("Throttling", status=503),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_without_a_readable_response_the_outcome_is_unknown(ses: SesServer, send: Send, case: str) -> None:
    """SES got the whole request: without a valid response the outcome is unknown, and the request is not repeated."""
    ses.react = lambda _: UNKNOWN[case]
    outcome = send()
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"
    assert len(ses.requests) == 1


def test_a_truncated_chunked_response_is_unknown(ses: SesServer, send: Send) -> None:
    """A chunked response without its end is no response."""
    broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n<SendRawEmailResponse"

    class Chunked(Answer):
        def encoded(self) -> bytes:
            return broken.encode()

    ses.react = lambda _: Chunked("", close=True)
    assert isinstance(send(), MaybeSent)
    assert len(ses.requests) == 1


# ── proven not sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


def is_proven_not_sent(outcome: Outcome) -> bool:
    return isinstance(outcome, NotSent) and outcome.error.code == "dependency_unavailable"


def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    """Without a listener nothing can have been accepted."""
    with SesServer() as server:
        clients = opened(server)
    assert is_proven_not_sent(tenants.ses(clients).send(tenants.mail(), tags={}))


def test_an_unresolved_name_proves_that_nothing_was_sent(clients: TenantClients, ses: SesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a region without SES, or with a broken resolver."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    ses.drop_connections()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(connections, "IDLE_LIMIT", -1)
    assert is_proven_not_sent(tenants.ses(clients).send(tenants.mail(), tags={}))


def test_a_connect_timeout_proves_that_nothing_was_sent() -> None:
    """It ends the call before a byte of the request is written."""
    with SesServer() as full:
        clients = opened(full)
    with ExitStack() as stack:
        stack.enter_context(socket.create_server(("127.0.0.1", full.port), backlog=0))
        for _ in range(3):  # with a full backlog the kernel drops further connections
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", full.port))
        assert is_proven_not_sent(tenants.ses(clients).send(tenants.mail(), tags={}))


def test_a_connection_lost_during_the_request_proves_that_nothing_was_sent() -> None:
    """SES cannot accept half a request, however the connection ends."""
    with SesServer(lambda _: Reset(), swallow=100_000) as server:
        assert is_proven_not_sent(tenants.ses(opened(server)).send(tenants.mail(b"x" * 8_000_000), tags={}))


def test_a_reused_connection_lost_during_the_request_proves_that_nothing_was_sent() -> None:
    """An earlier request on the same connection makes no difference."""
    with SesServer(lambda _: replace(accepted(), swallow_next=100_000)) as server:
        provider = tenants.ses(opened(server))
        assert provider.send(tenants.mail(), tags={}) == Sent("id-1")
        assert is_proven_not_sent(provider.send(tenants.mail(b"x" * 8_000_000), tags={}))
        assert server.connections == 1


def test_a_write_timeout_proves_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side stops reading: the write times out with bytes left, after the write timeout and not the read timeout."""
    monkeypatch.setattr(connections, "WRITE_TIMEOUT", 0.2)
    with SesServer(lambda _: Hang(), swallow=100_000) as server:
        clients = opened(server)
        began = monotonic()
        assert is_proven_not_sent(tenants.ses(clients).send(tenants.mail(b"x" * 8_000_000), tags={}))
        assert 0.2 <= monotonic() - began < 5


# ── credentials ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_tenant_nothing_is_signed_or_sent(
    ses: SesServer, clients: TenantClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Outside `acting_as` a call fails, whatever credentials environment, profile, container and instance offer."""
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = AKIAPROFILE000000000\naws_secret_access_key = x\n")
    with SesServer() as metadata:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT00000")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata.url)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        with pytest.raises(NotActingError):
            clients.ses(tenants.REGION).send_raw_email(Source="a@x.example", RawMessage={"Data": b"x"})
        assert (metadata.connections, ses.requests) == (0, [])


def test_a_new_thread_does_not_inherit_the_credentials(ses: SesServer, clients: TenantClients) -> None:
    """A thread must call `acting_as` itself."""
    refusals: list[Exception] = []

    def call() -> None:
        try:
            clients.ses(tenants.REGION).get_send_quota()
        except NotActingError as refusal:
            refusals.append(refusal)

    with acting_as(ReadOnlyCredentials("AKIA", "x", None)):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert len(refusals) == 1
    assert ses.requests == []


class Sessions:
    """A role's sessions: session-1, then session-2 …; or an error of STS instead of the next one."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.number, self.failure = 1, failure

    def current(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(f"ASIASESSION{self.number}", "x", "token")

    def renewed(self, expired: ReadOnlyCredentials) -> ReadOnlyCredentials:
        assert expired == self.current()
        if self.failure:
            raise self.failure
        self.number += 1
        return self.current()


def expired_for(*keys: str) -> Callable[[Request], Reaction]:
    return lambda request: refused("ExpiredToken") if request.access_key in keys else accepted()


def test_an_expired_session_is_renewed_and_the_message_goes_out(ses: SesServer, clients: TenantClients) -> None:
    """An expired token proves that nothing was sent: the message is retried with a new session."""
    ses.react = expired_for("ASIASESSION1")
    assert tenants.ses(clients, Sessions()).send(tenants.mail(), tags={}) == Sent("id-1")
    assert [request.access_key for request in ses.requests] == ["ASIASESSION1", "ASIASESSION2"]


def test_a_session_is_renewed_only_once(ses: SesServer, clients: TenantClients) -> None:
    """If SES reports a new session as expired, the clocks differ: the mail waits, and no tenant is blamed."""
    ses.react = expired_for("ASIASESSION1", "ASIASESSION2")
    assert is_proven_not_sent(tenants.ses(clients, Sessions()).send(tenants.mail(), tags={}))
    assert len(ses.requests) == 2


def test_a_session_that_cannot_be_renewed_defers(ses: SesServer, clients: TenantClients) -> None:
    """STS is unavailable after the first try: proven not sent, retried later."""
    ses.react = expired_for("ASIASESSION1")
    keys = Sessions(DependencyError("STS", "AssumeRole"))
    assert is_proven_not_sent(tenants.ses(clients, keys).send(tenants.mail(), tags={}))


def test_an_expired_access_key_is_not_retried(ses: SesServer, send: Send) -> None:
    """There is no other key."""
    ses.react = expired_for(tenants.ACCESS_KEY_ID)
    assert is_proven_not_sent(send())
    assert len(ses.requests) == 1


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "reaction", [accepted(), refused("MessageRejected", "jo@customer.example is on our list"), Reset()], ids=["sent", "refused", "lost"]
)
def test_no_log_contains_secret_recipient_or_body(
    ses: SesServer, clients: TenantClients, caplog: pytest.LogCaptureFixture, reaction: Reaction
) -> None:
    """With every logger of the process at DEBUG, on success and failure."""
    ses.react = lambda _: reaction
    provider, body = tenants.ses(clients), b"canary-body"
    with caplog.at_level("DEBUG"):
        outcome = provider.send(tenants.mail(body), tags={})
    written = f"{caplog.text} {outcome!r} {provider!r}"
    assert "botocore" in written
    for canary in (tenants.SECRET, "jo@customer", "jo%40customer", "canary-body", b64encode(body).decode().rstrip("=")):
        assert canary not in written
