"""Bodies that are as expensive as their size allows, and the measured cost of parsing them.

Every field is filled to its limit or far beyond it with expensive input: encoded-words, tags, references, names, numbers, nesting.
"""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mailer.domain import header_text
from mailer.domain.addresses import MAX_WRITTEN
from mailer.domain.errors import RequestError
from mailer.domain.message import MAX_BODY, MAX_HEADERS, MAX_LISTED, MAX_PARTS, MAX_REPLY_TO, MAX_TAGS, parse_request
from mailer.domain.mime import Sender, compose

MIB = 1024 * 1024

SECONDS = 0.2
"""Maximum CPU time to read one request, or to compose its mail, on a machine that takes REFERENCE_SECONDS for `_reference`."""
REFERENCE_SECONDS = 0.01
BYTES = 32 * MIB
"""Maximum peak memory of either, without the request itself."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a call: CPU seconds of the fastest of four tries, peak bytes."""

    seconds: float
    bytes: int


def cost(call: Callable[[], object]) -> Cost:
    """Measure a call, successful or not; if it seems to exceed the budget, repeat it relative to the machine's current speed."""
    seconds = _seconds(call)
    for _ in range(3):
        if seconds > SECONDS:
            seconds = min(seconds, _seconds(call) / _slowness())
    tracemalloc.start()
    try:
        _run(call)
        return Cost(seconds, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def _seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    _run(call)
    return time.thread_time() - start


def _slowness() -> float:
    """Return the current slowdown relative to the reference machine, at least 1."""
    return max(1.0, _seconds(_reference) / REFERENCE_SECONDS)


def _reference() -> int:
    total = 0
    for number in range(200_000):
        total += number
    return total


def _run(call: Callable[[], object]) -> None:
    try:
        call()
    except RequestError:
        return


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

PIECES: Mapping[str, str] = {
    "letters": "a",
    "blanks": " ",
    "umlauts": "ü",
    "emoji": "💌",
    "combining": "a\u0301",
    "controls": "\x01",
    "quotes": '"',
    "backslashes": "\\",
    "dots": "a.",
    "dots at the start of lines": ".\n",
    "short lines": "ab\n",
    "line ends": "\n",
    "lone CRs": "\r",
    "words": "a b ",
    "start of an encoded-word": "=?",
    "start of a word with its charset": "=?utf-8?q?",
    "words without an end": "=?utf-8?q?x",
    "encoded-words": "=?utf-8?q?x?=",
    "encoded-words far apart": "=?utf-8?q?x?= ",
    "Q with escapes": "=?utf-8?q?=41=42=43=44?=",
    "base64 words": "=?gb18030?b?gTCBMIEwgTA=?=",
    "UTF-7 words": "=?utf-7?q?+AGEA-+AGEA-?=",
    "nested words": "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=",
    "the maximum number of words": "=?utf-7?q?+AGEA-+AGEA-+AGEA-+AGEA-?=",
    "punycode": "=?punycode?q?abcdefghijklmnop-abcdefghijklmnop?=",
    "tags": "<b>",
    "links": '<a href="http://x">',
    "open quotes in tags": '<a b="',
    "images": "<img alt='x'>",
    "lists": "<ul><li>x",
    "comments": "<!--",
    "scripts": "<script>",
    "references": "&a",
    "numbered references": "&#1;",
    "long references": "&" + "a" * 32,
    "cid URLs": "cid:%41 ",
    "escaped cid URLs": "cid:&amp;%41",
    "calendar methods": "METHOD:a\n",
    "percent signs": "%41",
    "separators": "[{,",
}
"""Repeated pieces of texts, by kind."""


def text(name: str, size: int) -> str:
    """Return a text of `size` characters, of one kind."""
    piece = PIECES[name]
    return (piece * (size // len(piece) + 1))[:size]


def numbered(before: str, after: str, size: int) -> str:
    """Return a text whose pieces are all different."""
    pieces: list[str] = []
    length = 0
    for number in range(size):
        piece = f"{before}{number}{after}"
        length += len(piece)
        if length > size:
            break
        pieces.append(piece)
    return "".join(pieces)


TEXTS: Mapping[str, Callable[[int], str]] = {
    **{name: lambda size, name=name: text(name, size) for name in PIECES},  # type: ignore[misc]  # the name is bound
    "unknown charsets": lambda size: numbered("=?x", "?q?x?=", size),
    "one word of punycode": lambda size: f"=?punycode?q?{'a' * (size - 16)}?=",
    "a number of many digits": lambda size: "&#" + "9" * (size - 2),
    "a number of many zeros": lambda size: "&#" + "0" * (size - 4) + "65",
    "a hexadecimal number of many digits": lambda size: "&#x" + "f" * (size - 3),
    "numbers of many digits": lambda size: (("&#" + "9" * 4300) * (size // 4302 + 1))[:size],
    "cid URLs of their own": lambda size: numbered("cid:%41", " ", size),
    "one tag": lambda size: "<a " + "x" * (size - 3),
}
"""Returns a text of at most that many characters."""


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LIMITS: Mapping[str, int] = {
    "tenantId": 64,
    "requestId": 128,
    "sendAt": 30,
    "subject": header_text.MAX_SUBJECT,
    "name": header_text.MAX_DISPLAY_NAME,
    "email": MAX_WRITTEN,
    "local part": 64,
    "domain": 253,
    "html": MAX_BODY,
    "text": MAX_BODY,
    "calendar": MAX_BODY,
    "header name": header_text.MAX_NAME,
    "header value": header_text.MAX_VALUE,
    "References": header_text.MAX_VALUE,
    "tag": 256,
    "filename": header_text.MAX_FILENAME,
    "contentType": 2_327,
    "contentId": 200,
    "content": 10 * MIB,
    "s3 key": 512,
    "s3 version": 1024,
    "url": 990,
    "mailto": MAX_WRITTEN + 501,
    "mailto query": 500,
}
"""Maximum length of each text of a request."""

BOX = {"email": "jo@example.com"}


def request(**fields: Any) -> dict[str, Any]:
    """Return a request that is valid except for these fields of its message."""
    return {"tenantId": "acme", "requestId": "r-1", "message": {"to": [BOX], "subject": "s", "html": "<p>Hi", **fields}}


def with_text(field: str, text: str) -> dict[str, Any]:
    """Return a request with one of its texts replaced."""
    file: dict[str, Any] = {"filename": "a.txt", "content": ""}
    upload: dict[str, Any] = {"filename": "a.txt"}
    if field in ("tenantId", "requestId", "sendAt"):
        return {**request(), field: text}
    message: dict[str, dict[str, Any]] = {
        "name": {"to": [{**BOX, "name": text}]},
        "email": {"to": [{"email": text}]},
        "local part": {"to": [{"email": f"{text}@example.com"}]},
        "domain": {"to": [{"email": f"jo@{text}"}]},
        "calendar": {"calendar": {"method": "REQUEST", "content": f"BEGIN:VCALENDAR\n{text}"}},
        "header name": {"headers": {text: "x"}},
        "header value": {"headers": {"X-A": text}},
        "References": {"headers": {"References": text}},
        "tag": {"tags": {text: text}},
        **{name: {"attachments": [{**file, name: text}]} for name in ("filename", "contentType", "contentId", "content")},
        "s3 key": {"attachments": [{**upload, "s3": {"key": f"acme/{text}"}}]},
        "s3 version": {"attachments": [{**upload, "s3": {"key": "acme/a", "versionId": text}}]},
        "url": {"listUnsubscribe": {"url": f"https://{text}"}},
        "mailto": {"listUnsubscribe": {"mailto": text}},
        "mailto query": {"listUnsubscribe": {"mailto": f"a@b.example?{text}"}},
        **{name: {name: text, "attachments": [{**file, "contentId": "a"}]} for name in ("subject", "html", "text")},
    }
    return request(**message[field])


def filling(name: str, markup: int, size: int) -> str:
    """Return a text of at most `size` bytes in UTF-8 and `markup` tags and references."""
    whole = within(TEXTS[name], size)
    each = (whole[:1_000].count("<") + whole[:1_000].count("&")) / len(whole[:1_000])
    return whole if not each else whole[: int(markup / each * 0.99)]


def within(make: Callable[[int], str], size: int) -> str:
    """Return a text of at most `size` bytes in UTF-8."""
    widest = max(len(character.encode()) for character in make(64))
    return make(size // widest)


def everywhere(make: Callable[[int], str], size: int = MIB) -> dict[str, Any]:
    """Return a request of about `size` bytes with one kind of text everywhere, each at its limit as far as the size allows."""
    share = size // 16
    built = with_free_texts(make, size)
    message = built["message"]
    message["cc"] = [{"email": f"jo@{number}{make(60)}.example"} for number in range(MAX_LISTED // 2)]
    message["tags"] = {f"t{number}": make(min(256, share)) for number in range(MAX_TAGS)}
    message["listUnsubscribe"] = {"url": f"https://{make(min(900, share))}", "mailto": f"a@b.example?{make(min(500, share))}"}
    return built


def with_free_texts(make: Callable[[int], str], size: int = MIB) -> dict[str, Any]:
    """Return a request with one kind of text in every field that accepts almost any text; it is valid with many kinds."""
    share = size // 16

    def short(limit: int) -> str:
        return within(make, min(limit, share))

    boxes = [{"email": f"jo{number}@example.com", "name": short(header_text.MAX_DISPLAY_NAME)} for number in range(MAX_LISTED // 2)]
    values = {f"X-{number}": short(header_text.MAX_VALUE) for number in range(min(MAX_HEADERS, size // 4 // header_text.MAX_VALUE))}
    files = [{"filename": short(header_text.MAX_FILENAME), "content": "", "contentId": f"a{number}"} for number in range(MAX_PARTS - 3)]
    built = request(
        to=boxes,
        replyTo=boxes[:MAX_REPLY_TO],
        subject=short(header_text.MAX_SUBJECT),
        headers=values,
        attachments=files,
        calendar={"method": "REQUEST", "content": f"BEGIN:VCALENDAR\n{short(share)}"},
    )
    rest = size - len(json.dumps(built, ensure_ascii=False).encode())
    built["message"]["html"] = "<p>Hi" + within(make, max(rest // 2, 64))
    return built


def _raw(inner: str) -> str:
    return f'{{"tenantId":"acme","requestId":"r-1","message":{{"to":[{{"email":"jo@example.com"}}],"subject":"s","text":"t",{inner}}}}}'


def _list(value: str, size: int) -> str:
    return f"[{','.join([value] * max(size // (len(value) + 1), 1))}]"


def _object(value: str, size: int, name: str = "x") -> str:
    return "{" + numbered(f'"{name}', f'":{value},', size).rstrip(",") + "}"


VALUES = (
    "{}",
    "[]",
    "1",
    '""',
    "null",
    '"a"',
    "1.5",
    "[[]]",
    '{"a":1}',
    '{"a":1,"a":1}',
    '"\\ud800"',
    "1e999",
    '{"email":"x"}',
    '{"email":"a@b.c"}',
)
LISTS = ("to", "cc", "bcc", "replyTo", "attachments", "headers", "tags", "unknown", "subject")


def structures(size: int = MIB) -> Iterator[tuple[str, str]]:
    """Yield descriptions and JSON of `size` bytes that is expensive by number, depth or names of its values."""
    for field in LISTS:
        for value in VALUES:
            yield f"{field}: a list of {value}", _raw(f'"{field}":{_list(value, size)}')
    for field in ("headers", "tags", "to", "unknown"):
        yield f"{field}: an object of many names", _raw(f'"{field}":{_object('""', size)}')
    yield "unknown fields of the message", _raw(_object("1", size).strip("{}"))
    yield "unknown fields of the request", _object("1", size)
    yield "unknown fields of the attachments", _raw(f'"attachments":{_list(_object("1", size // 100), size)}')
    yield "header names of any kind", _raw(f'"headers":{_object('""', size, "\\u0000")}')
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('{"a":1,"a":', "}"), ('[{"a":', "}]"), ('["\\ud800",', "]")):
        for depth in (15, 400, size // (len(opening) + len(closing))):
            yield f"{depth} of {opening} inside each other", _raw(f'"unknown":{opening * depth}1{closing * depth}')
            yield f"{depth} of {opening} inside each other, never closed", _raw(f'"unknown":{opening * depth}')
    deep = '{"a":' * 15 + "1" + "}" * 15
    yield "many deep objects", _raw(f'"unknown":{_list(deep, size)}')
    yield "an integer of many digits", _raw(f'"unknown":{"9" * size}')
    yield "integers of many digits", _raw(f'"unknown":{_list("9" * 4300, size)}')
    yield "a number of many digits", _raw(f'"unknown":1.{"1" * size}')
    yield "numbers of many digits", _raw(f'"unknown":{_list("1." + "1" * 800, size)}')
    yield "escapes", _raw(f'"html":"{"\\u00fc" * (size // 6)}"')
    yield "escaped quotes", _raw(f'"html":"{'\\"' * (size // 2)}"')
    yield "escaped backslashes", _raw(f'"html":"{"\\\\" * (size // 2)}"')
    yield "blanks", " " * size
    yield "quotes", '"' * size
    yield "only opening brackets", "[" * size
    yield "only commas", "[" + "," * size


# ── the mail ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def composing(body: str) -> Callable[[], object] | None:
    """Return a call that composes the mail of a request, or None if the request is rejected."""
    try:
        message = parse_request(body).message
    except RequestError:
        return None
    return lambda: compose(message, Sender("billing@acme.example", "Acme"), date=datetime(2026, 11, 24, tzinfo=UTC))
