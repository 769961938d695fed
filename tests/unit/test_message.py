"""The fields of a request: what is accepted, and the problems of a rejection."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.domain import file_types
from mailer.domain.addresses import ascii_address
from mailer.domain.errors import ErrorInfo, Problem, RequestError
from mailer.domain.message import (
    MAX_BODY,
    MAX_RAW_BYTES,
    SendRequest,
    canonical_json,
    content_hash,
    parse_request,
    readable_ids,
    schedule,
)
from mailer.domain.uploads import MAX_UPLOAD

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def body(**fields: Any) -> str:
    """Return a request's JSON; `fields` are the message's."""
    return json.dumps({"tenantId": "acme", "requestId": "r-1", "message": message(**fields)})


def message(**fields: Any) -> dict[str, Any]:
    return {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hi", **fields}


def request(**fields: Any) -> SendRequest:
    """Return a request; `fields` are its own, besides the message."""
    return parse_request(json.dumps({"tenantId": "acme", "requestId": "r-1", "message": message(), **fields}))


def refusal(text: str | bytes, **given: str) -> RequestError:
    with pytest.raises(RequestError) as refused:
        parse_request(text, **given)
    return refused.value


def paths(error: RequestError) -> list[str]:
    return [problem.path for problem in error.problems]


# Accepted messages


@pytest.mark.parametrize(
    "fields",
    [
        {"to": [], "bcc": [{"email": "jo@example.com"}]},
        {"to": [{"email": f"jo{at}@example.com"} for at in range(50)]},
        {"to": [{"email": "jo@example.com"}] * 60, "bcc": [{"email": "jo@example.com"}] * 40},
        {"subject": "ü" * 998, "headers": {"X" * 76: "ü" * 4_096, "References": "x " * 2_048}},
        {"headers": {f"X-{number}": "" for number in range(100)}},
        {"replyTo": [{"email": f"jo{number}@example.com", "name": "ü" * 320} for number in range(50)]},
        {"subject": ""},
        {"text": ""},
        {"text": None, "html": "<p>"},
        {"text": None, "attachments": [{"filename": "a.pdf", "content": ""}]},
        {"attachments": [{"filename": f"{at}.pdf", "content": ""} for at in range(99)]},
        {"attachments": [{"filename": "a.pdf", "content": "QQ==", "contentType": 'application/x-a+b; v="1 2"'}]},
        {"headers": {"X-A": "b", "x-b": ""}},
        {"headers": {"List-Unsubscribe": "<https://acme.example>"}},
        {"listUnsubscribe": {"url": "http://acme.example/u"}},
        {"listUnsubscribe": {"mailto": "u@bücher.example?subject=leave"}},
        {"tags": {"a" * 256: "b-_1"}},
        {"tags": {f"t{number}": "x" for number in range(46)}},
        {"calendar": {"method": "CANCEL", "content": "begin:vcalendar\r\nmethod:cancel\r\n"}},
        {"replyTo": [{"email": "a@b.example"}, {"email": "c@d.example", "name": None}]},
    ],
)
def test_these_messages_are_accepted(fields: dict[str, Any]) -> None:
    """They have every optional field, and values at the limits."""
    assert parse_request(body(**fields)).tenant_id == "acme"


CONTROL = "a\r\nBcc: x@y.example"
HIDDEN = [
    "=?utf-8?q?=0D=0ABcc:_x?=",
    "=?utf-8?b?DQpCY2M6IHg=?=",
    "=?utf-7?q?+AA0ACg-?=",
    "=?utf-16?b?AA0ACg==?=",
    "=?x?q?=0A?=",
    "=?utf-8*en?Q?=00?=",
]
TWICE_HIDDEN = "=?utf-8?q?=3D=3Futf-8=3Fq=3F=3D0A=3F=3D?="


@pytest.mark.parametrize(
    "text", ["\r", "\n", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\uffff", CONTROL, *HIDDEN, TWICE_HIDDEN]
)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("message.subject", lambda text: {"subject": text}),
        ("message.to[0].name", lambda text: {"to": [{"email": "jo@example.com", "name": text}]}),
        ("message.bcc[0].name", lambda text: {"bcc": [{"email": "jo@example.com", "name": text}]}),
        ("message.replyTo.name", lambda text: {"replyTo": {"email": "jo@example.com", "name": text}}),
        ("message.headers.X-A", lambda text: {"headers": {"X-A": text}}),
        ("message.attachments[0].filename", lambda text: {"attachments": [{"filename": f"a{text}.pdf", "content": ""}]}),
    ],
)
def test_control_characters_are_refused_in_headers(text: str, path: str, fields: Any) -> None:
    """They are rejected in every field that becomes a header, also if encoded."""
    assert paths(refusal(body(**fields(text)))) == [path]


@pytest.mark.parametrize("text", ["=?utf-8?q?caf=C3=A9?=", "=?iso-2022-jp?b?GyRCJCIbKEI=?=", "=?", "=?=?=?=", "=?nocharset?x?=", "?=x=?"])
def test_text_that_looks_encoded_is_accepted(text: str) -> None:
    """An encoded-word without a hidden control character is literal text."""
    assert parse_request(body(subject=text)).message.subject == text


RESERVED = [
    *("From", "to", "CC", "Bcc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Foo", "Sender"),
    *("DKIM-Signature", "ARC-Seal", "Received", "Authentication-Results", "Return-Path", "Resent-To", "X-SES-Message-Tags", "x-amz-foo"),
    "X-Amzn-Trace-Id",
]


@pytest.mark.parametrize("name", [*RESERVED, "", "X A", "X:A", "X\r\nBcc", "Ü", "X" * 77, "X(A)", "X\0"])
def test_a_header_name_is_an_unreserved_token(name: str) -> None:
    """Reserved names and other text than a token are rejected."""
    error = refusal(body(headers={name: "x"}))
    assert len(error.problems) == 1
    assert error.problems[0].path.startswith("message.headers")


def test_header_names_are_unique_in_any_case() -> None:
    """SES rejects duplicates; listUnsubscribe and its own header together are rejected too."""
    assert paths(refusal(body(headers={"X-A": "1", "x-a": "2"}))) == ["message.headers.x-a"]
    unsubscribe = {"listUnsubscribe": {"mailto": "u@acme.example"}, "headers": {"list-unsubscribe": "<mailto:u@acme.example>"}}
    assert paths(refusal(body(**unsubscribe))) == ["message.headers.list-unsubscribe"]


@pytest.mark.parametrize(
    "address",
    [
        "jo", "@example.com", "jo@", "jo@@example.com", "a@b@example.com", " jo@example.com", "jo@example.com ", "jo @example.com",
        '"jo"@example.com', "jo(x)@example.com", "jo@example.com(x)", "Jo <jo@example.com>", "<jo@example.com>", "g: jo@example.com;",
        "jo@example.com, x@example.com", ".jo@example.com", "jo.@example.com", "j..o@example.com", "jö@example.com", "jo@localhost",
        "jo@example.com.", "jo@.example.com", "jo@example..com", "jo@-a.com", "jo@a-.com", "jo@a_b.com", "jo@[127.0.0.1]", "jo@127.0.0.1",
        "=?utf-8?q?jo?=@example.com", "a=?x?B?b@example.com", "=?=0A?q?x?=@example.com",
        "jo@💌.example", "jo@exa mple.com", "jo@example.com\n", "a" * 65 + "@example.com", "jo@" + "a" * 64 + ".com",
        "a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".info", "jo@" + "ü" * 60 + ".com", "jo@" + "é." * 200 + "com", "",
    ],
)  # fmt: skip
def test_an_address_is_a_plain_addr_spec(address: str) -> None:
    """Quoted local parts, comments, groups, literals and any other text than a strict addr-spec are rejected."""
    error = refusal(body(to=[{"email": address}]))
    assert paths(error) == ["message.to[0].email"]


LONGEST = "a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".com"  # 254 characters


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("jo+tag@Example.COM", "jo+tag@Example.COM"),
        ("!#$%&'*+/=?^_`{|}~-@a.example", "!#$%&'*+/=?^_`{|}~-@a.example"),
        ("jo@bücher.example", "jo@xn--bcher-kva.example"),
        ("jo@faß.example", "jo@xn--fa-hia.example"),
        ("jo@例え。jp", "jo@xn--r8jz45g.jp"),
        ("jo@xn--6j8h.example", "jo@xn--6j8h.example"),
        (LONGEST, LONGEST),
    ],
)
def test_an_address_is_sent_as_ascii(address: str, written: str) -> None:
    """Domains are mapped by UTS 46 and written in punycode; the maximum is 254 characters."""
    assert ascii_address(address) == written


BOX = {"email": "jo@example.com"}
FILE = {"filename": "a.pdf", "content": ""}
TOO_LONG: list[tuple[str, int, dict[str, Any]]] = [
    ("message.subject", 998, {"subject": "a" * 999}),
    ("message.to[0].name", 320, {"to": [{**BOX, "name": "a" * 321}]}),
    ("message.to[0].email", 318, {"to": [{"email": "a" * 319}]}),
    ("message.to[0].email", 253, {"to": [{"email": "jo@" + "字" * 240 + ".com"}]}),
    ("message.html", 1_044_480, {"html": "a" * 1_044_481}),
    ("message.text", 1_044_480, {"text": "a" * 1_044_481}),
    ("message.calendar.content", 1_044_480, {"calendar": {"method": "REQUEST", "content": "a" * 1_044_481}}),
    ("message.replyTo", 50, {"replyTo": [BOX] * 51}),
    ("message.headers", 100, {"headers": {f"X-{number}": "" for number in range(101)}}),
    ("message.headers.X-A", 4_096, {"headers": {"X-A": "a" * 4_097}}),
    ("message.headers.?", 76, {"headers": {"X" * 77: ""}}),
    ("message.tags", 46, {"tags": {f"t{number}": "x" for number in range(47)}}),
    ("message.tags.a", 256, {"tags": {"a": "x" * 257}}),
    ("message.attachments", 100, {"attachments": [FILE] * 101}),
    ("message.attachments[0].filename", 255, {"attachments": [{**FILE, "filename": "a" * 256}]}),
    ("message.attachments[0].contentId", 200, {"attachments": [{**FILE, "contentId": "a" * 201}]}),
    ("message.listUnsubscribe.url", 990, {"listUnsubscribe": {"url": "https://" + "a" * 983}}),
    ("message.listUnsubscribe.mailto", 819, {"listUnsubscribe": {"mailto": "a@b.example?" + "a" * 808}}),
]
"""Fields that are one above a limit, with path and limit."""


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("message.to", {"to": []}),
        ("message.to", {"to": [{"email": f"jo{at}@example.com"} for at in range(51)]}),
        ("message.to", {"bcc": [{"email": f"jo{at}@example.com"} for at in range(50)]}),
        ("message.to", {"to": {"email": "jo@example.com"}}),
        ("message.to[0].email", {"to": [{"name": "Jo"}]}),
        ("message.to[0]", {"to": ["jo@example.com"]}),
        ("message", {"text": None}),
        ("message.text", {"text": 1}),
        ("message.subject", {"subject": None}),
        ("message.textFromHtml", {"textFromHtml": "yes"}),
        ("message.attachments", {"attachments": [{"filename": f"{at}.pdf", "content": ""} for at in range(100)]}),
        ("message.attachments[0].filename", {"attachments": [{"filename": " ", "content": ""}]}),
        ("message.attachments[0].filename", {"attachments": [{"content": ""}]}),
        ("message.attachments[0]", {"attachments": [{"filename": "a.pdf"}]}),
        ("message.attachments[0]", {"attachments": [{"filename": "a.pdf", "content": "", "s3": {"key": "acme/a"}}]}),
        ("message.attachments[0].disposition", {"attachments": [{"filename": "a.pdf", "content": "", "disposition": "form-data"}]}),
        ("message.attachments[0].s3.key", {"attachments": [{"filename": "a.pdf", "s3": {"key": "other/a"}}]}),
        ("message.attachments[0].s3.key", {"attachments": [{"filename": "a.pdf", "s3": {"key": "acme/../other/a"}}]}),
        ("message.attachments[0].s3.key", {"attachments": [{"filename": "a.pdf", "s3": {"key": "acme"}}]}),
        ("message.attachments[0].s3.versionId", {"attachments": [{"filename": "a.pdf", "s3": {"key": "acme/a", "versionId": "\n"}}]}),
        ("message.attachments[1].contentId", {"attachments": [{"filename": "a.png", "content": "", "contentId": "a"}] * 2}),
        ("message.listUnsubscribe", {"listUnsubscribe": {}}),
        ("message.listUnsubscribe.url", {"listUnsubscribe": {"mailto": "u@acme.example", "oneClick": True}}),
        ("message.listUnsubscribe.url", {"listUnsubscribe": {"url": "http://acme.example", "oneClick": True}}),
        ("message.listUnsubscribe.mailto", {"listUnsubscribe": {"mailto": "mailto:u@acme.example"}}),
        ("message.listUnsubscribe.mailto", {"listUnsubscribe": {"mailto": "u@acme.example?" + "x" * 501}}),
        ("message.listUnsubscribe.mailto", {"listUnsubscribe": {"mailto": "u@acme.example?a>,<b"}}),
        ("message.calendar.method", {"calendar": {"method": "request", "content": "BEGIN:VCALENDAR\n"}}),
        ("message.calendar.method", {"calendar": {"method": "REQUEST", "content": "BEGIN:VCALENDAR\nMETHOD:CANCEL\n"}}),
        ("message.calendar.method", {"calendar": {"method": "PUBLISH", "content": "BEGIN:VCALENDAR\nMETHOD:PUBLI\u017fH\n"}}),
        ("message.calendar.content", {"calendar": {"method": "REQUEST", "content": "VCALENDAR"}}),
        ("message.tags.?", {"tags": {"a b": "c"}}),
        ("message.tags.a", {"tags": {"a": "c d"}}),
        ("message.tags.tenantmail-verify", {"tags": {"tenantmail-verify": "1"}}),
        ("message.tags.a", {"tags": {"a": ""}}),
        *((path, fields) for path, _, fields in TOO_LONG),
        ("message", {"to": [BOX] * 60, "cc": [BOX] * 41}),
        ("message.from", {"from": "x"}),
        ("message.reply_to", {"reply_to": []}),
    ],
)
def test_violations_are_refused_with_their_path(path: str, fields: dict[str, Any]) -> None:
    """Each problem has the path of the caller's field."""
    assert paths(refusal(body(**fields))) == [path]


