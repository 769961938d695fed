"""Uploads of a request: the version at the acceptance is sent, even if the key is overwritten later."""

import json
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer.domain.errors import DependencyError, RequestError
from mailer.domain.message import MAX_BODY, canonical_json, content_hash, parse_request, read_request
from mailer.domain.provider import ProviderStatus
from mailer.ports import QueueMessage
from mailer.services.api.messages import accept, accept_batch
from support.fakes.messages import a_send, fake_deps
from support.fakes.ports import NOON, FakeAttachments, FakeProvidersTable, a_provider
from support.fakes.sending import Bench, a_queue_message

FILE = {"filename": "a.txt", "s3": {"key": "acme/a"}}


def a_message(*files: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"to": [{"email": "jo@example.com"}], "subject": "Hi", "text": "Hello.", "attachments": list(files or [FILE]), **fields}


def upload_of(bench: Bench) -> bytes:
    """Return the file in the one mail that was sent."""
    [mail] = bench.provider.mails
    [part] = [part for part in message_from_bytes(mail.mime).walk() if part.get_filename() == "a.txt"]
    return part.get_payload(decode=True)  # type: ignore[return-value]  # a leaf's


def receive_from_api(queue_message: QueueMessage, files: FakeAttachments) -> Bench:
    """Pass the messages that the API queued to SendFunction."""
    bench = Bench()
    bench.deps = replace(bench.deps, attachments=files)
    bench.receive(queue_message)
    return bench


# -- the API -------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_overwritten_after_the_acceptance_is_not_sent() -> None:
    """The mail has the version at the acceptance."""
    files = FakeAttachments({"acme/a": b"first"})
    deps = fake_deps(attachments=files)
    accept(a_send(message=a_message()), deps)
    files.files["acme/a"] = b"second"
    assert upload_of(receive_from_api(deps.queue.messages[0], files)) == b"first"


def test_a_file_that_is_deleted_after_the_acceptance_is_sent() -> None:
    """Only a cancellation prevents an accepted mail."""
    files = FakeAttachments({"acme/a": b"first"})
    deps = fake_deps(attachments=files)
    accept(a_send(message=a_message()), deps)
    del files.files["acme/a"]
    assert upload_of(receive_from_api(deps.queue.messages[0], files)) == b"first"


def test_a_replay_is_recognized_with_any_file_in_the_bucket() -> None:
    """The caller's request is compared without the pinned versions; nothing is looked up again."""
    files = FakeAttachments({"acme/a": b"first"})
    deps = fake_deps(attachments=files)
    send = a_send(message=a_message())
    first = accept(send, deps).record
    assert first.content_hash == content_hash(send) == content_hash(parse_request(deps.queue.messages[0].body))
    files.files.clear()
    files.lookups.clear()
    assert accept(send, deps).replayed
    assert (files.lookups, len(deps.queue.messages)) == ([], 1)


def test_another_given_version_is_another_request() -> None:
    """A version that the caller gives is part of the request."""
    files = FakeAttachments({"acme/a": b"first"}, {("acme/a", "v1"): b"one", ("acme/a", "v2"): b"two"})
    deps = fake_deps(attachments=files)
    accept(a_send(message=a_message({**FILE, "s3": {"key": "acme/a", "versionId": "v1"}})), deps)
    with pytest.raises(RequestError) as refusal:
        accept(a_send(message=a_message({**FILE, "s3": {"key": "acme/a", "versionId": "v2"}})), deps)
    assert refusal.value.code == "request_id_reused"


