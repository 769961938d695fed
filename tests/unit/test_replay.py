"""After a restore, lost records are recovered from log lines and from parked bodies."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import END_STATUSES, LOST_CONTENT, Delivery, Status
from mailer.ports import ParkedBody
from mailer_ops.operations.replay import MARGIN, ReplayDependencies, replay
from mailer_ops.operations.request_log import read_log
from mailer_ops.ports import FinalOutcome
from support.fakes.ports import NOON, FakeClock, FakeMessagesTable, FakeParkedBodies
from support.fakes.sending import a_body, a_record

BEFORE = NOON - timedelta(hours=1)


def line(request_id: str = "r1", *, message: str = "request recorded", at: str = "12:32:54,180+0000", **logged: Any) -> str:
    shown = {"level": "INFO", "message": message, "timestamp": f"2026-11-24 {at}", "tenant_id": "acme", "attempt": 1}
    return json.dumps({**shown, "request_id": request_id, **logged})


def final_statuses(*lines: str) -> dict[str, Status]:
    return {request: logged.status for (_, request), logged in read_log(lines).newest.items() if logged.status in END_STATUSES}


class FakeOutcomes:
    def __init__(self, *known: str) -> None:
        self.known = known
        self.written: list[FinalOutcome] = []
        self.reopened: list[Delivery] = []

    def write(self, outcome: FinalOutcome) -> bool:
        self.written.append(outcome)
        return outcome.request_id not in self.known

    def reopen(self, record: Delivery, over: Delivery | None) -> None:  # noqa: ARG002 - as the port has it
        self.reopened.append(record)


class Bucket(FakeParkedBodies):
    """Parked bodies, all from one time."""

    parked_at = NOON

    def list_all(self) -> Iterator[ParkedBody]:
        yield from (ParkedBody(key, self.parked_at) for key in self.bodies)


class RestoredStack:
    """A restored table and its bucket."""

    def __init__(self, *records: Delivery) -> None:
        self.outcomes, self.bucket = FakeOutcomes(), Bucket()
        table = FakeMessagesTable(*records)
        self.deps = ReplayDependencies(outcomes=self.outcomes, messages=table, parked=self.bucket, bodies=self.bucket, clock=FakeClock())

    def park(self, request_id: str = "r1", **fields: Any) -> str:
        return self.bucket.park("acme", request_id, a_body(request_id, **fields))

    def replay(self, *lines: str) -> dict[str, int]:
        return replay(lines, self.deps, since=NOON)


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_accepted_mail_is_sent_even_if_it_was_not_recorded() -> None:
    """The response is logged before the record is written."""
    [logged] = read_log([line(message="provider answered", outcome="sent", message_id="m1", attempt=2)]).newest.values()
    assert (logged.status, logged.message_id, logged.attempt) == (Status.SENT, "m1", 2)
    assert logged.at.isoformat() == "2026-11-24T12:32:54.180000+00:00"


@pytest.mark.parametrize("later", ["unknown", "failed"])
def test_later_lines_do_not_undo_an_acceptance(later: str) -> None:
    """A worker that counted as dead may have continued."""
    assert final_statuses(line(status="sent", message_id="m1"), line(status=later, attempt=2, at="13:00:00,000+0000")) == {
        "r1": Status.SENT
    }


LINES = [
    line(status="unknown", at="12:00:01,000+0000"),
    line(status="queued", at="12:00:02,000+0000", generation=1),
    line(status="failed", code="expired", at="12:00:03,000+0000", generation=1),
    line("r2", status="failed", at="13:00:00,000+0100"),
    line("r2", status="sent", at="12:59:59,999+0100"),
    line("r3", message="provider answered", outcome="unknown", attempt=2, at="12:00:00,000+0000"),
    line("r3", status="failed", attempt=1, at="12:00:09,000+0000"),
]


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_outcome_counts_in_any_order_of_lines(seed: int) -> None:
    """Logs of several functions are concatenated; a slow worker's line may be later than the next attempt's."""
    lines = random.Random(seed).sample(LINES, len(LINES))  # noqa: S311 - no secret
    assert final_statuses(*lines) == {"r1": Status.FAILED, "r2": Status.SENT, "r3": Status.UNKNOWN}


@pytest.mark.parametrize("reverse", [False, True])
def test_of_one_attempt_and_message_the_later_time_counts(reverse: bool) -> None:  # noqa: FBT001 - both orders of the lines
    """Whatever the order of the lines; times may be of different time zones."""
    lines = [line(status="unknown", at="12:00:02,000+0100"), line(status="cancelled", at="11:00:03,000+0000")]
    assert final_statuses(*(reversed(lines) if reverse else lines)) == {"r1": Status.CANCELLED}


@pytest.mark.parametrize(
    "other",
    [
        "",
        "REPORT RequestId: 1",
        "[]",
        line(status="deferred"),
        line(message="provider answered", outcome="not sent", code="throttled"),
        line(message="swept", status="sent"),
    ],
)
def test_lines_without_a_final_status_are_skipped(other: str) -> None:
    """The input may be a whole log."""
    assert final_statuses(other, line("r2", status="cancelled")) == {"r2": Status.CANCELLED}


@pytest.mark.parametrize("broken", [line(status="sent", at="noon"), line(status="gone"), json.dumps({"message": "provider answered"})])
def test_an_unreadable_line_of_ours_is_counted(broken: str) -> None:
    """It may have had an outcome, so the operator must see that the replay is incomplete."""
    assert RestoredStack().replay(broken, line("r2", status="sent")) == {"unreadable": 1, "sent": 1}


def test_a_replay_reports_written_and_known_outcomes() -> None:
    """An operator sees when nothing is left to write."""
    restored = RestoredStack()
    restored.outcomes.known = ("r3",)
    assert restored.replay(line("r1", status="sent"), line("r2", status="failed"), line("r3", status="sent")) == {
        "sent": 1,
        "failed": 1,
        "known": 1,
    }


# ── parked bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_parked_request_is_restored_from_its_line() -> None:
    """It has the times that the caller got."""
    restored = RestoredStack()
    key = restored.park()
    created, expires = NOON + timedelta(minutes=1), NOON + timedelta(hours=2)
    logged = {"parked": key, "created_at": created.isoformat(), "expires_at": expires.isoformat()}
    assert restored.replay(line(status="deferred", attempt=2, generation=3, code="throttled", **logged)) == {"reopened": 1}
    [record] = restored.outcomes.reopened
    assert (record.status, record.parked, record.attempt, record.generation) == (Status.DEFERRED, key, 2, 3)
    assert (record.created_at, record.expires_at) == (created, expires)
    assert record.content_hash == a_record().content_hash
    assert (record.due_at, record.sweep_at) == (NOON, NOON)


def test_a_parked_body_without_a_line_is_restored() -> None:
    """Its worker died before logging; its times are measured from the parking."""
    restored = RestoredStack()
    key = restored.park(sendAt="2026-11-25T08:00:00Z")
    assert restored.replay() == {"reopened": 1}
    [record] = restored.outcomes.reopened
    assert (record.parked, record.created_at, record.expires_at.isoformat()) == (key, NOON, "2026-11-26T08:00:00+00:00")


def test_an_old_body_without_a_record_is_ignored() -> None:
    """A held `unknown` expires after 35 days, its body after 50: sending it could send it twice."""
    restored = RestoredStack()
    restored.park()
    restored.bucket.parked_at = BEFORE
    assert restored.replay() == {}
    assert restored.outcomes.reopened == []


def test_a_body_that_was_parked_shortly_before_the_restore_point_is_restored() -> None:
    """Its record, written after it, is lost."""
    restored = RestoredStack()
    restored.park()
    restored.bucket.parked_at = NOON - MARGIN
    assert restored.replay() == {"reopened": 1}


def test_a_queued_request_that_was_parked_since_is_due() -> None:
    """Its message is gone: without the body the record could only expire."""
    restored = RestoredStack(a_record(Status.QUEUED, updated_at=BEFORE))
    key = restored.park()
    assert restored.replay(line(status="deferred", attempt=0, generation=1, parked=key)) == {"reopened": 1}
    [record] = restored.outcomes.reopened
    assert (record.status, record.parked, record.generation, record.sweep_at) == (Status.DEFERRED, key, 1, NOON)


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN])
def test_an_attempt_that_was_proven_unsent_since_is_reopened(status: Status) -> None:
    """Otherwise it would end as unknown; a maybe sent one can only end as sent or unknown."""
    restored = RestoredStack(a_record(status, attempt=1, owner="w1", deadline=NOON, updated_at=BEFORE))
    assert restored.replay(line(status="deferred", attempt=1, generation=1, maybe_sent=status is Status.UNKNOWN)) == {"reopened": 1}
    [record] = restored.outcomes.reopened
    assert (record.status, record.maybe_sent, record.deadline) == (Status.DEFERRED, status is Status.UNKNOWN, None)


def test_a_later_attempt_is_not_reopened() -> None:
    """The earlier attempt's line is late; the later attempt may have been accepted."""
    restored = RestoredStack(a_record(Status.SENDING, attempt=2, owner="w2", deadline=NOON, updated_at=BEFORE))
    assert restored.replay(line(status="deferred", attempt=1, generation=1)) == {"known": 1}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_restored_outcome_has_its_account(reverse: bool) -> None:  # noqa: FBT001 - both orders of the lines
    """Only the line of the provider's response has it; SES's events must match it."""
    restored = RestoredStack(a_record(Status.SENDING, attempt=1, owner="w1"))
    provider_line = line(message="provider answered", outcome="sent", attempt=2, account="111122223333", region="eu-west-1")
    lines = [provider_line, line(status="sent", attempt=2)]
    assert restored.replay(*(reversed(lines) if reverse else lines)) == {"sent": 1}
    [end] = restored.outcomes.written
    assert (end.account, end.region) == ("111122223333", "eu-west-1")


