"""Read the functions' log lines, and write those of the operators' commands beside them."""

import io
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import batched
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from mailer.adapters.aws import dependency_errors

_ANYTHING: Mapping[str, str] = MappingProxyType({})


class CloudWatchLog:
    """The log groups of one stack's functions."""

    def __init__(self, client: Any, groups: Sequence[str]) -> None:
        self._client = client
        self._groups = groups

    def lines(
        self, messages: Collection[str], since: datetime, *, until: datetime | None = None, about: Mapping[str, str] = _ANYTHING
    ) -> Iterator[str]:
        """Yield the lines with one of the messages, group by group, each group's oldest first; `about` names fields and their values."""
        pattern = " || ".join(f'$.message = "{message}"' for message in messages)
        if about:
            pattern = " && ".join([f"({pattern})", *(f'$.{name} = "{value}"' for name, value in about.items())])
        wanted: dict[str, Any] = {"startTime": _milliseconds(since), "filterPattern": f"{{ {pattern} }}"}
        if until:
            wanted["endTime"] = _milliseconds(until)
        for group in self._groups:
            pages = self._client.get_paginator("filter_log_events").paginate(logGroupName=group, **wanted)
            with dependency_errors("CloudWatch Logs", "FilterLogEvents"):
                for page in pages:
                    # Emulators do not support JSON filter patterns, and return every line.
                    yield from (event["message"] for event in page["events"] if _fits(event["message"], messages, about))


def _fits(line: str, messages: Collection[str], about: Mapping[str, str]) -> bool:
    return any(text in line for text in messages) and all(f'"{value}"' in line for value in about.values())


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class OperatorsLog(io.StringIO):
    """Log lines of an operator's command; they are written beside the functions' lines, where `replay` and `trouble` read them."""

    def keep(self, client: Any, group: str) -> None:
        """Write the lines to a stream of their own."""
        lines = [{"timestamp": time.time_ns() // 1_000_000, "message": line} for line in self.getvalue().splitlines()]
        stream = f"operator/{uuid4().hex}"
        with dependency_errors("CloudWatch Logs", "PutLogEvents"):
            for some in batched(lines, _BATCH, strict=False):
                if some[0] is lines[0]:
                    client.create_log_stream(logGroupName=group, logStreamName=stream)
                client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=list(some))


_BATCH = 1000
"""Lines in one PutLogEvents: 10 000 are CloudWatch's limit, 1 MiB of text too."""