def test_a_missing_file_is_refused_at_once() -> None:
    """Each missing file is named; nothing is queued, so the id can be used again."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": b"first"}))
    missing = {"filename": "b.txt", "s3": {"key": "acme/b"}}
    other = {"filename": "c.txt", "s3": {"key": "acme/a", "versionId": "v9"}}
    with pytest.raises(RequestError) as refusal:
        accept(a_send(message=a_message(missing, FILE, other)), deps)
    assert refusal.value.code == "attachment_missing"
    assert [problem.path for problem in refusal.value.problems] == ["message.attachments[0].s3", "message.attachments[2].s3"]
    assert (deps.queue.messages, deps.messages.records) == ([], {})


def test_an_outage_of_the_bucket_refuses_only_requests_with_uploads() -> None:
    """The caller can retry."""
    deps = fake_deps(attachments=FakeAttachments({"acme/a": b"first"}, broken=True))
    [with_file, without] = accept_batch([a_send("r1", message=a_message()), a_send("r2")], deps)
    assert isinstance(with_file, DependencyError)
    assert not isinstance(without, RequestError | DependencyError)
    assert [json.loads(queue_message.body)["requestId"] for queue_message in deps.queue.messages] == ["r2"]


def test_a_batch_looks_up_each_upload_once() -> None:
    """A hundred requests of a newsletter may have the same file."""
    files = FakeAttachments({"acme/a": b"first"})
    answers = accept_batch([a_send(f"r{n}", message=a_message()) for n in range(100)], fake_deps(attachments=files))
    assert not any(isinstance(answer, RequestError | DependencyError) for answer in answers)
    assert files.lookups == ["acme/a"]


def test_rejected_requests_cause_no_lookup() -> None:
    """Cases: invalid times, a tenant without a provider."""
    files = FakeAttachments({"acme/a": b"first"})
    late = (NOON + timedelta(days=8)).isoformat()
    accept_batch([a_send(message=a_message(), sendAt=late)], fake_deps(attachments=files))
    accept_batch([a_send(message=a_message())], fake_deps(attachments=files, providers=FakeProvidersTable()))
    assert files.lookups == []


def test_a_caller_cannot_pin_a_version() -> None:
    """The field is internal to the queue, and unknown in the API."""
    document = {"requestId": "r1", "message": a_message(), "pinnedVersions": {"0": "v1"}}
    with pytest.raises(RequestError) as refusal:
        read_request(document, tenant_id="acme")
    assert [problem.path for problem in refusal.value.problems] == ["pinnedVersions"]


@pytest.mark.parametrize("pins", [1, "v1", ["v1"], {"1": "v1"}, {"0": 1}, {"0": ""}, {"0": "a b"}, {"00": "v1"}, {"-1": "v1"}])
def test_pins_without_a_matching_upload_are_refused(pins: object) -> None:
    """A producer gets the same error as for any unknown field."""
    document = {"tenantId": "acme", "requestId": "r1", "message": a_message(), "pinnedVersions": pins}
    with pytest.raises(RequestError) as refusal:
        parse_request(json.dumps(document))
    assert [problem.path for problem in refusal.value.problems] == ["pinnedVersions"]


# -- the queue -----------------------------------------------------------------------------------------------------------


def a_bench(files: dict[str, bytes], status: ProviderStatus = ProviderStatus.ACTIVE) -> Bench:
    bench = Bench()
    bench.attachments.files |= files
    bench.providers.rows["acme"] = a_provider(status=status)
    return bench


def test_a_request_of_a_producer_is_pinned_before_it_waits() -> None:
    """Its next message has the version at the first receive."""
    bench = a_bench({"acme/a": b"first"})
    later = (NOON + timedelta(minutes=5)).isoformat()
    bench.receive(a_queue_message(message=a_message(), sendAt=later))
    queue_message, delay = bench.take()
    bench.attachments.files["acme/a"] = b"second"
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, upload_of(bench)) == (Status.SENT, b"first")


def test_a_request_is_pinned_before_an_aws_service_fails() -> None:
    """With an outage of KMS at the first receive, the next message still has the version of that time."""
    bench = a_bench({"acme/a": b"first"})
    bench.provider_factory.error = DependencyError("KMS", "Decrypt")
    bench.receive(a_queue_message(message=a_message()))
    bench.provider_factory.error = None
    bench.attachments.files["acme/a"] = b"second"
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, upload_of(bench)) == (Status.SENT, b"first")


def test_a_parked_request_keeps_its_version() -> None:
    """It may wait for days in the bucket."""
    bench = a_bench({"acme/a": b"first"}, ProviderStatus.DISABLED)
    bench.receive(a_queue_message(message=a_message()))
    record = bench.record()
    assert record.parked is not None
    parked = parse_request(bench.parked.bodies[record.parked])
    assert content_hash(parked) == record.content_hash
    bench.providers.rows["acme"] = a_provider()
    bench.attachments.files["acme/a"] = b"second"
    ids = json.dumps({"tenantId": "acme", "requestId": "r1"})
    bench.clock.advance(timedelta(hours=2))
    bench.messages.records["acme", "r1"] = replace(record, due_at=NOON)
    bench.receive(QueueMessage(body=ids, tenant_id="acme", created_at=NOON, generation=record.generation, parked=record.parked))
    assert upload_of(bench) == b"first"


def test_a_named_version_is_not_looked_up_before_it_is_fetched() -> None:
    """A named version cannot be overwritten."""
    bench = a_bench({})
    bench.attachments.kept["acme/a", "v1"] = b"first"
    bench.receive(a_queue_message(message=a_message({**FILE, "s3": {"key": "acme/a", "versionId": "v1"}})))
    assert (bench.attachments.lookups, upload_of(bench)) == ([], b"first")


def test_a_missing_file_fails_its_request() -> None:
    """The request fails before the first wait, so its producer learns it at once."""
    bench = a_bench({})
    bench.receive(a_queue_message(message=a_message(), sendAt=(NOON + timedelta(days=1)).isoformat()))
    record = bench.record()
    assert (record.status, record.error and record.error.code) == (Status.FAILED, "attachment_missing")
    assert record.error is not None
    assert "message.attachments[0].s3" in record.error.message
    assert bench.queue.sent == []


def test_a_replay_of_a_sent_request_needs_no_file() -> None:
    """The first result is kept, even if the upload has expired since."""
    bench = a_bench({"acme/a": b"first"})
    bench.receive(a_queue_message(message=a_message()))
    bench.attachments.files.clear()
    bench.attachments.kept.clear()
    bench.receive(a_queue_message(message=a_message()))
    assert (bench.record().status, len(bench.provider.mails), bench.queue.dead_letters) == (Status.SENT, 1, [])


def test_an_outage_of_the_bucket_defers_the_request() -> None:
    """It is pinned when the bucket works again."""
    bench = a_bench({"acme/a": b"first"})
    bench.attachments.broken = True
    bench.receive(a_queue_message(message=a_message()))
    assert bench.record().status is Status.DEFERRED
    bench.attachments.broken = False
    queue_message, delay = bench.take()
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert upload_of(bench) == b"first"


def a_request_that_grows(**fields: Any) -> QueueMessage:
    """Make a request whose text is longer on our queue, where it is escaped, than in the producer's message."""
    request = {"tenantId": "acme", "requestId": "r1", "message": a_message(html="\u5b57" * 250_000), **fields}
    body = json.dumps(request, ensure_ascii=False)
    assert len(body.encode()) < MAX_BODY < len(canonical_json(parse_request(body)))
    return QueueMessage(body=body, tenant_id="acme", created_at=NOON)


