"""What becomes of a message that is handed to SES, over real sockets: accepted, refused, proven unsent, or nobody knows."""

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
    """Clients whose SES is that server."""
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
    """The server, as new: it accepts all."""
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
    """What SES calls the message is what the caller gets."""
    ses.react = lambda _: accepted("0100-abc")
    assert send() == Sent("0100-abc")


def test_the_request_names_sender_and_every_recipient_and_carries_the_bytes(ses: SesServer, clients: TenantClients) -> None:
    """The envelope alone decides delivery, so it is always given; the message arrives byte for byte."""
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


def test_tags_go_with_a_configuration_set_alone(ses: SesServer, clients: TenantClients) -> None:
    """SES publishes tags through a configuration set and refuses them without; without one they stay at home (see above)."""
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
def test_an_error_answer_is_proof_that_nothing_was_sent(ses: SesServer, send: Send, code: str, text: str, means: str) -> None:
    """Codes and texts come through botocore's parser to the table."""
    ses.react = lambda _: refused(code, text)
    outcome = send()
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means


# ── nobody knows ────────────────────────────────────────────────────────────────────────────────────────────────────────

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
def test_without_a_readable_answer_nobody_knows_and_nothing_is_sent_twice(ses: SesServer, send: Send, case: str) -> None:
    """SES got the whole request: whatever comes instead of a proper answer, it is one request and the outcome is open."""
    ses.react = lambda _: UNKNOWN[case]
    outcome = send()
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"
    assert len(ses.requests) == 1


def test_an_answer_that_breaks_off_in_a_chunk_leaves_it_open(ses: SesServer, send: Send) -> None:
    """A chunked answer whose end is missing is no answer."""
    broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n<SendRawEmailResponse"

    class Chunked(Answer):
        def encoded(self) -> bytes:
            return broken.encode()

    ses.react = lambda _: Chunked("", close=True)
    assert isinstance(send(), MaybeSent)
    assert len(ses.requests) == 1


# ── proven unsent ───────────────────────────────────────────────────────────────────────────────────────────────────────


def is_proven_unsent(outcome: Outcome) -> bool:
    return isinstance(outcome, NotSent) and outcome.error.code == "dependency_unavailable"


def test_a_refused_connection_is_proof() -> None:
    """Nobody listens: nothing can have been accepted."""
    with SesServer() as server:
        clients = opened(server)
    assert is_proven_unsent(tenants.ses(clients).send(tenants.mail(), tags={}))


def test_a_name_that_does_not_resolve_is_proof(clients: TenantClients, ses: SesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region without SES, or a broken resolver."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    ses.drop_connections()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(connections, "IDLE_LIMIT", -1)
    assert is_proven_unsent(tenants.ses(clients).send(tenants.mail(), tags={}))


def test_a_connection_that_is_never_accepted_is_proof() -> None:
    """Packets get lost: the connect timeout ends it before a byte of the request is written."""
    with SesServer() as full:
        clients = opened(full)
    with ExitStack() as stack:
        stack.enter_context(socket.create_server(("127.0.0.1", full.port), backlog=0))
        for _ in range(3):  # the kernel drops what comes when the backlog is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", full.port))
        assert is_proven_unsent(tenants.ses(clients).send(tenants.mail(), tags={}))


def test_a_connection_that_breaks_while_the_request_is_written_is_proof() -> None:
    """SES cannot accept what it has half of, however the connection ends."""
    with SesServer(lambda _: Reset(), swallow=100_000) as server:
        assert is_proven_unsent(tenants.ses(opened(server)).send(tenants.mail(b"x" * 8_000_000), tags={}))


def test_a_reused_connection_that_breaks_while_the_request_is_written_is_proof() -> None:
    """That an earlier request went through it makes no difference."""
    with SesServer(lambda _: replace(accepted(), swallow_next=100_000)) as server:
        provider = tenants.ses(opened(server))
        assert provider.send(tenants.mail(), tags={}) == Sent("id-1")
        assert is_proven_unsent(provider.send(tenants.mail(b"x" * 8_000_000), tags={}))
        assert server.connections == 1


def test_a_request_that_cannot_be_written_in_time_is_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side stops reading: the write times out with bytes left, after its own time and not the connection's."""
    monkeypatch.setattr(connections, "WRITE_TIMEOUT", 0.2)
    with SesServer(lambda _: Hang(), swallow=100_000) as server:
        clients = opened(server)
        began = monotonic()
        assert is_proven_unsent(tenants.ses(clients).send(tenants.mail(b"x" * 8_000_000), tags={}))
        assert 0.2 <= monotonic() - began < 5


# ── whose credentials ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_tenant_nothing_is_signed_or_sent_as_anyone(
    ses: SesServer, clients: TenantClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Outside `acting_as` a call fails, whatever credentials environment, profile, container and instance would offer."""
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


def test_a_thread_does_not_inherit_whom_it_acts_as(ses: SesServer, clients: TenantClients) -> None:
    """Who starts a thread must say in it whom it acts as."""
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
    """A role's keys: session-1, then session-2 …; or what STS answers instead of another one."""

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
    """An expired token is proof that nothing was sent: with a new session the same message is tried again."""
    ses.react = expired_for("ASIASESSION1")
    assert tenants.ses(clients, Sessions()).send(tenants.mail(), tags={}) == Sent("id-1")
    assert [request.access_key for request in ses.requests] == ["ASIASESSION1", "ASIASESSION2"]


def test_a_session_is_renewed_once(ses: SesServer, clients: TenantClients) -> None:
    """If SES takes a brand-new session for expired, the clocks differ: it waits, and blames no tenant."""
    ses.react = expired_for("ASIASESSION1", "ASIASESSION2")
    assert is_proven_unsent(tenants.ses(clients, Sessions()).send(tenants.mail(), tags={}))
    assert len(ses.requests) == 2


def test_a_session_that_cannot_be_renewed_defers(ses: SesServer, clients: TenantClients) -> None:
    """STS is out of reach after the first try: proven unsent, tried later."""
    ses.react = expired_for("ASIASESSION1")
    keys = Sessions(DependencyError("STS", "AssumeRole"))
    assert is_proven_unsent(tenants.ses(clients, keys).send(tenants.mail(), tags={}))


def test_an_access_key_is_not_tried_again(ses: SesServer, send: Send) -> None:
    """There is no other key to try with."""
    ses.react = expired_for(tenants.ACCESS_KEY_ID)
    assert is_proven_unsent(send())
    assert len(ses.requests) == 1


# ── what nobody may read ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "reaction", [accepted(), refused("MessageRejected", "jo@customer.example is on our list"), Reset()], ids=["sent", "refused", "lost"]
)
def test_no_log_holds_secret_recipient_or_body(
    ses: SesServer, clients: TenantClients, caplog: pytest.LogCaptureFixture, reaction: Reaction
) -> None:
    """Every logger of the process at DEBUG, in good times and bad."""
    ses.react = lambda _: reaction
    provider, body = tenants.ses(clients), b"canary-body"
    with caplog.at_level("DEBUG"):
        outcome = provider.send(tenants.mail(body), tags={})
    written = f"{caplog.text} {outcome!r} {provider!r}"
    assert "botocore" in written
    for canary in (tenants.SECRET, "jo@customer", "jo%40customer", "canary-body", b64encode(body).decode().rstrip("=")):
        assert canary not in written
