"""Where operators read what happened: one JSON line per event and metrics in the embedded metric format, by Powertools."""

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from threading import Lock
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from mailer.domain.changes import Fence
from mailer.domain.delivery import Delivery, MaybeSent, NotSent, Outcome, Sent
from mailer.domain.errors import ErrorInfo, MailerError
from mailer.ports import Copy


@cache
def logger() -> Logger:
    """Return this process's logger; what belongs to one request is given to each line, so that threads cannot mix it up."""
    return Logger()


@cache
def metrics() -> Metrics:
    """Return this process's metrics; `flush` writes them at the end of an invocation."""
    return Metrics()


class LogJournal:
    """`ports.Journal` on log lines and metrics."""

    def __init__(self, log: Logger, numbers: Metrics) -> None:
        self._log = log
        self._metrics = numbers
        self._lock = Lock()

    def answered(self, tenant_id: str, request_id: str, fence: Fence, outcome: Outcome, took: timedelta) -> None:
        """Note what the provider answered."""
        milliseconds = round(took / timedelta(milliseconds=1))
        self._count("ProviderLatency", milliseconds, MetricUnit.Milliseconds)
        request = {"tenant_id": tenant_id, "request_id": request_id, "attempt": fence.attempt, "owner": fence.owner}
        self._log.info("provider answered", extra={**request, "took_ms": milliseconds, **_outcome(outcome)})

    def recorded(self, record: Delivery) -> None:
        """Note the new state of a record."""
        self._count(f"Request{record.status.capitalize()}")
        code = record.error.code if record.error else None
        line = {"status": record.status, "code": code, "attempt": record.attempt, "hop": record.hop, "message_id": record.message_id}
        names = {"tenant_id": record.tenant_id, "request_id": record.request_id, "correlation_id": record.correlation_id}
        self._log.info("request recorded", extra=_without_none({**names, **line}))

    def paced(self, wait: timedelta) -> None:
        """Note how long a message has still to wait for its slot."""
        self._count("PacingWait", max(0, round(wait / timedelta(milliseconds=1))), MetricUnit.Milliseconds)

    def buried(self, copy: Copy, reason: str) -> None:
        """Note a copy on the dead-letter queue."""
        self._count("Buried")
        self._log.warning("copy put on the dead-letter queue", extra=_without_none({"tenant_id": copy.tenant_id, "reason": reason}))

    def suspended(self, tenant_id: str, version: int, error: ErrorInfo) -> None:
        """Note that a tenant's provider was suspended."""
        self._count("ProviderSuspended")
        self._log.error("provider suspended", extra={"tenant_id": tenant_id, "version": version, "code": error.code, "hint": error.hint})

    def failed(self, step: str, tenant_id: str | None, error: Exception) -> None:
        """Note that a step of ours failed; the text of a foreign exception could hold anything, so only its type is written."""
        self._count("StepFailed")
        text = str(error) if isinstance(error, MailerError) else type(error).__name__
        self._log.error("step failed", extra=_without_none({"step": step, "tenant_id": tenant_id, "error": text}))

    def swept(self, *, overdue: int, lag: timedelta) -> None:
        """Note how the sweeper is doing."""
        self._count("Overdue", overdue)
        self._count("SweepLag", lag.total_seconds(), MetricUnit.Seconds)
        self._log.info("swept", extra={"overdue": overdue, "lag_s": lag.total_seconds()})

    def flush(self) -> None:
        """Write the metrics of this invocation."""
        with self._lock:
            if self._metrics.metric_set:  # Powertools warns of nothing to write
                self._metrics.flush_metrics()

    def _count(self, name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count) -> None:
        with self._lock:
            self._metrics.add_metric(name=name, unit=unit, value=value)


def _outcome(outcome: Outcome) -> Mapping[str, Any]:
    match outcome:
        case Sent(message_id):
            return {"outcome": "sent", "message_id": message_id}
        case NotSent(error):
            return {"outcome": "not sent", "code": error.code}
        case MaybeSent(error):
            return {"outcome": "unknown", "code": error.code}


def _without_none(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if value is not None}
