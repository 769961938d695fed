"""CloudWatch's rules for metrics in log lines: its specification of the embedded metric format, and PutMetricData's for names."""

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

MAX_METRICS = 100  # of one directive
MAX_VALUES = 100  # of one metric
MAX_DIMENSIONS = 30  # of one set
MAX_NAME = 1024  # characters, also of a dimension's value
MAX_DIMENSION_NAME = 250  # characters
MAX_VALUE = 2.0**360
MAX_LINE = 1024 * 1024  # bytes
_NAMESPACE = re.compile(r"[A-Za-z0-9 .\-_/#:]{1,256}")
_UNITS = re.compile(
    r"Seconds|Microseconds|Milliseconds|((Kilo|Mega|Giga|Tera)?(bytes|bits)|Bytes|Bits|(Kilo|Mega|Giga|Tera)(bytes|bits)|Count)(/Second)?"
    r"|Percent|None"
)


def broken(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rules that a log line with metrics breaks."""
    metadata = line.get("_aws", {})
    if not isinstance(metadata.get("Timestamp"), int):
        yield "the time is not in milliseconds"
    for directive in metadata.get("CloudWatchMetrics", []):
        yield from _directive(directive, line)


def _directive(directive: Mapping[str, Any], line: Mapping[str, Any]) -> Iterator[str]:
    if not _NAMESPACE.fullmatch(directive["Namespace"]):
        yield f"{directive['Namespace']!r} is not a namespace"
    if not 1 <= len(directive["Metrics"]) <= MAX_METRICS:
        yield f"{len(directive['Metrics'])} metrics"
    for dimensions in directive["Dimensions"]:
        if len(dimensions) > MAX_DIMENSIONS:
            yield f"{len(dimensions)} dimensions, more than {MAX_DIMENSIONS}"
        for name in dimensions:
            yield from (f"dimension {name}: {fault}" for fault in _dimension(name, line.get(name)))
    for metric in directive["Metrics"]:
        yield from (f"metric {metric['Name']}: {fault}" for fault in _metric(metric, line.get(metric["Name"])))


def _dimension(name: str, value: Any) -> Iterator[str]:
    if not 1 <= len(name) <= MAX_DIMENSION_NAME or not name.isascii() or name.startswith(":"):
        yield "is not a dimension's name"
    if not isinstance(value, str) or not value.strip():
        yield "has no value"
    elif len(value) > MAX_NAME or not value.isascii() or not value.isprintable():
        yield "has a value that is too long, or not printable ASCII"


def _metric(metric: Mapping[str, Any], values: Any) -> Iterator[str]:
    if not 1 <= len(metric["Name"]) <= MAX_NAME:
        yield "has a name that is empty or too long"
    if not _UNITS.fullmatch(metric.get("Unit", "None")):
        yield f"{metric['Unit']} is not a unit"
    numbers = values if isinstance(values, list) else [values]
    if not 1 <= len(numbers) <= MAX_VALUES:
        yield f"{len(numbers)} values"
    if not all(isinstance(number, int | float) and isfinite(number) and abs(number) <= MAX_VALUE for number in numbers):
        yield "has a value that is not a finite number"
