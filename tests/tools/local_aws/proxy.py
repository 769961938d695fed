"""Proxy between an AWS client and a service that forwards every byte unchanged and injects network faults.

One `FaultProxy` fronts one service (SES, KMS, STS, DynamoDB, SQS, S3, …) under one URL, which the client gets as `AWS_ENDPOINT_URL_…`.
The Host header is forwarded unchanged, so signatures stay valid. A `Gate` may process requests and responses in between.
"""

import asyncio
import contextlib
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tools.local_aws import wire
from tools.local_aws.faults import Action, Caller, Fault, Faults, When, error_response
from tools.local_aws.wire import Request, Response

HOST = "127.0.0.1"
LOG_LENGTH = 500_000  # requests remembered
BACKLOG = 1024
STREAM_LIMIT = wire.HEAD_LIMIT
SLOW_PIECES = 20
GARBAGE = b"\x00\xff<html><title>this is no answer of the service"

type Forward = Callable[[Request], Awaitable[Response]]


class Gate(Protocol):
    """Behaviour added by a service's proxy: it responds to a request, usually through `forward`."""

    async def answer(self, request: Request, account: str, forward: Forward) -> Response: ...


@dataclass(slots=True)
class LogEntry:
    """One request at the proxy; `outcome` is open, answered, hung, reset, closed or truncated."""

    number: int
    time: float
    service: str
    method: str
    path: str
    operation: str = ""
    access_key: str = ""
    account: str = ""
    size: int = 0
    outcome: str = "open"
    status: int = 0
    faults: list[int] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


PARTIAL_BODY = 1.0
"""Seconds to wait for the first bytes of a body that is not read completely."""


class Changes:
    """Wakes waiters when something happens at a proxy."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until[T](self, found: Callable[[], T | None], seconds: float) -> T | None:
        """Return the result of `found` as soon as it is true; None after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (result := found()) is None:
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    await waiter
                return result
        return None


class Accounts:
    """AWS accounts of access keys; looked up once, unless set."""

    def __init__(self, lookup: Callable[[str], str] | None = None) -> None:
        self._known: dict[str, str] = {"": ""}
        self._lookup = lookup

    def set(self, access_key: str, account: str) -> None:
        self._known[access_key] = account

    async def of(self, access_key: str) -> str:
        if re.fullmatch(r"\d{12}", access_key):  # root user of an emulated account
            return access_key
        if access_key not in self._known:
            self._known[access_key] = await asyncio.to_thread(self._lookup, access_key) if self._lookup else ""
        return self._known[access_key]


class Wire:
    """State shared by the proxies of one process: active faults, accounts, log."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.faults = Faults()
        self.accounts = accounts or Accounts()
        self.changes = Changes()
        self.log: deque[LogEntry] = deque(maxlen=LOG_LENGTH)
        self.released = asyncio.Event()
        self.mark: re.Pattern[bytes] | None = None
        """Pattern of the ids to record from each request's body, by which a test identifies the request."""
        self._count = 0

    def record(self, service: str, request: Request) -> LogEntry:
        self._count += 1
        entry = LogEntry(self._count, time.time(), service, request.method, request.path, access_key=request.access_key)
        self.log.append(entry)
        return entry

    def note(self, entry: LogEntry, request: Request) -> None:
        """Record the matches in the body of a request."""
        entry.operation, entry.size = request.operation, len(request.body)
        if self.mark:
            entry.marks = sorted({found.decode() for found in self.mark.findall(request.body)})
        self.changes.notify()

    def release(self) -> None:
        """End every hanging connection."""
        self.released.set()
        self.released = asyncio.Event()


