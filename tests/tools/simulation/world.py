"""Queue, table, bucket and provider rows in simulated time: each call takes time, lets other tasks run, and may fail."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from mailer.adapters.dynamodb.providers_table import RELEASE_MARKED
from mailer.domain import delivery
from mailer.domain.delivery import BEGIN, CONFIRM, NOTE_FEEDBACK, TIME_OUT, Change, Delivery, Status
from mailer.domain.errors import DependencyError, ErrorInfo, UnreadableError
from mailer.domain.message import S3Object
from mailer.domain.pacing import AccountRate, Booking
from mailer.domain.provider import Provider, ProviderStatus
from mailer.domain.retries import MAX_DELAY
from mailer.ports import QueueMessage, RefusedError, Stage, Trial
from mailer.services.sending.suspects import SUSPECT_FROM
from support.fakes.pacing import FakePacingTable
from support.fakes.ports import NOON, FakeAttachments, FakeMessagesTable, FakeParkedBodies, FakeProvidersTable, FakeTrials
from tools.simulation.faults import Fault, Faults
from tools.simulation.tasks import NEVER, Killed, Task, Timeline

VISIBILITY = timedelta(seconds=360)
MAX_RECEIVES = 10

RESULTS = frozenset({"accept", "defer_attempt", "fail_rejected", "mark_unknown"})
"""Rules that store the result of an attempt."""


class World:
    """State shared by all simulated services: time, randomness, faults, and data for the checks."""

    def __init__(self, rng: Random, faults: Faults, *, traced: bool = False) -> None:
        self.rng = rng
        self.faults = faults
        self.time = Timeline(NOON)
        self.trace: list[str] | None = [] if traced else None
        self.violations: list[str] = []
        self.crashes = 0
        self.poison: set[str] = set()
        """Poison requests, until the scenario fixes their cause."""
        self.crashed_by: Counter[str] = Counter()
        self.excused: set[str] = set()
        """Requests with a fault of their call or of the write of its result: these may be `unknown`."""
        self.transient: set[str] = set()
        """Requests that may be `unknown` for a while because of a slow process, clock skew or a lost fence."""
        self.is_skewed = False
        """Whether clocks are skewed, so that `sending` may count as overdue too early."""
        self.leftovers_excused = False
        """Whether a call of the bucket had a fault: a body may then be left to the lifecycle rule."""
        self.confirmed: Counter[Status] = Counter()
        """Count of records that an event proved sent, by their earlier status."""
        self.feedback_chances: tuple[Random, Faults] | None = None
        """Random generator and faults of feedback, if there is feedback."""

    def log(self, line: str) -> None:
        if self.trace is not None:
            who = self.time.current.name if self.time.current else "-"
            self.trace.append(f"{self.time.now:%d %H:%M:%S.%f} {who:<12} {line}")

    def call[T](self, service: str, what: str, effect: Callable[[], T], *, fence: str | None = None) -> T:
        """Make one call: it takes time, then succeeds or fails by the scenario's faults."""
        rng, faults = self._chances()
        fault = faults.next(service, self.time.now - NOON)
        if fault is not Fault.NONE:
            self.log(f"{service} {what}: {fault.name}")
            # A redelivered message or event cleans up after its first worker; operators and the sweeper are not retried.
            self.leftovers_excused |= service == "S3" or not self.task.name.startswith(("send", "feedback"))
            # A record does not have the key of a body that was parked just before its write failed.
            self.leftovers_excused |= what in ("defer_attempt", "annotate")
        self.pass_time(fault, timedelta(milliseconds=rng.randrange(1, 400)), f"{service} {what}", effect, fence)
        if fault is Fault.KILLED_BEFORE:
            raise self.killed(what)
        if fault is Fault.REFUSED:
            self.excuse()
            raise DependencyError(service, what)
        try:
            return effect()
        finally:
            if fault is Fault.KILLED_AFTER:
                raise self.killed(what)
            if fault is Fault.LOST:
                # A worker without a response to its fence has not called SES, and can prove it.
                self.excuse(but=fence)
                raise DependencyError(service, what)

    def pass_time(
        self, fault: Fault, took: timedelta, what: str, effect: Callable[[], object] = lambda: None, fence: str | None = None
    ) -> None:
        """Advance the time; a process past its timeout is killed, and its request may still take effect."""
        task, rng = self.task, self._chances()[0]
        if fault is Fault.SLOW:
            took = timedelta(seconds=rng.choice((12, 25, 50, 90)))
            self.transient |= task.window | ({fence} if fence else set())
        self.time.wait(self.time.now + took)
        if self.time.now >= task.dies_at:
            if rng.random() < 0.5:
                with suppress(RefusedError):
                    effect()
            raise self.killed(f"{what}: out of time")

    @property
    def _is_feedback(self) -> bool:
        return self.task.name.startswith("feedback")

    def _chances(self) -> tuple[Random, Faults]:
        """Return random generator and faults of the running process."""
        return self.feedback_chances if self.feedback_chances and self._is_feedback else (self.rng, self.faults)

    def excuse(self, *, but: str | None = None) -> None:
        """Record a fault of the running process: its requests in the window may become unknown."""
        self.excused |= self.task.window - {but}
        self.transient |= self.task.window

    def killed(self, what: str) -> Killed:
        """Return the exception that kills the running process."""
        self.excuse()
        self.leftovers_excused |= not self._is_feedback  # its event is redelivered
        self.crashes += not self._is_feedback
        self.log(f"killed at {what}")
        return Killed()

    def crash_on(self, request_id: str, step: str) -> None:
        """Kill the running process if the request is poison."""
        if request_id in self.poison and self.time.current is not None:
            self.crashed_by[request_id] += 1
            raise self.killed(f"{step} of {request_id}")

    @property
    def task(self) -> Task:
        """The running process."""
        assert self.time.current is not None
        return self.time.current


