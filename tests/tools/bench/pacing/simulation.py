"""Simulate pacing: one tenant's flood and many quiet tenants, with the real pacing code and models of its environment.

Real: `mailer.domain.pacing`, `mailer.services.pacing.pacing`, `mailer.services.sending.slots`, and the rate limiter of the SES
proxy. Modelled, as discrete events in a seeded order: a fair SQS queue, the event source with its pollers and batches, the functions
with their workers, and the duration of each call.
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import ceil
from random import Random
from typing import Any

from mailer.domain.pacing import FORGIVEN, THROTTLE_SETTLES, RetryAt, Slot, account_key, moment
from mailer.ports import QueueMessage
from mailer.services.pacing.pacing import Pacing
from mailer.services.sending.intake import read
from mailer.services.sending.jobs import Job, Received
from mailer.services.sending.slots import PreparedSend, reserve_slots
from support.fakes.pacing import FakePacingTable
from support.fakes.ports import a_config
from support.fakes.sending import Bench, a_body
from tools.local_aws.ses import Allowance, RefusedError

START = 1_800_000_000.0
"""Start of the simulation, in seconds since 1970."""

TABLE_CALL = 0.005
"""Seconds of a DynamoDB call; measured: 1.5 to 5 ms warm."""
SES_CALL = 0.06
"""Median seconds of an SES call."""
QUEUE_CALL = 0.015
"""Seconds of a SendMessageBatch of 10."""
OPENING = 0.02
"""Seconds from the start of an invocation until its provider rows are read and its messages are composed."""

NOISY_SHARE = 0.1
NOISY_LEAST = 30
"""A message group is noisy with more than this share of the messages in flight and at least this many of its own (SQS
developer guide, "How Amazon SQS fair queues work")."""

SWEEP = 60.0
"""Seconds between two runs of the sweeper, which fetches parked messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Parameters of the simulation; rates in recipients per second, times in seconds."""

    seed: int = 7
    flood: int = 5_000
    """Messages that tenant A sends at once; 0: there is no tenant A."""
    flood_at: float = 60.0
    quiet_tenants: int = 99
    quiet_rate: float = 1.0
    quota: float = 14.0
    """Rate that SES allows each account."""
    is_known: bool = True
    """Whether the quota is known; otherwise it is learned."""
    functions: int = 10
    workers: int = 40
    """Messages in progress at once, in all functions together."""
    batch_size: int = 100
    batch_window: float = 1.0
    ends_at: float = 460.0
    """End of the quiet tenants' sending; the simulation runs until all mail is sent."""


@dataclass(slots=True, eq=False)
class Message:
    """One message with one recipient."""

    tenant: str
    born: float
    slot: float | None = None
    sent: float = 0.0


@dataclass(slots=True)
class Tally:
    """Results."""

    messages: list[Message] = field(default_factory=list)
    throttles: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Times at which SES throttled a message, by tenant."""
    generations: Counter[str] = field(default_factory=Counter)
    forfeited: int = 0
    missed: int = 0
    """Slots that passed while all workers of their function were busy."""
    parked: int = 0
    record_writes: int = 0
    hop_writes: int = 0
    """Those that record a generation."""
    pacing_writes: int = 0
    pacing_reads: int = 0
    invocations: int = 0

    def of(self, tenant: str) -> list[Message]:
        """Return a tenant's messages in the order in which SES accepted them."""
        return sorted((m for m in self.messages if m.tenant == tenant), key=lambda m: m.sent)

    def share_of_quota(self, tenant: str, quota: float) -> float:
        """Return the share of its quota that a tenant used, from the arrival of its first message to the sending of its last."""
        messages = self.of(tenant)
        return len(messages) / (messages[-1].sent - min(m.born for m in messages)) / quota

    def waits(self, tenants: Iterable[str], since: float = 0.0) -> list[float]:
        """Return how long the tenants' messages that arrived after `since` took from the queue to SES, shortest first."""
        wanted = set(tenants)
        return sorted(m.sent - m.born for m in self.messages if m.tenant in wanted and m.born >= START + since)

    @property
    def writes_a_message(self) -> float:
        """Return DynamoDB writes per sent message, without the one per generation."""
        return (self.record_writes + self.pacing_writes - self.hop_writes) / len(self.messages)

    @property
    def throttled_share(self) -> float:
        """Return throttles per sent message."""
        return sum(map(len, self.throttles.values())) / len(self.messages)