URLS = ["https://a.example/ü", "https://a b", "https://a>,<https://b", "ftp://a.example", "https://", "javascript:x", "https://a\r\nX: y"]


@pytest.mark.parametrize("url", [*URLS, "https://a.example/=?utf-8?q?x?=", "https://a.example/" + "x" * 973])
def test_an_unsubscribe_url_is_plain_and_fits_into_a_line(url: str) -> None:
    """It needs no encoding or folding and has at most 990 characters."""
    assert paths(refusal(body(listUnsubscribe={"url": url}))) == ["message.listUnsubscribe.url"]


@pytest.mark.parametrize("content", ["#", "QQ", "QQ=", "QQ===", "====", "Q===", "=QQ=", "QR==", "QQF=", "Q-_=", "QQ==\n", "QQ ==", "Ü==="])
def test_base64_must_be_complete(content: str) -> None:
    """Other alphabets, lost padding, blanks and bits that fall off the end are signs of a broken file."""
    assert paths(refusal(body(attachments=[{"filename": "a.pdf", "content": content}]))) == ["message.attachments[0].content"]


ENCODED = 'a/b; c="=?utf-8?q?=0A?="'
TYPES = [
    ENCODED,
    "a/b; \u212a=x",
    "a/b; c=\u017f",
    "a/b; \u017fame=x",
    "pdf",
    "a/b/c",
    "a/",
    "a/b;",
    "a/b; c",
    "a/b\r\nX: y",
    "text/plain; name=x",
    "text/plain; boundary=x",
    'a/b; c="\\"',
    "ü/a",
]


