"""Create messages, and parse mails with parsers that share no code with the composer."""

import base64
import email
import email.policy
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage as ParsedMessage
from email.utils import getaddresses
from typing import Any

from mailer.domain.message import EmailMessage
from mailer.domain.mime import Load, Mail, Sender, compose
from mailer.domain.wire import parse

DATE = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SENDER = Sender("no-reply@acme.example", "Acme")


def message(**fields: Any) -> EmailMessage:
    """Return a message with these fields of a request; missing ones have minimal valid values."""
    return parse(EmailMessage, {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hi", **fields})


def mail(*, sender: Sender = SENDER, load: Load | None = None, **fields: Any) -> Mail:
    return compose(message(**fields), sender, date=DATE, load=load)


def parsed(**fields: Any) -> ParsedMessage:
    return read(mail(**fields).mime)


def read(mime: bytes) -> ParsedMessage:
    found = email.message_from_bytes(mime, policy=email.policy.default)
    assert not any(part.defects for part in found.walk())
    return found


def raw_header(mime: bytes, name: str) -> str:
    """Return a header's raw value, unfolded; exactly one must be present."""
    [value] = email.message_from_bytes(mime, policy=email.policy.compat32).get_all(name, [])
    return str(value).replace("\r\n", "")


def header_text(mime: bytes, name: str) -> str:
    """Return a header's value decoded by RFC 2047, with Python's older decoder."""
    return str(make_header(decode_header(raw_header(mime, name))))


def boxes(mime: bytes, name: str) -> list[tuple[str, str]]:
    """Return (display name, address) of all mailboxes in a field."""
    found = getaddresses([raw_header(mime, name)], strict=True)
    return [(str(make_header(decode_header(shown))), address) for shown, address in found]


def header_lines(mime: bytes) -> list[str]:
    return mime.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def with_line_ends(text: str) -> str:
    """Return text as in a mail: lines end in CRLF, a lone CR is not a line end."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n")