FLOODER = "A"


def _account(tenant: str) -> str:
    """Return the key of a tenant's rate; each tenant has its own AWS account."""
    return account_key(tenant, "eu-west-1", None)


def quiet_tenants(scenario: Scenario) -> list[str]:
    """Return the names of the quiet tenants."""
    return [f"quiet-{number:02}" for number in range(scenario.quiet_tenants)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class FairQueue:
    """A standard SQS queue with message groups: noisy groups are served after the quiet ones."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[int, Message]]] = {}
        self._order = count()
        self._in_flight: Counter[str] = Counter()

    def put(self, message: Message) -> None:
        self._waiting.setdefault(message.tenant, deque()).append((next(self._order), message))

    def receive(self, most: int) -> list[Message]:
        return list(self._take(most))

    def _take(self, most: int) -> Iterator[Message]:
        for _ in range(most):
            if not self._waiting:
                return
            group = min(self._waiting, key=lambda g: (self._is_noisy(g), self._waiting[g][0][0]))
            yield self._waiting[group].popleft()[1]
            self._in_flight[group] += 1
            if not self._waiting[group]:
                del self._waiting[group]

    def _is_noisy(self, group: str) -> bool:
        own = self._in_flight[group]
        return own >= NOISY_LEAST and own > NOISY_SHARE * self._in_flight.total()

    def delete(self, message: Message) -> None:
        self._in_flight[message.tenant] -= 1


@dataclass(slots=True)
class Function:
    """One execution environment with its poller; `workers` are the times at which its workers become free."""

    pacing: Pacing
    workers: list[float]
    batch: list[Message] = field(default_factory=list)
    is_running: bool = False


class Simulation:
    """Discrete-event simulation, driven by a heap of events."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.tally = Tally()
        self._random = Random(scenario.seed)  # noqa: S311  # seeded, so that runs can be repeated
        self._now = START
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._queue = FairQueue()
        self._table = FakePacingTable()
        self._bench = Bench()
        self._jobs = {tenant: self._job(tenant) for tenant in (FLOODER, *quiet_tenants(scenario))}
        self._config = a_config(max_send_rate=scenario.quota if scenario.is_known else None)
        self._ses = defaultdict[str, Allowance](lambda: Allowance(max_send_rate=scenario.quota))
        workers = scenario.workers // scenario.functions
        self._functions = [Function(Pacing(self._table, functions=scenario.functions), [0.0] * workers) for _ in range(scenario.functions)]

    def _job(self, tenant: str) -> Job:
        """Return the template of a tenant's jobs."""
        queue_message = QueueMessage(body=a_body(tenant_id=tenant), tenant_id=tenant, created_at=moment(START))
        job = read(Received("", queue_message, 1), self._bench.deps)
        assert isinstance(job, Job)
        return job

    def run(self) -> Tally:
        """Run until all mail is sent."""
        self._plan_arrivals()
        while self._events:
            self._now, _, happens, arguments = heapq.heappop(self._events)
            happens(*arguments)
        self.tally.pacing_writes, self.tally.pacing_reads = self._table.writes, self._table.reads
        return self.tally

    def _at(self, time: float, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (max(time, self._now), next(self._order), happens, arguments))

    # -- messages arrive

    def _plan_arrivals(self) -> None:
        # Its own generator, so that the quiet tenants' messages are the same with and without the flood.
        arrivals = Random(self.scenario.seed + 1)  # noqa: S311
        for tenant in quiet_tenants(self.scenario):
            time = arrivals.expovariate(self.scenario.quiet_rate)
            while time < self.scenario.ends_at:
                self._at(START + time, self._arrive, Message(tenant, START + time))
                time += arrivals.expovariate(self.scenario.quiet_rate)
        for _ in range(self.scenario.flood):
            self._at(START + self.scenario.flood_at, self._arrive, Message(FLOODER, START + self.scenario.flood_at))

    def _arrive(self, message: Message) -> None:
        self._queue.put(message)
        gathering = [f for f in self._functions if not f.is_running and len(f.batch) < self.scenario.batch_size]
        if gathering:
            self._gather(self._random.choice(gathering))

    # -- pollers gather batches

    def _gather(self, function: Function) -> None:
        had = len(function.batch)
        function.batch += self._queue.receive(self.scenario.batch_size - had)
        if len(function.batch) == self.scenario.batch_size:
            self._invoke(function, function.batch)
        elif function.batch and not had:
            self._at(self._now + self.scenario.batch_window, self._invoke, function, function.batch)

    def _invoke(self, function: Function, batch: list[Message]) -> None:
        if function.batch is not batch:  # it filled up before its window ended
            return
        function.batch, function.is_running = [], True
        self.tally.invocations += 1
        self._at(self._now + OPENING, self._reserve, function, batch)

    # -- functions send

    def _reserve(self, function: Function, batch: list[Message]) -> None:
        calls = self._table.reads + self._table.writes
        self.tally.forfeited += sum(self._is_forfeited(message) for message in batch)
        self._bench.clock.time = moment(self._now)
        deps = replace(self._bench.deps, pacer=function.pacing)
        sends = reserve_slots([self._prepared(number, message) for number, message in enumerate(batch)], deps, latest=moment(2 * START))
        calls = self._table.reads + self._table.writes - calls
        function.workers = [self._now + calls * TABLE_CALL / len(function.workers)] * len(function.workers)
        for scheduled in sends:
            self._carry_out(function, batch[int(scheduled.prepared.job.received.sqs_message_id)], scheduled.plan)
        self._at(max(function.workers), self._finish, function)

    def _prepared(self, number: int, message: Message) -> PreparedSend:
        """Return a message as the send path has it when its provider is created."""
        queue_message = QueueMessage(body="", tenant_id=message.tenant, created_at=moment(message.born), slot=message.slot)
        job = replace(self._jobs[message.tenant], received=Received(str(number), queue_message, 1))
        return PreparedSend(job=job, row=None, config=self._config, provider=self._bench.provider)

    def _is_forfeited(self, message: Message) -> bool:
        line = self._table.account_rates.get(_account(message.tenant))
        return message.slot is not None and (line is None or line.answer(message.slot, self._now) is None)

    def _carry_out(self, function: Function, message: Message, plan: Slot | RetryAt | Exception) -> None:
        begins = heapq.heappop(function.workers)
        if isinstance(plan, Exception):
            raise plan
        if isinstance(plan, Slot):
            # The send path would replace such a slot by a new one; that is not modelled.
            self.tally.missed += begins - plan.at.timestamp() > FORGIVEN
            called = max(begins, plan.at.timestamp()) + TABLE_CALL
            answered = called + SES_CALL * self._random.lognormvariate(0.0, 0.3)
            ends = answered + TABLE_CALL
            self._at((called + answered) / 2, self._decide, message, function, answered)
        else:
            ends = begins + QUEUE_CALL / 10 + TABLE_CALL
            self._at(ends, self._queue.delete, message)
            self._wait(message, plan, ends)
        heapq.heappush(function.workers, ends)

    def _decide(self, message: Message, function: Function, answered: float) -> None:
        """Accept or throttle a message as SES does, in the order in which the calls reach it."""
        self.tally.record_writes += 2  # the fence and the outcome
        self._queue.delete(message)
        try:
            self._ses[message.tenant].take(1, self._now)
        except RefusedError:
            self.tally.throttles[message.tenant].append(self._now)
            self._at(answered, self._throttled, message, function)
        else:
            message.sent = self._now
            self.tally.messages.append(message)

    def _throttled(self, message: Message, function: Function) -> None:
        function.pacing.throttled(_account(message.tenant), moment(self._now))
        self._copy(message, None, self._now + THROTTLE_SETTLES)
        self.tally.generations[message.tenant] += 1
        # No write for this generation: the write of the outcome includes it.

    def _wait(self, message: Message, plan: RetryAt, now: float) -> None:
        self.tally.generations[message.tenant] += 1
        self.tally.hop_writes += 1
        self.tally.record_writes += 1
        at = plan.at.timestamp()
        if plan.slot is None:
            self.tally.parked += 1
            self._copy(message, None, at + (START - at) % SWEEP)
        else:  # SQS delays by whole seconds
            self._copy(message, plan.slot, now + max(0, ceil(at - now)))

    def _copy(self, message: Message, slot: float | None, at: float) -> None:
        self._at(at, self._arrive, Message(message.tenant, message.born, slot))

    def _finish(self, function: Function) -> None:
        function.is_running = False
        self._gather(function)
