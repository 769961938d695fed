"""Simulate the release of a large backlog after its tenant is resumed: the real sweeper and pacing, on a clock advanced by their calls.

CPU limits what one run can do: each write, queue call and page read advances the clock by the time that it keeps one Lambda CPU busy.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import batched

from mailer.domain.delivery import Delivery, Status, WaitsFor
from mailer.domain.pacing import RateSource
from mailer.ports import QueueMessage
from mailer.services.pacing.pacing import Pacing
from mailer.services.sweeping.sweep import sweep
from support.fakes.ports import NOON, FakeClock, a_config, a_provider
from support.fakes.sending import Bench, FakeReleases, a_record

WRITE = timedelta(milliseconds=2)
"""CPU time of an UpdateItem; measured: 4.1 ms for two, on blocking threads."""
QUEUE_CALL = timedelta(milliseconds=3)
"""CPU time of a SendMessageBatch of 10."""
PAGE_READ = timedelta(milliseconds=10)
"""CPU time of a query and of the BatchGetItem for its 100 records."""

MINUTE = timedelta(minutes=1)
RUN = timedelta(seconds=50)
"""SweepFunction's timeout, less its reserve for work in progress."""

BATCH = 100
ACCOUNTS = {"A": "111111111111", "B": "222222222222", "C": "333333333333"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Parameters of the simulation."""

    backlog: int = 100_000
    """Parked requests of tenant A, which is resumed at the start, as is tenant C with ten."""
    rate: float = 500.0
    """Recipients per second that each account may send to."""
    due_a_minute: int = 20
    """Parked requests of tenant B that become due per minute."""


@dataclass(slots=True)
class Tally:
    """Results; times are counted from the resume, or from when a request was due."""

    a_back: timedelta = timedelta()
    """Until the last of A's backlog was requeued."""
    c_back: timedelta = timedelta()
    b_late: timedelta = timedelta()
    """The longest that a due request of B waited for the sweeper."""
    runs: int = 0
    pointers: int = 0
    fed: list[int] = field(default_factory=list)
    """Requests of A that each run requeued."""


class Simulation:
    """A run of the sweeper each minute, and a send path that reserves slots for the requeued messages."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.tally = Tally()
        self.bench = bench = Bench(*_backlog("A", scenario.backlog), *_backlog("C", 10))
        rows = [a_provider(name, active=a_config(account=account, max_send_rate=scenario.rate)) for name, account in ACCOUNTS.items()]
        bench.providers.rows = {row.tenant_id: row for row in rows}
        assert isinstance(bench.sweep_deps.releases, FakeReleases)
        self.marked = bench.sweep_deps.releases.marked
        self.marked += ["A", "C"]
        self._source = RateSource(configured=scenario.rate)
        self._pacing = Pacing(bench.account_rates, functions=10)
        self._on_queue: list[tuple[str, str]] = []
        self._due_at: dict[str, datetime] = {}
        clock: FakeClock = bench.clock
        bench.messages.after = lambda _: clock.advance(WRITE)
        self._read = bench.messages.waiting_for_provider
        bench.messages.waiting_for_provider = self._pages  # type: ignore[method-assign]  # reading takes time, too
        bench.queue.send = self._take  # type: ignore[method-assign]  # as does sending

    def run(self) -> Tally:
        """Run until A's backlog is requeued."""
        began = self.bench.clock.now()
        while "A" in self.marked:
            start = began + self.tally.runs * MINUTE
            self.bench.clock.time = max(self.bench.clock.time, start)
            self._fall_due(start)
            before = self.tally.pointers
            sweep(self.bench.sweep_deps, ends_at=start + RUN)
            self.tally.runs += 1
            self.tally.fed.append(self.tally.pointers - before)
            self._book()
        return self.tally

    def _pages(self, tenant_id: str) -> Iterator[Delivery]:
        for number, record in enumerate(self._read(tenant_id)):
            if number % BATCH == 0:
                self.bench.clock.advance(PAGE_READ)
            yield record

    def _fall_due(self, now: datetime) -> None:
        """Add B's requests that became due in the last minute, each with its own time."""
        for number in range(self.scenario.due_a_minute):
            at = now - MINUTE * number / self.scenario.due_a_minute
            record = _parked("B", f"{self.tally.runs}-{number}", waits_for=WaitsFor.TIME, due_at=at, sweep_at=at)
            self.bench.messages.records["B", record.request_id] = record
            self._due_at[record.request_id] = at

    def _take(self, queue_messages: Iterable[tuple[QueueMessage, timedelta]]) -> Sequence[QueueMessage]:
        self.bench.clock.advance(QUEUE_CALL)
        now = self.bench.clock.now()
        for queue_message, _ in queue_messages:
            tenant_id, request_id = str(queue_message.tenant_id), json.loads(queue_message.body)["requestId"]
            self._on_queue.append((tenant_id, request_id))
            if tenant_id == "A":
                self.tally.pointers += 1
                self.tally.a_back = now - NOON
            elif tenant_id == "C":
                self.tally.c_back = now - NOON
            else:
                self.tally.b_late = max(self.tally.b_late, now - self._due_at[request_id])
        return []

    def _book(self) -> None:
        """Reserve a slot for every requeued message, as the send path does, and remove its record."""
        for some in batched((request_id for tenant_id, request_id in self._on_queue if tenant_id == "A"), BATCH, strict=False):
            weights, carried = [1] * len(some), [None] * len(some)
            self._pacing.reserve(f"{ACCOUNTS['A']}/eu-west-1", self._source, weights, carried, self.bench.clock.now())
        for key in self._on_queue:
            del self.bench.messages.records[key]
        self._on_queue.clear()


def _backlog(tenant_id: str, count: int) -> Iterator[Delivery]:
    end = NOON + timedelta(days=7)
    for number in range(count):
        yield _parked(tenant_id, f"{number:06}", waits_for=WaitsFor.PROVIDER, due_at=end, sweep_at=end, expires_at=end)


_ANY = a_record(Status.DEFERRED)


def _parked(tenant_id: str, request_id: str, **fields: object) -> Delivery:
    where = {"tenant_id": tenant_id, "request_id": request_id, "parked": f"parked/{tenant_id}/{request_id}/1.json", "generation": 1}
    return replace(_ANY, **where, **fields)  # type: ignore[arg-type]  # fields of a Delivery
