"""Write one HTTP request to one of our connections and read the answer, without http.client where the answer is a plain one.

http.client writes a request in 20 steps and reads the headers of each answer as those of an e-mail: two thirds of what a call costs
beside TLS. What is not plain (chunks, no length, an interim answer) it reads here too, from the first byte on.
"""

import errno
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from socket import gaierror, socket
from ssl import CertificateError, SSLError
from typing import Any, Literal

from botocore import exceptions as botocores
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import Timeout

from mailer.adapters.botocore_patches import connections
from mailer.adapters.botocore_patches.connections import OwnConnection, current_progress

_CHUNK = 16_384
"""Bytes of one read: a TLS record holds no more."""

_MAX_HEAD = 65_536
"""Bytes of status line and headers that are read before http.client, which has limits of its own, is asked."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 (200|[45]\d\d)(?: |$)")
_LENGTH = re.compile(rb"\d{1,9}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes
    keeps_open: bool


def exchange(pool: HTTPConnectionPool, url: str, head: bytes, body: bytes) -> Reply:
    """Send a request by one of the pool's connections, once.

    Raises:
        HTTPClientError: as botocore's session raises it where there is no answer.
    """
    made: Any = pool
    connection: OwnConnection = made._get_conn()  # noqa: SLF001  # `urlopen`, which is public, has http.client do the work
    kept: OwnConnection | None = None
    try:
        reply = _exchange(connection, pool.timeout, head, body)
        kept = connection if reply.keeps_open else None
    except Exception as error:
        raise _as_botocore(error, url) from error
    finally:
        if kept is None:
            connection.close()
        made._put_conn(kept)  # noqa: SLF001  # as above
    return reply


class _NotWrittenError(Exception):
    """The request could not be written."""


def _exchange(connection: OwnConnection, timeout: Timeout, head: bytes, body: bytes) -> Reply:
    progress = current_progress()
    if connection.is_closed:
        connection.timeout = Timeout.resolve_default_timeout(timeout.connect_timeout)
        connection.connect()
    wire: Any = connection.sock
    wire.settimeout(connections.WRITE_TIMEOUT + progress.more_time)
    try:
        _write(wire, head, body)
        progress.written = True
    except SSLError:
        raise
    except OSError as error:
        if error.errno not in _HUNG_UP:
            raise _NotWrittenError from error
    wire.settimeout(Timeout.resolve_default_timeout(timeout.read_timeout))
    reply = read_reply(wire)
    connection.mark_used()
    return reply


_HUNG_UP = frozenset({errno.EPIPE, errno.ECONNRESET})
"""The other side closed the connection while it was written to, perhaps with an answer, which is read (as urllib3 does)."""


def _write(wire: socket, head: bytes, body: bytes) -> None:
    if len(head) + len(body) <= connections.TOGETHER:
        wire.sendall(head + body)
    else:
        wire.sendall(head)
        wire.sendall(body)


# -- the answer ----------------------------------------------------------------------------------------------------------


def read_reply(wire: socket) -> Reply:
    """Read one answer to its end.

    Raises:
        HTTPException: it is no answer, or breaks off.
        OSError: as the socket raises it.
    """
    got = wire.recv(_CHUNK)
    while (end := got.find(b"\r\n\r\n")) < 0 and len(got) < _MAX_HEAD and (more := wire.recv(_CHUNK)):
        got += more
    plain = _plain_head(got[:end]) if end >= 0 else None
    if plain is None:
        return _read_by_http_client(wire, got)
    status, headers, length = plain
    chunks, left = [got[end + 4 :]], length - (len(got) - end - 4)
    while left > 0:
        if not (more := wire.recv(min(left, _CHUNK))):
            raise IncompleteRead(b"", left)
        chunks.append(more)
        left -= len(more)
    # More than was announced is nothing that the next request may find.
    return Reply(status, headers, b"".join(chunks)[:length], keeps_open=left == 0 and headers.get("connection", "").lower() != "close")


def _plain_head(head: bytes) -> tuple[int, dict[str, str], int] | None:
    """Return status, headers and length of an answer that says how long it is, and says nothing twice; None for any other."""
    status_line, *lines = head.split(b"\r\n")
    if not (status := _STATUS_LINE.match(status_line)):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or name != name.strip():
            return None
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "").encode("latin-1")
    if len(headers) < len(lines) or "transfer-encoding" in headers or not _LENGTH.fullmatch(length):
        return None
    return int(status[1]), headers, int(length)


def _read_by_http_client(wire: socket, got: bytes) -> Reply:
    replayed: Any = _Replayed(got, wire)
    response = HTTPResponse(replayed, method="POST")
    response.begin()
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, body, keeps_open=False)


class _Replayed(io.RawIOBase):
    """A socket of which some bytes were read already, as http.client wants it."""

    def __init__(self, got: bytes, wire: socket) -> None:
        self._got = got
        self._wire = wire

    def makefile(self, _mode: Literal["rb"]) -> io.BufferedReader:
        """Return itself as a file."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what was read before, then the socket."""
        data = self._got[: len(buffer)] or self._wire.recv(len(buffer))
        self._got = self._got[len(data) :]
        buffer[: len(data)] = data
        return len(data)


# -- what went wrong -----------------------------------------------------------------------------------------------------


def _as_botocore(error: Exception, url: str) -> Exception:
    """Return what botocore's session raises for the same failure (`httpsession.URLLib3Session.send`)."""
    match error:
        case NewConnectionError() | gaierror():
            return botocores.EndpointConnectionError(endpoint_url=url, error=error)
        case ConnectTimeoutError():
            return botocores.ConnectTimeoutError(endpoint_url=url, error=error)
        case TimeoutError():  # the handshake too
            return botocores.ReadTimeoutError(endpoint_url=url, error=error)
        case SSLError() | CertificateError():
            return botocores.SSLError(endpoint_url=url, error=error)
        case OSError() | HTTPException() | _NotWrittenError():
            return botocores.ConnectionClosedError(endpoint_url=url, error=error)
    return botocores.HTTPClientError(error=error)
