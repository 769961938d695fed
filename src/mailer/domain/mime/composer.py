"""Compose one message: validate the sender, build the tree, write the header, check it, then join the octets."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote

from mailer.domain.addresses import address_fault, ascii_address
from mailer.domain.errors import Problem, RequestError
from mailer.domain.header_text import text_fault
from mailer.domain.message import EmailMessage, ListUnsubscribe, Mailbox
from mailer.domain.mime.check import check
from mailer.domain.mime.headers import folded, mailboxes, unstructured
from mailer.domain.mime.parts import Load, refuse_too_large, tree

_MESSAGE_ID = re.compile(r"<[A-Za-z0-9!#$%&'*+/=^_`{|}~.-]{1,200}@[A-Za-z0-9.-]{1,200}>")
_MAILTO_SAFE = "!$'*+"  # of a local part, RFC 6068 §2


@dataclass(frozen=True, slots=True)
class Sender:
    """Who the mail is from: the address and name of the tenant's config."""

    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Mail:
    """A finished message and its envelope."""

    mail_from: str
    recipients: tuple[str, ...]
    mime: bytes = field(repr=False)


def compose(
    message: EmailMessage,
    sender: Sender,
    *,
    date: datetime,
    message_id: str | None = None,
    load: Load | None = None,
) -> Mail:
    """Build the raw message, 7-bit with CRLF line ends, and its envelope; bcc is in the envelope only.

    `date` must be aware. SES writes a Message-ID of its own; for other relays one must be given, as `<left@right>`.
    `load` fetches attachments that were uploaded; its errors pass through.

    Raises:
        RequestError: naming what cannot be sent, by its path (`fromAddress`, `fromName`, `message…`).
    """
    origin = _origin(sender)
    root = tree(message, load)
    fields = [*_fields(message, origin, date, message_id), "MIME-Version: 1.0", *root.fields]
    head = "\r\n".join([*fields, "", ""]).encode("ascii")
    refuse_too_large(len(head) + root.size + len(root.end))
    check(
        head, [line.partition(":")[0] for line in fields], {name: [box.address for box in boxes] for name, boxes in _boxes(message, origin)}
    )
    return Mail(origin.address, message.recipients, b"".join([head, *root.chunks(), root.end]))


def problems(message: EmailMessage, sender: Sender, *, load: Load | None = None) -> list[Problem]:
    """Return every fault that `compose` would find in a validated message."""
    found: list[Problem] = []
    try:
        refuse_too_large(tree(message, load).size)
    except RequestError as error:
        found += error.problems
    return [*_sender_problems(sender), *found]


def _origin(sender: Sender) -> Mailbox:
    if found := _sender_problems(sender):
        raise RequestError(found)
    return Mailbox(email=sender.email, name=sender.name or None)


def _sender_problems(sender: Sender) -> list[Problem]:
    faults = [("fromAddress", address_fault(sender.email)), ("fromName", text_fault(sender.name))]
    return [Problem(path, problem) for path, problem in faults if problem]


def _boxes(message: EmailMessage, origin: Mailbox) -> Iterator[tuple[str, Sequence[Mailbox]]]:
    """Return the header fields with addresses; bcc is not among them."""
    for name, boxes in (("From", (origin,)), ("To", message.to), ("Cc", message.cc), ("Reply-To", message.reply_to)):
        if boxes:
            yield name, boxes


def _fields(message: EmailMessage, origin: Mailbox, date: datetime, message_id: str | None) -> Iterator[str]:
    for name, boxes in _boxes(message, origin):
        yield mailboxes(name, boxes)
    yield unstructured("Subject", message.subject)
    yield f"Date: {format_datetime(date.astimezone(UTC))}"
    if message_id is not None:
        if not _MESSAGE_ID.fullmatch(message_id):
            raise RequestError([Problem("messageId", "must be <left@right>")])
        yield folded("Message-ID", [message_id])
    if message.list_unsubscribe:
        yield from _list_unsubscribe(message.list_unsubscribe)
    for name, value in message.headers.items():
        yield unstructured(name, value)


def _list_unsubscribe(way: ListUnsubscribe) -> Iterator[str]:
    """Write List-Unsubscribe (RFC 2369) and List-Unsubscribe-Post (RFC 8058); a URL is never folded or encoded."""
    urls = [f"<{way.url}>"] if way.url else []
    if way.mailto:
        address, question, query = way.mailto.partition("?")
        local_part, _, domain = ascii_address(address).rpartition("@")
        urls.append(f"<mailto:{quote(local_part, safe=_MAILTO_SAFE)}@{domain}{question}{query}>")
    yield folded("List-Unsubscribe", [*(f"{url}," for url in urls[:-1]), urls[-1]])
    if way.one_click:
        yield "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
