"""What became of an attempt, written to a record that may have gone on meanwhile."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain import proof
from mailer.domain.changes import Fence
from mailer.domain.delivery import Change, NotSent, Outcome, Sent, Status
from mailer.domain.errors import CODES, DependencyError, ErrorClass, ErrorInfo
from mailer.domain.retries import MAX_DELAY, retry_delay
from support.fakes.ports import a_provider
from support.fakes.sending import QUOTA, REJECTED, THROTTLED, VANISHED, Bench, a_body, a_queue_message

SANDBOX = NotSent(ErrorInfo("sandbox_recipient_not_verified", "the recipient is not verified"))


def meanwhile(bench: Bench, **fields: Any) -> Any:
    """Make an answer of the provider during which the record goes on by other hands."""

    def answer(outcome: Outcome) -> Any:
        def come() -> Outcome:
            bench.messages.records["acme", "r1"] = replace(bench.record(), **fields)
            return outcome

        return come

    return answer


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SENT])
def test_acceptance_always_wins(status: Status) -> None:
    """Whatever the record says by then."""
    bench = Bench()
    bench.provider.outcomes = [meanwhile(bench, status=status)(Sent("m-1"))]
    bench.receive(a_queue_message())
    assert (bench.record().status, bench.record().message_id) == (Status.SENT, "m-1")


def test_what_an_event_has_proven_first_is_not_counted_again() -> None:
    """SES's event of the mail was faster than the worker's own write: RequestSent is one."""
    bench = Bench()
    proven = {"status": Status.SENT, "message_id": "m-1", "accepted_attempt": 1, "confirmed_by": "e-1"}
    bench.provider.outcomes = [meanwhile(bench, **proven)(Sent("m-1"))]
    assert bench.receive(a_queue_message()) == []
    assert bench.record().confirmed_by == "e-1"
    assert [record for name, record in bench.telemetry.entries if name == "recorded"] == []


@pytest.mark.parametrize("outcome", [REJECTED, THROTTLED, VANISHED])
@pytest.mark.parametrize("fields", [{"status": Status.SENT}, {"attempt": 2, "owner": "next"}])
def test_a_result_that_comes_too_late_changes_nothing(outcome: Outcome, fields: dict[str, Any]) -> None:
    """The request has ended, or another attempt is under way."""
    bench = Bench()
    bench.provider.outcomes = [meanwhile(bench, **fields)(outcome)]
    assert bench.receive(a_queue_message()) == []
    assert bench.record().status is fields.get("status", Status.SENDING)
    assert bench.record().attempt == fields.get("attempt", 1)


@pytest.mark.parametrize(("outcome", "status"), [(REJECTED, Status.FAILED), (THROTTLED, Status.DEFERRED)])
def test_proof_of_the_same_attempt_corrects_an_unknown(outcome: Outcome, status: Status) -> None:
    """The sweeper was faster than the answer."""
    bench = Bench()
    bench.provider.outcomes = [meanwhile(bench, status=Status.UNKNOWN)(outcome)]
    bench.receive(a_queue_message())
    assert bench.record().status is status


def test_a_body_parked_for_a_request_that_has_ended_meanwhile_is_deleted() -> None:
    """The quota parks it before the record says that it was sent after all."""
    bench = Bench()
    bench.provider.outcomes = [meanwhile(bench, status=Status.SENT)(QUOTA)]
    bench.receive(a_queue_message())
    assert bench.parked.bodies == {}


def test_the_sandbox_is_learned_from_its_own_refusal() -> None:
    """Once: the row knows it then."""
    bench = Bench(outcomes=[SANDBOX])
    bench.receive(a_queue_message())
    assert bench.providers.rows["acme"].sandbox == "true"
    assert bench.record().status is Status.FAILED


def test_what_is_known_of_the_sandbox_is_not_written_again() -> None:
    """A write costs, and says nothing new."""
    bench = Bench(outcomes=[SANDBOX])
    bench.providers.rows["acme"] = a_provider(sandbox="true")

    def fail(*_: Any) -> None:
        raise AssertionError

    bench.providers.learn_sandbox = fail  # type: ignore[method-assign]  # must not be called
    assert bench.receive(a_queue_message()) == []


def test_a_late_unknown_is_resent_without_losing_its_message() -> None:
    """Its worker is dead by the time the result is written: the resend is granted at once, and its message is on the way."""
    bench = Bench(outcomes=[VANISHED])

    def lost(change: Change) -> None:
        if change.rule.name == "mark_unknown":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = lost
    bench.receive(a_queue_message(onUnknown="resend"))
    queue_message, _ = bench.take()
    bench.messages.before = lambda _: None
    bench.clock.advance(timedelta(hours=1))
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().maybe_sent) == (Status.QUEUED, True)
    queue_message, _ = bench.take()
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt) == (Status.SENT, 2)


def test_an_unknown_whose_body_cannot_be_kept_is_written_all_the_same() -> None:
    """Only the body waits for the bucket: the result does not travel as a proof."""
    bench = Bench(outcomes=[VANISHED])
    bench.parked.broken = True
    bench.receive(a_queue_message())
    assert bench.record().status is Status.UNKNOWN
    queue_message, _ = bench.take()
    assert (queue_message.proof, queue_message.body) == (None, a_body())


def test_a_proof_goes_slower_the_longer_the_table_is_down() -> None:
    """The first comes before the deadline; then waits double, up to 15 minutes."""
    bench = Bench()

    def lost(change: Change) -> None:
        if change.rule.name == "accept":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = lost
    queue_message, delays = a_queue_message(), []
    for _ in range(12):
        bench.receive(queue_message)
        queue_message, delay = bench.take()
        delays.append(int(delay.total_seconds()))
        bench.clock.advance(delay)
    assert delays == [10, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]


def test_a_resend_that_is_rejected_says_what_it_was_rejected_for() -> None:
    """The operator learns both."""
    bench = Bench()
    bench.provider.outcomes = [meanwhile(bench, maybe_sent=True)(REJECTED)]
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.on_unknown) == (Status.UNKNOWN, "hold")
    assert record.error is not None
    assert "recipient_rejected" in record.error.message


# -- proofs --------------------------------------------------------------------------------------------------------------

FENCE = Fence(3, "w")


@pytest.mark.parametrize("outcome", [Sent("m-1"), REJECTED, THROTTLED, QUOTA, VANISHED])
def test_a_proof_is_read_back_as_it_was_written(outcome: Outcome) -> None:
    """Also how long the provider said to wait."""
    assert proof.from_json(proof.to_json(FENCE, outcome)) == (FENCE, outcome)


def test_a_proof_is_short() -> None:
    """A message attribute counts toward the queue's limit."""
    assert len(proof.to_json(FENCE, NotSent(ErrorInfo("throttled", "x" * 9000)))) < 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"attempt": 1, "owner": "w"}',
        '{"attempt": "x", "owner": "w", "sent": "m"}',
        '{"attempt": 1, "owner": "w", "notSent": "outcome_unknown"}',
        '{"attempt": 1, "owner": "w", "notSent": "not_found"}',
        '{"attempt": 1, "owner": "w", "maybeSent": "throttled"}',
        '{"attempt": 1, "owner": "w", "notSent": "throttled", "retryAfter": "-1"}',
        '{"attempt": 1, "owner": "w", "notSent": "throttled", "retryAfter": "604801"}',
        '{"attempt": 1e999, "owner": "w", "sent": "m"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_proof_is_ignored(text: str) -> None:
    """Anybody who may send to the queue can write the attribute."""
    assert proof.from_json(text) is None


