"""After a restore, what the table has lost is read from the log lines that told it, and from the bodies in the bucket."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import END_STATUSES, LOST_CONTENT, Delivery, Status
from mailer.ports import ParkedBody
from mailer_ops.operations.replay import ReplayDependencies, replay
from mailer_ops.operations.request_log import read_log
from mailer_ops.ports import FinalOutcome
from support.fakes.ports import NOON, FakeClock, FakeMessagesTable, FakeParkedBodies
from support.fakes.sending import a_body, a_record

BEFORE = NOON - timedelta(hours=1)


def line(request_id: str = "r1", *, message: str = "request recorded", at: str = "12:32:54,180+0000", **logged: Any) -> str:
    shown = {"level": "INFO", "message": message, "timestamp": f"2026-11-24 {at}", "tenant_id": "acme", "attempt": 1}
    return json.dumps({**shown, "request_id": request_id, **logged})


def ends(*lines: str) -> dict[str, Status]:
    return {request: logged.status for (_, request), logged in read_log(lines).newest.items() if logged.status in END_STATUSES}


class FakeLostEnds:
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
    """Bodies that were all parked at one time."""

    parked_at = NOON

    def list_all(self) -> Iterator[ParkedBody]:
        yield from (ParkedBody(key, self.parked_at) for key in self.bodies)


class Restored:
    """A restored table with its bucket."""

    def __init__(self, *records: Delivery) -> None:
        self.ends, self.bucket = FakeLostEnds(), Bucket()
        table = FakeMessagesTable(*records)
        self.deps = ReplayDependencies(outcomes=self.ends, messages=table, parked=self.bucket, bodies=self.bucket, clock=FakeClock())

    def park(self, request_id: str = "r1", **fields: Any) -> str:
        return self.bucket.park("acme", request_id, a_body(request_id, **fields))

    def replay(self, *lines: str) -> dict[str, int]:
        return replay(lines, self.deps, since=NOON)


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_ses_accepted_is_sent_though_it_was_never_recorded() -> None:
    """The answer is logged before the record is written."""
    [logged] = read_log([line(message="provider answered", outcome="sent", message_id="m1", attempt=2)]).newest.values()
    assert (logged.status, logged.message_id, logged.attempt) == (Status.SENT, "m1", 2)
    assert logged.at.isoformat() == "2026-11-24T12:32:54.180000+00:00"


@pytest.mark.parametrize("later", ["unknown", "failed"])
def test_nothing_that_was_told_later_undoes_an_acceptance(later: str) -> None:
    """A worker that was taken for dead may have come back."""
    assert ends(line(status="sent", message_id="m1"), line(status=later, attempt=2, at="13:00:00,000+0000")) == {"r1": Status.SENT}


STORY = [
    line(status="unknown", at="12:00:01,000+0000"),
    line(status="queued", at="12:00:02,000+0000", generation=1),
    line(status="failed", code="expired", at="12:00:03,000+0000", generation=1),
    line("r2", status="failed", at="13:00:00,000+0100"),
    line("r2", status="sent", at="12:59:59,999+0100"),
    line("r3", message="provider answered", outcome="unknown", attempt=2, at="12:00:00,000+0000"),
    line("r3", status="failed", attempt=1, at="12:00:09,000+0000"),
]


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_end_counts_wherever_it_stands_in_the_file(seed: int) -> None:
    """The files of several functions are put one after another; a slow worker's line may be later than the next attempt's."""
    lines = random.Random(seed).sample(STORY, len(STORY))  # noqa: S311 - no secret
    assert ends(*lines) == {"r1": Status.FAILED, "r2": Status.SENT, "r3": Status.UNKNOWN}


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
def test_lines_that_tell_no_end_are_passed_over(other: str) -> None:
    """A whole log may be given."""
    assert ends(other, line("r2", status="cancelled")) == {"r2": Status.CANCELLED}


@pytest.mark.parametrize("broken", [line(status="sent", at="noon"), line(status="gone"), json.dumps({"message": "provider answered"})])
def test_a_line_of_ours_that_cannot_be_read_is_counted(broken: str) -> None:
    """It may have been the one that told of a mail: nobody is to think that all is known."""
    assert Restored().replay(broken, line("r2", status="sent")) == {"unreadable": 1, "sent": 1}


def test_a_replay_says_what_it_wrote_and_what_was_known() -> None:
    """So an operator sees when nothing is left to write."""
    restored = Restored()
    restored.ends.known = ("r3",)
    assert restored.replay(line("r1", status="sent"), line("r2", status="failed"), line("r3", status="sent")) == {
        "sent": 1,
        "failed": 1,
        "known": 1,
    }


# ── what was parked ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_parked_since_is_put_back_as_its_line_told() -> None:
    """Its times are those that its caller was promised."""
    restored = Restored()
    key = restored.park()
    created, expires = NOON + timedelta(minutes=1), NOON + timedelta(hours=2)
    logged = {"parked": key, "created_at": created.isoformat(), "expires_at": expires.isoformat()}
    assert restored.replay(line(status="deferred", attempt=2, generation=3, code="throttled", **logged)) == {"reopened": 1}
    [record] = restored.ends.reopened
    assert (record.status, record.parked, record.attempt, record.generation) == (Status.DEFERRED, key, 2, 3)
    assert (record.created_at, record.expires_at) == (created, expires)
    assert record.content_hash == a_record().content_hash
    assert (record.due_at, record.sweep_at) == (NOON, NOON)


def test_a_body_that_no_line_tells_of_is_put_back_too() -> None:
    """Its worker died before it wrote one; its time begins when it was parked."""
    restored = Restored()
    key = restored.park(sendAt="2026-11-25T08:00:00Z")
    assert restored.replay() == {"reopened": 1}
    [record] = restored.ends.reopened
    assert (record.parked, record.created_at, record.expires_at.isoformat()) == (key, NOON, "2026-11-26T08:00:00+00:00")


def test_an_old_body_without_a_record_is_a_forgotten_request() -> None:
    """A held `unknown` is forgotten after 35 days, its body after 50: to send it now would be to send it twice."""
    restored = Restored()
    restored.park()
    restored.bucket.parked_at = BEFORE
    assert restored.replay() == {}
    assert restored.ends.reopened == []


def test_what_was_on_the_queue_then_and_parked_since_is_due() -> None:
    """Its message has gone: without its body the record could only expire."""
    restored = Restored(a_record(Status.QUEUED, updated_at=BEFORE))
    key = restored.park()
    assert restored.replay(line(status="deferred", attempt=0, generation=1, parked=key)) == {"reopened": 1}
    [record] = restored.ends.reopened
    assert (record.status, record.parked, record.generation, record.sweep_at) == (Status.DEFERRED, key, 1, NOON)


@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN])
def test_an_attempt_that_was_proven_unsent_since_is_open_again(status: Status) -> None:
    """Else it would end as unknown; one that its caller let be sent again can only end as sent or unknown."""
    restored = Restored(a_record(status, attempt=1, owner="w1", deadline=NOON, updated_at=BEFORE))
    assert restored.replay(line(status="deferred", attempt=1, generation=1, maybe_sent=status is Status.UNKNOWN)) == {"reopened": 1}
    [record] = restored.ends.reopened
    assert (record.status, record.maybe_sent, record.deadline) == (Status.DEFERRED, status is Status.UNKNOWN, None)


def test_an_attempt_that_was_begun_since_is_not_open_again() -> None:
    """Though its worker before wrote its line late: this one may have been accepted."""
    restored = Restored(a_record(Status.SENDING, attempt=2, owner="w2", deadline=NOON, updated_at=BEFORE))
    assert restored.replay(line(status="deferred", attempt=1, generation=1)) == {"known": 1}


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_put_back_knows_the_account_that_it_was_sent_from(turned: bool) -> None:  # noqa: FBT001 - both orders of the lines
    """Only the line of the provider's answer names it; SES's events are held against it."""
    restored = Restored(a_record(Status.SENDING, attempt=1, owner="w1"))
    answered = line(message="provider answered", outcome="sent", attempt=2, account="111122223333", region="eu-west-1")
    lines = [answered, line(status="sent", attempt=2)]
    assert restored.replay(*(reversed(lines) if turned else lines)) == {"sent": 1}
    [end] = restored.ends.written
    assert (end.account, end.region) == ("111122223333", "eu-west-1")


def test_a_request_that_is_open_again_knows_the_account_of_its_last_attempt() -> None:
    """An event may still show that SES accepted it."""
    restored = Restored(a_record(Status.SENDING, attempt=1, owner="w1", account="444455556666", region="us-east-1"))
    restored.park()
    lost = line(message="provider answered", outcome="unknown", attempt=2, account="111122223333", region="eu-west-1")
    restored.replay(lost, line(status="queued", attempt=2, generation=1, maybe_sent=True))
    [record] = restored.ends.reopened
    assert record.sent_from(2) == ("111122223333", "eu-west-1")


def test_a_held_unknown_finds_its_body_again() -> None:
    """An operator may still have it sent."""
    restored = Restored(a_record(Status.UNKNOWN, attempt=1, owner="w1"))
    key = restored.park()
    assert restored.replay(line(status="unknown", code="outcome_unknown")) == {"unknown": 1, "reopened": 1}
    [record] = restored.ends.reopened
    assert (record.status, record.parked) == (Status.UNKNOWN, key)


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.CANCELLED])
def test_the_body_of_a_request_that_has_ended_is_left_alone(status: Status) -> None:
    """It was parked before the end, and only not deleted."""
    restored = Restored(a_record(status))
    restored.park()
    assert restored.replay() == {"known": 1}


def test_the_body_of_other_content_is_not_taken() -> None:
    """The first request under an id is the one that counts."""
    restored = Restored(a_record(Status.QUEUED))
    restored.park(onUnknown="resend")
    assert restored.replay() == {"known": 1}


def test_a_request_that_may_have_been_sent_stands_until_its_message_comes() -> None:
    """Its record is lost, its body on the queue: the message must not be refused for good as if nothing had been sent."""
    restored = Restored()
    times = {"created_at": BEFORE.isoformat(), "expires_at": (NOON + timedelta(hours=3)).isoformat()}
    assert restored.replay(line(status="queued", generation=2, maybe_sent=True, **times)) == {"reopened": 1}
    [record] = restored.ends.reopened
    assert (record.maybe_sent, record.content_hash, record.generation, record.created_at) == (True, LOST_CONTENT, 2, BEFORE)


def test_a_request_whose_message_is_on_the_queue_needs_nothing() -> None:
    """It makes its record itself."""
    assert Restored().replay(line(status="deferred", attempt=0, generation=1)) == {"on the queue": 1}


def test_a_body_that_cannot_be_read_is_counted() -> None:
    """And the others are put back."""
    restored = Restored()
    restored.bucket.bodies["parked/acme/r0/0.json"] = "{"
    restored.park("r1")
    assert restored.replay() == {"unreadable": 1, "reopened": 1}


def test_a_record_that_knows_its_body_is_left_to_the_sweeper() -> None:
    """As one that was parked before the moment."""
    record = a_record(Status.DEFERRED, updated_at=BEFORE)
    restored = Restored(record)
    restored.deps.messages.records["acme", "r1"] = replace(record, parked=restored.park())  # type: ignore[attr-defined]  # the fake's
    assert restored.replay(line(status="deferred", attempt=0)) == {"known": 1}
