"""Note how long the steps of one request took, for the line that its outcome is logged with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from mailer.ports import Clock, Step


@dataclass(slots=True)
class StepTimings:
    """The steps that were taken; one that was taken twice counts as one that took as long as both."""

    steps: dict[Step, timedelta] = field(default_factory=dict)

    @contextmanager
    def measured(self, step: Step, clock: Clock) -> Iterator[None]:
        """Note how long a step takes, however it ends."""
        began = clock.now()
        try:
            yield
        finally:
            self.add(step, clock.now() - began)

    def add(self, step: Step, took: timedelta) -> None:
        """Note how long a step took that was measured elsewhere."""
        self.steps[step] = self.steps.get(step, timedelta()) + took
