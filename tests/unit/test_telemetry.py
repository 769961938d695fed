"""What operators read: one line an outcome, metrics that stay cheap, and nothing that a recipient would mind."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from inspect import getmembers, isfunction

import pytest

from mailer.domain.delivery import NEEDS_NEW_ID, MaybeSent, NotSent, Outcome, Sent, Status
from mailer.domain.errors import CODES, DependencyError, ErrorInfo, NotSentError
from mailer.domain.events import provider_changed
from mailer.domain.provider import ProviderStatus
from mailer.observability import METRICS, SCHEDULED, LogTelemetry
from mailer.ports import Telemetry
from support.fakes.ports import NOON, a_delivery, a_provider
from support.fakes.telemetry import a_telemetry, write_everything

REJECTED = ErrorInfo("recipient_rejected", "SES refused an address")
TEN_MS = timedelta(milliseconds=10)


def test_an_outcome_is_one_line_with_who_what_why_and_how_long() -> None:
    """Everything that a look at one request needs, under names that a query can go by."""
    record = a_delivery("r1", Status.FAILED, error=REJECTED, attempt=2, generation=3, correlation_id="c-1")
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(record, {"queue": TEN_MS, "fence": 2 * TEN_MS})
    [line] = written.log
    assert (
        line.items()
        >= {
            "level": "INFO",
            "message": "request recorded",
            "tenant_id": "acme",
            "request_id": "r1",
            "correlation_id": "c-1",
            "status": "failed",
            "code": "recipient_rejected",
            "hint": f"{CODES['recipient_rejected'].hint} {NEEDS_NEW_ID}",
            "attempt": 2,
            "generation": 3,
            "queue_ms": 10,
            "fence_ms": 20,
        }.items()
    )


def test_a_line_names_whose_call_it_was() -> None:
    """Of a request that was withdrawn, and of a provider that was changed."""
    jo = "arn:aws:iam::123456789012:user/jo"
    changed = provider_changed("e", a_provider(), a_provider(status=ProviderStatus.DISABLED, updated_at=NOON + TEN_MS, updated_by=jo))
    assert changed is not None
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.CANCELLED, cancelled_by=jo))
        telemetry.provider_changed(changed)
    withdrawn, disabled = written.log
    assert withdrawn["principal"] == jo
    said = {"message": "provider changed", "tenant_id": "acme", "change": "disabled", "status": "disabled", "version": 1, "principal": jo}
    assert disabled.items() >= said.items()


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Sent("m-1"), {"outcome": "sent", "status": "sent", "message_id": "m-1"}),
        (NotSent(REJECTED), {"outcome": "not sent", "code": "recipient_rejected"}),
        (MaybeSent(ErrorInfo("outcome_unknown", "?")), {"outcome": "unknown", "code": "outcome_unknown"}),
    ],
)
def test_what_ses_answered_is_a_line_of_its_own(outcome: Outcome, said: dict[str, str]) -> None:
    """It is written before the record is: an `unknown` can be resolved by it."""
    with a_telemetry() as (telemetry, written):
        where = {"owner": "worker-1", "account": "111122223333", "region": "eu-west-1"}
        attempt = a_delivery(attempt=2, generation=3, correlation_id="c-1", **where)
        telemetry.answered(attempt, outcome, {"fence": 2 * TEN_MS, "provider": TEN_MS})
    [line] = written.log
    names = {"tenant_id": "acme", "request_id": "r1", "correlation_id": "c-1", "attempt": 2, "generation": 3, **where}
    assert line.items() >= {**names, "fence_ms": 20, "provider_ms": 10, **said}.items()
    assert ("status" in line) == isinstance(outcome, Sent)  # the others' records say how it goes on
    assert written.values("ProviderLatency") == [10]


def test_a_mail_that_was_sent_is_one_line() -> None:
    """SES's answer says all of it, before the table may fail; metrics count the record all the same."""
    sent, steps = a_delivery(status=Status.SENT, attempt=1, owner="w", message_id="m-1"), {"provider": TEN_MS, "total": 3 * TEN_MS}
    with a_telemetry() as (telemetry, written):
        telemetry.answered(sent, Sent("m-1"), {"provider": TEN_MS})
        telemetry.recorded(sent, steps)
    assert [line["message"] for line in written.log] == ["provider answered"]
    assert (written.values("RequestSent"), written.values("AcceptedToSent")) == ([1], [30])


