"""Build the tree of parts: mixed > alternative > related, without levels that are not needed."""

import binascii
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import MAX_RAW_BYTES, Attachment, EmailMessage, S3Object, raw_too_large
from mailer.domain.mime import bodies
from mailer.domain.mime.bodies import Body
from mailer.domain.mime.headers import folded, is_plain_parameter, parameter, parameterised
from mailer.domain.mime.plain_text import plain_text
from mailer.domain.mime.references import unescape

Load = Callable[[S3Object], bytes]

_CID_URL = re.compile(r"""cid:([^\s"'<>()]+)""", re.IGNORECASE | re.ASCII)
_PARAMETER = re.compile(r'; ?([^=]+)=("[^"]*"|[^;]*)')


@dataclass(frozen=True, slots=True)
class Part:
    """A MIME entity: its header fields, and its body of known size, in chunks."""

    fields: Sequence[str]
    size: int
    chunks: Callable[[], Iterable[bytes]]
    end: bytes = b""  # what closes the last line without adding to the content, where no boundary follows

    def head(self) -> bytes:
        """Return the header block, with the empty line that ends it."""
        return "\r\n".join([*self.fields, "", ""]).encode("ascii")


def tree(message: EmailMessage, load: Load | None) -> Part:
    """Build the whole content of a message; uploads are loaded, nothing is joined yet.

    Raises:
        RequestError: naming attachments that cannot be loaded.
    """
    files = list(zip(message.attachments, _files(message.attachments, load), strict=True))
    shown_in_html = _referenced(message)
    related = [part for attachment, part in files if attachment.content_id in shown_in_html]
    beside = [part for attachment, part in files if attachment.content_id not in shown_in_html]
    alternatives = _alternatives(message, related)
    content = [_multipart("alternative", alternatives)] if len(alternatives) > 1 else alternatives
    return _multipart("mixed", [*content, *beside]) if beside else content[0]


def _alternatives(message: EmailMessage, related: Sequence[Part]) -> list[Part]:
    """Return the bodies, the plainest first (RFC 2046 §5.1.4)."""
    text, html, calendar = _plain(message), message.html, message.calendar
    given: list[Part] = []
    if text is not None:
        given.append(_text_part("plain", text))
    if html or (html is not None and text is None):  # an empty page beside a text would be shown instead of it
        page = _text_part("html", html)
        given.append(_multipart("related", [page, *related], 'type="text/html"') if related else page)
    if calendar:
        given.append(_text_part("calendar", calendar.content, f"method={calendar.method}"))
    return given


def _plain(message: EmailMessage) -> str | None:
    """Return the given text, or else the text of the HTML; if that is empty, the subject."""
    if message.text or not (message.html and message.text_from_html):
        return message.text
    return plain_text(message.html) or message.subject


def _referenced(message: EmailMessage) -> set[str | None]:
    """Return the contentIds that the HTML refers to by `cid:` URLs (RFC 2392)."""
    ids: set[str | None] = {attachment.content_id for attachment in message.attachments if attachment.content_id}
    if not (ids and message.html):
        return set()
    urls = set(_CID_URL.findall(message.html))
    # All that are escaped at once: a page may have a hundred thousand.
    escaped = " ".join(url for url in urls if "%" in url or "&" in url)
    return ids & (urls | set(unquote(unescape(escaped)).split(" ")))


def _text_part(subtype: str, content: str, *extra: str) -> Part:
    return _part(bodies.text(content), parameterised("Content-Type", f"text/{subtype}", ["charset=utf-8", *extra]))


def _files(attachments: Iterable[Attachment], load: Load | None) -> list[Part]:
    missing: list[Problem] = []
    parts: list[Part] = []
    for at, attachment in enumerate(attachments):
        if attachment.s3 and load is None:
            missing.append(Problem(f"message.attachments[{at}].s3", "must be given as content here: uploads cannot be read"))
            continue
        parts.append(_file_part(attachment, _octets(attachment, load)))
        refuse_too_large(sum(part.size for part in parts))  # before the next one is loaded
    if missing:
        raise RequestError(missing, "attachment_missing")
    return parts


def refuse_too_large(size: int) -> None:
    """Refuse a message whose raw form has at least so many octets, where SES would."""
    if size > MAX_RAW_BYTES:
        raise RequestError([raw_too_large(size)], "message_too_large")


def _octets(attachment: Attachment, load: Load | None) -> bytes | None:
    """Load an upload, decode an attached mail; all other inline content stays base64."""
    if attachment.s3 and load:
        return load(attachment.s3)
    return binascii.a2b_base64(attachment.content or "") if attachment.is_message else None


def _file_part(attachment: Attachment, octets: bytes | None) -> Part:
    media_type, body = attachment.media_type, None
    if attachment.is_message and octets is not None:
        body = bodies.message(octets)
        media_type = media_type if body else "application/octet-stream"
    if body is None:
        body = bodies.base64_file(attachment.content or "") if octets is None else bodies.file(octets)
    name = attachment.filename
    fields = [
        _content_type(media_type, name),
        parameterised("Content-Disposition", attachment.shown, parameter("filename", name)),
    ]
    if attachment.content_id:
        fields.append(folded("Content-ID", [f"<{attachment.content_id}>"]))
    return _part(body, *fields)


def _content_type(media_type: str, filename: str) -> str:
    """Write the type as given; with the name, if it is plain, for readers from before RFC 2183."""
    value, semicolon, given = media_type.partition(";")
    parameters = [f"{attribute.strip()}={text}" for attribute, text in _PARAMETER.findall(semicolon + given)]
    return parameterised("Content-Type", value, parameters + (parameter("name", filename) if is_plain_parameter(filename) else []))


def _part(body: Body, *fields: str) -> Part:
    return Part([*fields, f"Content-Transfer-Encoding: {body.encoding}"], body.size, body.chunks, body.end)


def _multipart(subtype: str, parts: Sequence[Part], *extra: str) -> Part:
    boundary = f"=_{secrets.token_hex(16)}"  # "=_" can stand in no quoted-printable or base64 body (RFC 2045 §6.7)
    between, last = f"\r\n--{boundary}\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
    heads = [part.head() for part in parts]

    def chunks() -> Iterator[bytes]:
        opening = between[2:]
        for part, head in zip(parts, heads, strict=True):
            yield opening + head
            yield from part.chunks()
            opening = between
        yield last

    size = len(parts) * len(between) - 2 + len(last) + sum(map(len, heads)) + sum(part.size for part in parts)
    return Part([parameterised("Content-Type", f"multipart/{subtype}", [*extra, *parameter("boundary", boundary)])], size, chunks)
