"""A pacing table in memory that keeps the promises of `mailer.ports.PacingTable` and counts what DynamoDB would bill."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from mailer.domain.pacing import Booking, Line
from mailer.ports import MovedError


class FakePacingTable:
    """Lines in memory; `meanwhile`, if set, is called before each write: what another function does just then."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.reads = 0
        self.writes = 0
        """Refused ones too: DynamoDB bills them all the same."""
        self.meanwhile: Callable[[], None] | None = None

    def get(self, account: str) -> Line | None:
        self.reads += 1
        return self.lines.get(account)

    def start(self, account: str, line: Line, now: datetime) -> Line:
        self._write(now)
        if account in self.lines:
            raise MovedError(self.lines[account])
        self.lines[account] = line
        return line

    def book(self, account: str, booking: Booking, now: datetime) -> Line:
        self._write(now)
        line = self.lines.get(account)
        if line is None or line.turn != booking.turn or not self._fits(line.end(booking), booking):
            raise MovedError(line)
        self.lines[account] = line.after(booking)
        return self.lines[account]

    @staticmethod
    def _fits(end: float, booking: Booking) -> bool:
        return end <= booking.start if booking.is_idle else booking.start < end <= booking.latest

    def repace(self, account: str, line: Line, now: datetime) -> Line:
        self._write(now)
        stored = self.lines.get(account)
        if stored is None or stored.turn != line.turn - 1:
            raise MovedError(stored)
        self.lines[account] = replace(line, booked=stored.booked, promised=stored.promised)
        return self.lines[account]

    def _write(self, _: datetime) -> None:
        self.writes += 1
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()