class Upstream:
    """The service behind a proxy, over keep-alive connections."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: Request) -> Response:
        """Forward a request unchanged.

        Raises: `OSError` or `asyncio.IncompleteReadError` if the service did not respond.
        """
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # it was closed while idle
                    return await self._exchange(request, reader, writer)
        return await self._exchange(request, *await asyncio.open_connection(*self._address, limit=STREAM_LIMIT))

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _exchange(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Response:
        try:
            writer.write(request.head + request.raw_body)
            await writer.drain()
            response = await wire.read_response(reader, to_head_request=request.method == "HEAD")
        except BaseException:
            writer.close()
            raise
        if response.keeps_alive and request.keeps_alive:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return response


class SeveredError(Exception):
    """A fault has ended this connection; the text is the outcome for the log."""


class FaultProxy:
    """Serve one service on one port of the loopback interface."""

    def __init__(self, service: str, shared: Wire, *, upstream: tuple[str, int] | None = None, gate: Gate | None = None) -> None:
        self.service = service
        self.port = 0
        self._wire = shared
        self._upstream = Upstream(*upstream) if upstream else None
        self._gate = gate
        self._listener: Listener | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self, port: int = 0) -> None:
        self._listener = Listener(self._converse)
        self.port = await self._listener.listen(port)

    async def stop(self) -> None:
        if self._listener:
            await self._listener.stop()
        if self._upstream:
            self._upstream.close()

    async def set_listening(self, mode: str) -> None:
        """Accept new connections (`accept`), refuse them (`refuse`) or never answer them (`ignore`)."""
        assert self._listener
        await self._listener.switch(mode, self.port)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nobody = LogEntry(0, time.time(), self.service, "", "")
        await FaultInjector(self._wire, nobody, reader, writer).apply(When.CONNECT)
        while await self._serve(reader, writer):
            pass

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection stays open."""
        request = await wire.read_head(reader)
        entry = self._wire.record(self.service, request)
        entry.account = await self._wire.accounts.of(request.access_key)
        injector = FaultInjector(self._wire, entry, reader, writer, request)
        try:
            await injector.apply(When.HEAD)
            await wire.read_body(request, reader, writer)
            self._wire.note(entry, request)
            response = await injector.apply(When.BEFORE)
            if response is None:
                answered = await self._answer(request, entry.account)
                response = await injector.apply(When.AFTER, answered) or answered
        except SeveredError as outcome:
            entry.outcome = str(outcome)
            self._wire.changes.notify()
            raise
        writer.write(response.head + response.raw_body)
        entry.outcome, entry.status = "answered", response.status
        self._wire.changes.notify()
        await writer.drain()
        return request.keeps_alive and response.keeps_alive

    async def _answer(self, request: Request, account: str) -> Response:
        if self._gate:
            return await self._gate.answer(request, account, self._forward)
        return await self._forward(request)

    async def _forward(self, request: Request) -> Response:
        if self._upstream is None:
            return error_response(request, 501, "NotImplemented", "this proxy has no upstream")
        try:
            return await self._upstream.send(request)
        except (OSError, asyncio.IncompleteReadError):
            return error_response(request, 502, "BadGateway", "the service behind this proxy did not respond")