def test_a_mail_that_another_worker_had_sent_is_a_line_too() -> None:
    """A proof, or an operator's resolution, is recorded later: the log has the record's whole story."""
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.SENT, message_id="m-1"), {"queue": TEN_MS, "write": TEN_MS})
    [line] = written.log
    assert (line["message"], line["status"], line["message_id"]) == ("request recorded", "sent", "m-1")


def test_failures_count_by_code_and_deferrals_by_reason() -> None:
    """And all together, for the alarms that do not care."""
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.FAILED, error=REJECTED))
        telemetry.recorded(a_delivery(status=Status.FAILED, error=ErrorInfo("expired", "too late")))
        telemetry.recorded(a_delivery(status=Status.DEFERRED, error=ErrorInfo("throttled", "too fast")))
        telemetry.recorded(a_delivery(status=Status.DEFERRED))
    assert written.values("RequestFailed") == [1, 1]
    assert written.values("RequestFailed", code="expired") == [1]
    assert written.values("RequestDeferred") == [1, 1]
    assert written.values("RequestDeferred", code="throttled") == [1]
    assert written.values("RequestDeferred", code=SCHEDULED) == [1]


def test_an_aws_service_that_failed_counts_by_its_name_and_a_bug_as_one() -> None:
    """Whose fault it is decides what an operator does first."""
    with a_telemetry() as (telemetry, written):
        telemetry.failed("deliver", "acme", DependencyError("KMS", "Decrypt"))
        telemetry.failed("deliver", "acme", ValueError("secret"))
    assert (written.values("DependencyFailed"), written.values("DependencyFailed", dependency="KMS")) == ([1], [1])
    assert written.values("InternalError") == [1]


def test_the_text_of_a_foreign_exception_is_not_written() -> None:
    """It could hold anything; our own errors are made to be read."""
    with a_telemetry() as (telemetry, written):
        telemetry.failed("deliver", "acme", ValueError("jo@customer.example"))
        telemetry.failed("deliver", "acme", NotSentError(REJECTED))
    assert [line["error"] for line in written.log] == ["ValueError", "recipient_rejected: SES refused an address"]


def test_every_metric_comes_in_the_dimensions_that_are_documented() -> None:
    """For the stack, and for those with a dimension of their own by that too; none per tenant."""
    with a_telemetry() as (telemetry, written):
        write_everything(telemetry)
    found = {(metric.name, *sorted(metric.dimensions)) for metric in written.metrics}
    assert found == {(name, "service") for name in METRICS} | {
        (name, *sorted(["service", dimension])) for name, own in METRICS.items() for dimension in own
    }


def test_the_journal_keeps_its_port() -> None:
    """Services may say all that the port lets them."""
    for name, _ in getmembers(Telemetry, isfunction):
        assert name.startswith("_") or callable(getattr(LogTelemetry, name)), name


def test_metrics_are_written_once() -> None:
    """What an invocation counted is not counted by the next; one that counted nothing writes nothing."""
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.SENT))
        telemetry.flush()
        telemetry.flush()
    assert written.values("RequestSent") == [1]
    assert len(written.output.getvalue().splitlines()) == 1


def test_no_line_holds_more_values_than_cloudwatch_takes() -> None:
    """A hundred of a metric; none is lost, and a metric with fewer is not written again."""
    with a_telemetry() as (telemetry, written):
        telemetry.config_requested(cached=True)
        for number in range(250):
            telemetry.paced(timedelta(milliseconds=number))
    assert [len(metric.values) for metric in written.metrics if metric.name == "PacingWait"] == [100, 100, 50]
    assert (written.values("PacingWait"), written.values("ConfigCacheHit")) == ([float(number) for number in range(250)], [1])


def test_threads_do_not_mix_up_requests() -> None:
    """Each line of thirty-two at once has the tenant and the code that belong together; no count is lost."""
    codes = sorted(CODES)[:8]

    def note(number: int) -> None:
        code = codes[number % len(codes)]
        telemetry.recorded(a_delivery(f"r{number}", Status.FAILED, tenant_id=f"t-{code}", error=ErrorInfo(code, "…")))

    with a_telemetry() as (telemetry, written), ThreadPoolExecutor(32) as threads:
        list(threads.map(note, range(1000)))
    assert len(written.log) == 1000
    assert all(line["tenant_id"] == f"t-{line['code']}" for line in written.log)
    assert {len(written.values("RequestFailed", code=code)) for code in codes} == {125}
