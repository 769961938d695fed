"""Nothing that a caller may say of a mail is taken and then left out of it."""

from typing import Any

import pytest

from fakes import NOON
from mailer.domain.message import EmailMessage
from mailer.domain.mime import Sender, compose

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
"""Something said in each field that goes into the mail."""

BESIDE_THE_MAIL = {"tags"}
"""Handed to the provider with it (`EmailProvider.send`)."""


def mail(said: dict[str, Any]) -> tuple[tuple[str, ...], list[bytes]]:
    """Compose a mail; return its envelope and its lines, without the random boundaries."""
    composed = compose(EmailMessage.model_validate(said), SENDER, date=NOON)
    return composed.recipients, [line for line in composed.mime.splitlines() if b"boundary=" not in line and not line.startswith(b"--")]


def test_every_field_has_an_example() -> None:
    """A new field fails here until somebody says what it does to the mail."""
    names = {field.alias for field in EmailMessage.model_fields.values()}
    assert names == set(SAID) | BESIDE_THE_MAIL


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_in_a_field_changes_the_mail(name: str) -> None:
    """Its headers, its parts or its envelope."""
    assert mail({**PLAIN, name: SAID[name]}) != mail(PLAIN)


def test_a_mail_is_composed_alike_each_time() -> None:
    """The guard of the guard: what differs above differs for the field."""
    assert mail(PLAIN) == mail(PLAIN)