@pytest.mark.parametrize("content_type", [*TYPES, "multipart/mixed", "Multipart/Mixed", "message/partial", "message/delivery-status"])
def test_a_content_type_is_a_simple_one(content_type: str) -> None:
    """Types that hold parts, and parameters that the service writes, cannot be given."""
    error = refusal(body(attachments=[{"filename": "a", "content": "", "contentType": content_type}]))
    assert paths(error) == ["message.attachments[0].contentType"]


@pytest.mark.parametrize("content_id", ["", "<a>", "a b", "a\n", "ü", "a>", "a?b", "a" * 201])
def test_a_content_id_is_valid_in_a_url_and_a_header(content_id: str) -> None:
    """It has neither angle brackets nor characters that need encoding."""
    error = refusal(body(attachments=[{"filename": "a.png", "content": "", "contentId": content_id}]))
    assert paths(error) == ["message.attachments[0].contentId"]


@pytest.mark.parametrize("filename", ["setup.exe", "SETUP.EXE", "a.pdf.js", "setup.exe.", "setup.exe ", ".vbs", "x.ps1xml"])
def test_a_type_that_ses_blocks_is_refused_before_sending(filename: str) -> None:
    """The extension decides, in any case and before characters that Windows ignores."""
    error = refusal(body(attachments=[{"filename": filename, "content": ""}]))
    assert (error.code, paths(error)) == ("attachment_type_blocked", ["message.attachments[0].filename"])


