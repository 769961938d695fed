"""Building a message without sending it."""

import email
from datetime import timedelta
from email import policy
from typing import Any

import pytest

from mailer.domain.errors import RequestError
from mailer.domain.provider import ProviderStatus
from mailer.services.api.preview import preview
from support.fakes.messages import a_send, fake_deps
from support.fakes.ports import NOON, FakeAttachments, FakeProvidersTable, a_config, a_provider

UPLOADED = {"filename": "a.pdf", "s3": {"key": "acme/a"}}


def test_a_preview_is_the_mail_that_would_be_sent() -> None:
    """Sender from the config, everything else from the request; nothing is queued or recorded."""
    deps = fake_deps()
    built = preview(a_send(), deps)
    parsed = email.message_from_bytes(built.mime or b"", policy=policy.default)
    assert (parsed["From"], parsed["To"], parsed["Subject"]) == ("Acme <hello@acme.example>", "jo@example.com", "Hello")
    assert not built.problems
    assert not deps.queue.messages
    assert not deps.messages.records


def test_uploads_are_in_it() -> None:
    """An attachment by key is fetched as it would be for sending."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": b"%PDF"}))
    built = preview(a_send(message={"attachments": [UPLOADED]}), deps)
    [part] = email.message_from_bytes(built.mime or b"", policy=policy.default).iter_attachments()
    assert part.get_content() == b"%PDF"


def test_every_problem_is_named_at_once() -> None:
    """Times, tags that nobody would see, each missing upload: all of them, each by its path."""
    late = (NOON + timedelta(days=8)).isoformat()
    uploads = [UPLOADED, {"filename": "b.pdf", "s3": {"key": "acme/b"}}]
    send = a_send(sendAt=late, message={"attachments": uploads, "tags": {"campaign": "spring"}})
    built = preview(send, fake_deps())
    assert built.mime is None
    missing = ["message.attachments[0].s3", "message.attachments[1].s3"]
    assert [problem.path for problem in built.problems] == ["sendAt", "message.tags", *missing]


def test_a_sender_that_cannot_stand_in_a_header_is_a_problem() -> None:
    """Faults of the config are named too."""
    provider = a_provider(active=a_config(from_address="nobody", from_name="a\nb"))
    built = preview(a_send(), fake_deps(providers=FakeProvidersTable(provider)))
    assert built.mime is None
    assert [problem.path for problem in built.problems] == ["fromAddress", "fromName"]


def test_a_message_above_the_limit_is_a_problem() -> None:
    """The size is judged on the raw message, uploads included."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": bytes(8_000_000)}))
    [problem] = preview(a_send(message={"attachments": [UPLOADED]}), deps).problems
    assert "10485760" in problem.problem


@pytest.mark.parametrize(
    "provider",
    [
        a_provider(status=ProviderStatus.UNVERIFIED, active=None, candidate=a_config()),
        a_provider(status=ProviderStatus.DISABLED),
        a_provider(status=ProviderStatus.SUSPENDED),
    ],
)
def test_a_preview_needs_no_active_provider(provider: Any) -> None:
    """Whoever sets a provider up may see what its mail will look like."""
    assert preview(a_send(), fake_deps(providers=FakeProvidersTable(provider))).mime


@pytest.mark.parametrize("rows", [[], [a_provider(status=ProviderStatus.DELETED)]])
def test_without_a_provider_there_is_no_sender(rows: list[Any]) -> None:
    """The sender is the tenant's config's."""
    with pytest.raises(RequestError) as refusal:
        preview(a_send(), fake_deps(providers=FakeProvidersTable(*rows)))
    assert refusal.value.code == "provider_not_configured"
