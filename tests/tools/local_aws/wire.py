"""Read and write HTTP/1.1 messages on asyncio streams without changing a byte.

A signature covers the headers as sent, so a message keeps its raw head and its raw (possibly chunked) body in addition to the parsed data.
"""

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

HEAD_LIMIT = 1 << 18  # bytes; far more than any AWS client sends
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
NO_BODY = frozenset({204, 304})
SES_V2 = {("POST", "/v2/email/outbound-emails"): "SendEmail", ("GET", "/v2/email/account"): "GetAccount"}
"""SES v2 operations of the service, by method and path."""


class ClosedError(Exception):
    """The peer closed the connection between two messages."""


@dataclass(slots=True)
class Request:
    """One request, with the caller's data from its signature."""

    head: bytes
    method: str
    target: str
    headers: dict[str, str]
    raw_body: bytes = b""
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def access_key(self) -> str:
        """Access key id of its signature, from the header or the presigned query; empty if unsigned."""
        return self._credential()[0]

    @property
    def region(self) -> str:
        return self._credential()[1]

    @property
    def operation(self) -> str:
        """`SendRawEmail`, `PutItem`, …; for S3 the method. Form posts name it in the body only, SES v2 by path and method."""
        if target := self.headers.get("x-amz-target"):
            return target.rpartition(".")[2]
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded") and (found := _ACTION.search(self.body)):
            return found[1].decode("ascii")
        return SES_V2.get((self.method, self.path), self.method)

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"

    def _credential(self) -> tuple[str, str]:
        presigned = parse_qs(urlsplit(self.target).query).get("X-Amz-Credential", [""])[0]
        found = _CREDENTIAL.search(self.headers.get("authorization", "") or f"Credential={presigned}")
        return (found[1], found[2]) if found else ("", "")


@dataclass(slots=True)
class Response:
    """One response; `head` and `raw_body` are the bytes on the wire."""

    status: int
    head: bytes
    headers: dict[str, str]
    raw_body: bytes = b""
    body: bytes = b""

    @classmethod
    def make(cls, status: int, body: bytes, content_type: str, **headers: str) -> "Response":
        """Create a response; underscores in header names become hyphens."""
        fields = {"content-type": content_type, "content-length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}", *(f"{k}: {v}" for k, v in fields.items())]
        return cls(status, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), fields, body, body)

    @property
    def keeps_alive(self) -> bool:
        delimited = "content-length" in self.headers or "transfer-encoding" in self.headers or self.status in NO_BODY
        return delimited and self.headers.get("connection", "").lower() != "close"


async def read_head(reader: asyncio.StreamReader) -> Request:
    """Read a request up to the empty line.

    Raises: `ClosedError` if the client closed the connection between two requests.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ClosedError from error
    line, headers = _parse_head(head)
    method, target, _ = line.split(" ", 2)
    return Request(head, method, target, headers)


async def read_body(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the rest of a request; first send 100 Continue if the client waits for it."""
    if request.headers.get("expect", "").lower() == "100-continue":
        writer.write(CONTINUE)
        request.head = re.sub(rb"(?i)\r\nexpect:[^\r\n]*", b"", request.head)  # SDKs do not sign it
    request.raw_body, request.body = await _read_body(request.headers, reader)


async def read_response(reader: asyncio.StreamReader, *, to_head_request: bool) -> Response:
    """Read one final response; skip interim ones (1xx).

    Raises: `asyncio.IncompleteReadError` if the server closed before the response was complete.
    """
    response = await _read_response_head(reader)
    while response.status < 200:
        response = await _read_response_head(reader)
    headers = response.headers
    if to_head_request or response.status in NO_BODY:
        return response
    if "content-length" in headers or "transfer-encoding" in headers:
        response.raw_body, response.body = await _read_body(headers, reader)
    else:
        response.raw_body = response.body = await reader.read()
    return response


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop a connection with a TCP RST; unsent data is lost. A closed one stays closed."""
    if sock := writer.get_extra_info("socket"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_response_head(reader: asyncio.StreamReader) -> Response:
    head = await reader.readuntil(b"\r\n\r\n")
    line, headers = _parse_head(head)
    return Response(int(line.split(" ", 2)[1]), head, headers)


def _parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(headers: dict[str, str], reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    length = int(headers.get("content-length", "0"))
    body = await reader.readexactly(length) if length else b""
    return body, body


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    raw: list[bytes] = []
    body: list[bytes] = []
    size = 1
    while size:
        raw.append(await reader.readuntil(b"\r\n"))
        size = int(raw[-1].split(b";", 1)[0], 16)
        if size:
            raw.append(await reader.readexactly(size + 2))
            body.append(raw[-1][:-2])
    while raw[-1] != b"\r\n":  # trailers, then an empty line
        raw.append(await reader.readuntil(b"\r\n"))
    return b"".join(raw), b"".join(body)