class SimClock:
    """The clock of the running process, with its skew."""

    def __init__(self, world: World) -> None:
        self._time = world.time

    def now(self) -> datetime:
        task = self._time.current
        return self._time.now + task.skew if task else self._time.now

    def wait_until(self, moment: datetime) -> None:
        task = self._time.current
        self._time.wait(moment - task.skew if task else moment)


class SimTable(FakeMessagesTable):
    """The status table; every write is checked immediately."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.accepted: Mapping[str, Sequence[Any]] = {}

    def get(self, tenant_id: str, request_id: str) -> Delivery | None:
        return self._world.call("DynamoDB", "get", lambda: self.records.get((tenant_id, request_id)))

    def apply(self, change: Change) -> Delivery:
        fence = change.request_id if change.rule is BEGIN else None
        return self._world.call("DynamoDB", change.rule.name, lambda: self._apply(change), fence=fence)

    def _apply(self, change: Change) -> Delivery:
        key = change.tenant_id, change.request_id
        before = self.records.get(key)
        written = _decide(change, before)
        self._note_window(change)
        if written is not before:
            self.records[key] = written
            self._judge(before, written, change)
            self._world.log(f"{change.rule.name} {key[1]} → {written.status} generation {written.generation} attempt {written.attempt}")
            if written.sweep_at is not None:
                self._world.time.horizon = min(self._world.time.horizon, max(written.sweep_at, self._world.time.now))
        return written

    def _note_window(self, change: Change) -> None:
        task = self._world.task
        if change.rule is BEGIN:
            task.window.add(change.request_id)
        elif change.rule.name in RESULTS:
            task.window.discard(change.request_id)

    def _judge(self, before: Delivery | None, after: Delivery, change: Change) -> None:
        world, request_id = self._world, after.request_id
        if change.rule is CONFIRM and before is not None:
            world.confirmed[before.status] += 1
        if before is not None and before.status in (Status.SENT, Status.FAILED, Status.CANCELLED) and change.rule is not NOTE_FEEDBACK:
            world.violations.append(f"{request_id}: {change.rule.name} moved it from its end {before.status} to {after.status}")
        if after.status is Status.UNKNOWN and (before is None or before.status is not Status.UNKNOWN):
            by_the_clock = world.is_skewed and (change.rule is TIME_OUT or after.maybe_sent)
            if request_id not in world.excused | world.transient and not by_the_clock:
                world.violations.append(f"{request_id}: {change.rule.name} made it unknown without a fault of its call")
        if after.status in (Status.FAILED, Status.CANCELLED) and self.accepted.get(request_id):
            world.violations.append(f"{request_id}: {after.status} though SES accepted it")

    def due(self, shard: int, now: datetime, limit: int) -> Sequence[Delivery]:
        return self._world.call("DynamoDB", "due", lambda: super(SimTable, self).due(shard, now, limit))

    def waiting_for_provider(self, tenant_id: str) -> Iterator[Delivery]:
        yield from self._world.call("DynamoDB", "query", lambda: list(super(SimTable, self).waiting_for_provider(tenant_id)))

    def next_look(self) -> datetime:
        """Return the time of the sweeper's next due record."""
        return min((d.sweep_at for d in self.records.values() if d.sweep_at is not None), default=NEVER)


