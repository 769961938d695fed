"""Round trips: parsers that share no code with the composer find any text and any bytes unchanged."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailer.domain.errors import RequestError
from mailer.domain.header_text import MAX_FILENAME, text_fault
from unit.mime.samples import b64, boxes, header_lines, header_text, mail, parsed, read, with_line_ends

# Texts that look like syntax are generated far more often than by chance.
SYNTAX = st.sampled_from(
    [
        *("=?", "?=", "=?utf-8?q?", "=?UTF-8?B?SGk=?=", "=?utf-8?q?=0D=0ABcc:_x?=", '"', "\\", "<", ">", ",", ";", ":", "@", "(", ")"),
        *("'", "%", "*", "=", " ", "  ", "\r\n", "\n", "\r", "\t", "\x00", "\x85", "\u2028", ".", "..", "From ", "--", "\r\n\r\n"),
        *("Bcc: x@y.example", "ü", "€", "💌", "👩‍👩‍👧", "שלום"),
    ]
)
TEXT = st.lists(st.one_of(st.text(max_size=20), SYNTAX, st.text("abc ", min_size=30, max_size=200))).map("".join)
HEADER_TEXT = TEXT.map(lambda text: re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]", "", text)[:MAX_FILENAME]).filter(
    lambda text: text_fault(text) is None
)


@given(HEADER_TEXT)
def test_a_subject_round_trips(subject: str) -> None:
    """Any subject without control characters is read as it was written, in lines of at most 78 characters."""
    mime = mail(subject=subject).mime
    assert header_text(mime, "Subject") == subject
    assert max(map(len, header_lines(mime))) <= 78


@given(st.lists(HEADER_TEXT, min_size=1, max_size=5))
def test_display_names_round_trip_with_their_addresses(names: list[str]) -> None:
    """Any display names stay with their addresses, and never become an address."""
    to = [{"email": f"jo.{at}@example.com", "name": name} for at, name in enumerate(names)]
    mime = mail(to=to).mime
    assert boxes(mime, "To") == [(name, f"jo.{at}@example.com") for at, name in enumerate(names)]
    assert max(map(len, header_lines(mime))) <= 78


@given(HEADER_TEXT.filter(str.strip))
def test_a_file_name_round_trips(filename: str) -> None:
    """Any file name is read as it was written."""
    try:
        [part] = parsed(attachments=[{"filename": filename, "content": "QQ=="}]).iter_attachments()
    except RequestError as error:
        assert error.code == "attachment_type_blocked"  # noqa: PT017 - it may be raised or not
    else:
        assert part["Content-Disposition"].params["filename"] == filename


@given(HEADER_TEXT)
def test_a_custom_header_round_trips(value: str) -> None:
    """Any value of a custom header is read as it was written, in lines of at most 78 characters."""
    mime = mail(headers={"X-Custom": value}).mime
    assert header_text(mime, "X-Custom") == value
    assert max(map(len, header_lines(mime))) <= 78


@given(TEXT)
def test_a_text_body_round_trips(text: str) -> None:
    """Any text is read as it was written, its line ends as CRLF, sent as 7 bits in lines of at most 78 characters."""
    mime = mail(text=text).mime
    assert read(mime).get_content() == with_line_ends(text)
    assert mime.isascii()
    assert max(map(len, mime.split(b"\r\n"))) <= 78
    assert b"\r" not in mime.replace(b"\r\n", b"")
    assert b"\n" not in mime.replace(b"\r\n", b"")
    assert mime.endswith(b"\r\n")


@given(TEXT, TEXT.filter(bool))
def test_text_and_html_round_trip_together(text: str, html: str) -> None:
    """No content of one body changes the other."""
    content = parsed(text="-" + text, html=html)
    assert [part.get_content() for part in content.iter_parts()] == [with_line_ends("-" + text), with_line_ends(html)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_attachments_round_trip(files: list[bytes]) -> None:
    """Attachments are byte-exact, also text and empty ones."""
    attachments = [{"filename": f"{at}.{'txt' if at % 2 else 'bin'}", "content": b64(octets)} for at, octets in enumerate(files)]
    found = parsed(attachments=attachments).iter_attachments()
    assert [part.get_payload(decode=True) for part in found] == files


@given(
    st.dictionaries(st.sampled_from(["subject", "text", "html", "name", "filename", "contentId", "contentType", "value", "method"]), TEXT)
)
def test_no_input_adds_a_header_recipient_or_part(content: dict[str, str]) -> None:
    """With any content of a field the mail has the requested headers, recipients and parts, or is rejected."""
    attachment: dict[str, Any] = {"filename": "a.pdf", "content": "QQ=="}
    fields: dict[str, Any] = {
        "to": [{"email": "jo@example.com", "name": content.get("name", "Jo")}],
        "bcc": [{"email": "hidden@example.com", "name": content.get("name", "Jo")}],
        "subject": content.get("subject", ""),
        "text": content.get("text", "text"),
        "html": "<p>" + content.get("html", ""),
        "headers": {"X-Custom": content.get("value", "")},
        "attachments": [attachment | {name: content[name] for name in ("filename", "contentId", "contentType") if name in content}],
        "calendar": {"method": content.get("method", "REQUEST"), "content": "BEGIN:VCALENDAR\n" + content.get("text", "")},
    }
    try:
        composed = mail(**fields)
    except RequestError:
        return
    content = read(composed.mime)
    names = ["From", "To", "Subject", "Date", "X-Custom", "MIME-Version", "Content-Type"]
    assert content.keys() == names
    assert composed.recipients == ("jo@example.com", "hidden@example.com")
    assert b"hidden@example.com" not in composed.mime.partition(b"\r\n\r\n")[0]
    assert len([part for part in content.walk() if not part.is_multipart()]) == 4
