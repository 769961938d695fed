"""Telemetry: one JSON log line per event and metrics in the embedded metric format, by Powertools.

docs/runbook.md lists every metric; `METRICS` has the dimensions of each; tests compare both, the alarms and this module.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from threading import Lock
from types import MappingProxyType
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from mailer.domain.delivery import Delivery, MaybeSent, NotSent, Outcome, Sent, Status
from mailer.domain.errors import DependencyError, ErrorInfo, MailerError, UnreadableError
from mailer.domain.events import Event
from mailer.domain.facts import RecipientStatus
from mailer.domain.feedback import FORGED, MailRef, Refusal, SesEvent, VerifyRef
from mailer.ports import QueueMessage, Step

METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "RequestQueued": (),
        "RequestDeferred": ("code",),
        "RequestSent": (),
        "RequestFailed": ("code",),
        "RequestUnknown": (),
        "RequestCancelled": (),
        "QueueAge": (),
        "PacingWait": (),
        "ProviderLatency": (),
        "AcceptedToSent": (),
        "ConfigCacheHit": (),
        "ProviderSuspended": ("code",),
        "ReputationAtRisk": ("signal",),
        "FeedbackSilent": (),
        "DeadLettered": ("reason",),
        "DependencyFailed": ("dependency",),
        "InternalError": (),
        "FeedbackDelivered": (),
        "FeedbackDelayed": (),
        "FeedbackBounced": (),
        "FeedbackSoftBounced": (),
        "FeedbackComplained": (),
        "FeedbackRejected": (),
        "FeedbackDelay": (),
        "FeedbackRefused": ("reason",),
        "FeedbackForged": (),
        "FeedbackContradiction": (),
        "FeedbackUnreadable": (),
        "SweepLag": (),
        "Overdue": (),
    }
)
"""Every metric, with its dimension besides the stack (the dimension `service`). None has a dimension per tenant, because CloudWatch bills
each value of a dimension as a metric: the log lines name the tenants."""

_ALARMING: Mapping[Refusal, str] = {Refusal.CONTRADICTION: "FeedbackContradiction", Refusal.UNREADABLE: "FeedbackUnreadable"}

_STEP_METRICS: Mapping[Step, str] = {"queue": "QueueAge", "total": "AcceptedToSent"}

SCHEDULED = "scheduled"
"""The code of a deferral without an error: the request waits for its sendAt, or for its slot."""


@cache
def logger() -> Logger:
    """Return this process's logger; keys of a request are given with each line, so that threads cannot mix them up."""
    return Logger(json_deserializer=str)  # messages are text; Powertools would try to parse each of them as JSON