def _decide(change: Change, before: Delivery | None) -> Delivery:
    if delivery.allows(change, before):
        return delivery.apply(change, before)
    if before is not None and delivery.already_done(change, before):
        return before
    raise RefusedError(before)


@dataclass(eq=False)
class Message:
    """A message on the simulated queue."""

    number: int
    queue_message: QueueMessage
    visible_at: datetime
    is_raw: bool = False
    """Whether a producer sent it, without our message attributes: its time is then SQS's SentTimestamp."""
    receives: int = 0


@dataclass
class DeadLetter:
    """A message on the simulated dead-letter queue."""

    queue_message: QueueMessage
    reason: str | None
    is_raw: bool = False


class SimQueue:
    """At-least-once, unordered, with delays, visibility, receive counts and a dead-letter queue."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.messages: list[Message] = []
        self.dead_letters: list[DeadLetter] = []
        self._count = 0
        self.fresh: Counter[str] = Counter()
        """Messages by request that are first processed with others."""
        self.names: dict[str, str] = {}
        """Request ids by message number."""
        self.slots = 0
        """Count of messages with a slot."""
        self.bodies: dict[str, list[str]] = {}
        """Bodies by request; all of these were enqueued."""
        self.redelivers = world.rng.random() < 0.3
        """Whether SQS occasionally delivers a message twice and loses deletions."""

    def send(self, queue_messages: Iterable[tuple[QueueMessage, timedelta]]) -> Sequence[QueueMessage]:
        queue_messages = list(queue_messages)
        try:
            return self._world.call("SQS", "send", lambda: self._take(queue_messages))
        except DependencyError:
            return [queue_message for queue_message, _ in queue_messages]

    def _take(self, queue_messages: Sequence[tuple[QueueMessage, timedelta]]) -> Sequence[QueueMessage]:
        world = self._world
        missed = []
        for queue_message, delay in queue_messages:
            if len(queue_messages) > 1 and world.faults.left and world.faults.rate and world.rng.random() < world.faults.rate / 4:
                missed.append(queue_message)
                continue
            assert delay <= MAX_DELAY, delay
            self.put(queue_message, max(delay, timedelta()))
            if queue_message.proof:
                world.task.window -= {request_id for request_id in world.task.window if f'"{request_id}"' in queue_message.body}
        return missed

    def put(self, queue_message: QueueMessage, delay: timedelta, *, is_raw: bool = False) -> None:
        """Put a message on the queue, from outside."""
        self._count += 1
        time = self._world.time
        message = Message(self._count, queue_message, time.now + delay, is_raw)
        self.messages.append(message)
        self.names[str(message.number)] = _named(queue_message)
        self.fresh[_named(queue_message)] += queue_message.redeliveries + 1 < SUSPECT_FROM
        self.slots += queue_message.slot is not None
        time.horizon = min(time.horizon, message.visible_at)
        if '"message":' in queue_message.body:
            self.bodies.setdefault(_named(queue_message), []).append(str(queue_message.body))
        self._world.log(
            f"queue takes #{message.number} generation {queue_message.generation} for {delay}{' with proof' if queue_message.proof else ''}"
        )

    def dead_letter(self, queue_message: QueueMessage, *, reason: str, detail: str) -> None:  # noqa: ARG002 - as the port has it
        def take() -> None:
            self.dead_letters.append(DeadLetter(queue_message, reason))
            self._world.log(f"dead letter: {reason}")

        self._world.call("SQS", "dead letter", take)

    def receive(self, at_most: int) -> list[Message]:
        """Receive visible messages, as from SQS: one received too often is moved to the dead-letter queue instead."""
        rng, now = self._world.rng, self._world.time.now
        visible = [message for message in self.messages if message.visible_at <= now]
        rng.shuffle(visible)
        taken = []
        for message in visible[:at_most]:
            if message.receives >= MAX_RECEIVES:
                self.messages.remove(message)
                self.dead_letters.append(DeadLetter(message.queue_message, None, message.is_raw))
                self._world.log(f"SQS moves #{message.number} to the dead letters")
                continue
            message.receives += 1
            if not (self.redelivers and rng.random() < 0.2):
                message.visible_at = now + VISIBILITY
            taken.append(message)
        return taken

    def delete(self, messages: Iterable[Message]) -> None:
        """Delete messages; occasionally SQS delivers one again."""
        for message in messages:
            if message in self.messages and not (self.redelivers and self._world.rng.random() < 0.1):
                self.messages.remove(message)

    def next_visible(self) -> datetime:
        return min((message.visible_at for message in self.messages), default=NEVER)


def _named(queue_message: QueueMessage) -> str:
    """Return the requestId of a body, or the body if it has none."""
    try:
        request_id: str = json.loads(str(queue_message.body))["requestId"]
    except ValueError:
        return queue_message.body
    return request_id


class PoisonBody(str):
    """A body that crashes the worker when it is parsed."""

    __slots__ = ("request_id", "world")
    world: World
    request_id: str

    @classmethod
    def of(cls, body: str, request_id: str, world: World) -> "PoisonBody":
        made = cls(body)
        made.world, made.request_id = world, request_id
        return made

    def startswith(self, *prefix: Any) -> bool:
        """Called by `json.loads`."""
        self.world.crash_on(self.request_id, "read")
        return super().startswith(*prefix)


class SimAttachments(FakeAttachments):
    """Uploads under any key; that of a poison one ends with its request's id."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def fetch(self, tenant_id: str, ref: S3Object, *, at_most: int | None = None) -> bytes:  # noqa: ARG002 - as the port has it
        self._world.crash_on(ref.key.rpartition("/")[2], "render")
        return b"uploaded"