class FaultInjector:
    """Applies the active faults to one request."""

    def __init__(
        self,
        shared: Wire,
        entry: LogEntry,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: Request | None = None,
    ) -> None:
        self._wire = shared
        self._entry = entry
        self._reader = reader
        self._writer = writer
        self._request = request

    async def apply(self, when: When, answered: Response | None = None) -> Response | None:
        """Apply the matching faults of this moment; return the response that replaces the service's, if any.

        Raises: `SeveredError` if the fault has ended the connection.
        """
        request = self._request
        operation = request.operation if request else ""
        who = (self._entry.access_key, self._entry.account, self._entry.path)
        caller = Caller(self._entry.service, operation, *who, request.body if request else b"")
        for fault in self._wire.faults.take(when, caller):
            self._entry.faults.append(fault.id)
            if fault.action is Action.DELAY:
                await asyncio.sleep(fault.seconds)
            elif request and fault.action is Action.ERROR:
                return error_response(request, fault.status, fault.code, fault.message)
            elif fault.action is Action.GARBAGE:
                return Response.make(200, GARBAGE, "text/xml")
            else:
                await self._sever(fault, answered)
        return None

    async def _sever(self, fault: Fault, answered: Response | None) -> None:
        if self._request and fault.when is When.HEAD and self._wire.mark:
            await self._record_partial_body(self._request)
        if fault.action is Action.HANG:
            self._entry.outcome = "hung"
            self._wire.changes.notify()
            await self._hang(reads=fault.when in (When.BEFORE, When.AFTER))
            raise SeveredError("hung")
        if fault.action is Action.RESET:
            wire.reset(self._writer)
            raise SeveredError("reset")
        if answered and fault.action is Action.TRUNCATE:
            self._writer.write(answered.head + answered.raw_body[: len(answered.raw_body) // 2])
            raise SeveredError("truncated")
        if answered and fault.action is Action.SLOW:
            await self._send_slowly(answered, fault.seconds)
            raise SeveredError("answered")
        raise SeveredError("closed")

    async def _hang(self, *, reads: bool) -> None:
        """Send nothing until the faults are cleared or, with `reads`, the client closes."""
        released = asyncio.ensure_future(self._wire.released.wait())
        gone = asyncio.ensure_future(self._reader.read()) if reads else None
        _, pending = await asyncio.wait({task for task in (released, gone) if task}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if gone and gone.done() and not gone.cancelled():
            gone.exception()  # a reset by the client is not an error

    async def _record_partial_body(self, request: Request) -> None:
        """Record the ids in the first bytes of the body: the client may have written all of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTIAL_BODY):
                request.body = await self._reader.read(STREAM_LIMIT)
        self._wire.note(self._entry, request)

    async def _send_slowly(self, answered: Response, seconds: float) -> None:
        whole = answered.head + answered.raw_body
        step = max(1, len(whole) // SLOW_PIECES)
        for start in range(0, len(whole), step):
            self._writer.write(whole[start : start + step])
            await self._writer.drain()
            await asyncio.sleep(seconds / SLOW_PIECES)


def reserve_port(port: int = 0) -> socket.socket:
    """Reserve a port, by default any free one, without listening: no other process gets it, and one that knows it may listen."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((HOST, port))
    except OSError:
        held.close()
        raise
    return held


class Listener:
    """Accept connections on the loopback interface, and stop accepting them as real servers do."""

    def __init__(self, converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._converse = converse
        self._server: asyncio.Server | None = None
        self._full_backlog: list[socket.socket] = []
        self._held: socket.socket | None = None
        self._mode = "accept"
        self._switching = asyncio.Lock()
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self, port: int) -> int:
        """Start listening; return the port, which stays reserved until `stop`."""
        self._held = self._held or reserve_port(port)
        port = int(self._held.getsockname()[1])
        self._server = await asyncio.start_server(self._on_connection, HOST, port, limit=STREAM_LIMIT, backlog=BACKLOG)
        return port

    async def switch(self, mode: str, port: int) -> None:
        """Accept, refuse or ignore connections from now on; a later call repairs a failed one."""
        if mode not in ("accept", "refuse", "ignore"):
            raise ValueError(f"no such mode: {mode}")
        async with self._switching:
            if mode == self._mode:
                return
            self._mode = "undecided"
            await self._close()
            if mode == "accept":
                await self.listen(port)
            elif mode == "ignore":
                self._listen_with_full_backlog(port)
            self._mode = mode

    async def stop(self) -> None:
        """Accept no new connections and reset the open ones."""
        await self._close()
        if self._held:
            self._held.close()
            self._held = None

    async def _close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            wire.reset(writer)
        for sock in self._full_backlog:
            sock.close()
        self._full_backlog.clear()
        await asyncio.sleep(0)  # so that the aborted connections' tasks can end

    def _listen_with_full_backlog(self, port: int) -> None:
        """Listen with a full backlog: the kernel then drops every further SYN."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((HOST, port))
        self._full_backlog = [listener, *fillers]

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted just before it was closed
            wire.reset(writer)
            return
        self._open.add(writer)
        try:
            await self._converse(reader, writer)
        except (wire.ClosedError, SeveredError, ConnectionError, asyncio.IncompleteReadError):
            pass  # the client or a fault has ended it
        finally:
            self._open.discard(writer)
            writer.close()
