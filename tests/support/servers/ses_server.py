"""A scripted SES on loopback: real sockets, one thread per connection, a response or a fault for each request."""

import json
import socket
import ssl
import struct
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any, Self
from urllib.parse import parse_qs

ACCEPTED = (
    '<SendRawEmailResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendRawEmailResult><MessageId>{id}</MessageId>'
    "</SendRawEmailResult><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></SendRawEmailResponse>"
)
REFUSED = (
    '<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error><Type>Sender</Type><Code>{code}</Code>'
    "<Message>{text}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
)


@dataclass(frozen=True)
class Request:
    """One request: header names in lower case, the form's fields once each."""

    headers: dict[str, str]
    body: bytes
    line: str = ""
    """Method, path and version."""

    @property
    def access_key(self) -> str:
        return self.headers["authorization"].partition("Credential=")[2].partition("/")[0]

    @property
    def fields(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode("ascii"), keep_blank_values=True).items()}

    @property
    def document(self) -> dict[str, Any]:
        """Document of an SES v2 request, without the message."""
        document: dict[str, Any] = json.loads(self.body)
        del document["Content"]
        return document

    @property
    def mime(self) -> bytes:
        if self.body.startswith(b"{"):
            return b64decode(json.loads(self.body)["Content"]["Raw"]["Data"], validate=True)
        return b64decode(self.fields["RawMessage.Data"], validate=True)


@dataclass(frozen=True)
class Answer:
    """Bytes to write, and whether the connection stays open."""

    body: str
    status: int = 200
    length: int | None = None
    """A false Content-Length, if set."""
    close: bool = False
    swallow_next: int = 0
    """Read that many bytes of the next request on this connection, then reset it."""

    def encoded(self) -> bytes:
        content = self.body.encode()
        length = len(content) if self.length is None else self.length
        return f"HTTP/1.1 {self.status} X\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n".encode() + content


class Close:
    """Ends the connection in an orderly way, without a response."""


class Reset:
    """Ends the connection by a TCP RST."""


class Hang:
    """Never responds."""


Reaction = Answer | Close | Reset | Hang


def accepted(message_id: str = "id-1") -> Answer:
    return Answer(ACCEPTED.format(id=message_id))


def refused(code: str, text: str = "no", status: int = 400) -> Answer:
    return Answer(REFUSED.format(code=code, text=text), status)


def accepted_by_v2(message_id: str = "id-2") -> Answer:
    return Answer(json.dumps({"MessageId": message_id}))


def refused_by_v2(code: str, text: str = "no", status: int = 400) -> Answer:
    return Answer(json.dumps({"code": code, "message": text}), status)


def _accept_all(_: Request) -> Reaction:
    return accepted()


@dataclass
class SesServer:
    """Responds by `react`; `requests` has the requests, `connections` counts the connections."""

    react: Callable[[Request], Reaction] = _accept_all
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None
    swallow: int | None = None
    """Read that many bytes of a connection, then react without a request."""
    pause: float = 0.0
    """Seconds between two reads of discarded data."""
    scheme: str | None = None
    """Scheme of its URL, if not the real one."""
    keep: bool = True
    """Whether to store the requests; otherwise their bodies are discarded."""

    def __post_init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme or ('https' if self.tls else 'http')}://localhost:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close every connection from this side."""
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self.connections += 1
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with suppress(OSError, ValueError), self._secured(plain) as connection:
                self._converse(connection)
        finally:
            with self._lock:
                self._open.discard(plain)
            plain.close()

    @contextmanager
    def _secured(self, connection: socket.socket) -> Iterator[socket.socket]:
        if self.tls is None:
            yield connection
        else:
            with self.tls.wrap_socket(connection, server_side=True) as secured:
                yield secured

    def _converse(self, connection: socket.socket) -> None:
        if self.swallow is not None:
            _swallow(connection, self.swallow, self.pause)
            self._do(connection, self.react(Request({}, b"")))
            return
        with connection.makefile("rb") as reader:
            while request := _read(reader, discard=not self.keep):
                if self.keep:
                    with self._lock:
                        self.requests.append(request)
                if not self._do(connection, self.react(request)):
                    return

    def _do(self, connection: socket.socket, reaction: Reaction) -> bool:
        match reaction:
            case Answer():
                connection.sendall(reaction.encoded())
                if reaction.swallow_next:
                    _swallow(connection, reaction.swallow_next)
                    return self._do(connection, Reset())
                return not reaction.close
            case Reset():
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case Hang():
                self._closing.wait(60)
        return False


def _swallow(connection: socket.socket, left: int, pause: float = 0.0) -> None:
    while left > 0 and (received := connection.recv(min(left, 65536))):
        left -= len(received)
        time.sleep(pause)


def _read(reader: BufferedReader, *, discard: bool) -> Request | None:
    if not (first := reader.readline()):
        return None
    headers = {}
    while line := reader.readline().rstrip(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    left = int(headers.get("content-length", "0"))
    if not discard:
        return Request(headers, reader.read(left), first.decode("latin-1"))
    while left > 0 and (received := reader.read1(min(left, 65536))):
        left -= len(received)
    return Request(headers, b"")