class LogTelemetry:
    """`ports.Telemetry` on log lines and metrics; thread-safe."""

    def __init__(self, log: Logger, new_metrics: Callable[[], EphemeralMetrics] = EphemeralMetrics) -> None:
        self._log = log
        # Written at every LogLevel: `services.replay` and `make trouble` read these lines back.
        self._outcomes = Logger(service=log.service, child=True, level="INFO")
        self._new_metrics = new_metrics
        self._counted: dict[tuple[str, str] | None, dict[str, _Values]] = defaultdict(dict)
        self._lock = Lock()

    def answered(self, record: Delivery, outcome: Outcome, steps: Mapping[Step, timedelta]) -> None:
        """Log the provider's answer, and how long the steps before it took."""
        self._count("ProviderLatency", _milliseconds(steps["provider"]), MetricUnit.Milliseconds)
        names = ("tenant_id", "request_id", "correlation_id", "attempt", "owner", "generation", "account", "region")
        attempt = _without_none({name: getattr(record, name) for name in names})
        self._outcomes.info("provider answered", extra={**attempt, **_times(steps), **_outcome(outcome)})

    def recorded(self, record: Delivery, steps: Mapping[Step, timedelta] = MappingProxyType({})) -> None:
        """Log the new state of a record, and how long the steps before it took."""
        self._count_record(record)
        for step, took in steps.items():
            if metric := _STEP_METRICS.get(step):
                self._count(metric, _milliseconds(took), MetricUnit.Milliseconds)
        if record.status is Status.SENT and "provider" in steps:
            return  # `answered` has just said so, with all that is known of it
        error = {"code": shown.code, "hint": shown.hint} if (shown := record.shown_error) else {}
        names = {"tenant_id": record.tenant_id, "request_id": record.request_id, "correlation_id": record.correlation_id}
        line = {
            "principal": record.principal,
            "status": record.status,
            "attempt": record.attempt,
            "generation": record.generation,
            "message_id": record.message_id,
        }
        self._outcomes.info("request recorded", extra=_without_none({**names, **line, **error, **_times(steps), **_to_restore(record)}))

    def _count_record(self, record: Delivery) -> None:
        match record.status:
            case Status.FAILED:
                self._count("RequestFailed", by=record.error.code if record.error else None)
            case Status.DEFERRED:
                self._count("RequestDeferred", by=record.error.code if record.error else SCHEDULED)
            case status:
                self._count(f"Request{status.capitalize()}")

    def dead_lettered(self, queue_message: QueueMessage, reason: str) -> None:
        """Log a message on the dead-letter queue."""
        self._count("DeadLettered", by=reason)
        self._log.warning(
            "message put on the dead-letter queue", extra=_without_none({"tenant_id": queue_message.tenant_id, "reason": reason})
        )

    def provider_changed(self, event: Event) -> None:
        """Log what a call changed about a tenant's provider."""
        details = event.detail
        line = {
            "tenant_id": details["tenantId"],
            "change": details["change"],
            "status": details["status"],
            "version": details["configVersion"],
        }
        code = details["error"] and details["error"]["code"]
        self._log.info("provider changed", extra=_without_none({**line, "principal": details["principal"], "code": code}))

    def suspended(self, tenant_id: str, version: int, error: ErrorInfo) -> None:
        """Log that a tenant's provider was suspended."""
        self._count("ProviderSuspended", by=error.code)
        self._log.error("provider suspended", extra={"tenant_id": tenant_id, "version": version, "code": error.code, "hint": error.hint})

    def feedback_silent(self, tenant_id: str, version: int, hint: str) -> None:
        """Report that a tenant has sent mail for an hour without an SES event."""
        self._count("FeedbackSilent")
        self._log.error("feedback silent", extra={"tenant_id": tenant_id, "version": version, "hint": hint})

    def at_risk(self, tenant_id: str, signal: str, finding: str) -> None:
        """Report that a tenant's mail has reached a limit of the reputation guard."""
        self._count("ReputationAtRisk", by=signal)
        self._log.warning("reputation at risk", extra={"tenant_id": tenant_id, "signal": signal, "finding": finding})

    def failed(self, step: str, tenant_id: str | None, error: Exception) -> None:
        """Log that a step failed; of an exception that is not ours only the type is written, because its text may contain anything."""
        if isinstance(error, DependencyError) and not isinstance(error, UnreadableError):
            self._count("DependencyFailed", by=error.service)
        else:
            self._count("InternalError")
        text = str(error) if isinstance(error, MailerError) else type(error).__name__
        self._log.error("step failed", extra=_without_none({"step": step, "tenant_id": tenant_id, "error": text}))

    def config_requested(self, *, cached: bool) -> None:
        """Count whether a decrypted config was cached; the metric's average is the hit rate."""
        self._count("ConfigCacheHit", int(cached))

    def paced(self, wait: timedelta) -> None:
        """Note how long a message has still to wait for its slot."""
        self._count("PacingWait", max(0, _milliseconds(wait)), MetricUnit.Milliseconds)

    def feedback(self, status: RecipientStatus, delivered_after: timedelta | None) -> None:
        """Count a recipient whose reported status has changed."""
        self._count(f"Feedback{status.value.title().replace('_', '')}")
        if delivered_after is not None:
            self._count("FeedbackDelay", _milliseconds(delivered_after), MetricUnit.Milliseconds)

    def feedback_refused(self, refusal: Refusal, event: SesEvent | None, fields: Sequence[str] = ()) -> None:
        """Count and log a refused event: with account, region and ids, never with recipients.

        `fields` are the unreadable ones.
        """
        self._count("FeedbackRefused", by=refusal.value)
        if refusal in FORGED:
            self._count("FeedbackForged")
        if alarming := _ALARMING.get(refusal):
            self._count(alarming)
        names = ("kind", "account", "region", "message_id")
        line = {**{name: getattr(event, name) for name in names}, **_ref(event.ref)} if event else {}
        named = ", ".join(fields) or None
        self._log.warning("feedback refused", extra=_without_none({"reason": refusal.value, "fields": named, **line}))

    def swept(self, *, overdue: int, lag: timedelta) -> None:
        """Note how the sweeper is doing."""
        self._count("Overdue", overdue)
        self._count("SweepLag", lag.total_seconds(), MetricUnit.Seconds)
        self._log.info("swept", extra={"overdue": overdue, "lag_s": lag.total_seconds()})

    def flush(self) -> None:
        """Write the metrics of this invocation."""
        with self._lock:
            counted = dict(self._counted)
            self._counted.clear()
        for dimension, metrics in counted.items():
            for start in range(0, max(len(values) for _, values in metrics.values()), _TOGETHER):
                self._write(dimension, {name: (unit, values[start : start + _TOGETHER]) for name, (unit, values) in metrics.items()})

    def _write(self, dimension: tuple[str, str] | None, metrics: Mapping[str, "_Values"]) -> None:
        written = self._new_metrics()
        if dimension:
            written.add_dimension(name=dimension[0], value=dimension[1])
        for name, (unit, values) in metrics.items():
            if values:
                written.add_metric(name=name, unit=unit, value=values[0])
                # Not one by one: each would write all earlier ones into a debug line.
                written.metric_set[name]["Value"].extend(values[1:])
        written.flush_metrics()

    def _count(self, name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count, *, by: str | None = None) -> None:
        """Count for the stack, and `by` a value of the metric's own dimension."""
        with self._lock:
            for dimension in (None, *((own, by) for own in METRICS[name] if by)):
                self._counted[dimension].setdefault(name, (unit, []))[1].append(float(value))


