"""The SMTP provider against a real SMTP server on loopback: what arrives, what each refusal means, and where it never connects."""

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
    """Takes every mail, unless told to reply otherwise to a command."""

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
    """Whether each login was let in."""

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
    """Envelope and bytes, lines that begin with a dot included; the server's queue id is the message id."""
    inbox, mime = Inbox(), b"Subject: hi\r\n\r\n.\r\n.a dot\r\n..\r\nend"
    with serving(inbox) as port:
        outcome = send(port, mime, ("jo@y.example", "ann@y.example"))
    [envelope] = inbox.received
    assert outcome == Sent("7XyZ-1")
    assert (envelope.mail_from, envelope.rcpt_tos) == (tenants.FROM, ["jo@y.example", "ann@y.example"])
    assert rest_of(envelope) == mime + b"\r\n"


def test_every_message_has_a_message_id_of_its_own() -> None:
    """SES would write it; it is the message id where the server names no queue id."""
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
    """What was sent behind the Message-ID."""
    return content(envelope).partition(b"\r\n")[2]


# ── TLS and login ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate that the system trusts."""
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
    """The login goes through the encrypted connection alone."""
    logins = Logins()
    with serving(Inbox(), **starttls, authenticator=logins, auth_required=True) as port:
        assert isinstance(send(port, host="localhost", tls="starttls", username=USER, password=PASSWORD), Sent)
    assert logins == [True]


def test_implicit_tls_and_login(implicit: dict[str, Any]) -> None:
    """TLS from the first byte, as on port 465."""
    logins = Logins()
    with serving(Inbox(), **implicit, authenticator=logins, auth_require_tls=False) as port:  # it does not see that it has TLS
        assert isinstance(send(port, host="localhost", tls="implicit", username=USER, password=PASSWORD), Sent)
    assert logins == [True]


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_certificate_for_another_name_ends_it(mode: str, request: pytest.FixtureRequest) -> None:
    """The certificate is checked against the host's name, though the connection goes to its address; nothing was sent."""
    inbox = Inbox()
    with serving(inbox, **request.getfixturevalue(mode)) as port:
        assert code(send(port, host="127.0.0.1", tls=mode)) == "dependency_unavailable"
    assert inbox.received == []


def test_a_server_without_starttls_gets_nothing() -> None:
    """No fallback to clear text."""
    inbox = Inbox()
    with serving(inbox) as port:
        assert code(send(port, tls="starttls")) == "dependency_unavailable"
    assert inbox.received == []


def test_a_refused_login_is_the_tenants_matter(starttls: dict[str, Any]) -> None:
    """A wrong password: the config is at fault, and the password is in no text."""
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
def test_a_refusal_is_proof_and_goes_for_the_whole_message(replies: dict[str, str], means: str) -> None:
    """4xx passes by itself, 5xx does not; one recipient that is refused keeps the message from all."""
    inbox = Inbox(**replies)
    with serving(inbox) as port:
        outcome = send(port, recipients=("jo@y.example", "bad@y.example"))
    assert isinstance(outcome, NotSent)
    assert outcome.error.code == means
    assert "y.example" not in f"{outcome!r}"
    assert "data" in replies or inbox.received == []


def test_nobody_listening_is_proof() -> None:
    """Tried later."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert code(send(port)) == "dependency_unavailable"


@pytest.mark.parametrize("ending", ["drop", "hang"])
def test_silence_after_the_message_leaves_it_open(ending: str) -> None:
    """The server had all of it: whether it took it nobody knows."""
    with serving(Inbox(data=ending)) as port:
        outcome = send(port)
    assert isinstance(outcome, MaybeSent)
    assert outcome.error.code == "outcome_unknown"


# ── where it never connects ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let names resolve as told, and record where a connection would have gone."""

    def told(*answers: list[str]) -> list[str]:
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

    return told


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
def test_metadata_and_link_local_addresses_are_never_connected_to(resolve: Callable[..., list[str]], address: str, tls: str) -> None:
    """However a name spells them, and also when only one of its addresses is such."""
    tried = resolve(["192.0.2.1", address])
    outcome = send(25, host="mail.example", tls=tls)
    assert code(outcome) == "provider_not_active"
    assert tried == []


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.1", "10.0.0.5", "::1", "2001:db8::1", "fd12::1"])
def test_other_addresses_are(resolve: Callable[..., list[str]], address: str) -> None:
    """A development stack's server may stand anywhere else."""
    tried = resolve([address])
    assert code(send(25, host="mail.example")) == "dependency_unavailable"
    assert tried == [address]


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_name_is_looked_up_once(resolve: Callable[..., list[str]], tls: str) -> None:
    """What was found harmless is what is connected to: a second answer, a rebinding, is never asked for."""
    tried = resolve(["192.0.2.1"], ["169.254.169.254"])
    send(25, host="rebinding.example", tls=tls)
    assert tried == ["192.0.2.1"]


def test_a_number_that_spells_such_an_address_is_refused_too() -> None:
    """inet_aton's forms of 169.254.169.254 go through the resolver like names."""
    for host in ("2852039166", "0xa9fea9fe", "169.16689662"):
        config = SmtpConfig.model_construct(**{**tenants.smtp().__dict__, "host": host})
        outcome = SmtpProvider(sender=Sender(tenants.FROM, ""), config=config, timeout=0.2).send(tenants.mail(), tags={})
        assert code(outcome) == "provider_not_active"


def test_the_doctor_tells_smtp_errors_too() -> None:
    """Every refusal says whose turn it is."""
    with serving(Inbox(mail="451 later")) as port:
        outcome = send(port)
    assert isinstance(outcome, NotSent)
    assert outcome.error.hint.startswith("Tenant:")