class SimTrials(FakeTrials):
    """Trials of suspects, with the requests of the messages."""

    def __init__(self, world: World, queue: SimQueue) -> None:
        super().__init__()
        self._world = world
        self._queue = queue

    def find(self, sqs_message_id: str) -> Trial | None:
        return self._world.call("DynamoDB", "find trial", lambda: super(SimTrials, self).find(sqs_message_id))

    def begin(self, sqs_message_id: str, by: str, now: datetime) -> Trial | None:
        def begin() -> Trial | None:
            trial = super(SimTrials, self).begin(sqs_message_id, by, now)
            self._world.task.alone = self._queue.names[sqs_message_id] if trial is None else None
            self._world.log(f"tries #{sqs_message_id} alone: {trial.stage if trial else 'first'}")
            return trial

        try:
            return self._world.call("DynamoDB", "begin trial", begin)
        except DependencyError:
            self._world.task.alone = None
            raise

    def reach(self, sqs_message_id: str, trial: Trial) -> None:
        write = lambda: super(SimTrials, self).reach(sqs_message_id, trial)  # noqa: E731 - the zero-argument form needs a method
        if trial.stage is Stage.DONE:
            self._over("done", write)
        else:
            self._world.call("DynamoDB", trial.stage, write)

    def clear(self, sqs_message_id: str) -> None:
        self._over("clear trial", lambda: super(SimTrials, self).clear(sqs_message_id))

    def _over(self, what: str, write: Callable[[], None]) -> None:
        """Record the end of a trial; a crash before that counts as one of the trial."""
        try:
            self._world.call("DynamoDB", what, write)
        except DependencyError:
            self._world.task.alone = None
            raise
        self._world.task.alone = None