@pytest.mark.parametrize("filename", ["exe", "exe.pdf", "a.exe.pdf", "a.mjs"])
def test_a_blocked_word_elsewhere_in_a_name_is_accepted(filename: str) -> None:
    """Only the last extension counts."""
    assert not file_types.is_blocked(filename)


def test_a_too_large_message_is_refused_with_both_sizes() -> None:
    """The encoded size is computed without building it; the problem has the size and the limit."""
    error = refusal(body(attachments=[{"filename": "a.bin", "content": "A" * 41_200_000}]))
    assert error.code == "message_too_large"
    assert error.problems == [Problem("message", f"would make a raw message of more than 42284212 bytes; SES takes {MAX_RAW_BYTES}")]


def test_mixed_faults_are_an_invalid_request_with_all_of_them() -> None:
    """A caller can correct all faults at once; a special code is used only if all faults are of its kind."""
    error = refusal(body(to=[{"email": "x"}], subject="\n", attachments=[{"filename": "a.exe", "content": "#"}]))
    assert error.code == "invalid_request"
    expected = ["message.to[0].email", "message.subject", "message.attachments[0].filename", "message.attachments[0].content"]
    assert paths(error) == expected


SECRET = "s3cret-canary"


def test_a_refusal_never_shows_a_value() -> None:
    """Problems go to logs and other systems; content of mails must not."""
    fields = {
        "to": [{"email": SECRET, "name": f"{SECRET}\n"}],
        "subject": f"{SECRET}\0",
        "text": [SECRET],
        "headers": {f"{SECRET} x": SECRET, "From": SECRET, "References": f"{SECRET}ü"},
        "tags": {f"{SECRET}!": f"{SECRET}!"},
        "attachments": [{"filename": f"{SECRET}.exe", "content": f"{SECRET}!", "contentType": SECRET, "s3": {"key": SECRET}}],
        "listUnsubscribe": {"url": SECRET, "mailto": SECRET},
        "calendar": {"method": SECRET, "content": SECRET},
        f"{SECRET} ": 1,
    }
    error = refusal(
        json.dumps({"tenantId": f"{SECRET}!", "requestId": "", "sendAt": SECRET, "onUnknown": SECRET, "message": message(**fields)})
    )
    assert len(error.problems) > 15
    assert SECRET not in str(error)
    assert SECRET not in repr(error)


