"""Logs and metrics: one line per outcome, few metrics, and no personal data."""

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


def test_an_outcome_is_one_log_line_with_all_its_fields() -> None:
    """It has everything to look into a request, in fields that can be queried."""
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


def test_a_line_has_the_principal() -> None:
    """This is so for a cancelled request and for a changed provider."""
    jo = "arn:aws:iam::123456789012:user/jo"
    changed = provider_changed("e", a_provider(), a_provider(status=ProviderStatus.DISABLED, updated_at=NOON + TEN_MS, updated_by=jo))
    assert changed is not None
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.CANCELLED, cancelled_by=jo))
        telemetry.provider_changed(changed)
    cancelled, disabled = written.log
    assert cancelled["principal"] == jo
    expected = {
        "message": "provider changed",
        "tenant_id": "acme",
        "change": "disabled",
        "status": "disabled",
        "version": 1,
        "principal": jo,
    }
    assert disabled.items() >= expected.items()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Sent("m-1"), {"outcome": "sent", "status": "sent", "message_id": "m-1"}),
        (NotSent(REJECTED), {"outcome": "not sent", "code": "recipient_rejected"}),
        (MaybeSent(ErrorInfo("outcome_unknown", "?")), {"outcome": "unknown", "code": "outcome_unknown"}),
    ],
)
def test_a_response_of_ses_has_its_own_line(outcome: Outcome, expected: dict[str, str]) -> None:
    """It is written before the record, so an `unknown` can be resolved from it."""
    with a_telemetry() as (telemetry, written):
        sent_by = {"owner": "worker-1", "account": "111122223333", "region": "eu-west-1"}
        attempt = a_delivery(attempt=2, generation=3, correlation_id="c-1", **sent_by)
        telemetry.answered(attempt, outcome, {"fence": 2 * TEN_MS, "provider": TEN_MS})
    [line] = written.log
    names = {"tenant_id": "acme", "request_id": "r1", "correlation_id": "c-1", "attempt": 2, "generation": 3, **sent_by}
    assert line.items() >= {**names, "fence_ms": 20, "provider_ms": 10, **expected}.items()
    assert ("status" in line) == isinstance(outcome, Sent)  # for the others the record has the status
    assert written.values("ProviderLatency") == [10]


def test_a_sent_mail_has_one_line() -> None:
    """The line of SES's response has everything, even if the table fails then; metrics still count the record."""
    sent, steps = a_delivery(status=Status.SENT, attempt=1, owner="w", message_id="m-1"), {"provider": TEN_MS, "total": 3 * TEN_MS}
    with a_telemetry() as (telemetry, written):
        telemetry.answered(sent, Sent("m-1"), {"provider": TEN_MS})
        telemetry.recorded(sent, steps)
    assert [line["message"] for line in written.log] == ["provider answered"]
    assert (written.values("RequestSent"), written.values("AcceptedToSent")) == ([1], [30])


def test_a_mail_that_was_recorded_later_has_a_line() -> None:
    """A proof or an operator's resolution is recorded later, so the log is complete."""
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.SENT, message_id="m-1"), {"queue": TEN_MS, "write": TEN_MS})
    [line] = written.log
    assert (line["message"], line["status"], line["message_id"]) == ("request recorded", "sent", "m-1")


def test_failures_count_by_code_and_deferrals_by_reason() -> None:
    """There is also the total, for alarms."""
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


def test_failures_of_aws_services_count_by_name_and_bugs_as_internal_errors() -> None:
    """Operators handle them differently."""
    with a_telemetry() as (telemetry, written):
        telemetry.failed("deliver", "acme", DependencyError("KMS", "Decrypt"))
        telemetry.failed("deliver", "acme", ValueError("secret"))
    assert (written.values("DependencyFailed"), written.values("DependencyFailed", dependency="KMS")) == ([1], [1])
    assert written.values("InternalError") == [1]


def test_the_text_of_a_foreign_exception_is_not_written() -> None:
    """It may contain anything; texts of our own errors are safe."""
    with a_telemetry() as (telemetry, written):
        telemetry.failed("deliver", "acme", ValueError("jo@customer.example"))
        telemetry.failed("deliver", "acme", NotSentError(REJECTED))
    assert [line["error"] for line in written.log] == ["ValueError", "recipient_rejected: SES refused an address"]


def test_every_metric_has_the_documented_dimensions() -> None:
    """Each is by stack, some also by their own dimension, none by tenant."""
    with a_telemetry() as (telemetry, written):
        write_everything(telemetry)
    found = {(metric.name, *sorted(metric.dimensions)) for metric in written.metrics}
    assert found == {(name, "service") for name in METRICS} | {
        (name, *sorted(["service", dimension])) for name, own in METRICS.items() for dimension in own
    }


def test_the_log_telemetry_implements_its_port() -> None:
    """Every method of the port exists."""
    for name, _ in getmembers(Telemetry, isfunction):
        assert name.startswith("_") or callable(getattr(LogTelemetry, name)), name


def test_metrics_are_written_once() -> None:
    """An invocation's counts are not written by the next; one without counts writes nothing."""
    with a_telemetry() as (telemetry, written):
        telemetry.recorded(a_delivery(status=Status.SENT))
        telemetry.flush()
        telemetry.flush()
    assert written.values("RequestSent") == [1]
    assert len(written.output.getvalue().splitlines()) == 1


def test_a_line_has_at_most_cloudwatch_s_maximum_of_values() -> None:
    """A metric has at most a hundred values per line; none is lost, and a metric with fewer is not repeated."""
    with a_telemetry() as (telemetry, written):
        telemetry.config_requested(cached=True)
        for number in range(250):
            telemetry.paced(timedelta(milliseconds=number))
    assert [len(metric.values) for metric in written.metrics if metric.name == "PacingWait"] == [100, 100, 50]
    assert (written.values("PacingWait"), written.values("ConfigCacheHit")) == ([float(number) for number in range(250)], [1])


def test_threads_do_not_mix_up_requests() -> None:
    """With 32 threads each line has matching tenant and code, and no count is lost."""
    codes = sorted(CODES)[:8]

    def record_failure(number: int) -> None:
        code = codes[number % len(codes)]
        telemetry.recorded(a_delivery(f"r{number}", Status.FAILED, tenant_id=f"t-{code}", error=ErrorInfo(code, "…")))

    with a_telemetry() as (telemetry, written), ThreadPoolExecutor(32) as threads:
        list(threads.map(record_failure, range(1000)))
    assert len(written.log) == 1000
    assert all(line["tenant_id"] == f"t-{line['code']}" for line in written.log)
    assert {len(written.values("RequestFailed", code=code)) for code in codes} == {125}