def test_a_garbled_proof_is_a_message_like_any_other() -> None:
    """It is sent."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"proof": "nonsense"}))
    assert bench.record().status is Status.SENT


# -- waiting -------------------------------------------------------------------------------------------------------------


def test_the_provider_s_own_word_comes_first() -> None:
    """It knows best when to come again."""
    assert retry_delay(QUOTA, 7) == timedelta(hours=3)


@pytest.mark.parametrize(("code", "first"), [("throttled", 5), ("credentials_invalid", 60)])
def test_waits_double_up_to_what_the_queue_can_hold(code: str, first: int) -> None:
    """What passes by itself is tried sooner than what the tenant must mend."""
    waits = [retry_delay(NotSent(ErrorInfo(code, "")), failures) for failures in range(1, 21)]
    assert waits[:2] == [timedelta(seconds=first), timedelta(seconds=2 * first)]
    assert waits[-1] == MAX_DELAY


def test_every_kind_of_error_that_waits_has_a_first_wait() -> None:
    """A code of a new kind would fail here."""
    waiting = [code for code, row in CODES.items() if row.error_class in (ErrorClass.TENANT, ErrorClass.DEFERRED)]
    assert all(retry_delay(NotSent(ErrorInfo(code, "")), 1) > timedelta() for code in waiting)