def test_the_number_of_problems_is_limited() -> None:
    """An error must fit into a response."""
    error = refusal(body(**{f"x{number}": 1 for number in range(500)}))
    assert len(error.problems) == 101
    assert error.problems[-1] == Problem("", "and 400 faults more")


@pytest.mark.parametrize(("path", "limit", "fields"), TOO_LONG)
def test_a_too_long_text_is_refused_with_the_limit(path: str, limit: int, fields: dict[str, Any]) -> None:
    """The problem has the path and both lengths."""
    [problem] = refusal(body(**fields)).problems
    assert problem.path == path
    assert str(limit) in problem.problem


@pytest.mark.parametrize("text", ["[" + "1," * 4_999 + "1]" + " " * 5_000, '{"a":1,"b":[' + "{}," * 5_000 + "{}]}", '["",' * 9_999])
def test_a_body_with_too_many_values_is_refused_before_it_is_parsed(text: str) -> None:
    """Each value takes many times its length in memory; the problem has the limit."""
    assert refusal(text).problems == [Problem("", "must have at most 5000 JSON values in all")]


@pytest.mark.parametrize("text", ['[{,"' * 20_000, "\\" * 40_000, '\\"' * 40_000, ',\\",' * 20_000])
def test_separators_within_texts_do_not_count_as_values(text: str) -> None:
    """A text may have any number of commas and braces."""
    assert parse_request(body(text=text)).message.text == text


def test_too_deep_nesting_is_refused_with_the_path() -> None:
    """The path ends at the limit."""
    [deep, unknown] = refusal(body(a=json.loads("[" * 900 + "]" * 900))).problems
    assert deep == Problem("message.a" + "[0]" * 14, "must have at most 16 objects and lists inside each other")
    assert unknown == Problem("message.a", "is not a known field")


