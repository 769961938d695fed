"""HTTP proxy on loopback that tunnels (CONNECT) and forwards, and cuts connections on request of a test."""

import socket
import struct
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

Cut = Literal["close", "reset"]


@dataclass
class ForwardProxy:
    """Forwards bytes to one server, regardless of the host that clients name."""

    upstream: tuple[str, int]
    refusal: bytes = b""
    """Response to every client instead of forwarding."""
    greets: Cut | None = None
    """How a connection is ended right after it is accepted."""
    tunnels: bool = True
    """Whether a tunnel stays open after it is granted."""
    limit: int | None = None
    """Bytes of a client that are forwarded before its connection is reset."""
    asked: list[str] = field(default_factory=list)
    """The first line of each connection."""

    def __post_init__(self) -> None:
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut("close")

    def cut(self, how: Cut) -> None:
        """End every client's connection now."""
        for client in self._clients:
            _end(client, how)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(client)
            if self.greets:
                return _end(client, self.greets)
            head = _read_head(client)
            self.asked.append(head.partition(b"\r\n")[0].decode("latin-1"))
            if self.refusal:
                return client.sendall(self.refusal)
            server = stack.enter_context(socket.create_connection(self.upstream))
            if not head.startswith(b"CONNECT "):
                server.sendall(head)
            else:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                if not self.tunnels:
                    return None
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server, self.limit)
            back.join()
        return None


def _read_head(client: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (received := client.recv(1)):
            raise ConnectionError
        head += received
    return head


def _pass_on(source: socket.socket, target: socket.socket, limit: int | None = None) -> None:
    """Forward data until the source ends, or up to a limit, at which the source's connection is reset."""
    with suppress(OSError):
        while (limit is None or limit > 0) and (received := source.recv(65_536 if limit is None else min(limit, 65_536))):
            target.sendall(received)
            limit = None if limit is None else limit - len(received)
        if limit == 0:
            _end(source, "reset")  # before the server sees the end of the data and responds
        target.shutdown(socket.SHUT_WR)


def _end(client: socket.socket, how: Cut) -> None:
    """End a connection, and wake a thread that waits for it."""
    with suppress(OSError):
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        else:
            client.shutdown(socket.SHUT_RDWR)