def test_a_reopened_request_has_the_account_of_its_last_attempt() -> None:
    """An event may still prove that SES accepted it."""
    restored = RestoredStack(a_record(Status.SENDING, attempt=1, owner="w1", account="444455556666", region="us-east-1"))
    restored.park()
    lost = line(message="provider answered", outcome="unknown", attempt=2, account="111122223333", region="eu-west-1")
    restored.replay(lost, line(status="queued", attempt=2, generation=1, maybe_sent=True))
    [record] = restored.outcomes.reopened
    assert record.sent_from(2) == ("111122223333", "eu-west-1")


def test_a_held_unknown_gets_its_body_back() -> None:
    """An operator may still resend it."""
    restored = RestoredStack(a_record(Status.UNKNOWN, attempt=1, owner="w1"))
    key = restored.park()
    assert restored.replay(line(status="unknown", code="outcome_unknown")) == {"unknown": 1, "reopened": 1}
    [record] = restored.outcomes.reopened
    assert (record.status, record.parked) == (Status.UNKNOWN, key)


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.CANCELLED])
def test_the_body_of_an_ended_request_is_ignored(status: Status) -> None:
    """It was parked before the end and not deleted yet."""
    restored = RestoredStack(a_record(status))
    restored.park()
    assert restored.replay() == {"known": 1}


