"""Resolving an unknown by an operator."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain import delivery
from mailer.domain.delivery import BEGIN, WORKER_DEAD_MARGIN, Change, Resolution, Status
from mailer.domain.errors import DependencyError, ErrorInfo, RequestError
from mailer.domain.message import canonical_json
from mailer.services.api.messages import MessagesDependencies
from mailer.services.api.resolve import HOLD_BACK, resolve
from support.fakes.messages import SEND_TIMEOUT, a_send, fake_deps
from support.fakes.ports import NOON, FakeMessagesTable, FakeParkedBodies, FakeSendQueue, a_delivery

SENT = Resolution("sent", "ops@acme.example", "found in the SES event log", NOON)
RESEND = Resolution("resend", "ops@acme.example", "SES never saw it", NOON)
LONG_AGO = NOON - timedelta(days=3)


def deps_with_an_unknown(body: str | None = None, **fields: Any) -> MessagesDependencies:
    """Return dependencies with r1 as unknown and its body parked."""
    parked = FakeParkedBodies()
    key = parked.park("acme", "r1", body or canonical_json(a_send()))
    record = {
        "attempt": 1,
        "owner": "w1",
        "generation": 4,
        "deadline": LONG_AGO,
        "created_at": LONG_AGO,
        "expires_at": LONG_AGO + timedelta(hours=24),
        "parked": key,
        "error": ErrorInfo("outcome_unknown", "the connection was lost"),
        **fields,
    }
    return fake_deps(messages=FakeMessagesTable(a_delivery("r1", Status.UNKNOWN, **record)), parked=parked)


def refused(deps: MessagesDependencies, resolution: Resolution) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        resolve("acme", "r1", resolution, deps)
    return refusal.value


def test_an_unknown_is_resolved_as_sent() -> None:
    """The record has the resolution and the messageId; the body is deleted."""
    deps = deps_with_an_unknown()
    record = resolve("acme", "r1", SENT, deps, message_id="0100")
    assert (record.status, record.message_id, record.resolution, record.error) == (Status.SENT, "0100", SENT, None)
    assert not deps.parked.bodies


def test_sent_needs_no_message_id() -> None:
    """An operator may know that the mail arrived without SES's id."""
    assert resolve("acme", "r1", SENT, deps_with_an_unknown()).message_id is None


def test_an_unknown_is_resolved_as_resend() -> None:
    """A pointer to the parked body is queued, delayed until the record is written."""
    deps = deps_with_an_unknown()
    record = resolve("acme", "r1", RESEND, deps)
    assert (record.status, record.maybe_sent, record.resolution) == (Status.QUEUED, True, RESEND)
    [(queue_message, delay)] = deps.queue.sent
    assert json.loads(queue_message.body) == {"tenantId": "acme", "requestId": "r1"}
    assert (queue_message.parked, queue_message.generation, delay) == (record.parked, 5, HOLD_BACK)
    assert deps.parked.fetch(queue_message.parked) == canonical_json(a_send())


def test_a_resent_request_has_a_new_expiry() -> None:
    """Its first expiry has passed; message and record count from now."""
    deps = deps_with_an_unknown()
    record = resolve("acme", "r1", RESEND, deps)
    assert record.expires_at == NOON + timedelta(hours=24)
    assert deps.queue.messages[0].created_at == NOON


def test_the_resent_message_passes_the_fence() -> None:
    """The record allows the consumer's change with that message."""
    deps = deps_with_an_unknown()
    resolve("acme", "r1", RESEND, deps)
    record, queue_message = deps.messages.get("acme", "r1"), deps.queue.messages[0]
    begin = Change(
        rule=BEGIN,
        tenant_id="acme",
        request_id="r1",
        now=NOON,
        content_hash=record.content_hash,
        generation=queue_message.generation,
        owner="w2",
    )
    assert delivery.allows(begin, record)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNKNOWN])
@pytest.mark.parametrize("resolution", [SENT, RESEND])
def test_only_an_unknown_can_be_resolved(status: Status, resolution: Resolution) -> None:
    """In every other status the outcome is known."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", status)))
    assert refused(deps, resolution).code == "not_resolvable"
    assert not deps.messages.changes
    assert not deps.queue.messages


@pytest.mark.parametrize("resolution", [SENT, RESEND])
def test_an_unknown_id_is_not_found(resolution: Resolution) -> None:
    """The response is a 404."""
    assert refused(fake_deps(), resolution).code == "not_found"


def test_a_request_without_its_body_cannot_be_resent() -> None:
    """The error says that the body is missing."""
    deps = deps_with_an_unknown()
    deps.parked.bodies.clear()
    assert "body" in str(refused(deps, RESEND))
    deps = deps_with_an_unknown(parked=None)
    assert "body" in str(refused(deps, RESEND))
    assert "as a new request" in str(refused(deps, RESEND).remediation)
    assert not deps.queue.messages


def test_a_request_past_its_own_expiry_is_not_resent() -> None:
    """The caller's expiresAt is respected."""
    deps = deps_with_an_unknown(canonical_json(a_send(expiresAt=(NOON - timedelta(hours=1)).isoformat())))
    assert "expiresAt" in str(refused(deps, RESEND))
    assert "as a new request" in str(refused(deps, RESEND).remediation)
    assert not deps.queue.messages


