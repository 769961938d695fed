"""Sum up statistics, and compare an account's rates with the limits at which AWS acts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

COLUMNS = ("sent", "delivered", "bounced", "softBounced", "complained", "failed", "unknown", "suppressed")

REVIEW = {"bounced": 0.05, "complained": 0.001}
PAUSE = {"bounced": 0.10, "complained": 0.005}
"""Bounce and complaint rates at which AWS reviews and pauses an account."""

FEW = 20
"""Fewest mails for a meaningful rate."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of the sent mail; `level` is good, review, pause, or few."""

    share: float
    level: str


def totals(buckets: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Sum the buckets."""
    read = list(buckets)
    return {column: sum(int(bucket.get(column, 0)) for bucket in read) for column in COLUMNS}


def rate(sums: Mapping[str, int], of: str) -> Rate | None:
    """Return the bounce or complaint rate; None if nothing was sent."""
    sent = sums.get("sent", 0)
    if not sent:
        return None
    share = sums.get(of, 0) / sent
    if sent < FEW:
        return Rate(share, "few")
    return Rate(share, "pause" if share >= PAUSE[of] else "review" if share >= REVIEW[of] else "good")


def series(buckets: Iterable[Mapping[str, Any]], names: Iterable[str]) -> tuple[list[datetime], dict[str, list[int]]]:
    """Return the buckets as series for a chart."""
    read = list(buckets)
    starts = [datetime.fromisoformat(str(bucket["from"])) for bucket in read]
    return starts, {name: [int(bucket.get(name, 0)) for bucket in read] for name in names}