def test_the_body_of_other_content_is_ignored() -> None:
    """The first request with an id counts."""
    restored = RestoredStack(a_record(Status.QUEUED))
    restored.park(onUnknown="resend")
    assert restored.replay() == {"known": 1}


def test_a_maybe_sent_request_is_restored_until_its_message_arrives() -> None:
    """Its record is lost and its body on the queue: without a record the message would be handled as never sent."""
    restored = RestoredStack()
    times = {"created_at": BEFORE.isoformat(), "expires_at": (NOON + timedelta(hours=3)).isoformat()}
    assert restored.replay(line(status="queued", generation=2, maybe_sent=True, **times)) == {"reopened": 1}
    [record] = restored.outcomes.reopened
    assert (record.maybe_sent, record.content_hash, record.generation, record.created_at) == (True, LOST_CONTENT, 2, BEFORE)


def test_a_request_on_the_queue_is_not_restored() -> None:
    """Its message creates the record."""
    assert RestoredStack().replay(line(status="deferred", attempt=0, generation=1)) == {"on the queue": 1}


def test_an_unreadable_body_is_counted() -> None:
    """The others are restored."""
    restored = RestoredStack()
    restored.bucket.bodies["parked/acme/r0/0.json"] = "{"
    restored.park("r1")
    assert restored.replay() == {"unreadable": 1, "reopened": 1}


def test_a_record_with_its_body_is_left_to_the_sweeper() -> None:
    """The body may have been parked before the restore point."""
    record = a_record(Status.DEFERRED, updated_at=BEFORE)
    restored = RestoredStack(record)
    restored.deps.messages.records["acme", "r1"] = replace(record, parked=restored.park())  # type: ignore[attr-defined]  # the fake's
    assert restored.replay(line(status="deferred", attempt=0)) == {"known": 1}
