"""The telemetry's output as parsed log lines and metrics."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from mailer.domain.delivery import Sent, Status
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.facts import RecipientStatus
from mailer.domain.feedback import Refusal
from mailer.observability import LogTelemetry
from support.fakes.ports import a_delivery
from support.fakes.sending import a_queue_message

STACK = "tenantmail"
NAMESPACE = "Tenantmail"
_numbers = count(1)


@dataclass(frozen=True)
class Metric:
    """One metric in one set of dimensions, with its values."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    values: list[float]


@dataclass
class Written:
    """Output of a telemetry: its log lines and, after the block, its metrics."""

    lines: io.StringIO = field(default_factory=io.StringIO)
    output: io.StringIO = field(default_factory=io.StringIO)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]

    @property
    def metrics(self) -> list[Metric]:
        return [metric for line in self.output.getvalue().splitlines() for metric in metrics_of(json.loads(line))]

    def values(self, name: str, **dimensions: str) -> list[float]:
        """Return the values of a metric with exactly these dimensions and the stack's."""
        wanted = {"service": STACK, **dimensions}
        return [value for metric in self.metrics if (metric.name, metric.dimensions) == (name, wanted) for value in metric.values]


def metrics_of(blob: dict[str, Any]) -> Iterator[Metric]:
    """Parse one blob of the embedded metric format as CloudWatch does."""
    for directive in blob["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            for metric in directive["Metrics"]:
                yield Metric(directive["Namespace"], metric["Name"], {name: blob[name] for name in names}, blob[metric["Name"]])


@contextmanager
def a_telemetry() -> Iterator[tuple[LogTelemetry, Written]]:
    """Yield a telemetry; its metrics are written at the end of the block."""
    written = Written()
    log = Logger(service=f"telemetry-{next(_numbers)}", stream=written.lines)
    telemetry = LogTelemetry(log, lambda: EphemeralMetrics(namespace=NAMESPACE, service=STACK))
    with redirect_stdout(written.output):
        yield telemetry, written
        telemetry.flush()


def write_everything(telemetry: LogTelemetry) -> None:
    """Call every method of a telemetry."""
    second, error = timedelta(seconds=1), ErrorInfo("unclassified", "SES answered something new")
    for status in set(Status) - {Status.SENDING}:
        telemetry.recorded(a_delivery(status=status, error=error if status is Status.FAILED else None), {"queue": second, "total": second})
    telemetry.answered(a_delivery(attempt=1, owner="worker"), Sent("m-1"), {"provider": second})
    telemetry.dead_lettered(a_queue_message(), "request_id_reused")
    telemetry.suspended("acme", 1, ErrorInfo("credentials_denied", "denied"))
    telemetry.feedback_silent("acme", 1, "Tenant: look.")
    telemetry.at_risk("acme", "bounces", "30 bounces of 250 recipients")
    telemetry.failed("deliver", "acme", DependencyError("KMS", "Decrypt"))
    telemetry.failed("deliver", "acme", ZeroDivisionError())
    telemetry.config_requested(cached=True)
    telemetry.paced(second)
    for recipient_status in RecipientStatus:
        telemetry.feedback(recipient_status, second if recipient_status is RecipientStatus.DELIVERED else None)
    for refusal in Refusal:
        telemetry.feedback_refused(refusal, None)
    telemetry.swept(overdue=0, lag=second)
