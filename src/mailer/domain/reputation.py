"""Judge how a tenant's mail is received, as SES judges its account: bounces and complaints by what was sent, with minimum volumes.

A limit says from which share on, of how much mail in how many clock hours, to warn or to pause. Small numbers say nothing: each limit
also asks for so many bounces or complaints, of so much mail.
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
"""How long after its hour a bounce or complaint is still judged: most come within a day of the mail."""


@dataclass(frozen=True, slots=True)
class Limit:
    """From when on to do something about a tenant's mail."""

    action: Action
    hours: int
    """Clock hours whose mail is counted together, up to the one in question."""
    signal: Signal
    percent: Decimal
    """Least share of what was sent; exact, so that the limit itself counts."""
    least: int
    """Least number of bounces or complaints."""
    volume: int
    """Least number of recipients sent to."""

    def reached_by(self, counts: Counts) -> bool:
        """Whether what was sent in these hours is beyond the limit."""
        number = _number(self.signal, counts)
        return counts.sent >= self.volume and number >= self.least and number * 100 >= self.percent * counts.sent

    def __str__(self) -> str:
        return f"{self.signal} >= {self.percent:g} %, at least {self.least} of at least {self.volume} in {self.hours} h"


@dataclass(frozen=True, slots=True)
class Finding:
    """A limit that a tenant's mail has reached."""

    limit: Limit
    until: datetime
    """The last hour of those that were counted."""
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
    """Read limits as the template's parameter has them, such as `pause/1/bounces/10/20/200`, comma-separated.

    Raises:
        ValueError: it is not as the parameter's pattern allows.
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
    """Return the first hour that counts towards any limit for mail of this hour."""
    return hour - timedelta(hours=max((limit.hours for limit in limits), default=1) - 1)


def in_time(told_of: Iterable[datetime], now: datetime) -> Sequence[datetime]:
    """Return the hours whose mail is still judged, the first one first."""
    return sorted(hour for hour in set(told_of) if floor(now) - hour <= LATE)


def judge(
    hours: Mapping[datetime, Counts],
    limits: Sequence[Limit],
    told_of: Iterable[datetime],
    now: datetime,
    resumption: Resumption | None = None,
) -> Sequence[Finding]:
    """Return the limits that mail has reached in any run of hours with one that was told of, each with the worst of its runs.

    `told_of` are the hours whose mail bounced or was complained about; those longer ago than LATE are not judged. A resumption leaves out
    what was counted by then: an operator has answered for it.
    """
    judged = in_time(told_of, now)
    kept = _unanswered(hours, resumption) if resumption else hours
    findings = []
    for limit in limits:
        ends = {hour + timedelta(hours=later) for hour in judged for later in range(limit.hours)}
        runs = [Finding(limit, end, _run(kept, end, limit.hours)) for end in sorted(ends) if end <= floor(now)]
        reached = [run for run in runs if limit.reached_by(run.counts)]
        findings += [max(reached, key=lambda run: _number(run.limit.signal, run.counts) / run.counts.sent)] if reached else []
    return findings


def _unanswered(hours: Mapping[datetime, Counts], resumption: Resumption) -> Mapping[datetime, Counts]:
    """Return what was counted since a resumption: of its own hour what has been added, of earlier ones nothing."""
    resumed, later = floor(resumption.at), {hour: counts for hour, counts in hours.items() if hour > floor(resumption.at)}
    if resumption.answered is None or resumed not in hours:
        return later
    return {**later, resumed: (hours[resumed] - resumption.answered).shown}


def _run(hours: Mapping[datetime, Counts], end: datetime, length: int) -> Counts:
    return total(hours[hour] for number in range(length) if (hour := end - timedelta(hours=number)) in hours)
