"""The connections to SES: one TLS context, no reuse after idling, as many as threads; and the memory of a large message."""

import ssl
import tracemalloc
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import current_thread, main_thread
from time import monotonic

import pytest
from botocore.httpsession import DEFAULT_CA_BUNDLE

from mailer.adapters.botocore_patches import connections
from mailer.adapters.botocore_patches.connections import IDLE_LIMIT, trust_store
from mailer.adapters.providers.acting import TenantClients
from mailer.domain.delivery import MaybeSent, NotSent, Outcome, Sent
from support import tenants
from support.servers import certificates
from support.servers.ses_server import Hang, Reset, SesServer, accepted

THREADS = 8


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(pem: Path) -> Iterator[SesServer]:
    with SesServer(tls=certificates.server_context(pem)) as server:
        yield server


def opened(server: SesServer, ca_bundle: Path | None) -> TenantClients:
    clients = TenantClients(width=THREADS, ca_bundle=ca_bundle and str(ca_bundle), connect_timeout=2.0, read_timeout=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_SES", server.url)
        clients.ses(tenants.REGION)
    return clients


@pytest.fixture
def send(server: SesServer, pem: Path) -> Callable[[], Outcome]:
    provider = tenants.ses(opened(server, pem))
    return lambda: provider.send(tenants.mail(), tags={})


class WallClock:
    """The wall clock of the connections."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr(connections, "wall_time", clock)
    return clock


# ── idle sockets ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_is_reused_while_it_is_recent(server: SesServer, send: Callable[[], Outcome], wall: WallClock) -> None:
    """Keep-alive saves the handshake for mail within seconds."""
    send()
    wall.now += IDLE_LIMIT
    send()
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("passed", [IDLE_LIMIT + 0.01, 3600, -1], ids=["idle", "frozen", "set back"])
def test_an_idle_connection_is_replaced(server: SesServer, send: Callable[[], Outcome], wall: WallClock, passed: float) -> None:
    """After 5 s of wall time, including the time of a frozen sandbox, the other side may have closed it."""
    send()
    wall.now += passed
    send()
    assert (server.connections, len(server.requests)) == (2, 2)


def test_a_stale_connection_makes_no_mail_unknown(server: SesServer, send: Callable[[], Outcome], wall: WallClock) -> None:
    """SES resets the idle connection when the sandbox resumes: the next mail uses a new one."""
    send()
    server.react = lambda _: Reset() if server.connections == 1 else accepted("new")
    wall.now += 600
    assert send() == Sent("new")


# ── writes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "writes"), [(1_000, 1), (200_000, 2)], ids=["small", "large"])
def test_a_small_request_takes_one_write(server: SesServer, pem: Path, monkeypatch: pytest.MonkeyPatch, size: int, writes: int) -> None:
    """Headers and body are sent together, without copying a large body. All of it arrives."""
    provider = tenants.ses(opened(server, pem))
    sizes: list[int] = []
    write = ssl.SSLSocket.sendall

    def count(connection: ssl.SSLSocket, data: bytes) -> None:
        if current_thread() is main_thread():
            sizes.append(len(data))
        write(connection, data)

    monkeypatch.setattr(ssl.SSLSocket, "sendall", count)
    provider.send(tenants.mail(b"x" * size), tags={})
    [request] = server.requests
    assert (len(sizes), b64decode(request.fields["RawMessage.Data"])) == (writes, b"x" * size)


def test_a_slow_reader_cannot_delay_a_request_forever(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record is read within the timeout, the whole request is not: the write times out, proven not sent, as its end is not written."""
    monkeypatch.setattr(connections, "WRITE_TIMEOUT", 1.0)
    with SesServer(lambda _: Hang(), tls=certificates.server_context(pem), swallow=100_000_000, pause=0.05) as server:
        provider = tenants.ses(opened(server, pem))
        began = monotonic()
        assert is_proven_not_sent(provider.send(tenants.mail(b"x" * 10_000_000), tags={}))
        assert 1.0 <= monotonic() - began < 15.0  # the whole request would take more than half a minute


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_certificates_are_parsed_once_and_not_per_connection(
    server: SesServer, send: Callable[[], Outcome], wall: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection costs its handshake and no reading of the trust store."""
    loaded: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *arguments, **_: loaded.append(arguments))
    for _ in range(3):
        send()
        wall.now += 600
    assert (server.connections, loaded) == (3, [])


def test_there_are_no_more_handshakes_than_threads(server: SesServer, send: Callable[[], Outcome]) -> None:
    """The pool is as wide as the threads, so that no connection is discarded."""
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(lambda _: send(), range(200)))
    assert outcomes == [Sent("id-1")] * 200
    assert server.connections <= THREADS


def is_proven_not_sent(outcome: Outcome) -> bool:
    return isinstance(outcome, NotSent) and outcome.error.code == "dependency_unavailable"


def test_an_untrusted_certificate_gets_no_mail(server: SesServer, tmp_path: Path) -> None:
    """It ends the handshake: proven not sent."""
    other = certificates.make(tmp_path)
    for trusted in (other, None):
        assert is_proven_not_sent(tenants.ses(opened(server, trusted)).send(tenants.mail(), tags={}))
    assert server.requests == []


def test_a_certificate_of_another_host_gets_no_mail(tmp_path: Path) -> None:
    """The name is checked, not only the chain."""
    other = certificates.make(tmp_path, "other.example")
    with SesServer(tls=certificates.server_context(other)) as server:
        assert is_proven_not_sent(tenants.ses(opened(server, other)).send(tenants.mail(), tags={}))
    assert server.requests == []


@pytest.mark.parametrize("reaction", [Hang(), Reset()], ids=["hang", "reset"])
def test_a_failed_handshake_proves_that_nothing_was_sent(pem: Path, reaction: Hang | Reset) -> None:
    """TLS fails or hangs before a byte of the request is written; botocore reports a read timeout or an SSL error."""
    with SesServer(lambda _: reaction, swallow=50, scheme="https") as server:
        assert is_proven_not_sent(tenants.ses(opened(server, pem)).send(tenants.mail(), tags={}))


def test_a_reset_after_the_handshake_is_unknown(server: SesServer, send: Callable[[], Outcome]) -> None:
    """The same exceptions after the request was written prove nothing."""
    server.react = lambda _: Reset()
    assert isinstance(send(), MaybeSent)


def test_only_amazon_s_roots_are_trusted() -> None:
    """Every root of Amazon Trust Services, none of a hundred others, and none that expires soon."""
    roots = trust_store().get_ca_certs()
    names = {dict(pair for [pair] in root["subject"])["commonName"] for root in roots}
    assert names == {f"Amazon Root CA {n}" for n in (1, 2, 3, 4)} | {"Starfield Services Root Certificate Authority - G2"}
    ends = [datetime.fromtimestamp(ssl.cert_time_to_seconds(root["notAfter"]), UTC) for root in roots]
    assert min(ends).year > 2035


def test_a_sovereign_cloud_is_verified_with_botocore_s_bundle() -> None:
    """Partitions with other authorities keep the roots that botocore ships."""
    whole = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    whole.load_verify_locations(DEFAULT_CA_BUNDLE)
    assert trust_store(amazon=False).cert_store_stats() == whole.cert_store_stats()


def test_the_trust_store_is_loaded_once_per_process() -> None:
    """All clients share one TLS context, for every region and service."""
    assert trust_store() is trust_store()
    clients = TenantClients(width=1)
    contexts = {
        client._endpoint.http_session._manager.connection_pool_kw["ssl_context"]
        for client in (clients.ses("eu-west-1"), clients.ses("us-east-1"), clients.sts("eu-west-1"))
    }
    assert contexts == {trust_store(None, amazon=True)}


# ── the clients ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clients_are_shared_and_bounded() -> None:
    """One client per service and region; made-up regions evict each other and do not fill the memory."""
    clients = TenantClients(width=1)
    assert clients.ses("eu-west-1") is clients.ses("eu-west-1")
    assert clients.ses("eu-west-1") is not clients.ses("us-east-1")
    assert clients._clients._size <= 64


def test_every_call_is_one_attempt_over_a_pool_as_wide_as_the_threads() -> None:
    """Read from the client's SDK settings."""
    config = TenantClients(width=32).ses("eu-west-1").meta.config
    assert config.retries == {"total_max_attempts": 1, "mode": "standard"}
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (3.0, 10.0, 32)


@pytest.mark.unwatched
def test_ten_megabytes_take_at_most_four_times_their_size() -> None:
    """Encoding, signing and writing the largest message of SES v1 keeps few copies of it."""
    size = 10 * 1024 * 1024
    with SesServer(keep=False) as server:
        provider = tenants.ses(opened(server, None))
        provider.send(tenants.mail(), tags={})
        tracemalloc.start()
        outcome = provider.send(tenants.mail(b"x" * size), tags={})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert outcome == Sent("id-1")
    assert peak <= 4 * size, f"{peak / size:.1f} × the message"
