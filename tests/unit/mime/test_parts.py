"""The tree of parts: its levels, and the headers of each part."""

import email
import email.policy
from email.message import EmailMessage as ParsedMessage
from typing import Any

import fast_mail_parser
import mailparser
import pytest

from mailer.domain.errors import RequestError
from mailer.domain.message import MAX_RAW_BYTES, S3Object
from mailer.domain.mime import Sender, compose, problems
from mailer.domain.uploads import MAX_UPLOAD
from unit.mime.samples import DATE, SENDER, b64, mail, message, parsed, read

PDF = {"filename": "invoice.pdf", "content": b64(b"%PDF")}
LOGO = {"filename": "logo.png", "contentId": "logo", "content": b64(b"PNG")}
INVITE = {"method": "REQUEST", "content": "BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR\n"}
HTML = '<p>Hi <img src="cid:logo">'


def shape(part: ParsedMessage) -> Any:
    """Return the tree as nested lists of subtypes."""
    if part.get_content_maintype() != "multipart":
        return part.get_content_subtype()
    return [part.get_content_subtype(), *map(shape, part.iter_parts())]


@pytest.mark.parametrize(
    ("fields", "tree"),
    [
        ({}, "plain"),
        ({"text": None, "html": "<p>Hi", "textFromHtml": False}, "html"),
        ({"html": "<p>Hi"}, ["alternative", "plain", "html"]),
        ({"text": None, "html": "<p>Hi"}, ["alternative", "plain", "html"]),
        ({"text": "", "html": "<p>Hi"}, ["alternative", "plain", "html"]),
        ({"html": ""}, "plain"),
        ({"attachments": [PDF]}, ["mixed", "plain", "pdf"]),
        ({"text": None, "attachments": [PDF]}, ["mixed", "pdf"]),
        ({"html": HTML, "attachments": [LOGO]}, ["alternative", "plain", ["related", "html", "png"]]),
        ({"text": None, "html": HTML, "textFromHtml": False, "attachments": [LOGO]}, ["related", "html", "png"]),
        ({"html": HTML, "attachments": [PDF, LOGO]}, ["mixed", ["alternative", "plain", ["related", "html", "png"]], "pdf"]),
        ({"attachments": [LOGO]}, ["mixed", "plain", "png"]),
        ({"html": "<p>no image", "attachments": [LOGO]}, ["mixed", ["alternative", "plain", "html"], "png"]),
        ({"calendar": INVITE}, ["alternative", "plain", "calendar"]),
        (
            {"html": HTML, "calendar": INVITE, "attachments": [LOGO, PDF]},
            ["mixed", ["alternative", "plain", ["related", "html", "png"], "calendar"], "pdf"],
        ),
    ],
)
def test_multipart_levels_are_present_only_if_needed(fields: dict[str, Any], tree: Any) -> None:
    """Mixed > alternative > related, and none of them for a single part; an image without a reference in the HTML is an attachment."""
    assert shape(parsed(**fields)) == tree


@pytest.mark.parametrize("url", ["cid:a%40b", "CID:a@b", "cid:a&#64;b"])
def test_an_inline_image_is_found_in_any_url_form(url: str) -> None:
    """cid: URLs may be percent-encoded (RFC 2392) and contain character references."""
    content = parsed(html=f"<img src='{url}'>", attachments=[LOGO | {"contentId": "a@b"}])
    assert shape(content) == ["alternative", "plain", ["related", "html", "png"]]
    [image] = [part for part in content.walk() if part.get_content_type() == "image/png"]
    assert image["Content-ID"] == "<a@b>"
    assert image.get_content_disposition() == "inline"


def test_the_related_part_names_the_type_of_its_root() -> None:
    """RFC 2387 requires the type parameter."""
    related = parsed(text=None, html=HTML, textFromHtml=False, attachments=[LOGO])
    assert related.get_param("type") == "text/html"


def test_the_calendar_part_has_the_method() -> None:
    """Calendar programs read the method from the header (RFC 6047)."""
    [_, calendar] = parsed(calendar=INVITE).iter_parts()
    assert calendar["Content-Type"].params == {"charset": "utf-8", "method": "REQUEST"}
    assert calendar.get_content() == INVITE["content"].replace("\n", "\r\n")


def test_without_text_in_the_html_the_subject_is_the_text_part() -> None:
    """No mail is sent without a text part, unless requested."""
    [text, _] = parsed(subject="Look", text=None, html="<img src=x>").iter_parts()
    assert text.get_content() == "Look"


