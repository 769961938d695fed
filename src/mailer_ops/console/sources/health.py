"""Health of the stack: queues, active alarms, and outcomes by time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from mailer_ops.console.sources.answers import Answer, ask

OUTCOMES = ("sent", "failed", "deferred", "unknown", "bounced", "complained")
"""Counted outcomes, in display order."""

METRICS = {
    "sent": "RequestSent",
    "failed": "RequestFailed",
    "deferred": "RequestDeferred",
    "unknown": "RequestUnknown",
    "bounced": "FeedbackBounced",
    "complained": "FeedbackComplained",
}


@dataclass(frozen=True, slots=True)
class Queue:
    """Message counts of a queue: visible, in flight, delayed."""

    name: str
    waiting: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """An active alarm; `section` is the anchor of its section in the runbook."""

    name: str
    text: str
    section: str
    link: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """A time span in equal steps."""

    start: datetime
    step: timedelta
    steps: int

    @classmethod
    def of(cls, hours: int, now: datetime, steps: int = 48) -> "Window":
        """Return the last hours, ending with the step that contains `now`."""
        step = timedelta(minutes=max(1, hours * 60 // steps))
        count = int(timedelta(hours=hours) / step)
        latest = datetime.fromtimestamp(now.timestamp() // step.total_seconds() * step.total_seconds(), UTC)
        return cls(latest - step * (count - 1), step, count)

    @property
    def starts(self) -> list[datetime]:
        """Return the start of each step."""
        return [self.start + self.step * number for number in range(self.steps)]

    def index(self, at: datetime) -> int | None:
        """Return the step that contains a time."""
        number = int((at - self.start) // self.step)
        return number if 0 <= number < self.steps else None


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests per outcome and step of a window."""

    window: Window
    series: Mapping[str, Sequence[int]]
    source: str

    @property
    def empty(self) -> bool:
        """Return whether nothing was counted."""
        return not any(any(values) for values in self.series.values())


class Health(Protocol):
    """Health of a stack."""

    def queues(self) -> Answer[list[Queue]]:
        """Return the message counts of the queues."""
        ...

    def alarms(self) -> Answer[list[Alarm]]:
        """List the active alarms."""
        ...

    def counts(self, window: Window) -> Answer[Counts]:
        """Return outcomes by time."""
        ...


class AwsHealth:
    """Health of a stack, from CloudWatch and SQS."""

    def __init__(self, stack: str, queues: Mapping[str, str], client: Callable[[str], Any]) -> None:
        self._stack = stack
        self._queues = queues
        self._sqs, self._cloudwatch = client("sqs"), client("cloudwatch")

    def queues(self) -> Answer[list[Queue]]:
        """Return SQS's approximate message counts of the queues."""
        return ask(lambda: [self._queue(name, url) for name, url in self._queues.items()], self._stack)

    def _queue(self, name: str, url: str) -> Queue:
        kinds = ("", "NotVisible", "Delayed")
        names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
        attributes = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return Queue(name, *(int(attributes.get(each, 0)) for each in names))

    def alarms(self) -> Answer[list[Alarm]]:
        """List the active alarms of this stack, newest first."""
        return ask(self._alarms, self._stack)

    def _alarms(self) -> list[Alarm]:
        pages = self._cloudwatch.get_paginator("describe_alarms").paginate(
            StateValue="ALARM", AlarmNamePrefix=f"{self._stack}-", AlarmTypes=["MetricAlarm"]
        )
        found = [_alarm(alarm, self._stack) for page in pages for alarm in page["MetricAlarms"] if alarm["StateValue"] == "ALARM"]
        return sorted(found, key=lambda alarm: alarm.since, reverse=True)

    def counts(self, window: Window) -> Answer[Counts]:
        """Return outcomes by time, from the service's own metrics."""
        return ask(lambda: self._counts(window), self._stack)

    def _counts(self, window: Window) -> Counts:
        queries = [_query(number, METRICS[outcome], self._stack, window) for number, outcome in enumerate(OUTCOMES)]
        end = window.start + window.step * window.steps
        pages = self._cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=window.start, EndTime=end, ScanBy="TimestampAscending"
        )
        series = {outcome: [0] * window.steps for outcome in OUTCOMES}
        for result in (result for page in pages for result in page["MetricDataResults"]):
            for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                if (index := window.index(at)) is not None:
                    series[OUTCOMES[int(result["Id"][1:])]][index] += int(value)
        return Counts(window, series, "CloudWatch")


def _query(number: int, metric: str, stack: str, window: Window) -> dict[str, Any]:
    named = {"Namespace": "Tenantmail", "MetricName": metric, "Dimensions": [{"Name": "service", "Value": stack}]}
    return {"Id": f"m{number}", "MetricStat": {"Metric": named, "Period": int(window.step.total_seconds()), "Stat": "Sum"}}


def _alarm(alarm: Mapping[str, Any], stack: str) -> Alarm:
    """Parse an alarm, whose description ends with the URL of the runbook."""
    text, _, link = alarm.get("AlarmDescription", "").rpartition(" ")
    name = alarm["AlarmName"].removeprefix(f"{stack}-").partition("-")[0]
    section = link.rpartition("#")[2] if "#" in link else ""
    return Alarm(name, text if section else alarm.get("AlarmDescription", ""), section, link, alarm["StateUpdatedTimestamp"])
