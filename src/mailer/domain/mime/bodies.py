"""Encode bodies for a 7-bit wire: text as quoted-printable or base64, files as base64, an attached mail as it is."""

import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from mailer.domain.header_text import MAX_LINE
from mailer.domain.message import BASE64_LINE, base64_size

_LINES = 862  # base64 lines wrapped at a time: 64 KB, which stays in the processor's cache
_CHUNK = _LINES * BASE64_LINE
_SPLIT = Struct(f"{BASE64_LINE}s" * _LINES).unpack

# With a soft break, and two octets more for an escaped "." or "F" at its start, a line has 76 (RFC 2045 §6.7).
_QP_LINE = 73
_QP_PIECE = re.compile(rb".{1,%d}(?<!=)(?<!=.)" % _QP_LINE, re.DOTALL)  # never inside =XX
_QP_LITERAL = b"\t\r\n" + bytes(octet for octet in range(0x20, 0x7F) if octet != ord("="))
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

_FIELD_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded body: its transfer encoding, its size in octets, and the octets, which are created on demand."""

    encoding: str
    size: int
    chunks: Callable[[], Iterable[bytes]]
    end: bytes = b"\r\n"  # ends the last line; not part of the content


def text(content: str) -> Body:
    """Encode text with CRLF line ends: as quoted-printable, or as base64 if that is shorter or it has more than text in it."""
    canonical = content.replace("\r\n", "\n").replace("\n", "\r\n")
    octets = canonical.encode()
    escaped = octets.translate(None, _QP_LITERAL)
    if 6 * len(escaped) > len(octets) or _CONTROL.search(escaped) or octets.count(b"\r") > octets.count(b"\r\n"):
        return file(octets)
    encoded = quoted_printable(octets)
    # A soft break, unless the text itself ends its last line.
    return Body("quoted-printable", len(encoded), lambda: (encoded,), b"" if encoded.endswith(b"\r\n") else b"=\r\n")


def quoted_printable(octets: bytes) -> bytes:
    """Encode lines that end in CRLF; dots and "From " at the start of a line are escaped too, for the relays that touch them."""
    # binascii makes lines of 77: remove its soft breaks and break the lines again. A literal "=" is =3D by now.
    escaped = binascii.b2a_qp(octets).replace(b"=\r\n", b"").replace(b"=\n", b"")
    # From the line end before the first line on, so that it is a line like the others.
    encoded = b"\r\n".join([b"", *map(_short_lines, _blocks(escaped))])
    return encoded.replace(b"\r\n.", b"\r\n=2E").replace(b"\r\nFrom ", b"\r\n=46rom ")[2:]


def _blocks(text: bytes) -> Iterator[bytes]:
    """Split a text at line ends, so that the lines of a long text are not all in memory at once."""
    start = 0
    while (end := text.find(b"\r\n", start + _CHUNK)) >= 0:
        yield text[start:end]
        start = end + 2
    yield text[start:]


def _short_lines(block: bytes) -> bytes:
    return b"\r\n".join(line if len(line) <= _QP_LINE else b"=\r\n".join(_QP_PIECE.findall(line)) for line in block.split(b"\r\n"))


def file(octets: bytes) -> Body:
    """Encode octets as base64."""
    view = memoryview(octets)
    step = _CHUNK // 4 * 3

    def chunks() -> Iterable[bytes]:
        return _wrapped(binascii.b2a_base64(view[at : at + step], newline=False) for at in range(0, len(view), step))

    return Body("base64", base64_size(4 * -(-len(octets) // 3)), chunks)


def base64_file(content: str) -> Body:
    """Split base64 that was checked before into lines, without decoding it."""

    def chunks() -> Iterable[bytes]:
        return _wrapped(content[at : at + _CHUNK].encode("ascii") for at in range(0, len(content), _CHUNK))

    return Body("base64", base64_size(len(content)), chunks)


def message(octets: bytes) -> Body | None:
    """Take a mail as it is, with CRLF line ends; None if it is not a mail, or not fit for a 7-bit wire.

    RFC 2046 §5.2.1 allows no encoding of message/rfc822 but 7bit, 8bit and binary.
    """
    ends, with_cr = octets.count(b"\n"), octets.count(b"\r\n")
    if with_cr not in (0, ends) or octets.count(b"\r") > with_cr:
        return None  # line ends of both kinds
    canonical = octets if with_cr else octets.replace(b"\n", b"\r\n")
    if not canonical.isascii() or b"\0" in canonical or _has_long_line(canonical):
        return None
    return Body("7bit", len(canonical), lambda: (canonical,)) if _FIELD_NAME.match(canonical) else None


def _has_long_line(canonical: bytes) -> bool:
    """Look for the last line end within each line's limit: some thousand searches, however many lines there are."""
    start = 0
    while len(canonical) - start > MAX_LINE:
        end = canonical.rfind(b"\r\n", start, start + MAX_LINE + 2)
        if end < 0:
            return True
        start = end + 2
    return False


def _wrapped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut base64 into lines; every chunk but the last has 862 of them."""
    separator = b""
    for chunk in chunks:
        lines = _SPLIT(chunk) if len(chunk) == _CHUNK else [chunk[at : at + BASE64_LINE] for at in range(0, len(chunk), BASE64_LINE)]
        yield separator
        yield b"\r\n".join(lines)
        separator = b"\r\n"
