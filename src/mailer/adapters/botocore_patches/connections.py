"""Open connections to AWS with one preloaded trust store, do not reuse idle ones, and track how far each request got.

botocore's own sessions parse 126 root certificates for every TLS connection (21 ms CPU each) and reuse a socket however long the sandbox
was frozen. If a mail is written to a socket that the other side has closed, its outcome is unknown.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from time import time as wall_time
from typing import Any

from botocore.client import BaseClient
from botocore.httpsession import DEFAULT_CA_BUNDLE, URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

IDLE_LIMIT = 5.0
"""Seconds of wall time, so that a frozen sandbox counts, after which an idle connection is not reused."""

WRITE_TIMEOUT = 5.0
"""Seconds for writing one whole request; urllib3 would take the connect timeout, too short for 13 MB to another continent."""


TOGETHER = 65_536
"""Largest request that goes out in one write, headers included, in bytes; a larger one would have to be copied for that."""


@dataclass(slots=True)
class RequestProgress:
    """How far one request got."""

    taken: bool = False
    """One of our connections sent it."""
    written: bool = False
    """Its last byte was handed to the socket; stays true, whatever happens next."""
    more_time: float = 0.0
    """Seconds beyond WRITE_TIMEOUT within which its last byte must be written."""

    @property
    def proven_unsent(self) -> bool:
        """Return whether the other side cannot have the whole request: name lookup, connect, handshake or write failed."""
        return self.taken and not self.written


_PROGRESS: ContextVar[RequestProgress | None] = ContextVar("passage", default=None)


@contextmanager
def track_request(more_time: float = 0.0) -> Iterator[RequestProgress]:
    """Track the one request that this thread makes inside the block; a large one has `more_time`, in seconds, to be written."""
    progress = RequestProgress(more_time=more_time)
    token = _PROGRESS.set(progress)
    try:
        yield progress
    finally:
        _PROGRESS.reset(token)


def current_progress() -> RequestProgress:
    """Return the progress of this thread's request, which one of our connections takes now."""
    progress = _PROGRESS.get() or RequestProgress()
    progress.taken = True
    return progress


class OwnConnection(HTTPConnection):
    """A connection that tracks how far a request got, and when it was last used."""

    _used_at = 0.0
    _held: bytearray | None = None

    def connect(self) -> None:
        """Open it."""
        current_progress()
        super().connect()
        self.mark_used()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Write a request."""
        progress = current_progress()
        if self.is_closed:
            self.connect()  # plain HTTP would connect while it writes
        self.timeout = WRITE_TIMEOUT + progress.more_time  # the pool sets the read timeout when this returns
        self._held = bytearray()
        try:
            # botocore does not check the length: it would read a truncated answer as one without fields, a record as no record.
            super().request(*args, **{**kwargs, "enforce_content_length": True})
            self._let_go()
        finally:
            self._held = None
        progress.written = True

    def send(self, data: Any) -> None:
        """Buffer the headers of a request until its body, so that a small request takes one write; http.client makes two."""
        if self._held is not None and len(self._held) + len(data) <= TOGETHER:
            self._held += data
            return
        self._let_go()
        super().send(data)

    def _let_go(self) -> None:
        if self._held:
            held, self._held = self._held, None
            super().send(held)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 overrides http.client's the same way
        """Read the head of the answer."""
        response = super().getresponse()
        self.mark_used()
        return response

    def mark_used(self) -> None:
        """Note that the other side has just answered."""
        self._used_at = wall_time()

    @property
    def is_connected(self) -> bool:
        """Return whether the pool must not reuse a connection; after the clock was set back, a connection counts as idle too."""
        return super().is_connected and 0 <= wall_time() - self._used_at <= IDLE_LIMIT


class _TlsConnection(OwnConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = OwnConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class OwnSession(URLLib3Session):
    """botocore's HTTP session over our connections and one shared TLS context."""

    _pool_classes_by_scheme: dict[str, type[HTTPConnectionPool]]
    _proxy_config: Any
    _manager: Any

    def __init__(self, trust: SSLContext, **options: Any) -> None:
        self._trust = trust  # before botocore's own constructor, which asks for it
        super().__init__(**options)
        self._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)

    def _get_ssl_context(self) -> SSLContext:
        return self._trust

    def _setup_ssl_cert(self, conn: Any, *_: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # and no ca_certs: they would be parsed into the context again for each connection

    def direct_pool(self, url: str) -> HTTPConnectionPool | None:
        """Return the connections to the host of a URL; None where a proxy stands between."""
        if self._proxy_config.proxy_url_for(url):
            return None
        pool: HTTPConnectionPool = self._manager.connection_from_url(url)
        self._setup_ssl_cert(pool)
        return pool


def use_own_connections(client: BaseClient, ca_bundle: str | None = None) -> None:
    """Make a client use our connections; its timeouts, pool size and the environment's proxies stay.

    `ca_bundle` is a PEM file (what AWS_CA_BUNDLE names) to trust instead of Amazon's roots.
    """
    config: Any = client.meta.config
    made: Any = client
    made._endpoint.http_session = OwnSession(  # noqa: SLF001  # botocore lets no one choose the session's class
        trust_store(ca_bundle, amazon=client.meta.partition in _AMAZON_PARTITIONS),
        timeout=(config.connect_timeout, config.read_timeout),
        max_pool_connections=config.max_pool_connections,
        proxies=config.proxies or get_environ_proxies(client.meta.endpoint_url),
        proxies_config=config.proxies_config,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
    )


_AMAZON_PARTITIONS = frozenset({"aws", "aws-us-gov"})
"""Partitions where every endpoint's certificate chains to one of Amazon's roots; sovereign clouds have their own authorities."""

_AMAZON_ROOTS = ("CN=Amazon Root CA ", "CN=Starfield Services Root Certificate Authority ")
"""The roots of Amazon Trust Services, as https://www.amazontrust.com/repository/ lists them."""


@cache
def trust_store(ca_bundle: str | None = None, *, amazon: bool = True) -> SSLContext:
    """Load the trusted roots once per process: the given PEM file, else Amazon's roots, else every root that botocore ships."""
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    if ca_bundle:
        context.load_verify_locations(ca_bundle)
    elif amazon and (roots := _amazon_roots()):
        context.load_verify_locations(cadata=roots)
    else:
        context.load_verify_locations(DEFAULT_CA_BUNDLE)
    return context


def _amazon_roots() -> str:
    """Extract Amazon's roots from botocore's bundle, where a comment before each certificate names the issuer."""
    entries = Path(DEFAULT_CA_BUNDLE).read_text(encoding="utf-8").split("\n# Issuer: ")
    return "\n".join(entry[entry.index("-----BEGIN") :] for entry in entries if entry.startswith(_AMAZON_ROOTS))
