"""Now: queues, outcomes, active alarms, and tenants whose mail does not go out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from mailer.domain.delivery import Status
from mailer_ops.console.sources.answers import Answer
from mailer_ops.console.sources.health import OUTCOMES, Counts, Window
from mailer_ops.console.sources.requests import Logged
from mailer_ops.console.views import runbook
from mailer_ops.console.web import Console
from mailer_ops.operations.trouble import Trouble, find_trouble

HOURS = (1, 3, 12, 24, 72)

NAMES = {"sent": Status.SENT, "failed": Status.FAILED, "deferred": Status.DEFERRED, "unknown": Status.UNKNOWN}


def now(request: Request, console: Console) -> Response:
    """Show the current state of the stack."""
    sources, hours = console.sources, _hours(request)
    window = Window.of(hours, sources.now())
    with ThreadPoolExecutor(4) as together:  # four services in parallel
        queues = together.submit(sources.health.queues)
        alarms = together.submit(sources.health.alarms)
        counted = together.submit(sources.health.counts, window)
        log = together.submit(sources.requests.read, sources.now() - timedelta(hours=hours))
    counts = _counts(counted.result(), log.result(), window)
    return console.page(
        request,
        "now.html",
        hours=hours,
        choices=HOURS,
        queues=queues.result(),
        alarms=alarms.result(),
        runbook_steps={alarm.section: runbook.steps(sources.runbook, alarm.section) for alarm in alarms.result().value or []},
        counts=counts,
        sums={name: sum(values) for name, values in counts.value.series.items()} if counts.value else {},
        log=log.result(),
        troubles=_troubles(log.result()),
    )


def _hours(request: Request) -> int:
    given = request.query_params.get("hours", "")
    return int(given) if given.isdecimal() and int(given) in HOURS else HOURS[1]


def _counts(counted: Answer[Counts], log: Answer[Logged], window: Window) -> Answer[Counts]:
    """Return counts from the metrics, or from the log if there are none: an emulator creates no metrics from logs."""
    if log.value and log.value.states and (counted.value is None or counted.value.empty):
        return Answer(_counted_from(log.value, window))
    return counted


def _counted_from(log: Logged, window: Window) -> Counts:
    series = {outcome: [0] * window.steps for outcome in OUTCOMES}
    reached: set[tuple[str, str, Status]] = set()
    for state in log.states:
        name, once = state.status.value, (state.tenant_id, state.request_id, state.status)
        if name in NAMES and once not in reached and (index := window.index(state.at)) is not None:
            reached.add(once)
            series[name][index] += 1
    return Counts(window, series, "the functions' logs")


def _troubles(log: Answer[Logged]) -> Sequence[Trouble]:
    return find_trouble(log.value.lines) if log.value else []
