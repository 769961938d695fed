"""The machine's clock."""

import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` by the operating system."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)

    def wait_until(self, moment: datetime) -> None:
        """Hold this thread until a moment; not at all where it has passed."""
        time.sleep(max(0.0, (moment - self.now()).total_seconds()))