def test_an_address_given_as_text_is_refused_with_its_shape() -> None:
    """This is the most common mistake."""
    shape = '{"email": "…", "name": "…"}'
    assert refusal(body(to=["jo@example.com"])).problems == [Problem("message.to[0]", f"must be an object: {shape}")]
    assert refusal(body(to="jo@example.com")).problems == [Problem("message.to", f"must be a list of {shape}")]
    assert refusal(body(replyTo="jo@example.com")).problems == [Problem("message.replyTo", f"must be an object: {shape}")]


@pytest.mark.parametrize("name", ["from", "sender", "fromAddress", "fromName", "fromEmail"])
def test_a_given_sender_is_refused_with_an_explanation(name: str) -> None:
    """This is the second most common mistake."""
    [problem] = refusal(body(**{name: "jo@example.com"})).problems
    assert "the sender is the tenant's, fromAddress and fromName of its provider config" in problem.problem


def test_the_hint_of_a_large_message_names_the_upload_and_the_limits() -> None:
    """The numbers are those of the code."""
    hint = ErrorInfo("message_too_large", "x").hint
    assert "POST …/attachments" in hint
    assert [limit for limit in (MAX_BODY, MAX_UPLOAD, MAX_RAW_BYTES) if str(limit) not in hint] == []


def test_html_with_too_much_markup_needs_a_text() -> None:
    """Deriving the text would take too long; the problem names both solutions."""
    html = "<b>x" * 15_001 + "&amp;" * 15_000
    [problem] = refusal(body(text=None, html=html)).problems
    assert problem.path == "message.html"
    assert "30001 tags and character references" in problem.problem
    assert "textFromHtml" in problem.problem
    assert parse_request(body(html=html))
    assert parse_request(body(text=None, html=html, textFromHtml=False))
    assert parse_request(body(text=None, html=html[4:]))


# The request around it


@pytest.mark.parametrize("text", [
    b"\xff", b"\xef\xbb\xbf{}", "", "null", "[]", "1", "{", '{"a":NaN}', '{"a":-Infinity}', '{"a":' + "9" * 5000 + "}", "[" * 100_000,
    '{"a":' * 100_000, '{"a":1e999}', '{"tenantId":{"a":1}}', '{"\\ud800":1}', '{"a":"\\udfff"}', '{"a":"\uffff"}', "\ud800",
])  # fmt: skip
def test_an_invalid_body_raises_a_request_error(text: str | bytes) -> None:
    """No body raises another exception."""
    assert refusal(text).code == "invalid_request"


def test_a_duplicate_name_is_refused_with_its_path() -> None:
    """Two parsers could read such JSON as different requests."""
    twice = body().replace('"subject"', '"text": "Ho", "subject"')
    assert refusal(twice).problems == [Problem("message", "must not give a name twice")]


def test_lone_surrogates_are_refused_by_their_path() -> None:
    """Text that UTF-8 cannot encode would fail later."""
    assert refusal(body(text="\ud800")).problems == [Problem("message.text", "must be Unicode text without lone surrogates")]


@pytest.mark.parametrize("tenant_id", ["", "-a", "a" * 65, "a/b", "ü", "a\n", 1])
def test_a_tenant_id_is_a_plain_word(tenant_id: object) -> None:
    """It has 1 to 64 letters, digits, _ and -."""
    assert paths(refusal(json.dumps({"tenantId": tenant_id, "requestId": "r", "message": message()}))) == ["tenantId"]


@pytest.mark.parametrize("request_id", ["", ".a", "a" * 129, "a/b", "batch", "preview", "a\n", None])
def test_a_request_id_is_a_plain_word_and_not_a_route(request_id: object) -> None:
    """It has 1 to 128 letters, digits and . _ : -, and is not the name of a route of the API."""
    assert paths(refusal(json.dumps({"tenantId": "acme", "requestId": request_id, "message": message()}))) == ["requestId"]


def test_path_and_header_may_name_the_request() -> None:
    """In the API the ids come from outside the body."""
    found = parse_request(json.dumps({"message": message()}), tenant_id="acme", request_id="r-1")
    assert (found.tenant_id, found.request_id) == ("acme", "r-1")


def test_a_body_may_not_name_another_tenant_than_the_path() -> None:
    """A caller authorised for one tenant cannot send as another."""
    assert refusal(body(), tenant_id="other").code == "tenant_mismatch"
    assert paths(refusal(body(), request_id="r-2")) == ["requestId"]


