"""The SMTP provider against a real SMTP server on loopback: the delivered mail, the meaning of each refusal, refused addresses."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from mailer.adapters.providers.smtp import SmtpProvider
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from mailer.domain.mime import Sender
from mailer.domain.provider import SmtpConfig
from support import tenants
from support.servers import certificates
from tools.local_aws.proxy import reserve_port

USER, PASSWORD = "jo", "canary-password"


class Inbox:
    """Accepts every mail, except for replies set for a command."""

    def __init__(self, **replies: str) -> None:
        self.replies = replies
        self.received: list[Envelope] = []

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: ARG002, N802  # aiosmtpd's names
        envelope.mail_from = address
        return self.replies.get("mail", "250 OK")

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: ARG002, N802
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802
        if self.replies.get("data") == "drop":
            server.transport.abort()
            return "250 never heard"
        if self.replies.get("data") == "hang":
            await asyncio.sleep(3600)
        self.received.append(envelope)
        return self.replies.get("data", "250 2.0.0 Ok: queued as 7XyZ-1")


class Logins(list[bool]):
    """Whether each login succeeded."""

    def __call__(self, _: object, __: object, ___: object, ____: object, login: LoginPassword) -> AuthResult:
        self.append((login.login, login.password) == (USER.encode(), PASSWORD.encode()))
        return AuthResult(success=self[-1], handled=False)


@contextmanager
def serving(inbox: Inbox, **options: Any) -> Iterator[int]:
    """Serve the inbox on a free port."""
    with reserve_port() as held:
        port: int = held.getsockname()[1]
        controller = Controller(inbox, hostname="127.0.0.1", port=port, ready_timeout=30, **options)
        controller.start()
        try:
            yield port
        finally:
            controller.stop()


def provider(port: int, **config: Any) -> SmtpProvider:
    return SmtpProvider(sender=Sender(tenants.FROM, "Acme"), config=tenants.smtp(port=port, **{"host": "127.0.0.1"} | config), timeout=3.0)


def send(
    port: int, mime: bytes = b"Subject: hi\r\n\r\nhello\r\n", recipients: tuple[str, ...] = ("jo@y.example",), **config: Any
) -> Outcome:
    return provider(port, **config).send(tenants.mail(mime, recipients=recipients), tags={"ignored": "here"})


def code(outcome: Outcome) -> str:
    return outcome.message_id if isinstance(outcome, Sent) else outcome.error.code


def test_the_message_arrives_as_it_is() -> None:
    """Envelope and bytes, also lines that begin with a dot; the server's queue id is the message id."""
    inbox, mime = Inbox(), b"Subject: hi\r\n\r\n.\r\n.a dot\r\n..\r\nend"
    with serving(inbox) as port:
        outcome = send(port, mime, ("jo@y.example", "ann@y.example"))
    [envelope] = inbox.received
    assert outcome == Sent("7XyZ-1")
    assert (envelope.mail_from, envelope.rcpt_tos) == (tenants.FROM, ["jo@y.example", "ann@y.example"])
    assert rest_of(envelope) == mime + b"\r\n"


def test_every_message_has_its_own_message_id() -> None:
    """SES would add one; it is the message id if the server returns no queue id."""
    inbox = Inbox(data="250 fine")
    with serving(inbox) as port:
        outcomes = [send(port), send(port)]
    written = [message_from_bytes(content(envelope), policy=default)["Message-ID"] for envelope in inbox.received]
    assert outcomes == [Sent(message_id.strip("<>")) for message_id in written]
    assert len(set(written)) == 2
    assert all(message_id.endswith("@acme.example>") for message_id in written)


def content(envelope: Envelope) -> bytes:
    assert isinstance(envelope.original_content, bytes)
    return envelope.original_content


def rest_of(envelope: Envelope) -> bytes:
    """Return the content after the Message-ID."""
    return content(envelope).partition(b"\r\n")[2]


# ── TLS and login ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a certificate that the system trusts."""
    pem = certificates.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    return pem


@pytest.fixture
def starttls(pem: Path) -> dict[str, Any]:
    return {"tls_context": certificates.server_context(pem), "require_starttls": True}


@pytest.fixture
def implicit(pem: Path) -> dict[str, Any]:
    return {"ssl_context": certificates.server_context(pem)}


def test_starttls_and_login(starttls: dict[str, Any]) -> None:
    """The login is sent only through the encrypted connection."""
    logins = Logins()
    with serving(Inbox(), **starttls, authenticator=logins, auth_required=True) as port:
        assert isinstance(send(port, host="localhost", tls="starttls", username=USER, password=PASSWORD), Sent)
    assert logins == [True]


def test_implicit_tls_and_login(implicit: dict[str, Any]) -> None:
    """TLS from the first byte, as on port 465."""
    logins = Logins()
    with serving(Inbox(), **implicit, authenticator=logins, auth_require_tls=False) as port:  # it does not detect its own TLS
        assert isinstance(send(port, host="localhost", tls="implicit", username=USER, password=PASSWORD), Sent)
    assert logins == [True]


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_certificate_for_another_name_is_refused(mode: str, request: pytest.FixtureRequest) -> None:
    """The certificate is checked against the host's name, although the connection uses its address; nothing is sent."""
    inbox = Inbox()
    with serving(inbox, **request.getfixturevalue(mode)) as port:
        assert code(send(port, host="127.0.0.1", tls=mode)) == "dependency_unavailable"
    assert inbox.received == []