@pytest.mark.parametrize(
    ("fields", "media_type", "disposition"),
    [
        ({"filename": "a.PDF"}, "application/pdf", "attachment"),
        ({"filename": "noextension"}, "application/octet-stream", "attachment"),
        ({"filename": "a.pdf", "contentType": "image/x-own"}, "image/x-own", "attachment"),
        ({"filename": "a.pdf", "disposition": "inline"}, "application/pdf", "inline"),
        ({"filename": "a.png", "contentId": "a", "disposition": "attachment"}, "image/png", "attachment"),
    ],
)
def test_a_file_has_type_and_disposition(fields: dict[str, str], media_type: str, disposition: str) -> None:
    """The type is given or derived from the name; an attachment with a contentId is inline by default."""
    [part] = parsed(attachments=[{"content": "QQ==", **fields}]).iter_attachments()
    assert (part.get_content_type(), part.get_content_disposition()) == (media_type, disposition)


def test_parameters_of_a_given_type_are_kept() -> None:
    """A charset given by the caller is in the header."""
    [part] = parsed(
        attachments=[{"filename": "a.csv", "contentType": 'text/csv; charset=utf-16; header="a b"', "content": ""}]
    ).iter_attachments()
    assert part["Content-Type"].params == {"charset": "utf-16", "header": "a b", "name": "a.csv"}


def test_a_short_ascii_file_name_is_plain() -> None:
    """Short ASCII names are quoted, others use only RFC 2231: some readers would prefer a plain form if both were present."""
    mime = mail(attachments=[PDF, PDF | {"filename": "Größe.pdf"}, PDF | {"filename": 'a "b"\\c.pdf'}]).mime
    assert b'Content-Disposition: attachment; filename="invoice.pdf"\r\n' in mime
    assert b"Content-Disposition: attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe.pdf\r\n" in mime
    assert b"Content-Disposition: attachment; filename*=utf-8''a%20%22b%22%5Cc.pdf\r\n" in mime


EML = b"Subject: inner\r\nFrom: a@b.example\r\n\r\n.dot\r\nFrom me\r\n"


@pytest.mark.parametrize("octets", [EML, EML.replace(b"\r\n", b"\n")])
def test_an_attached_mail_is_not_encoded(octets: bytes) -> None:
    """message/rfc822 may not be encoded (RFC 2046 §5.2.1); its line ends are CRLF on the wire."""
    mime = mail(attachments=[{"filename": "inner.eml", "content": b64(octets)}]).mime
    assert EML in mime
    [part] = read(mime).iter_attachments()
    assert part.get_content_type() == "message/rfc822"
    assert part["Content-Transfer-Encoding"] == "7bit"
    assert part.get_content()["Subject"] == "inner"


@pytest.mark.parametrize("octets", [EML + b"x" * 998 + b"\r\n" + b"y" * 998, b"X: " + b"x" * 995 + b"\r\n" + EML])
def test_lines_of_998_characters_are_sent(octets: bytes) -> None:
    """The limit of RFC 5322, without line ends, for first, last and other lines."""
    [part] = parsed(attachments=[{"filename": "inner.eml", "content": b64(octets)}]).iter_attachments()
    assert part.get_content_type() == "message/rfc822"


@pytest.mark.parametrize(
    "octets",
    [
        EML + b"\xfc",
        EML + b"\0",
        EML + b"bare\rcr",
        EML + b"lf\n",
        EML + b"x" * 999 + b"\r\n",
        EML + b"x" * 999,
        b"X: " + b"x" * 996 + b"\r\n",
        b"\r\nno header",
        b"",
        b"From x Mon\n" + EML,
    ],
)
def test_an_attached_mail_that_is_not_7_bit_is_sent_as_a_file(octets: bytes) -> None:
    """All its octets are preserved, with another type."""
    [part] = parsed(attachments=[{"filename": "inner.eml", "content": b64(octets)}]).iter_attachments()
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_payload(decode=True) == octets


def test_uploads_are_fetched_and_sent_byte_for_byte() -> None:
    """For the reader an uploaded file is the same."""
    fetched: list[S3Object] = []

    def load(ref: S3Object) -> bytes:
        fetched.append(ref)
        return bytes(range(256)) * 300

    mime = mail(load=load, attachments=[{"filename": "a.bin", "s3": {"key": "acme/5f", "versionId": "v1"}}]).mime
    [part] = read(mime).iter_attachments()
    assert part.get_payload(decode=True) == bytes(range(256)) * 300
    assert fetched == [S3Object(key="acme/5f", version_id="v1")]


def test_an_upload_that_cannot_be_fetched_is_missing() -> None:
    """Without a loader every such attachment is reported."""
    uploads = message(attachments=[{"filename": "a.bin", "s3": {"key": "acme/5f"}}, PDF, {"filename": "b.bin", "s3": {"key": "acme/60"}}])
    with pytest.raises(RequestError) as refusal:
        compose(uploads, SENDER, date=DATE)
    assert refusal.value.code == "attachment_missing"
    assert [problem.path for problem in refusal.value.problems] == ["message.attachments[0].s3", "message.attachments[2].s3"]


