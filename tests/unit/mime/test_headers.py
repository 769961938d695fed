"""Headers as bytes: folding, encoding, and what must never be encoded."""

import re
from typing import Any

import pytest

from mailer.domain.errors import RequestError
from mailer.domain.mime import Sender, compose
from mailer.domain.mime.check import check
from unit.mime.samples import DATE, SENDER, boxes, header_lines, header_text, mail, message, raw_header


def test_header_fields_are_in_the_usual_order() -> None:
    """The order is From, recipients, Reply-To, Subject, Date, list fields, the caller's fields, MIME."""
    mime = mail(
        cc=[{"email": "cc@example.com"}],
        replyTo={"email": "reply@example.com"},
        listUnsubscribe={"url": "https://acme.example/u", "oneClick": True},
        headers={"X-Campaign": "42"},
    ).mime
    names = [line.partition(":")[0] for line in header_lines(mime)]
    lists = ["List-Unsubscribe", "List-Unsubscribe-Post"]
    mime_names = ["MIME-Version", "Content-Type", "Content-Transfer-Encoding"]
    assert names == ["From", "To", "Cc", "Reply-To", "Subject", "Date", *lists, "X-Campaign", *mime_names]


def test_the_date_is_written_in_utc() -> None:
    """Date is RFC 5322's, in UTC."""
    assert raw_header(mail().mime, "Date") == "Tue, 24 Nov 2026 10:00:00 +0000"


def test_a_message_id_is_written_only_if_given() -> None:
    """SES sets its own Message-ID; other relays require one."""
    with_id = compose(message(), SENDER, date=DATE, message_id="<a.b@acme.example>").mime
    assert raw_header(with_id, "Message-ID") == "<a.b@acme.example>"
    assert b"Message-ID" not in mail().mime


@pytest.mark.parametrize("message_id", ["a@b.example", "<a>", "<a@b>\r\nBcc: x@y.example", "<a b@c.example>", ""])
def test_a_malformed_message_id_is_refused(message_id: str) -> None:
    """A Message-ID is exactly one msg-id."""
    with pytest.raises(RequestError, match="messageId"):
        compose(message(), SENDER, date=DATE, message_id=message_id)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Jo Unger", "Jo Unger <jo@example.com>"),
        ("Unger, Jo", '"Unger, Jo" <jo@example.com>'),
        ('Jo "J" \\ U.', '"Jo \\"J\\" \\\\ U." <jo@example.com>'),
        ("jo@evil.example", '"jo@evil.example" <jo@example.com>'),
        ("Jo Ünger", "=?utf-8?b?Sm8gw5xuZ2Vy?= <jo@example.com>"),
        ("Abteilung für Vertrieb, Nord", "=?utf-8?q?Abteilung_f=C3=BCr_Vertrieb=2C_Nord?= <jo@example.com>"),
        ("", "jo@example.com"),
    ],
)
def test_a_display_name_is_plain_quoted_or_encoded(name: str, written: str) -> None:
    """A name has the simplest form that RFC 5322 and RFC 2047 allow."""
    assert raw_header(mail(to=[{"email": "jo@example.com", "name": name}]).mime, "To") == written


@pytest.mark.parametrize("name", ["x" * 300, "Doe, Jane, x@evil.example " * 12, "💌" * 300, "שלום עולם " * 30, 'a"b\\' * 75])
def test_a_long_name_is_encoded_and_never_folded_inside_quotes(name: str) -> None:
    """A name too long for a line cannot fall apart into recipients."""
    mime = mail(to=[{"email": "jo@example.com", "name": name}]).mime
    assert boxes(mime, "To") == [(name, "jo@example.com")]
    assert max(map(len, header_lines(mime))) <= 76


def test_many_recipients_are_folded_between_addresses() -> None:
    """With fifty recipients lines have at most 78 characters."""
    to = [{"email": f"recipient-{at}@department.example.com", "name": f"Recipient No. {at}"} for at in range(50)]
    mime = mail(to=to).mime
    assert boxes(mime, "To") == [(box["name"], box["email"]) for box in to]
    assert max(map(len, header_lines(mime))) <= 78


