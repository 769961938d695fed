"""The system clock."""

import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` on the operating system's clock."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)

    def wait_until(self, moment: datetime) -> None:
        """Sleep until a moment; return at once if it has passed."""
        time.sleep(max(0.0, (moment - self.now()).total_seconds()))
