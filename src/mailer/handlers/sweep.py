"""SweepFunction, called by EventBridge every minute, and by itself where one invocation would take too long."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mailer import wiring
from mailer.adapters.sweep_invocations import read_part
from mailer.services.sweeping.sweep import sweep, sweep_part

SPARE = timedelta(seconds=5)
"""Time reserved for the work in progress when a run stops."""


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, int]:
    """Do one run, or a part of one; return how many records were moved on and how many are overdue."""
    deps, part = wiring.sweep_dependencies(), read_part(event)
    ends_at = wiring.clock().now() + timedelta(milliseconds=context.get_remaining_time_in_millis()) - SPARE
    try:
        stats = sweep_part(deps, replace(part, ends_at=min(part.ends_at, ends_at))) if part else sweep(deps, ends_at=ends_at)
    finally:
        wiring.telemetry().flush()
    return {"moved": stats.moved, "overdue": stats.overdue}
