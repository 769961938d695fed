"""Writing the outcome of an attempt to a record that may have changed meanwhile."""

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


def changed_meanwhile(bench: Bench, **fields: Any) -> Any:
    """Make a response of the provider during which others change the record."""

    def respond_with(outcome: Outcome) -> Any:
        def respond() -> Outcome:
            bench.messages.records["acme", "r1"] = replace(bench.record(), **fields)
            return outcome

        return respond

    return respond_with


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SENT])
def test_acceptance_always_wins(status: Status) -> None:
    """It is recorded in any status of the record."""
    bench = Bench()
    bench.provider.outcomes = [changed_meanwhile(bench, status=status)(Sent("m-1"))]
    bench.receive(a_queue_message())
    assert (bench.record().status, bench.record().message_id) == (Status.SENT, "m-1")


def test_an_acceptance_that_an_event_proved_first_is_not_counted_again() -> None:
    """SES's event was faster than the worker's write: RequestSent counts one."""
    bench = Bench()
    proven = {"status": Status.SENT, "message_id": "m-1", "accepted_attempt": 1, "confirmed_by": "e-1"}
    bench.provider.outcomes = [changed_meanwhile(bench, **proven)(Sent("m-1"))]
    assert bench.receive(a_queue_message()) == []
    assert bench.record().confirmed_by == "e-1"
    assert [record for name, record in bench.telemetry.entries if name == "recorded"] == []


@pytest.mark.parametrize("outcome", [REJECTED, THROTTLED, VANISHED])
@pytest.mark.parametrize("fields", [{"status": Status.SENT}, {"attempt": 2, "owner": "next"}])
def test_a_late_result_changes_nothing(outcome: Outcome, fields: dict[str, Any]) -> None:
    """The request has ended, or another attempt is in progress."""
    bench = Bench()
    bench.provider.outcomes = [changed_meanwhile(bench, **fields)(outcome)]
    assert bench.receive(a_queue_message()) == []
    assert bench.record().status is fields.get("status", Status.SENDING)
    assert bench.record().attempt == fields.get("attempt", 1)


@pytest.mark.parametrize(("outcome", "status"), [(REJECTED, Status.FAILED), (THROTTLED, Status.DEFERRED)])
def test_a_result_of_the_same_attempt_replaces_an_unknown(outcome: Outcome, status: Status) -> None:
    """The sweeper was faster than the response."""
    bench = Bench()
    bench.provider.outcomes = [changed_meanwhile(bench, status=Status.UNKNOWN)(outcome)]
    bench.receive(a_queue_message())
    assert bench.record().status is status


def test_a_body_that_was_parked_for_an_ended_request_is_deleted() -> None:
    """The used-up quota parks it before the record shows that it was sent."""
    bench = Bench()
    bench.provider.outcomes = [changed_meanwhile(bench, status=Status.SENT)(QUOTA)]
    bench.receive(a_queue_message())
    assert bench.parked.bodies == {}


def test_the_sandbox_is_learned_from_a_rejection() -> None:
    """The row is then marked."""
    bench = Bench(outcomes=[SANDBOX])
    bench.receive(a_queue_message())
    assert bench.providers.rows["acme"].sandbox == "true"
    assert bench.record().status is Status.FAILED


def test_a_known_sandbox_is_not_written_again() -> None:
    """The write would cost and change nothing."""
    bench = Bench(outcomes=[SANDBOX])
    bench.providers.rows["acme"] = a_provider(sandbox="true")

    def fail(*_: Any) -> None:
        raise AssertionError

    bench.providers.learn_sandbox = fail  # type: ignore[method-assign]  # must not be called
    assert bench.receive(a_queue_message()) == []


def test_a_late_unknown_is_resent_without_losing_its_message() -> None:
    """Its worker is dead when the result is written: the resend is allowed at once, and its message is queued."""
    bench = Bench(outcomes=[VANISHED])

    def fail(change: Change) -> None:
        if change.rule.name == "mark_unknown":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    bench.receive(a_queue_message(onUnknown="resend"))
    queue_message, _ = bench.take()
    bench.messages.before = lambda _: None
    bench.clock.advance(timedelta(hours=1))
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().maybe_sent) == (Status.QUEUED, True)
    queue_message, _ = bench.take()
    bench.receive(queue_message)
    assert (bench.record().status, bench.record().attempt) == (Status.SENT, 2)


def test_an_unknown_is_written_even_if_its_body_cannot_be_parked() -> None:
    """Only the body waits for the bucket; the message carries no proof."""
    bench = Bench(outcomes=[VANISHED])
    bench.parked.broken = True
    bench.receive(a_queue_message())
    assert bench.record().status is Status.UNKNOWN
    queue_message, _ = bench.take()
    assert (queue_message.proof, queue_message.body) == (None, a_body())


def test_retries_of_a_proof_back_off() -> None:
    """The first retry is before the deadline; then the waits double, up to 15 minutes."""
    bench = Bench()

    def fail(change: Change) -> None:
        if change.rule.name == "accept":
            raise DependencyError("DynamoDB", "UpdateItem")

    bench.messages.before = fail
    queue_message, delays = a_queue_message(), []
    for _ in range(12):
        bench.receive(queue_message)
        queue_message, delay = bench.take()
        delays.append(int(delay.total_seconds()))
        bench.clock.advance(delay)
    assert delays == [10, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]


def test_a_rejected_resend_is_an_unknown_with_the_rejection() -> None:
    """The error message has the code of the rejection."""
    bench = Bench()
    bench.provider.outcomes = [changed_meanwhile(bench, maybe_sent=True)(REJECTED)]
    bench.receive(a_queue_message())
    record = bench.record()
    assert (record.status, record.on_unknown) == (Status.UNKNOWN, "hold")
    assert record.error is not None
    assert "recipient_rejected" in record.error.message


# -- proofs --------------------------------------------------------------------------------------------------------------

FENCE = Fence(3, "w")


@pytest.mark.parametrize("outcome", [Sent("m-1"), REJECTED, THROTTLED, QUOTA, VANISHED])
def test_a_proof_round_trips(outcome: Outcome) -> None:
    """The provider's retry time is included."""
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
def test_an_invalid_proof_is_ignored(text: str) -> None:
    """Any producer can write the attribute."""
    assert proof.from_json(text) is None


def test_a_message_with_an_invalid_proof_is_handled_like_any_other() -> None:
    """The mail is sent."""
    bench = Bench()
    bench.receive(a_queue_message(attributes={"proof": "nonsense"}))
    assert bench.record().status is Status.SENT


# -- waiting -------------------------------------------------------------------------------------------------------------


def test_the_provider_s_retry_time_is_used() -> None:
    """It replaces the default wait."""
    assert retry_delay(QUOTA, 7) == timedelta(hours=3)


@pytest.mark.parametrize(("code", "first"), [("throttled", 5), ("credentials_invalid", 60)])
def test_waits_double_up_to_the_maximum_delay(code: str, first: int) -> None:
    """Temporary errors are retried sooner than errors that the tenant must fix."""
    waits = [retry_delay(NotSent(ErrorInfo(code, "")), failures) for failures in range(1, 21)]
    assert waits[:2] == [timedelta(seconds=first), timedelta(seconds=2 * first)]
    assert waits[-1] == MAX_DELAY


def test_every_retryable_error_has_a_first_wait() -> None:
    """A new error class fails here."""
    waiting = [code for code, row in CODES.items() if row.error_class in (ErrorClass.TENANT, ErrorClass.DEFERRED)]
    assert all(retry_delay(NotSent(ErrorInfo(code, "")), 1) > timedelta() for code in waiting)