class SimPacingTable(FakePacingTable):
    """Rates of the sending accounts."""

    def __init__(self, world: World, account_rates: Mapping[str, AccountRate]) -> None:
        super().__init__()
        self._world = world
        self.account_rates = dict(account_rates)
        self.promises = 0
        """Messages that found no slot."""

    def get(self, account: str) -> AccountRate | None:
        return self._world.call("DynamoDB", "read line", lambda: super(SimPacingTable, self).get(account))

    def start(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        return self._world.call("DynamoDB", "start line", lambda: super(SimPacingTable, self).start(account, account_rate, now))

    def book(self, account: str, booking: Booking, now: datetime) -> AccountRate:
        def book() -> AccountRate:
            self._world.log(f"{booking.end} {booking.count} on {account}")
            self.promises += booking.count if booking.end == "promised" else 0
            return super(SimPacingTable, self).book(account, booking, now)

        return self._world.call("DynamoDB", "book", book)

    def repace(self, account: str, account_rate: AccountRate, now: datetime) -> AccountRate:
        return self._world.call("DynamoDB", "repace", lambda: super(SimPacingTable, self).repace(account, account_rate, now))


class SimParkedBodies(FakeParkedBodies):
    """The bucket of parked bodies."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def park(self, tenant_id: str, request_id: str, body: str) -> str:
        return self._world.call("S3", "park", lambda: super(SimParkedBodies, self).park(tenant_id, request_id, body))

    def fetch(self, key: str) -> str:
        return self._world.call("S3", "fetch", lambda: super(SimParkedBodies, self).fetch(key))

    def discard(self, key: str) -> None:
        self._world.call("S3", "discard", lambda: super(SimParkedBodies, self).discard(key))


class SimProviders(FakeProvidersTable):
    """Provider rows, and the tenants whose parked mail is to be released."""

    def __init__(self, world: World, *rows: Provider) -> None:
        super().__init__(*rows)
        self._world = world
        self.marks: dict[str, datetime] = {}

    def get_many(self, tenant_ids: Collection[str]) -> Mapping[str, Provider | UnreadableError]:
        return self._world.call("providers", "get", lambda: super(SimProviders, self).get_many(tenant_ids))

    def record_fault(self, tenant_id: str, version: int, request_id: str, error: ErrorInfo, verified_at: datetime | None) -> bool:
        return self._world.call(
            "providers", "record fault", lambda: super(SimProviders, self).record_fault(tenant_id, version, request_id, error, verified_at)
        )

    def clear_faults(self, tenant_id: str, version: int) -> None:
        self._world.call("providers", "clear faults", lambda: super(SimProviders, self).clear_faults(tenant_id, version))

    def change(self, tenant_id: str, status: ProviderStatus) -> None:
        """Change the status of a row, and mark its tenant for release, as the provider API does."""
        now, row = self._world.time.now, self.rows[tenant_id]
        if status is ProviderStatus.DELETED:
            row = replace(row, active=None, deleted_at=now)
        self.rows[tenant_id] = replace(row, status=status, faulty_requests=frozenset())
        if status in (ProviderStatus.ACTIVE, ProviderStatus.DELETED):
            self.marks[tenant_id] = now
        self._world.log(f"provider of {tenant_id} is {status}")

    def releasing(self) -> Sequence[str]:
        return self._world.call("providers", "releasing", lambda: list(self.marks))

    def released(self, tenant_id: str, now: datetime) -> bool:
        def take_off() -> bool:
            is_old = self.marks.get(tenant_id, now) + RELEASE_MARKED < now
            if is_old:
                self.marks.pop(tenant_id, None)
            return is_old

        return self._world.call("providers", "released", take_off)
