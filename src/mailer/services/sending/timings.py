"""Measure the steps of one request, for the log line of its outcome."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from mailer.ports import Clock, Step


@dataclass(slots=True)
class StepTimings:
    """How long each step took; a step that was taken twice is summed."""

    steps: dict[Step, timedelta] = field(default_factory=dict)

    @contextmanager
    def measured(self, step: Step, clock: Clock) -> Iterator[None]:
        """Measure a step, however it ends."""
        began = clock.now()
        try:
            yield
        finally:
            self.add(step, clock.now() - began)

    def add(self, step: Step, took: timedelta) -> None:
        """Add a step that was measured elsewhere."""
        self.steps[step] = self.steps.get(step, timedelta()) + took
