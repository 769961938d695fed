"""No accepted field of a request is missing from the mail."""

from typing import Any

import pytest

from mailer.domain.errors import RequestError
from mailer.domain.message import EmailMessage
from mailer.domain.mime import Sender, compose, composer
from mailer.domain.wire import parse
from support.fakes.ports import NOON

SENDER = Sender("billing@acme.example", "Acme")
PLAIN: dict[str, Any] = {"to": [{"email": "jo@customer.example"}], "subject": "Hello", "html": "<p>Hello"}
EXAMPLES: dict[str, Any] = {
    "to": [{"email": "other@customer.example"}],
    "cc": [{"email": "cc@customer.example"}],
    "bcc": [{"email": "bcc@customer.example"}],
    "replyTo": {"email": "reply@acme.example"},
    "subject": "Goodbye",
    "html": "<p>Goodbye",
    "text": "Goodbye",
    "textFromHtml": False,
    "calendar": {"method": "REQUEST", "content": "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"},
    "listUnsubscribe": {"url": "https://acme.example/u/1"},
    "headers": {"X-Campaign": "42"},
    "attachments": [{"filename": "a.txt", "content": "YQ=="}],
}
"""An example of each field that affects the mail."""

NOT_IN_THE_MAIL = {"tags"}
"""Fields passed to the provider with the mail (`EmailProvider.send`)."""


def mail(example: dict[str, Any]) -> tuple[tuple[str, ...], list[bytes]]:
    """Compose a mail; return its envelope and its lines, without the random boundaries."""
    composed = compose(EmailMessage.model_validate(example), SENDER, date=NOON)
    return composed.recipients, [line for line in composed.mime.splitlines() if b"boundary=" not in line and not line.startswith(b"--")]


def test_every_field_has_an_example() -> None:
    """A new field fails here until its effect on the mail is defined."""
    names = {field.alias for field in EmailMessage.model_fields.values()}
    assert names == set(EXAMPLES) | NOT_IN_THE_MAIL


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_field_changes_the_mail(name: str) -> None:
    """Each example changes headers, parts or envelope."""
    assert mail({**PLAIN, name: EXAMPLES[name]}) != mail(PLAIN)


def names_written(example: dict[str, Any]) -> set[str]:
    """Compose a mail; return the names in its top header block, except those of the caller's own headers."""
    mime = compose(EmailMessage.model_validate(example), SENDER, date=NOON, message_id="<1@acme.example>").mime
    head = mime.partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ")
    return {line.partition(":")[0] for line in head.split("\r\n")} - set(example.get("headers", {}))


def settable_by_a_caller() -> set[str]:
    """Return the header names that the service writes and a caller could set in the same mail."""
    mails = [PLAIN, {**PLAIN, **EXAMPLES}, *({**PLAIN, name: value} for name, value in EXAMPLES.items())]
    return {name for example in mails for name in names_written(example) if is_accepted({**example, "headers": {name: "x"}})}


def is_accepted(example: dict[str, Any]) -> bool:
    try:
        parse(EmailMessage, example)
    except RequestError as refusal:
        return not all(problem.path.startswith("headers.") for problem in refusal.problems)
    return True


def test_every_header_that_the_service_writes_is_reserved() -> None:
    """A caller's header of the same name would be a duplicate; the name of a new header must be reserved in `header_text`."""
    assert settable_by_a_caller() == set()


def test_an_unreserved_header_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """This tests the test above."""
    fields = composer._fields
    monkeypatch.setattr(composer, "_fields", lambda *given: [*fields(*given), "X-Mailer: us"])
    assert settable_by_a_caller() == {"X-Mailer"}


def test_composing_is_deterministic() -> None:
    """In the tests above only the field can cause a difference."""
    assert mail(PLAIN) == mail(PLAIN)
