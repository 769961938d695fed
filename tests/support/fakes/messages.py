"""The messages API with fakes, and send requests for it."""

from datetime import timedelta
from typing import Any

import pytest

from mailer import wiring
from mailer.domain.message import SendRequest, read_request
from mailer.services.api.messages import MessagesDependencies
from support.fakes.ports import (
    FakeAttachments,
    FakeClock,
    FakeFeedbackTable,
    FakeMessagesTable,
    FakeParkedBodies,
    FakeProvidersTable,
    FakeSendQueue,
    FakeTelemetry,
    InlineExecutor,
    a_provider,
)
from support.fakes.statistics import FakeStatisticsTable
from support.fakes.suppressions import FakeSuppressionsTable

SEND_TIMEOUT = timedelta(seconds=60)


def fake_deps(**ports: Any) -> MessagesDependencies:
    """Return fake dependencies, with an active provider for tenant acme."""
    fakes: dict[str, Any] = {
        "providers": FakeProvidersTable(a_provider()),
        "suppressions": FakeSuppressionsTable(),
        "messages": FakeMessagesTable(),
        "feedback": FakeFeedbackTable(),
        "queue": FakeSendQueue(),
        "parked": FakeParkedBodies(),
        "attachments": (attachments := FakeAttachments()),
        "uploads": attachments,
        "telemetry": FakeTelemetry(),
        "clock": FakeClock(),
        "workers": InlineExecutor(),
        "send_timeout": SEND_TIMEOUT,
    }
    if "attachments" in ports:
        fakes["uploads"] = ports["attachments"]
    return MessagesDependencies(**{**fakes, **ports})


def serve_from(deps: MessagesDependencies, patch: pytest.MonkeyPatch) -> None:
    """Patch the handler of the messages API to use fake dependencies."""
    patch.setattr(wiring, "messages_dependencies", lambda: deps)
    patch.setattr(wiring, "clock", lambda: deps.clock)
    patch.setattr(wiring, "telemetry", lambda: deps.telemetry)
    statistics = FakeStatisticsTable()
    patch.setattr(wiring, "statistics_table", lambda: statistics)


def a_body(request_id: str | None = "r1", **fields: Any) -> dict[str, Any]:
    """Return the body of a send request; `message` is merged into a plain one."""
    message = {"to": [{"email": "jo@example.com"}], "subject": "Hello", "text": "Hello, Jo.", **fields.pop("message", {})}
    ids = {"requestId": request_id} if request_id else {}
    return {**ids, "message": message, **fields}


def a_send(request_id: str = "r1", **fields: Any) -> SendRequest:
    """Return a valid send request of tenant acme."""
    return read_request(a_body(request_id, **fields), tenant_id="acme")
