"""In-memory pacing table that follows the contract of `mailer.ports.PacingTable` and counts billed reads and writes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from mailer.domain.pacing import AccountRate, Booking
from mailer.ports import RateConflictError


class FakePacingTable:
    """Rates in memory; `meanwhile`, if set, is called before each write, to simulate a concurrent function."""

    def __init__(self) -> None:
        self.account_rates: dict[str, AccountRate] = {}
        self.reads = 0
        self.writes = 0
        """Including rejected ones, which DynamoDB bills too."""
        self.meanwhile: Callable[[], None] | None = None

    def get(self, account: str) -> AccountRate | None:
        self.reads += 1
        return self.account_rates.get(account)

    def start(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        self._write(now)
        if account in self.account_rates:
            raise RateConflictError(self.account_rates[account])
        self.account_rates[account] = account_rate
        return account_rate

    def book(self, account: str, booking: Booking, now: datetime) -> AccountRate:
        self._write(now)
        account_rate = self.account_rates.get(account)
        if account_rate is None or account_rate.revision != booking.revision or not self._fits(account_rate.end(booking), booking):
            raise RateConflictError(account_rate)
        self.account_rates[account] = account_rate.after(booking)
        return self.account_rates[account]

    @staticmethod
    def _fits(end: float, booking: Booking) -> bool:
        return end <= booking.start if booking.is_idle else booking.start < end <= booking.latest

    def repace(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        self._write(now)
        stored = self.account_rates.get(account)
        if stored is None or stored.revision != account_rate.revision - 1:
            raise RateConflictError(stored)
        self.account_rates[account] = replace(account_rate, booked=stored.booked, promised=stored.promised)
        return self.account_rates[account]

    def _write(self, _: datetime) -> None:
        self.writes += 1
        if self.meanwhile is not None:
            write_concurrently, self.meanwhile = self.meanwhile, None
            write_concurrently()
