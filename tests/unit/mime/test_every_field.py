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
SAID: dict[str, Any] = {
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

BESIDE_THE_MAIL = {"tags"}
"""Fields passed to the provider with the mail (`EmailProvider.send`)."""


def mail(said: dict[str, Any]) -> tuple[tuple[str, ...], list[bytes]]:
    """Compose a mail; return its envelope and its lines, without the random boundaries."""
    composed = compose(EmailMessage.model_validate(said), SENDER, date=NOON)
    return composed.recipients, [line for line in composed.mime.splitlines() if b"boundary=" not in line and not line.startswith(b"--")]


def test_every_field_has_an_example() -> None:
    """A new field fails here until its effect on the mail is defined."""
    names = {field.alias for field in EmailMessage.model_fields.values()}
    assert names == set(SAID) | BESIDE_THE_MAIL


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_in_a_field_changes_the_mail(name: str) -> None:
    """Its headers, its parts or its envelope."""
    assert mail({**PLAIN, name: SAID[name]}) != mail(PLAIN)


def names_written(said: dict[str, Any]) -> set[str]:
    """Compose a mail; return the names in its top header block, except those of the caller's own headers."""
    mime = compose(EmailMessage.model_validate(said), SENDER, date=NOON, message_id="<1@acme.example>").mime
    head = mime.partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ")
    return {line.partition(":")[0] for line in head.split("\r\n")} - set(said.get("headers", {}))


def that_a_caller_may_set() -> set[str]:
    """Return the header names that the service writes and a caller could set in the same mail."""
    mails = [PLAIN, {**PLAIN, **SAID}, *({**PLAIN, name: value} for name, value in SAID.items())]
    return {name for said in mails for name in names_written(said) if is_taken({**said, "headers": {name: "x"}})}


def is_taken(said: dict[str, Any]) -> bool:
    try:
        parse(EmailMessage, said)
    except RequestError as refusal:
        return not all(problem.path.startswith("headers.") for problem in refusal.problems)
    return True


def test_every_header_that_the_service_writes_is_reserved() -> None:
    """A caller's own would be a duplicate; the name of a new header must be reserved in `header_text`."""
    assert that_a_caller_may_set() == set()


def test_a_new_header_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of the check above."""
    fields = composer._fields
    monkeypatch.setattr(composer, "_fields", lambda *given: [*fields(*given), "X-Mailer: us"])
    assert that_a_caller_may_set() == {"X-Mailer"}


def test_a_mail_is_composed_alike_each_time() -> None:
    """A check of the check above: the difference is caused by the field."""
    assert mail(PLAIN) == mail(PLAIN)
