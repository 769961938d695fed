"""States of requests, from the functions' logs."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mailer_ops.adapters.outcome_log import CloudWatchLog
from mailer_ops.console.sources.answers import Answer, ask
from mailer_ops.operations.request_log import STATE_MESSAGES, LoggedState, parse_line

LINES = 20_000
SECONDS = 4.0
"""Most lines and seconds of reading for one page."""


@dataclass(frozen=True, slots=True)
class Logged:
    """States of requests, oldest first; `cut` if there are more than one page reads."""

    states: list[LoggedState]
    lines: list[str]
    cut: bool


class RequestLog(Protocol):
    """The functions' log lines about requests."""

    def read(self, since: datetime, *, until: datetime | None = None, request_id: str | None = None) -> Answer[Logged]:
        """Read the states reached in a time span, of all requests or of one."""
        ...


class CloudWatchRequestLog:
    """Log groups of the functions that write records."""

    def __init__(self, stack: str, log: CloudWatchLog) -> None:
        self._stack = stack
        self._log = log

    def read(self, since: datetime, *, until: datetime | None = None, request_id: str | None = None) -> Answer[Logged]:
        """Read the states reached in a time span, of all requests or of one."""
        about: Mapping[str, str] = {"request_id": request_id} if request_id else {}
        return ask(lambda: _bounded(self._log.lines(STATE_MESSAGES, since, until=until, about=about)), self._stack)


def _bounded(lines: Iterable[str]) -> Logged:
    read: list[str] = []
    cut, deadline = False, time.monotonic() + SECONDS
    for line in lines:
        if len(read) == LINES or time.monotonic() > deadline:
            cut = True
            break
        read.append(line)
    return Logged(sorted(_states(read), key=lambda state: state.at), read, cut)


def _states(lines: Iterable[str]) -> Iterator[LoggedState]:
    for line in lines:
        try:
            state = parse_line(line)
        except (KeyError, TypeError, ValueError):
            continue
        if state:
            yield state