def test_a_body_without_space_for_the_versions_is_parked_with_them() -> None:
    """Later uploads are not sent either; the parked body is deleted at the end."""
    bench = a_bench({"acme/a": b"first"})
    bench.receive(a_request_that_grows(sendAt=(NOON + timedelta(minutes=5)).isoformat()))
    queue_message, delay = bench.take()
    bench.attachments.files["acme/a"] = b"second"
    bench.clock.advance(delay)
    bench.receive(queue_message)
    assert (bench.record().status, upload_of(bench), bench.parked.bodies) == (Status.SENT, b"first", {})


def test_a_body_that_was_parked_and_sent_at_once_is_deleted() -> None:
    """It never waited, so its record may not have the key."""
    bench = a_bench({"acme/a": b"first"})
    bench.receive(a_request_that_grows())
    assert (bench.record().status, upload_of(bench), bench.parked.bodies) == (Status.SENT, b"first", {})


def test_a_body_that_was_parked_and_refused_at_once_is_deleted() -> None:
    """The case is a tenant without a provider."""
    bench = a_bench({"acme/a": b"first"})
    bench.providers.rows.clear()
    bench.receive(a_request_that_grows())
    assert (bench.record().status, bench.parked.bodies) == (Status.FAILED, {})


def test_a_body_that_cannot_be_parked_waits_unpinned() -> None:
    """During an outage of the bucket versions cannot be read; they are pinned at the first receive after it."""
    bench = a_bench({"acme/a": b"first"})
    bench.parked.broken = True
    queue_message = a_request_that_grows()
    bench.receive(queue_message)
    assert bench.take()[0].body == queue_message.body
