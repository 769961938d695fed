"""End a request that cannot be sent: as `failed`, or as `unknown` if an earlier attempt may have been accepted."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Protocol

from mailer.domain import changes
from mailer.domain.changes import Request
from mailer.domain.delivery import Delivery
from mailer.domain.errors import ErrorInfo
from mailer.ports import Clock, MessagesTable, RefusedError, Step, Telemetry

WORKER_LOST = ErrorInfo("outcome_unknown", "the worker that called the provider did not record an answer")


class RecordDependencies(Protocol):
    """What ending a request depends on."""

    @property
    def messages(self) -> MessagesTable:
        """Return the status table."""
        ...

    @property
    def telemetry(self) -> Telemetry:
        """Return the telemetry."""
        ...

    @property
    def clock(self) -> Clock:
        """Return the clock."""
        ...


def end_unsent(
    request: Request,
    deps: RecordDependencies,
    error: ErrorInfo,
    steps: Mapping[Step, timedelta] = MappingProxyType({}),
    *,
    suppressed: int = 0,
) -> Delivery:
    """End a request that waits, or has no record yet, and return the record; `steps` are the timings of its steps.

    `suppressed` is how many recipients were left out.

    Raises:
        RefusedError: it does not wait any more, or a newer message of it is on the queue.
        DependencyError: the table did not answer.
    """
    now = deps.clock.now()
    try:
        record = deps.messages.apply(changes.fail_unsent(request, now, error, suppressed=suppressed))
    except RefusedError as refusal:
        if not (refusal.current and refusal.current.maybe_sent):
            raise
        record = deps.messages.apply(changes.give_up(request, now, maybe_sent_before(error)))
    deps.telemetry.recorded(record, steps)
    return record


def maybe_sent_before(error: ErrorInfo) -> ErrorInfo:
    """Return the error of a request that ends as `unknown` because an earlier attempt may have been accepted."""
    return ErrorInfo("outcome_unknown", f"an earlier attempt may have been accepted; the last one ended as {error.code}")
