"""Parse a raw mail for display: text, HTML with its inline images, headers and files."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

LARGEST_INLINE = 4 * 1024 * 1024
"""Most bytes of inline images shown in a mail's HTML."""

_CID = re.compile(r"""(["'(])cid:([^"')\s]+)""", re.IGNORECASE | re.ASCII)
_REMOTE = re.compile(r"""(?:\bsrc(?:set)?\s*=\s*["']?|\bbackground\s*=\s*["']?|url\(\s*["']?)\s*(?:https?:)?//""", re.IGNORECASE | re.ASCII)
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class File:
    """An attachment."""

    number: int
    filename: str
    content_type: str
    content: bytes
    inline: bool


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """A mail for display; `html` and `text` are None if it has no such part."""

    subject: str
    sender: str
    to: str
    date: str
    headers: Sequence[tuple[str, str]]
    text: str | None
    html: str | None
    files: Sequence[File]
    remote: bool
    """Whether the HTML refers to remote content."""


def parse_mail(raw: bytes) -> ParsedMail:
    """Parse a mail; all its content is untrusted text."""
    message = BytesParser(policy=policy.default).parsebytes(raw)
    bodies = {part.get_content_type(): part for part in message.walk() if not part.is_multipart() and not _is_file(part)}
    files = [_file(number, part) for number, part in enumerate(filter(_is_file, message.walk()))]
    html = _text(bodies.get("text/html"))
    return ParsedMail(
        subject=_header(message, "subject"),
        sender=_header(message, "from"),
        to=_header(message, "to"),
        date=_header(message, "date"),
        headers=[(name, " ".join(str(value).split())) for name, value in message.items()],
        text=_text(bodies.get("text/plain")),
        html=None if html is None else _with_images(html, message),
        files=files,
        remote=bool(html and _REMOTE.search(html)),
    )


def subject_of(raw: bytes) -> str:
    """Return a mail's subject without parsing the rest."""
    head = BytesParser(policy=policy.default).parsebytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", headersonly=True)
    return _header(head, "subject")


def _header(message: EmailMessage, name: str) -> str:
    return " ".join(str(message.get(name, "")).split())


def _is_file(part: EmailMessage) -> bool:
    if part.is_multipart():
        return part.get_content_type() == "message/rfc822"
    return part.get_content_disposition() is not None or part.get_content_maintype() != "text"


def _text(part: EmailMessage | None) -> str | None:
    if part is None:
        return None
    content = part.get_payload(decode=True)
    charset = part.get_content_charset("utf-8")
    try:
        return bytes(content).decode(charset, "replace") if isinstance(content, bytes) else None
    except LookupError:  # unknown charset
        return bytes(content).decode("latin-1") if isinstance(content, bytes) else None


def _file(number: int, part: EmailMessage) -> File:
    content = part.get_payload(decode=True)
    data = content if isinstance(content, bytes) else part.as_bytes()
    filename = part.get_filename() or part.get_content_type().replace("/", ".")
    return File(number, filename, part.get_content_type(), data, bool(part.get("content-id")))


def _with_images(html: str, message: EmailMessage) -> str:
    """Embed the mail's inline images in its HTML as data URLs; its frame cannot load any."""
    images: dict[str, str] = {}
    room = LARGEST_INLINE
    for part in message.walk():
        content_id = str(part.get("content-id", "")).strip().strip("<>")
        content = None if part.is_multipart() else part.get_payload(decode=True)
        if content_id and isinstance(content, bytes) and part.get_content_type() in _IMAGES and len(content) <= room:
            room -= len(content)
            images[content_id] = f"data:{part.get_content_type()};base64,{base64.b64encode(content).decode()}"
    return _CID.sub(lambda found: found[1] + images.get(found[2], f"cid:{found[2]}"), html)