def test_encoded_words_have_whole_characters_in_75_octets() -> None:
    """Every encoded-word can be decoded separately, has at most 75 characters, and its line at most 76 (RFC 2047 §2, §5)."""
    mime = mail(subject="💌ü" * 200).mime
    words = re.findall(r"=\?utf-8\?[bq]\?[^?]+\?=", raw_header(mime, "Subject"))
    assert len(words) > 1
    for word in words:
        assert len(word) <= 75
        assert "\ufffd" not in header_text(f"Subject: {word}\r\n\r\n".encode(), "Subject")
    assert max(map(len, header_lines(mime))) <= 76


@pytest.mark.parametrize(
    "subject",
    [" leading", "trailing ", "two  blanks", "x" * 500, "a" * 70 + " b", "=?utf-8?q?hi?=", "a =? b", "", " ", "ü" + " " * 200 + "ü"],
)
def test_a_subject_that_parsers_would_change_is_encoded(subject: str) -> None:
    """Leading, trailing and repeated spaces, long words and text that looks encoded are preserved."""
    mime = mail(subject=subject).mime
    assert header_text(mime, "Subject") == subject
    assert max(map(len, header_lines(mime))) <= 78


def test_a_plain_subject_stays_readable() -> None:
    """ASCII is not encoded, only folded at spaces."""
    mime = mail(subject="word " * 40 + "end").mime
    assert raw_header(mime, "Subject") == "word " * 40 + "end"
    assert max(map(len, header_lines(mime))) <= 76


def test_no_line_ends_in_a_blank() -> None:
    """An empty subject has no trailing space that a relay may strip."""
    assert "Subject:" in header_lines(mail(subject="").mime)


@pytest.mark.parametrize("name", ["References", "In-Reply-To", "List-Id", "list-help", "Feedback-ID", "Auto-Submitted"])
def test_a_structured_header_is_never_encoded(name: str) -> None:
    """Programs read these headers: words are not changed, even if longer than a line should be."""
    value = " ".join(["<" + "x" * 90 + f"{at}@example.com>" for at in range(5)] + ["<" + "y" * 900 + "@example.com>"])
    mime = mail(headers={name: value}).mime
    assert raw_header(mime, name) == value
    assert b"=?" not in mime
    assert max(map(len, header_lines(mime))) <= 998


@pytest.mark.parametrize("value", ["ü", "=?utf-8?q?a?=", "x" * 998, " ", ""])
def test_text_that_a_structured_header_cannot_have_is_refused(value: str) -> None:
    """Text that needs encoding, or a line over 998, is rejected."""
    with pytest.raises(RequestError, match=r"headers\.References: must be"):
        message(headers={"References": value})


def test_the_longest_structured_word_fits_its_line() -> None:
    """A word of 997 characters is on the line after the name."""
    mime = mail(headers={"References": "x" * 997}).mime
    assert max(map(len, header_lines(mime))) == 998