def test_a_server_without_starttls_gets_nothing() -> None:
    """There is no fallback to clear text."""
    inbox = Inbox()
    with serving(inbox) as port:
        assert code(send(port, tls="starttls")) == "dependency_unavailable"
    assert inbox.received == []


def test_a_refused_login_is_the_tenant_s_fault(starttls: dict[str, Any]) -> None:
    """With a wrong password the config is at fault; no text contains the password."""
    with serving(Inbox(), **starttls, authenticator=Logins(), auth_required=True) as port:
        outcome = send(port, host="localhost", tls="starttls", username=USER, password="canary-wrong")
    assert code(outcome) == "credentials_invalid"
    assert "canary" not in repr(outcome)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("replies", "means"),
    [
        ({"mail": "550 no"}, "from_address_not_verified"),
        ({"mail": "451 later"}, "dependency_unavailable"),
        ({"bad@y.example": "550 unknown"}, "recipient_rejected"),
        ({"bad@y.example": "450 greylisted"}, "dependency_unavailable"),
        ({"data": "554 spam"}, "invalid_request"),
        ({"data": "452 full"}, "dependency_unavailable"),
    ],
)
def test_a_refusal_proves_that_nothing_was_sent(replies: dict[str, str], means: str) -> None:
    """4xx is retried, 5xx is not; one refused recipient refuses the whole message."""
    inbox = Inbox(**replies)
    with serving(inbox) as port:
        outcome = send(port, recipients=("jo@y.example", "bad@y.example"))
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means
    assert "y.example" not in f"{outcome!r}"
    assert "data" in replies or inbox.received == []


def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    """The mail is retried later."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert code(send(port)) == "dependency_unavailable"


@pytest.mark.parametrize("ending", ["drop", "hang"])
def test_a_timeout_after_the_message_is_unknown(ending: str) -> None:
    """The server had the whole message and may have accepted it."""
    with serving(Inbox(data=ending)) as port:
        outcome = send(port)
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"


# ── refused addresses ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Set the resolver's responses, and record the addresses of connections."""

    def resolve_to(*answers: list[str]) -> list[str]:
        looked_up = iter(answers)
        tried: list[str] = []

        def getaddrinfo(*_: object, **__: object) -> list[tuple[Any, ...]]:
            return [(0, 0, 0, "", (address, 25)) for address in next(looked_up)]

        def connect(address: tuple[str, int], *_: object) -> None:
            tried.append(address[0])
            raise ConnectionRefusedError

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(socket, "create_connection", connect)
        return tried

    return resolve_to


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:0:0:0:0:5601:5601",  # Teredo of 169.254.169.254
        "0.0.0.0",  # noqa: S104  # refused, not bound to
        "::",
        "224.0.0.1",
        "ff02::1",
    ],
)
@pytest.mark.parametrize("tls", ["none", "implicit"])
def test_metadata_and_link_local_addresses_are_refused(resolve: Callable[..., list[str]], address: str, tls: str) -> None:
    """In every notation, and also if only one of a name's addresses is one."""
    tried = resolve(["192.0.2.1", address])
    outcome = send(25, host="mail.example", tls=tls)
    assert code(outcome) == "provider_not_active"
    assert tried == []


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.1", "10.0.0.5", "::1", "2001:db8::1", "fd12::1"])
def test_other_addresses_are_allowed(resolve: Callable[..., list[str]], address: str) -> None:
    """A development stack's server may have any other address."""
    tried = resolve([address])
    assert code(send(25, host="mail.example")) == "dependency_unavailable"
    assert tried == [address]


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_name_is_resolved_once(resolve: Callable[..., list[str]], tls: str) -> None:
    """The checked address is the one that is connected to, so DNS rebinding has no effect."""
    tried = resolve(["192.0.2.1"], ["169.254.169.254"])
    send(25, host="rebinding.example", tls=tls)
    assert tried == ["192.0.2.1"]


def test_numeric_notations_of_such_addresses_are_refused_too() -> None:
    """inet_aton's notations of 169.254.169.254 are resolved like names."""
    for host in ("2852039166", "0xa9fea9fe", "169.16689662"):
        config = SmtpConfig.model_construct(**{**tenants.smtp().__dict__, "host": host})
        outcome = SmtpProvider(sender=Sender(tenants.FROM, ""), config=config, timeout=0.2).send(tenants.mail(), tags={})
        assert code(outcome) == "provider_not_active"


def test_every_smtp_error_has_a_hint() -> None:
    """It says who must act."""
    with serving(Inbox(mail="451 later")) as port:
        outcome = send(port)
    assert isinstance(outcome, NotSent)
    assert outcome.error.hint.startswith("Tenant:")
