"""SweepFunction, called by EventBridge every minute."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mailer import wiring
from mailer.services.sweeping.sweep import sweep

SPARE = timedelta(seconds=5)
"""Time reserved for the work in progress when a run stops."""


def handler(_event: Mapping[str, Any], context: Any) -> Mapping[str, int]:
    """Do one run; return how many records were moved on and how many are overdue."""
    ends_at = wiring.clock().now() + timedelta(milliseconds=context.get_remaining_time_in_millis()) - SPARE
    try:
        stats = sweep(wiring.sweep_dependencies(), ends_at=ends_at)
    finally:
        wiring.telemetry().flush()
    return {"moved": stats.moved, "overdue": stats.overdue}
