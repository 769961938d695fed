"""Resolving an unknown on an operator's word."""

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


def a_desk_with_an_unknown(body: str | None = None, **fields: Any) -> MessagesDependencies:
    """Make dependencies where r1 is unknown and its body parked."""
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


def test_an_unknown_that_was_sent_becomes_sent() -> None:
    """The record keeps the operator's word and the messageId; the body is not needed any more."""
    deps = a_desk_with_an_unknown()
    record = resolve("acme", "r1", SENT, deps, message_id="0100")
    assert (record.status, record.message_id, record.resolution, record.error) == (Status.SENT, "0100", SENT, None)
    assert not deps.parked.bodies


def test_sent_needs_no_message_id() -> None:
    """An operator may know that it arrived without knowing SES's id."""
    assert resolve("acme", "r1", SENT, a_desk_with_an_unknown()).message_id is None


def test_an_unknown_that_is_sent_again_is_queued() -> None:
    """A pointer to the parked body goes out, held back until the record says so."""
    deps = a_desk_with_an_unknown()
    record = resolve("acme", "r1", RESEND, deps)
    assert (record.status, record.maybe_sent, record.resolution) == (Status.QUEUED, True, RESEND)
    [(queue_message, delay)] = deps.queue.sent
    assert json.loads(queue_message.body) == {"tenantId": "acme", "requestId": "r1"}
    assert (queue_message.parked, queue_message.generation, delay) == (record.parked, 5, HOLD_BACK)
    assert deps.parked.fetch(queue_message.parked) == canonical_json(a_send())


def test_a_resent_request_has_time_anew() -> None:
    """Its first span is long over; the message counts from now, as the record does."""
    deps = a_desk_with_an_unknown()
    record = resolve("acme", "r1", RESEND, deps)
    assert record.expires_at == NOON + timedelta(hours=24)
    assert deps.queue.messages[0].created_at == NOON


def test_the_resent_message_passes_the_fence() -> None:
    """What the consumer will try with that message is allowed by the record."""
    deps = a_desk_with_an_unknown()
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
def test_only_an_unknown_can_be_settled(status: Status, resolution: Resolution) -> None:
    """Whatever else a record says is known."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", status)))
    assert refused(deps, resolution).code == "not_resolvable"
    assert not deps.messages.changes
    assert not deps.queue.messages


@pytest.mark.parametrize("resolution", [SENT, RESEND])
def test_an_unknown_id_is_not_found(resolution: Resolution) -> None:
    """404, as everywhere."""
    assert refused(fake_deps(), resolution).code == "not_found"


def test_a_request_whose_body_is_gone_cannot_be_sent_again() -> None:
    """Without the body there is nothing to send."""
    deps = a_desk_with_an_unknown()
    deps.parked.bodies.clear()
    assert "body" in str(refused(deps, RESEND))
    deps = a_desk_with_an_unknown(parked=None)
    assert "body" in str(refused(deps, RESEND))
    assert not deps.queue.messages


def test_a_request_whose_own_end_has_passed_is_not_sent_again() -> None:
    """The caller said until when the mail is of use."""
    deps = a_desk_with_an_unknown(canonical_json(a_send(expiresAt=(NOON - timedelta(hours=1)).isoformat())))
    assert "expiresAt" in str(refused(deps, RESEND))
    assert not deps.queue.messages


def test_nothing_is_sent_again_while_its_worker_may_live() -> None:
    """A worker is dead after its deadline, the function's timeout and a margin; before that it might still send."""
    dead_at = NOON - SEND_TIMEOUT - WORKER_DEAD_MARGIN
    alive = a_desk_with_an_unknown(deadline=dead_at)
    assert "worker" in str(refused(alive, RESEND))
    assert not alive.queue.messages
    dead = a_desk_with_an_unknown(deadline=dead_at - timedelta(milliseconds=1))
    assert resolve("acme", "r1", RESEND, dead).status is Status.QUEUED


def test_the_same_word_again_is_answered_as_the_first() -> None:
    """An operator whose answer got lost asks again; nothing is sent a second time."""
    deps = a_desk_with_an_unknown()
    first = resolve("acme", "r1", RESEND, deps)
    assert resolve("acme", "r1", replace(RESEND, at=NOON + timedelta(minutes=1)), deps) == first
    assert len(deps.queue.messages) == 1
    assert refused(deps, SENT).code == "not_resolvable"


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queue_that_fails_leaves_the_unknown_as_it_is() -> None:
    """Before the message: nothing has happened."""
    deps = a_desk_with_an_unknown()
    before = deps.messages.get("acme", "r1")
    broken = replace(deps, queue=FakeSendQueue(broken=True))
    with pytest.raises(DependencyError):
        resolve("acme", "r1", RESEND, broken)
    assert deps.messages.get("acme", "r1") == before


def test_a_crash_after_the_message_loses_nothing() -> None:
    """Between message and record: the message is refused by the fence, the body stays, and the operator can repeat the call."""
    deps = a_desk_with_an_unknown()

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
    """After both: the message is on its way, and asking again sends no second one."""
    deps = a_desk_with_an_unknown()

    def lose_reply(_: Change) -> None:
        raise DependencyError("DynamoDB", "UpdateItem")

    deps.messages.after = lose_reply
    with pytest.raises(DependencyError):
        resolve("acme", "r1", RESEND, deps)
    deps.messages.after = lambda _: None
    assert resolve("acme", "r1", RESEND, deps).status is Status.QUEUED
    assert len(deps.queue.messages) == 1


def test_a_word_counts_for_the_attempt_that_it_was_said_of() -> None:
    """Another attempt was lost between our read and our write: the operator has to decide about that one again."""
    deps = a_desk_with_an_unknown()

    def lost_again(_: Change) -> None:
        record = deps.messages.records["acme", "r1"]
        deps.messages.records["acme", "r1"] = replace(record, attempt=record.attempt + 1, owner="w9")

    deps.messages.before = lost_again
    assert "unknown by now" in str(refused(deps, RESEND))
    assert deps.messages.get("acme", "r1").status is Status.UNKNOWN


def test_proof_that_comes_meanwhile_wins() -> None:
    """The late worker writes `sent` between our read and our write."""
    deps = a_desk_with_an_unknown()

    def late_proof(_: Change) -> None:
        record = deps.messages.records["acme", "r1"]
        deps.messages.records["acme", "r1"] = replace(record, status=Status.SENT, message_id="0100")

    deps.messages.before = late_proof
    assert "sent by now" in str(refused(deps, RESEND))
    assert deps.messages.get("acme", "r1").message_id == "0100"
