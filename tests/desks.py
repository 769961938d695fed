"""A messages API desk on fakes, and send requests for it."""

from datetime import timedelta
from typing import Any

import pytest

from fakes import (
    AtOnce,
    FakeAttachments,
    FakeClock,
    FakeJournal,
    FakeMessagesTable,
    FakeParkedBodies,
    FakeProvidersTable,
    FakeSendQueue,
    a_provider,
)
from mailer import wiring
from mailer.domain.message import SendRequest, read_request
from mailer.services.messages import Desk

SEND_TIMEOUT = timedelta(seconds=60)


def a_desk(**ports: Any) -> Desk:
    """Make a desk of fakes where tenant acme has an active provider."""
    fakes: dict[str, Any] = {
        "providers": FakeProvidersTable(a_provider()),
        "messages": FakeMessagesTable(),
        "queue": FakeSendQueue(),
        "parked": FakeParkedBodies(),
        "attachments": FakeAttachments(),
        "journal": FakeJournal(),
        "clock": FakeClock(),
        "workers": AtOnce(),
        "send_timeout": SEND_TIMEOUT,
    }
    return Desk(**{**fakes, **ports})


def put_behind_the_api(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    """Let the handler of the messages API work on a desk of fakes."""
    patch.setattr(wiring, "desk", lambda: desk)
    patch.setattr(wiring, "clock", lambda: desk.clock)
    patch.setattr(wiring, "journal", lambda: desk.journal)
    patch.setattr(wiring, "attachments", lambda: desk.attachments)


def a_body(request_id: str | None = "r1", **fields: Any) -> dict[str, Any]:
    """Make a send request as a caller writes it; `message` is laid over a plain one."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello, Jo.", **fields.pop("message", {})}
    ids = {"requestId": request_id} if request_id else {}
    return {**ids, "message": message, **fields}


def a_send(request_id: str = "r1", **fields: Any) -> SendRequest:
    """Make a valid send request of tenant acme."""
    return read_request(a_body(request_id, **fields), tenant_id="acme")