_Values = tuple[MetricUnit, list[float]]

_TOGETHER = 100
"""Values of one metric in one line (limit of CloudWatch's embedded metric format)."""


def _milliseconds(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


def _times(steps: Mapping[Step, timedelta]) -> Mapping[str, int]:
    return {f"{step}_ms": _milliseconds(took) for step, took in steps.items()}


def _outcome(outcome: Outcome) -> Mapping[str, Any]:
    match outcome:
        case Sent(message_id):
            return {"outcome": "sent", "status": Status.SENT, "message_id": message_id}
        case NotSent(error):
            return {"outcome": "not sent", "code": error.code}
        case MaybeSent(error):
            return {"outcome": "unknown", "code": error.code}


def _ref(ref: MailRef | VerifyRef | None) -> Mapping[str, Any]:
    names = ("tenant_id", "request_id", "attempt", "version")
    return {name: getattr(ref, name) for name in names if hasattr(ref, name)}


def _to_restore(record: Delivery) -> Mapping[str, Any]:
    """Return what a restored table needs of an open request besides its body: the body's key, and fields that are not in the body."""
    if record.ended or not (record.parked or record.maybe_sent):
        return {}
    times = {"created_at": record.created_at.isoformat(), "expires_at": record.expires_at.isoformat()}
    return {**times, "parked": record.parked, "maybe_sent": record.maybe_sent or None}


def _without_none(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if value is not None}
