"""The outcome of a message sent through an HTTP proxy: "not sent" only if the request cannot have been written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from mailer.adapters.botocore_patches import connections
from mailer.adapters.providers.acting import TenantClients
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from support import tenants
from support.servers import certificates
from support.servers.forward_proxy import Cut, ForwardProxy
from support.servers.ses_server import Answer, Reaction, Request, SesServer, accepted

Scheme = Literal["http", "https"]
LARGE = b"x" * 8_000_000


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> Scheme:
    """Send in the clear, or through a CONNECT tunnel."""
    scheme: Scheme = request.param
    return scheme


@pytest.fixture
def ses(scheme: Scheme, pem: Path) -> Iterator[SesServer]:
    with SesServer(tls=certificates.server_context(pem) if scheme == "https" else None) as server:
        yield server


Open = Callable[..., tuple[ForwardProxy, Callable[..., Outcome]]]


@pytest.fixture
def behind(ses: SesServer, pem: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open a tenant's SES behind a proxy with these faults."""
    opened: list[ForwardProxy] = []

    def open_(**mishaps: Any) -> tuple[ForwardProxy, Callable[..., Outcome]]:
        opened.append(proxy := ForwardProxy(("127.0.0.1", ses.port), **mishaps))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SES", ses.url)
        clients = TenantClients(width=1, ca_bundle=str(pem), connect_timeout=5.0, read_timeout=5.0)
        provider = tenants.ses(clients)
        return proxy, lambda mime=b"Subject: hi\r\n\r\nhello\r\n": provider.send(tenants.mail(mime), tags={})

    yield open_
    for proxy in opened:
        proxy.__exit__()


def is_proven_not_sent(outcome: Outcome) -> bool:
    return isinstance(outcome, NotSent) and outcome.error.code == "dependency_unavailable"


def test_mail_goes_through_a_proxy(behind: Open, ses: SesServer, scheme: Scheme) -> None:
    """Two over one connection."""
    proxy, send = behind()
    assert [send(), send()] == [Sent("id-1")] * 2
    [asked] = proxy.asked
    assert asked.partition(" ")[0] == ("CONNECT" if scheme == "https" else "POST")
    assert len(ses.requests) == 2


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("mails_before", [0, 1])
def test_a_reply_lost_by_the_proxy_is_unknown(behind: Open, ses: SesServer, how: Cut, mails_before: int) -> None:
    """SES has the request; urllib3 then reports a failed connection to the proxy, because the connection is already closed."""
    proxy, send = behind()
    for _ in range(mails_before):
        assert send() == Sent("id-1")

    def accept_and_cut(_: Request) -> Reaction:
        proxy.cut(how)
        return accepted()

    ses.react = accept_and_cut
    assert isinstance(send(), MaybeSent)
    assert len(ses.requests) == mails_before + 1


def test_a_truncated_reply_behind_a_proxy_is_unknown(behind: Open, ses: SesServer) -> None:
    """Half a response is no response."""
    _, send = behind()
    ses.react = lambda _: Answer("<SendRawEmail", length=500, close=True)
    assert isinstance(send(), MaybeSent)
    assert len(ses.requests) == 1


def test_an_unreachable_proxy_proves_that_nothing_was_sent(behind: Open, ses: SesServer) -> None:
    """No byte can have passed it."""
    proxy, send = behind()
    proxy.__exit__()
    assert is_proven_not_sent(send())
    assert ses.connections == 0


def test_a_partly_forwarded_request_proves_that_nothing_was_sent(behind: Open, ses: SesServer) -> None:
    """SES cannot accept a part of a request, however large."""
    _, send = behind(limit=1_000_000)
    assert is_proven_not_sent(send(LARGE))
    assert all(len(request.body) < len(LARGE) for request in ses.requests)


@pytest.mark.parametrize("scheme", ["https"], indirect=True)
@pytest.mark.parametrize(
    "mishap",
    [
        {"greets": "close"},
        {"greets": "reset"},
        {"refusal": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"},
        {"refusal": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"},
        {"refusal": b"what?\r\n\r\n"},
        {"tunnels": False},
        {"limit": 100},
    ],
    ids=["closes", "resets", "asks for a password", "is busy", "speaks another language", "ends the tunnel", "breaks the handshake"],
)
def test_a_failed_tunnel_proves_that_nothing_was_sent(behind: Open, ses: SesServer, mishap: dict[str, Any]) -> None:
    """The request is written only inside the tunnel, after the TLS handshake."""
    _, send = behind(**mishap)
    assert is_proven_not_sent(send())
    assert ses.requests == []


@pytest.mark.parametrize("greets", ["close", "reset"])
def test_a_proxy_that_closes_at_once_never_loses_an_accepted_mail(behind: Open, ses: SesServer, greets: Cut) -> None:
    """Nothing reaches SES; without a tunnel the request may have been written into the closed connection: then the outcome is unknown."""
    _, send = behind(greets=greets)
    outcome = send()
    assert is_proven_not_sent(outcome) or isinstance(outcome, MaybeSent)
    assert ses.requests == []


def test_an_unusable_proxy_proves_that_nothing_was_sent(behind: Open, ses: SesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator configured one of an unknown kind; mail waits until that is fixed."""
    monkeypatch.setattr(connections, "get_environ_proxies", lambda _: {"http": "socks5://127.0.0.1:1", "https": "socks5://127.0.0.1:1"})
    _, send = behind()
    assert is_proven_not_sent(send())
    assert ses.connections == 0