def test_no_more_is_fetched_once_the_message_is_too_large() -> None:
    """A hundred large uploads are rejected without loading them."""
    calls: list[S3Object] = []

    def load(ref: S3Object) -> bytes:
        calls.append(ref)
        return bytes(20_000_000)

    files = [{"filename": f"{at}.bin", "s3": {"key": f"acme/{at}"}} for at in range(10)]
    with pytest.raises(RequestError, match=rf"raw message of 54\d+ bytes; SES takes {MAX_RAW_BYTES}") as refusal:
        mail(load=load, attachments=files)
    assert refusal.value.code == "message_too_large"
    assert len(calls) == 2


def test_the_largest_message_is_accepted_and_one_octet_more_is_not() -> None:
    """The exact size is known before the parts are joined."""

    def size(octets: int) -> int:
        return len(mail(load=lambda _: bytes(octets), attachments=[{"filename": "a.bin", "s3": {"key": "acme/5f"}}]).mime)

    low, high = MAX_UPLOAD - 1000, MAX_UPLOAD + 1000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            size(middle)
            low = middle
        except RequestError:
            high = middle
    assert MAX_RAW_BYTES - 6 < size(low) <= MAX_RAW_BYTES


def test_bcc_is_only_in_the_envelope_without_duplicates() -> None:
    """Hidden recipients are not in the mail, and no recipient gets two copies."""
    composed = mail(
        to=[{"email": "jo@example.com"}, {"email": "jo@EXAMPLE.com"}],
        cc=[{"email": "jo@example.com", "name": "Jo"}, {"email": "Jo@example.com"}],
        bcc=[{"email": "hidden@example.com"}, {"email": "jo@example.com"}],
    )
    assert composed.recipients == ("jo@example.com", "Jo@example.com", "hidden@example.com")
    assert b"hidden" not in composed.mime
    assert b"Bcc" not in composed.mime


def test_a_mail_with_only_bcc_has_no_to_field() -> None:
    """SES rejects an empty group, and RFC 5322 does not require a To field."""
    composed = mail(to=[], bcc=[{"email": "hidden@example.com"}])
    assert composed.recipients == ("hidden@example.com",)
    assert "To" not in read(composed.mime)


def test_tags_are_not_in_the_mail() -> None:
    """Tags are passed to SES separately from the message."""
    assert b"spring" not in mail(tags={"campaign": "spring"}).mime


def test_all_problems_are_reported_without_composing() -> None:
    """A preview reports what `compose` would reject: the sender and the files."""
    broken = message(attachments=[{"filename": "a.bin", "s3": {"key": "acme/5f"}}])
    found = [problem.path for problem in problems(broken, Sender("nobody", "\n"))]
    assert found == ["fromAddress", "fromName", "message.attachments[0].s3"]
    assert problems(message(), SENDER) == []


def test_two_independent_parsers_read_the_same() -> None:
    """mail-parser and fast-mail-parser find subject, recipients, bodies and files unchanged."""
    mime = mail(
        to=[{"email": "jo@example.com", "name": "Ünger, Jo"}],
        subject="Ihre Rechnung für März 💌",
        text="Grüße\n.\nFrom me\n",
        html=HTML,
        attachments=[LOGO, PDF | {"filename": "Rechnung März.pdf"}],
    ).mime
    first, second = mailparser.parse_from_bytes(mime), fast_mail_parser.parse_email(mime)
    assert first.subject == second.subject == "Ihre Rechnung für März 💌"
    assert first.to == [("Ünger, Jo", "jo@example.com")]
    assert [text.replace("\r\n", "\n") for text in (*first.text_plain, *second.text_plain)] == ["Grüße\n.\nFrom me\n"] * 2
    assert first.text_html == second.text_html == [HTML]
    assert {(file["filename"], file["payload"].strip()) for file in first.attachments} == {
        ("logo.png", LOGO["content"]),
        ("Rechnung März.pdf", PDF["content"]),
    }
    assert {(file.filename, bytes(file.content)) for file in second.attachments} == {("logo.png", b"PNG"), ("Rechnung März.pdf", b"%PDF")}


def test_the_standard_library_writes_an_equal_mail() -> None:
    """Generating it again with the standard library changes no meaning."""
    mime = mail(html=HTML, attachments=[LOGO, PDF]).mime
    second_copy = email.message_from_bytes(read(mime).as_bytes(policy=email.policy.SMTP), policy=email.policy.default)
    assert isinstance(second_copy, ParsedMessage)
    assert shape(second_copy) == shape(read(mime))