LOCAL_TIMES = ["2026-11-25", "2026-11-25T08:00:00", "2026-11-25 08:00:00Z", "2026-11-25T08:00Z", "1764057600", 1764057600, True, "now"]


@pytest.mark.parametrize("time", [*LOCAL_TIMES, "2026-02-31T08:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_a_time_has_its_offset(time: object) -> None:
    """Local times and numbers mean different instants to different readers."""
    assert paths(refusal(json.dumps({"tenantId": "acme", "requestId": "r", "sendAt": time, "message": message()}))) == ["sendAt"]


def test_a_time_is_kept_in_utc() -> None:
    """Any offset is one instant."""
    assert request(sendAt="2026-11-25T09:30:00.123456789+01:30").send_at == datetime(2026, 11, 25, 8, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", b"\xff", '{"tenantId":"acme"}', '{"tenantId":"acme","requestId":1}', '{"tenantId":"a b","requestId":"r"}'),
        *('{"tenantId":"acme","requestId":"batch"}', '{"tenantId":"acme","tenantId":"b","requestId":"r"}'),
    ],
)
def test_ambiguous_ids_are_not_read(text: str | bytes) -> None:
    """A rejected body belongs to a request only if its ids are unambiguous."""
    assert readable_ids(text) is None


def test_ids_of_an_invalid_body_are_read() -> None:
    """Its record can be written as failed."""
    assert readable_ids('{"tenantId":"acme","requestId":"r-1","message":{"text":"\\ud800"}}') == ("acme", "r-1")


# The queued form


@given(st.text(), st.text(), st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="=\ufffe\uffff")))
def test_the_queued_request_is_equal(text: str, html: str, subject: str) -> None:
    """The queued form is ASCII, and parses to an equal request with the same hash."""
    original = request(
        expiresAt="2026-11-25T08:00:00+01:00", message=message(text=text, html=html, subject=subject, replyTo={"email": "a@b.example"})
    )
    written = canonical_json(original)
    assert written.isascii()
    assert parse_request(written) == original
    assert content_hash(parse_request(written)) == content_hash(original)
    assert canonical_json(parse_request(written)) == written


# Times


def at(hours: float) -> str:
    return (NOW + timedelta(hours=hours)).isoformat()


@pytest.mark.parametrize(
    ("fields", "send_in", "expires_in"),
    [
        ({}, 0, 24),
        ({"sendAt": at(-5)}, 0, 24),
        ({"sendAt": at(5)}, 5, 29),
        ({"sendAt": at(168)}, 168, 192),
        ({"expiresAt": at(1)}, 0, 1),
        ({"expiresAt": at(-1)}, 0, -1),
        ({"sendAt": at(-5), "expiresAt": at(-1)}, 0, -1),
        ({"sendAt": at(5), "expiresAt": at(173)}, 5, 173),
    ],
)
def test_a_request_is_sent_at_send_at_and_expires_a_day_later(fields: dict[str, str], send_in: int, expires_in: int) -> None:
    """A past sendAt means now; without expiresAt it expires 24 hours after the start."""
    times = schedule(request(**fields), NOW)
    assert (times.send_at, times.expires_at) == (NOW + timedelta(hours=send_in), NOW + timedelta(hours=expires_in))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"sendAt": at(168.1)}, "sendAt"),
        ({"sendAt": at(-5), "expiresAt": at(-5)}, "expiresAt"),
        ({"sendAt": at(5), "expiresAt": at(5)}, "expiresAt"),
        ({"expiresAt": at(168.1)}, "expiresAt"),
        ({"sendAt": at(5), "expiresAt": at(173.1)}, "expiresAt"),
        ({"sendAt": "9999-12-31T23:59:59Z"}, "sendAt"),
        ({"sendAt": "9999-12-25T23:59:59Z", "expiresAt": "9999-12-31T23:59:59Z"}, "sendAt"),
        ({"expiresAt": "9999-12-31T23:59:59Z"}, "expiresAt"),
    ],
)
def test_times_out_of_reach_are_refused(fields: dict[str, str], path: str) -> None:
    """At most seven days ahead, and the end after the start by at most seven days."""
    with pytest.raises(RequestError) as refused:
        schedule(request(**fields), NOW)
    assert paths(refused.value) == [path]