def test_a_request_is_not_resent_while_its_worker_may_run() -> None:
    """A worker is dead after its deadline, the function's timeout and a margin; before that it may still send."""
    dead_at = NOON - SEND_TIMEOUT - WORKER_DEAD_MARGIN
    may_run = deps_with_an_unknown(deadline=dead_at)
    assert "worker" in str(refused(may_run, RESEND))
    assert "after that time" in str(refused(may_run, RESEND).remediation)
    assert not may_run.queue.messages
    dead = deps_with_an_unknown(deadline=dead_at - timedelta(milliseconds=1))
    assert resolve("acme", "r1", RESEND, dead).status is Status.QUEUED


def test_a_repeated_resolution_returns_the_first_result() -> None:
    """An operator may repeat a call whose response was lost; nothing is queued twice."""
    deps = deps_with_an_unknown()
    first = resolve("acme", "r1", RESEND, deps)
    assert resolve("acme", "r1", replace(RESEND, at=NOON + timedelta(minutes=1)), deps) == first
    assert len(deps.queue.messages) == 1
    assert refused(deps, SENT).code == "not_resolvable"


def test_a_request_that_is_unknown_again_is_resent_for_another_reason_only() -> None:
    """With the same one the call may be a retry of the first, and nobody asked for a third mail; while the worker may run, none is sent."""
    deps = deps_with_an_unknown()
    first = resolve("acme", "r1", RESEND, deps)
    again = replace(first, status=Status.UNKNOWN, attempt=2, owner="w2", deadline=NOON)
    deps.messages.records["acme", "r1"] = again
    assert refused(deps, replace(RESEND, why="still nothing")).code == "not_resolvable"
    retried = replace(RESEND, at=again.worker_dead_at(SEND_TIMEOUT) + timedelta(seconds=1))
    assert [problem.path for problem in refused(deps, retried).problems] == ["why"]
    later = replace(retried, why="still nothing")
    record = resolve("acme", "r1", later, deps)
    assert (record.status, record.resolution) == (Status.QUEUED, later)
    assert [queue_message.generation for queue_message, _ in deps.queue.sent] == [5, 6]


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failing_queue_does_not_change_the_unknown() -> None:
    """The failure is before the message is queued."""
    deps = deps_with_an_unknown()
    before = deps.messages.get("acme", "r1")
    broken = replace(deps, queue=FakeSendQueue(broken=True))
    with pytest.raises(DependencyError):
        resolve("acme", "r1", RESEND, broken)
    assert deps.messages.get("acme", "r1") == before


def test_a_crash_between_message_and_record_loses_nothing() -> None:
    """The fence rejects the message, the body stays, and the operator can repeat the call."""
    deps = deps_with_an_unknown()

    def crash(_: Change) -> None:
        raise SystemExit

    deps.messages.before = crash
    with pytest.raises(SystemExit):
        resolve("acme", "r1", RESEND, deps)
    record, queue_message = deps.messages.get("acme", "r1"), deps.queue.messages[0]
    begin = Change(
        rule=BEGIN,
        tenant_id="acme",
        request_id="r1",
        now=NOON,
        content_hash=record.content_hash,
        generation=queue_message.generation,
        owner="w2",
    )
    assert not delivery.allows(begin, record)
    assert deps.parked.fetch(record.parked)
    deps.messages.before = lambda _: None
    assert resolve("acme", "r1", RESEND, deps).status is Status.QUEUED


def test_a_crash_after_the_record_changes_nothing() -> None:
    """The message is queued, and repeating the call queues no second one."""
    deps = deps_with_an_unknown()

    def lose_reply(_: Change) -> None:
        raise DependencyError("DynamoDB", "UpdateItem")

    deps.messages.after = lose_reply
    with pytest.raises(DependencyError):
        resolve("acme", "r1", RESEND, deps)
    deps.messages.after = lambda _: None
    assert resolve("acme", "r1", RESEND, deps).status is Status.QUEUED
    assert len(deps.queue.messages) == 1


def test_a_resolution_counts_only_for_the_attempt_that_was_read() -> None:
    """Another attempt was lost between read and write: the operator has to decide again."""
    deps = deps_with_an_unknown()

    def lost_again(_: Change) -> None:
        record = deps.messages.records["acme", "r1"]
        deps.messages.records["acme", "r1"] = replace(record, attempt=record.attempt + 1, owner="w9")

    deps.messages.before = lost_again
    assert "unknown by now" in str(refused(deps, RESEND))
    assert deps.messages.get("acme", "r1").status is Status.UNKNOWN


def test_a_concurrent_proof_wins() -> None:
    """The late worker writes `sent` between read and write."""
    deps = deps_with_an_unknown()

    def late_proof(_: Change) -> None:
        record = deps.messages.records["acme", "r1"]
        deps.messages.records["acme", "r1"] = replace(record, status=Status.SENT, message_id="0100")

    deps.messages.before = late_proof
    assert "sent by now" in str(refused(deps, RESEND))
    assert deps.messages.get("acme", "r1").message_id == "0100"
