"""Stand between an AWS client and a service, forward every byte as it came, and let the wire fail on command.

One `FaultProxy` fronts one service (SES, KMS, STS, DynamoDB, SQS, S3, …) under one URL, which the client gets as `AWS_ENDPOINT_URL_…`.
The Host header is forwarded as it came, so signatures stay valid. A `Gate` may look at requests and answers between the two sides.
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
    """What a service's own proxy adds: it answers a request, mostly by way of `forward`."""

    async def answer(self, request: Request, account: str, forward: Forward) -> Response: ...


@dataclass(slots=True)
class LogEntry:
    """One request as the wire saw it; `outcome` is open, answered, hung, reset, closed or truncated."""

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


GLIMPSE = 1.0
"""Seconds to wait for the first bytes of a body that is not read to its end."""


class Changes:
    """Wakes those who wait for something to happen on the wire."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until[T](self, found: Callable[[], T | None], seconds: float) -> T | None:
        """Answer what `found` finds, as soon as it does; None when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (result := found()) is None:
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    await waiter
                return result
        return None


class Accounts:
    """Which AWS account an access key belongs to; asked once where it was not told."""

    def __init__(self, lookup: Callable[[str], str] | None = None) -> None:
        self._known: dict[str, str] = {"": ""}
        self._lookup = lookup

    def tell(self, access_key: str, account: str) -> None:
        self._known[access_key] = account

    async def of(self, access_key: str) -> str:
        if re.fullmatch(r"\d{12}", access_key):  # an emulated account's root
            return access_key
        if access_key not in self._known:
            self._known[access_key] = await asyncio.to_thread(self._lookup, access_key) if self._lookup else ""
        return self._known[access_key]


class Wire:
    """What the proxies of one process share: the faults in force, the accounts, the log."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.faults = Faults()
        self.accounts = accounts or Accounts()
        self.changes = Changes()
        self.log: deque[LogEntry] = deque(maxlen=LOG_LENGTH)
        self.released = asyncio.Event()
        self.mark: re.Pattern[bytes] | None = None
        """What to note down of each request's body: the ids by which a test knows whose request it was."""
        self._count = 0

    def record(self, service: str, request: Request) -> LogEntry:
        self._count += 1
        entry = LogEntry(self._count, time.time(), service, request.method, request.path, access_key=request.access_key)
        self.log.append(entry)
        return entry

    def note(self, entry: LogEntry, request: Request) -> None:
        """Write down what the body of a request says."""
        entry.operation, entry.size = request.operation, len(request.body)
        if self.mark:
            entry.marks = sorted({found.decode() for found in self.mark.findall(request.body)})
        self.changes.notify()

    def release(self) -> None:
        """End every connection that hangs."""
        self.released.set()
        self.released = asyncio.Event()


class Upstream:
    """The service behind a proxy, over kept-alive connections."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: Request) -> Response:
        """Forward a request as it came.

        Raises: `OSError` or `asyncio.IncompleteReadError` where the service did not answer.
        """
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # it was closed while it idled
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
        """Let new connections be accepted (`accept`), refused (`refuse`) or never answered (`ignore`)."""
        assert self._listener
        await self._listener.switch(mode, self.port)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nobody = LogEntry(0, time.time(), self.service, "", "")
        await Misfortune(self._wire, nobody, reader, writer).befall(When.CONNECT)
        while await self._serve(reader, writer):
            pass

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; say whether the connection goes on."""
        request = await wire.read_head(reader)
        entry = self._wire.record(self.service, request)
        entry.account = await self._wire.accounts.of(request.access_key)
        misfortune = Misfortune(self._wire, entry, reader, writer, request)
        try:
            await misfortune.befall(When.HEAD)
            await wire.read_body(request, reader, writer)
            self._wire.note(entry, request)
            response = await misfortune.befall(When.BEFORE)
            if response is None:
                answered = await self._answer(request, entry.account)
                response = await misfortune.befall(When.AFTER, answered) or answered
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
            return error_response(request, 501, "NotImplemented", "no service stands behind this proxy")
        try:
            return await self._upstream.send(request)
        except (OSError, asyncio.IncompleteReadError):
            return error_response(request, 502, "BadGateway", "the service behind this proxy did not answer")


class Misfortune:
    """Does to one request what the faults in force say."""

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

    async def befall(self, when: When, answered: Response | None = None) -> Response | None:
        """Apply what fits this moment; answer the response that replaces the service's own, if any.

        Raises: `SeveredError` where the fault has ended the connection.
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
            await self._glimpse(self._request)
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
            await self._dribble(answered, fault.seconds)
            raise SeveredError("answered")
        raise SeveredError("closed")

    async def _hang(self, *, reads: bool) -> None:
        """Keep silent until the faults are cleared or, where we read, until the client gives up."""
        released = asyncio.ensure_future(self._wire.released.wait())
        gone = asyncio.ensure_future(self._reader.read()) if reads else None
        _, pending = await asyncio.wait({task for task in (released, gone) if task}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if gone and gone.done() and not gone.cancelled():
            gone.exception()  # a reset by the client is no error of ours

    async def _glimpse(self, request: Request) -> None:
        """Note down whose request it was, as far as the beginning of its body says so: the client may have written the whole."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GLIMPSE):
                request.body = await self._reader.read(STREAM_LIMIT)
        self._wire.note(self._entry, request)

    async def _dribble(self, answered: Response, seconds: float) -> None:
        whole = answered.head + answered.raw_body
        step = max(1, len(whole) // SLOW_PIECES)
        for start in range(0, len(whole), step):
            self._writer.write(whole[start : start + step])
            await self._writer.drain()
            await asyncio.sleep(seconds / SLOW_PIECES)


def hold_port(port: int = 0) -> socket.socket:
    """Keep a port, any free one by default, without listening there: nobody else is given it, and whoever knows it may listen."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((HOST, port))
    except OSError:
        held.close()
        raise
    return held


class Listener:
    """Accept connections on the loopback interface, and stop accepting them in the ways in which real ones do."""

    def __init__(self, converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._converse = converse
        self._server: asyncio.Server | None = None
        self._deaf: list[socket.socket] = []
        self._held: socket.socket | None = None
        self._mode = "accept"
        self._switching = asyncio.Lock()
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self, port: int) -> int:
        """Listen from now on; answer the port, which stays ours until `stop`."""
        self._held = self._held or hold_port(port)
        port = int(self._held.getsockname()[1])
        self._server = await asyncio.start_server(self._on_connection, HOST, port, limit=STREAM_LIMIT, backlog=BACKLOG)
        return port

    async def switch(self, mode: str, port: int) -> None:
        """Accept, refuse or ignore from now on; one that failed is made up for by the next."""
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
                self._be_deaf(port)
            self._mode = mode

    async def stop(self) -> None:
        """Take no new connection and reset the open ones."""
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
        for sock in self._deaf:
            sock.close()
        self._deaf.clear()
        await asyncio.sleep(0)  # lets the aborted connections' tasks end

    def _be_deaf(self, port: int) -> None:
        """Listen with a queue that is already full: the kernel then drops every further SYN."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((HOST, port))
        self._deaf = [listener, *fillers]

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
