"""Judge a tenant's bounce and complaint rates as SES judges its account's, with minimum volumes.

A limit has a rate, a number of clock hours and an action, to warn or to pause. Because small samples prove nothing, it also has a minimum
number of bounces or complaints and a minimum number of recipients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal, cast

from mailer.domain.errors import ErrorInfo
from mailer.domain.provider import Resumption
from mailer.domain.statistics import Counts, floor, total

GuardMode = Literal["off", "warn", "pause"]
Action = Literal["warn", "pause"]
Signal = Literal["bounces", "complaints"]

LATE = timedelta(hours=24)
"""How long after the hour of its mail a bounce or complaint is still judged: most arrive within a day."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a tenant's bounces or complaints, and the action when it is reached."""

    action: Action
    hours: int
    """Clock hours whose mail is counted together, the last one included."""
    signal: Signal
    percent: Decimal
    """Minimum percentage of the recipients sent to; exact, so that the limit itself counts."""
    least: int
    """Minimum number of bounces or complaints."""
    volume: int
    """Minimum number of recipients sent to."""

    def reached_by(self, counts: Counts) -> bool:
        """Whether the counts of these hours reach the limit."""
        number = _number(self.signal, counts)
        return counts.sent >= self.volume and number >= self.least and number * 100 >= self.percent * counts.sent

    def __str__(self) -> str:
        return f"{self.signal} >= {self.percent:g} %, at least {self.least} of at least {self.volume} in {self.hours} h"


@dataclass(frozen=True, slots=True)
class Finding:
    """A limit that a tenant's mail has reached."""

    limit: Limit
    until: datetime
    """The last hour counted."""
    counts: Counts

    @property
    def error(self) -> ErrorInfo:
        """Why the provider is suspended: numbers, no addresses."""
        number, sent = _number(self.limit.signal, self.counts), self.counts.sent
        share = f"{number} {self.limit.signal} of {sent} recipients ({100 * number / sent:.2g} %) in {self.limit.hours} h"
        return ErrorInfo("reputation_at_risk", f"{share}; the limit: {self.limit}")


def _number(signal: Signal, counts: Counts) -> int:
    return counts.bounced if signal == "bounces" else counts.complained


def read_limits(text: str) -> Sequence[Limit]:
    """Parse the template's parameter: limits such as `pause/1/bounces/10/20/200`, comma-separated.

    Raises:
        ValueError: it does not match the parameter's pattern.
    """
    return [_limit(*entry.split("/")) for entry in text.split(",") if entry]


def _limit(action: str, hours: str, signal: str, percent: str, least: str, volume: str) -> Limit:
    if action not in ("warn", "pause") or signal not in ("bounces", "complaints"):
        raise ValueError("limit")
    try:
        share = Decimal(percent)
    except InvalidOperation:
        raise ValueError("percent") from None
    return Limit(cast("Action", action), int(hours), cast("Signal", signal), share, int(least), int(volume))


def first_hour(limits: Iterable[Limit], hour: datetime) -> datetime:
    """Return the first hour that any limit counts together with this hour."""
    return hour - timedelta(hours=max((limit.hours for limit in limits), default=1) - 1)


def in_time(reported: Iterable[datetime], now: datetime) -> Sequence[datetime]:
    """Return the hours whose mail is still judged, in order."""
    return sorted(hour for hour in set(reported) if floor(now) - hour <= LATE)


def judge(
    hours: Mapping[datetime, Counts],
    limits: Sequence[Limit],
    reported: Iterable[datetime],
    now: datetime,
    resumption: Resumption | None = None,
) -> Sequence[Finding]:
    """Return the limits that are reached in any run of hours that includes a reported one, each with its worst run.

    `reported` are the hours whose mail bounced or was complained about; those longer ago than LATE are not judged. What was counted
    before a resumption is left out: an operator has accepted it.
    """
    judged = in_time(reported, now)
    kept = _since_resumption(hours, resumption) if resumption else hours
    findings = []
    for limit in limits:
        ends = {hour + timedelta(hours=later) for hour in judged for later in range(limit.hours)}
        runs = [Finding(limit, end, _run(kept, end, limit.hours)) for end in sorted(ends) if end <= floor(now)]
        reached = [run for run in runs if limit.reached_by(run.counts)]
        findings += [max(reached, key=lambda run: _number(run.limit.signal, run.counts) / run.counts.sent)] if reached else []
    return findings


def _since_resumption(hours: Mapping[datetime, Counts], resumption: Resumption) -> Mapping[datetime, Counts]:
    """Return what was counted since a resumption: of its own hour only what was added later, of earlier hours nothing."""
    resumed, later = floor(resumption.at), {hour: counts for hour, counts in hours.items() if hour > floor(resumption.at)}
    if resumption.answered is None or resumed not in hours:
        return later
    return {**later, resumed: (hours[resumed] - resumption.answered).shown}


def _run(hours: Mapping[datetime, Counts], end: datetime, length: int) -> Counts:
    return total(hours[hour] for number in range(length) if (hour := end - timedelta(hours=number)) in hours)
