"""Parse a finished header block with another parser, and compare it with what was asked for."""

import re
from collections.abc import Mapping, Sequence

from mailer.domain.errors import Problem, RequestError
from mailer.domain.header_text import MAX_LINE, begun_words

_PLAIN = b"\t\r\n" + bytes(range(0x20, 0x7F))
_FOLD = re.compile(r"\r\n(?=[ \t])")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


OWN_WORDS = {"=?utf-8?q?", "=?utf-8?b?"}
"""The beginnings of our own encoded-words. A caller's could begin in one address and continue in the next."""


def check(head: bytes, names: Sequence[str], addresses: Mapping[str, Sequence[str]]) -> None:
    """Refuse a header block that does not have these fields, in this order, and these addresses in them.

    `head` ends with the empty line; `names` are all field names, `addresses` the addr-specs by field name.

    Raises:
        RequestError: something differs, so the message must not be sent.
    """
    text = head.decode("latin-1")
    fields = [field.partition(":") for field in _FOLD.sub("", text).split("\r\n")[:-2]]
    sound = (
        text.endswith("\r\n\r\n")
        and not head.translate(None, _PLAIN)
        and head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")
        and max(map(len, text.split("\r\n"))) <= MAX_LINE
        and all(begun_words(value) <= OWN_WORDS for _, _, value in fields)
        and [name for name, _, _ in fields] == list(names)
        and all(_addresses(value) == list(addresses[name]) for name, _, value in fields if name in addresses)
    )
    if not sound:
        raise RequestError([Problem("message", "cannot be written as a mail header without changing its meaning")])


def _addresses(value: str) -> list[str]:
    mailboxes = _QUOTED.sub("", value).split(",")
    return [mailbox[mailbox.rfind("<") + 1 :].strip(" \t>") for mailbox in mailboxes]