def test_a_url_to_unsubscribe_is_neither_folded_nor_encoded() -> None:
    """RFC 8058 readers find the URL and the post field unchanged."""
    url = "https://acme.example/u?token=" + "x" * 900
    mime = mail(listUnsubscribe={"url": url, "mailto": "unsub+a=b@acme.example?subject=leave", "oneClick": True}).mime
    assert raw_header(mime, "List-Unsubscribe") == f"<{url}>, <mailto:unsub+a%3Db@acme.example?subject=leave>"
    assert f"<{url}>," in mime.decode()
    assert raw_header(mime, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"


def test_without_one_click_there_is_no_post_field() -> None:
    """List-Unsubscribe-Post is present only if the caller supports one-click."""
    assert b"List-Unsubscribe-Post" not in mail(listUnsubscribe={"mailto": "u@acme.example"}).mime


def test_a_header_with_a_long_name_is_still_written() -> None:
    """The value of a name with 76 characters is on the next line."""
    name = "X-" + "n" * 74
    mime = mail(headers={name: "Grüße"}).mime
    assert header_text(mime, name).strip() == "Grüße"
    assert max(map(len, header_lines(mime))) <= 78


def test_idn_domains_are_punycode_in_header_and_envelope() -> None:
    """SES has no SMTPUTF8."""
    composed = mail(sender=Sender("post@bücher.example", "Bücher"), to=[{"email": "jo@straße.example"}])
    assert raw_header(composed.mime, "To") == "jo@xn--strae-oqa.example"
    assert composed.mail_from == "post@xn--bcher-kva.example"
    assert composed.recipients == ("jo@xn--strae-oqa.example",)


def test_a_sender_that_cannot_be_written_is_refused_by_its_own_path() -> None:
    """The tenant's address and name pass the same checks as all others."""
    with pytest.raises(RequestError) as refusal:
        compose(message(), Sender("no address", "x\r\nBcc: y@z.example"), date=DATE)
    assert [problem.path for problem in refusal.value.problems] == ["fromAddress", "fromName"]


HALF, REST = {"email": "=?utf-8*@a.example"}, "?q?=0ABcc=3A_x@y.example?="


@pytest.mark.parametrize(
    "fields",
    [
        {"to": [HALF, {"email": "?q?=0ABcc?=@b.example"}]},
        {"cc": [HALF, {"email": "jo@b.example", "name": REST}]},
        {"replyTo": [{**HALF, "name": "Jo"}, {"email": "?b?CkJjYw==?=@b.example"}]},
        {"listUnsubscribe": {"url": "https://a.example/=?utf-8*", "mailto": "u@b.example?q?=0ABcc?="}},
    ],
    ids=["addresses", "address and name", "address behind a name", "ways to unsubscribe"],
)
def test_two_texts_of_a_header_form_no_encoded_word(fields: dict[str, Any]) -> None:
    """Neither has one by itself; some readers take what is between them for the charset's language, and would show a line end."""
    with pytest.raises(RequestError, match="cannot be written"):
        mail(**fields)


def test_two_headers_form_no_encoded_word() -> None:
    """No reader decodes across fields: message ids may have question marks."""
    headers = {"References": "<a=?b@x.example>", "In-Reply-To": "<c?q?d@x.example>"}
    mime = mail(headers=headers).mime
    assert {name: raw_header(mime, name) for name in headers} == headers


def test_an_address_may_have_all_characters_that_rfc_5321_allows() -> None:
    """Also beside our own encoded-words."""
    odd = "!#$%&'*+-/=?^_`{|}~@a.example"
    composed = mail(to=[{"email": odd}, {"email": "jo@b.example", "name": "Jö"}, {"email": f"x{odd}"}])
    assert composed.recipients == (odd, "jo@b.example", f"x{odd}")


NAMES = ["From", "To", "Subject"]
HEAD = b"From: a@b.example\r\nTo: Jo <jo@b.example>,\r\n k@b.example\r\nSubject: x\r\n\r\n"


def test_the_check_accepts_the_requested_header() -> None:
    """A header with these names and addresses is valid."""
    check(HEAD, NAMES, {"From": ["a@b.example"], "To": ["jo@b.example", "k@b.example"]})


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"Subject", b"Bcc: x@y.example\r\nSubject"),
        HEAD.replace(b"k@b", b"l@b"),
        HEAD.replace(b"Jo ", b"x@y.example, "),
        HEAD.replace(b"Jo ", b'"Jo, x@y.example" <x@y.example>, '),
        HEAD.replace(b"Subject: x", b"Subject: x\n"),
        HEAD.replace(b"Subject: x", b"Subject: \x00"),
        HEAD.replace(b"Subject: x", b"Subject: \xc3\xbc"),
        HEAD.replace(b"Subject: x", b"Subject: " + b"x" * 990),
        HEAD.replace(b"Subject: x", b"Subject: x\r\n\r\nbody"),
        HEAD[:-2],
    ],
)
def test_the_check_refuses_any_other_header(head: bytes) -> None:
    """With one unexpected field, address, line end or octet nothing is sent."""
    with pytest.raises(RequestError, match="cannot be written"):
        check(head, NAMES, {"From": ["a@b.example"], "To": ["jo@b.example", "k@b.example"]})
