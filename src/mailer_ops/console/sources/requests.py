"""What the functions' logs tell of requests: the newest state of each, and every state of one."""

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
"""At most so many lines are read for one page, and for so long."""


@dataclass(frozen=True, slots=True)
class Logged:
    """States of requests, oldest first; `cut` where there are more than one page reads."""

    states: list[LoggedState]
    lines: list[str]
    cut: bool


class RequestLog(Protocol):
    """The log, as far as it tells what became of requests."""

    def read(self, since: datetime, *, until: datetime | None = None, request_id: str | None = None) -> Answer[Logged]:
        """Read the states that were reached in a span of time, of all requests or one."""
        ...


class CloudWatchRequestLog:
    """The log groups of the functions that write records."""

    def __init__(self, stack: str, log: CloudWatchLog) -> None:
        self._stack = stack
        self._log = log

    def read(self, since: datetime, *, until: datetime | None = None, request_id: str | None = None) -> Answer[Logged]:
        """Read the states that were reached in a span of time, of all requests or one."""
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
