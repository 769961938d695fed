"""Previews: building a message without sending it."""

import email
from datetime import timedelta
from email import policy
from typing import Any

import pytest

from mailer.domain.errors import DependencyError, RequestError
from mailer.domain.large_mail import SMALL_BYTES
from mailer.domain.message import MAX_RAW_BYTES, S3Object
from mailer.domain.provider import ProviderStatus
from mailer.domain.suppressions import Reason
from mailer.domain.uploads import MAX_UPLOAD, file_size
from mailer.services.api.preview import preview
from support.fakes.messages import a_send, fake_deps
from support.fakes.ports import NOON, FakeAttachments, FakeProvidersTable, a_config, a_provider
from support.fakes.suppressions import FakeSuppressionsTable, an_entry

UPLOADED = {"filename": "a.pdf", "s3": {"key": "acme/a"}}


def test_a_preview_is_the_mail_that_would_be_sent() -> None:
    """The sender is from the config, everything else from the request; nothing is queued or recorded."""
    deps = fake_deps()
    built = preview(a_send(), deps)
    parsed = email.message_from_bytes(built.mime or b"", policy=policy.default)
    assert (parsed["From"], parsed["To"], parsed["Subject"]) == ("Acme <hello@acme.example>", "jo@example.com", "Hello")
    assert not built.problems
    assert not deps.queue.messages
    assert not deps.messages.records


def test_a_preview_contains_uploads() -> None:
    """An attachment by key is fetched as for sending."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": b"%PDF"}))
    built = preview(a_send(message={"attachments": [UPLOADED]}), deps)
    [part] = email.message_from_bytes(built.mime or b"", policy=policy.default).iter_attachments()
    assert part.get_content() == b"%PDF"


def test_every_problem_is_listed_at_once() -> None:
    """Invalid times, tags without a configuration set and each missing upload are listed with their paths."""
    late = (NOON + timedelta(days=8)).isoformat()
    uploads = [UPLOADED, {"filename": "b.pdf", "s3": {"key": "acme/b"}}]
    send = a_send(sendAt=late, message={"attachments": uploads, "tags": {"campaign": "spring"}})
    built = preview(send, fake_deps())
    assert built.mime is None
    missing = ["message.attachments[0].s3", "message.attachments[1].s3"]
    assert [problem.path for problem in built.problems] == ["sendAt", "message.tags", *missing]


def test_an_invalid_sender_is_a_problem() -> None:
    """Errors of the config are listed too."""
    provider = a_provider(active=a_config(from_address="nobody", from_name="a\nb"))
    built = preview(a_send(), fake_deps(providers=FakeProvidersTable(provider)))
    assert built.mime is None
    assert [problem.path for problem in built.problems] == ["fromAddress", "fromName"]


def test_a_message_above_the_limit_is_a_problem() -> None:
    """The size is that of the raw message with uploads."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": bytes(MAX_UPLOAD)}))
    [problem] = preview(a_send(message={"attachments": [UPLOADED]}), deps).problems
    assert str(MAX_RAW_BYTES) in problem.problem


def test_a_preview_stops_loading_at_the_limit() -> None:
    """A hundred uploads of the largest size would not fit into memory; the sizes of the others are reported."""
    attachments = FakeAttachments({f"acme/{name}": bytes(MAX_UPLOAD // 2 + 1) for name in "abc"})
    uploads = [{"filename": f"{name}.pdf", "s3": {"key": f"acme/{name}"}} for name in "abc"]
    loaded: list[int] = []

    def fetch(tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:
        loaded.append(len(file := FakeAttachments.fetch(attachments, tenant_id, ref, at_most=at_most)))
        return file

    attachments.fetch = fetch  # type: ignore[method-assign]
    [problem] = preview(a_send(message={"attachments": uploads}), fake_deps(attachments=attachments)).problems
    assert (problem.path, len(loaded)) == ("message", 1)
    assert {str(MAX_RAW_BYTES), str(2 * file_size(MAX_UPLOAD // 2 + 1))} <= set(problem.problem.replace(";", "").split())


def test_a_preview_shows_a_large_mail() -> None:
    """Mails of up to forty megabytes, which SES v2 sends, are shown."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": bytes(MAX_UPLOAD - 10_000)}))
    built = preview(a_send(message={"attachments": [UPLOADED]}), deps)
    assert built.problems == ()
    assert built.mime is not None
    assert SMALL_BYTES < len(built.mime) <= MAX_RAW_BYTES


@pytest.mark.parametrize(
    "provider",
    [
        a_provider(status=ProviderStatus.UNVERIFIED, active=None, candidate=a_config()),
        a_provider(status=ProviderStatus.DISABLED),
        a_provider(status=ProviderStatus.SUSPENDED),
    ],
)
def test_a_preview_needs_no_active_provider(provider: Any) -> None:
    """A tenant can see its mail before the provider is active."""
    assert preview(a_send(), fake_deps(providers=FakeProvidersTable(provider))).mime


@pytest.mark.parametrize("rows", [[], [a_provider(status=ProviderStatus.DELETED)]])
def test_without_a_provider_a_preview_is_refused(rows: list[Any]) -> None:
    """The sender is in the tenant's config."""
    with pytest.raises(RequestError) as refusal:
        preview(a_send(), fake_deps(providers=FakeProvidersTable(*rows)))
    assert refusal.value.code == "provider_not_configured"


# ── suppressed recipients ───────────────────────────────────────────────────────────────────────────────────────────────

MARKED = FakeProvidersTable(a_provider(has_suppressions=True))


def test_suppressed_recipients_are_listed_by_path_and_left_out() -> None:
    """The mail is built without them, as it would be sent."""
    table = FakeSuppressionsTable(an_entry("ann@example.com"), an_entry("bob@example.com", reason=Reason.COMPLAINT))
    to, bcc = [{"email": "jo@example.com"}, {"email": "Ann@Example.com"}], [{"email": "bob@example.com"}]
    built = preview(a_send(message={"to": to, "bcc": bcc}), fake_deps(providers=MARKED, suppressions=table))
    assert email.message_from_bytes(built.mime or b"", policy=policy.default)["To"] == "jo@example.com"
    assert [problem.path for problem in built.problems] == ["message.to[1]", "message.bcc[0]"]
    assert "hard_bounce" in built.problems[0].problem
    assert "complaint" in built.problems[1].problem
    assert all("example.com" not in problem.problem for problem in built.problems)


def test_a_message_with_only_suppressed_recipients_is_not_built() -> None:
    """The preview has the error that the request would end with."""
    table = FakeSuppressionsTable(an_entry("jo@example.com"))
    built = preview(a_send(), fake_deps(providers=MARKED, suppressions=table))
    assert built.mime is None
    assert [problem.path for problem in built.problems] == ["message", "message.to[0]"]
    assert "recipient_suppressed" in built.problems[0].problem


def test_without_suppressions_the_table_is_not_read() -> None:
    """No recipient is left out."""
    table = FakeSuppressionsTable(an_entry("jo@example.com"))
    assert preview(a_send(), fake_deps(suppressions=table)).mime
    assert not table.reads


def test_a_preview_fails_if_suppressions_cannot_be_read() -> None:
    """Otherwise it could show another mail than the one that would be sent."""
    table = FakeSuppressionsTable()
    table.broken = {"jo@example.com"}
    with pytest.raises(DependencyError):
        preview(a_send(), fake_deps(providers=MARKED, suppressions=table))
