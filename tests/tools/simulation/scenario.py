"""One scenario per seed: requests, duplicates, SES's errors, disabled tenants, operators, crashes, and the results."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from random import Random
from typing import Any

from mailer.domain.delivery import Delivery, Resolution, Status
from mailer.domain.errors import MailerError
from mailer.domain.message import parse_request
from mailer.domain.mime import Mail
from mailer.domain.pacing import AccountRate, RateSource
from mailer.domain.provider import ProviderStatus
from mailer.ports import QueueMessage
from mailer.services.api.messages import MessagesDependencies, accept, cancel
from mailer.services.api.resolve import resolve
from mailer.services.pacing.pacing import Pacing
from mailer.services.sending.byte_budget import ByteBudget
from mailer.services.sending.jobs import Received, SendDependencies
from mailer.services.sending.send import send_batch
from mailer.services.sweeping.dependencies import SweepDependencies
from mailer.services.sweeping.sweep import sweep
from support.fakes.ports import (
    NOON,
    FakeEventSource,
    FakeFeedbackTable,
    FakeProducerRules,
    FakeSweepInvocations,
    InlineExecutor,
    a_config,
    a_provider,
)
from support.fakes.suppressions import FakeSuppressionsTable
from tools.simulation.faults import Faults
from tools.simulation.feedback import MAX_RECEIVES, VISIBILITY, QueuedEvent, SilentTelemetry, SimFeedback
from tools.simulation.feedback import TIMEOUT as FEEDBACK_TIMEOUT
from tools.simulation.ses import MALLORY, SimSes
from tools.simulation.tasks import NEVER, Task
from tools.simulation.world import (
    DeadLetter,
    Message,
    PoisonBody,
    SimAttachments,
    SimClock,
    SimPacingTable,
    SimParkedBodies,
    SimProviders,
    SimQueue,
    SimTable,
    SimTrials,
    World,
)

SEND_TIMEOUT = timedelta(seconds=60)
SWEEP_EVERY = timedelta(minutes=1)
SWEPT_TWICE = 0.1
"""Share of the runs with two sweepers in the same shard: the schedule fires twice, and there is no lease."""
WORKERS = 3
TOO_LONG = timedelta(days=60)
TOO_MANY = 20_000
"""Calls after which a scenario counts as endless."""

ACME = "acme"
ACCOUNT, RATE = "123456789012", 1.0
"""The tenant's AWS account, which other tenants use too, and its rate in recipients per second."""


POISON_STEPS = ("read", "prepare", "render")
"""Steps at which a poison request crashes its worker; each is also the id of such a request."""


class LostLeases:
    """Leases that are always granted: mail must be safe without them."""

    def take(self, shard: int, owner: str, now: datetime, until: datetime) -> bool:  # noqa: ARG002 - as the port has it
        return True

    def release(self, shard: int, owner: str) -> None:
        """Nothing was taken."""


@dataclass(eq=False)
class Scenario:
    """All state of one scenario."""

    seed: int
    traced: bool = False
    has_feedback: bool = False
    """Whether there are SES events."""
    events: list[tuple[datetime, int, Callable[[], None]]] = field(default_factory=list)
    """External events by time."""
    resent_by_operator: set[str] = field(default_factory=set)
    """Requests that an operator resent."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)  # noqa: S311 - seeded, so that scenarios can be replayed
        self.world = world = World(self.rng, Faults.draw(self.rng), traced=self.traced)
        self.table = SimTable(world)
        self.queue = SimQueue(world)
        self.bucket = SimParkedBodies(world)
        config = a_config(max_send_rate=RATE, account=ACCOUNT)
        self.providers = SimProviders(world, *(a_provider(tenant_id, active=config) for tenant_id in (ACME, MALLORY)))
        self.ses = SimSes(world)
        self.table.accepted = self.ses.ledger
        self.feedback: SimFeedback | None = None
        if self.has_feedback:
            chances = Random(f"feedback of {self.seed}")  # noqa: S311 - as above
            self.feedback = SimFeedback(world, self.table, self.bucket, chances, ACCOUNT)
            self.ses.accepted = self._schedule_events
        self.has_loose_clocks = self.rng.random() < 0.2
        """Clocks are minutes off and no process has a timeout: correctness must not depend on time."""
        owners = count(1)
        shared: dict[str, Any] = {
            "messages": self.table,
            "queue": self.queue,
            "parked": self.bucket,
            "telemetry": SilentTelemetry(),
            "clock": SimClock(world),
            "workers": InlineExecutor(),
        }
        send: dict[str, Any] = {"budget": ByteBudget(10**9), "new_owner": lambda: f"o{next(owners)}"}
        front: dict[str, Any] = {
            "providers": self.providers,
            "suppressions": FakeSuppressionsTable(),
            "attachments": SimAttachments(world),
            "send_timeout": SEND_TIMEOUT,
        }
        self.account_rates = account_rates = SimPacingTable(world, {f"{ACCOUNT}/eu-west-1": self._account_rate()})
        self.pacers = [Pacing(account_rates, functions=WORKERS) for _ in range(WORKERS)]
        send["trials"] = SimTrials(world, self.queue)
        self.send_deps = SendDependencies(
            producers=FakeProducerRules(), pacer=self.pacers[0], provider_factory=self.ses, **send, **shared, **front
        )
        self.messages_deps = MessagesDependencies(feedback=FakeFeedbackTable(), uploads=front["attachments"], **shared, **front)
        self.sweep_deps = SweepDependencies(
            releases=self.providers,
            providers=self.providers,
            account_rates=account_rates,
            event_source=FakeEventSource(),
            invocations=FakeSweepInvocations(),
            leases=LostLeases(),
            new_owner=lambda: "sweeper",
            shards=1,
            concurrency=1,
            **shared,
        )
        self.troubled = False
        """Whether the provider is disabled for a while."""
        self._names = count(1)
        self._swept_at = NOON
        self._read_letters = 0
        self._read_unknowns: set[tuple[str, int]] = set()
        self._plan()

    def _account_rate(self) -> AccountRate:
        """Return a rate with bookings of other tenants: none, some seconds' worth, or more than there are slots."""
        account_rate = AccountRate.initial(RateSource(configured=RATE), NOON.timestamp())
        return replace(account_rate, revision=1, booked=self.rng.choice((0.0, 0.0, 2.0, 50.0, 850.0, 2000.0)))

    # -- planning -----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        rng = self.rng
        for number in range(1, rng.choice((2, 2, 3, 4))):
            body = self._body(f"r{number}")
            moment = timedelta(seconds=rng.choice((0, 0, rng.randrange(600))))
            ways = [self._produce, self._produce, self._call_api]
            self._at(moment, rng.choice(ways), body)
            if rng.random() < 0.3:
                self._at(timedelta(seconds=rng.randrange(3600)), rng.choice(ways), body)
            if rng.random() < 0.25:
                self._at(timedelta(seconds=rng.randrange(1800)), self._cancel, body["requestId"])
            if rng.random() < 0.12:
                other = {**body, "onUnknown": "resend" if body["onUnknown"] == "hold" else "hold"}
                self._at(moment + timedelta(seconds=rng.randrange(1, 1800)), self._produce, other)
        if rng.random() < 0.1:
            self._at(timedelta(seconds=rng.randrange(600)), self._put_raw, '{"tenantId": "acme", "requestId": "malformed"}')
            self._at(timedelta(seconds=rng.randrange(600)), self._put_raw, "malformed")
        if rng.random() < 0.3:
            self._plan_outage()
        if rng.random() < 0.15:
            self._at(timedelta(seconds=rng.randrange(600)), self._produce_poison, rng.choice(POISON_STEPS))

    def _body(self, request_id: str) -> dict[str, Any]:
        rng = self.rng
        message = {"to": [{"email": f"{request_id}@example.com"}], "subject": "Hi", "text": "Hello."}
        body: dict[str, Any] = {"tenantId": ACME, "requestId": request_id, "onUnknown": rng.choice(("hold", "resend")), "message": message}
        if rng.random() < 0.2:
            body["sendAt"] = _wire(NOON + timedelta(seconds=rng.choice((300, 4000, 86_400))))
        if rng.random() < 0.15:
            body["expiresAt"] = _wire(NOON + timedelta(days=1, seconds=rng.choice((60, 1000, 20_000))))
        return body

    def _plan_outage(self) -> None:
        rng = self.rng
        self.troubled = True
        begin, end = timedelta(seconds=rng.randrange(1200)), timedelta(seconds=rng.randrange(1200, 40_000))
        off = rng.choice((ProviderStatus.DISABLED, ProviderStatus.SUSPENDED))
        self._at(begin, self.providers.change, ACME, off)
        if rng.random() < 0.2:
            self._at(end, self.providers.change, ACME, ProviderStatus.DELETED)
        elif rng.random() < 0.9:
            self._at(end, self.providers.change, ACME, ProviderStatus.ACTIVE)

    def _at(self, age: timedelta, happen: Callable[..., None], *what: object) -> None:
        self.events.append((NOON + age, len(self.events), partial(happen, *what)))
        self.events.sort(key=lambda event: event[:2])

    def _later(self, least: int, most: int, happen: Callable[..., None], what: object) -> None:
        self._at(self.world.time.now - NOON + timedelta(seconds=self.rng.randrange(least, most)), happen, what)

    def _produce(self, body: Mapping[str, Any]) -> None:
        self._put_raw(json.dumps(body))

    def _produce_poison(self, step: str) -> None:
        """Enqueue a request that crashes every worker at a step."""
        body = self._body(step)
        self.world.poison.add(step)
        if step == "prepare":
            body["tenantId"] = MALLORY
        if step == "render":
            body["message"]["attachments"] = [{"filename": "a.txt", "s3": {"key": f"{ACME}/{step}"}}]
        text = json.dumps(body)
        self._put_raw(PoisonBody.of(text, step, self.world) if step == "read" else text)

    def _put_raw(self, body: str) -> None:
        self.queue.put(QueueMessage(body=body, tenant_id=ACME, created_at=self.world.time.now), timedelta(), is_raw=True)

    def _call_api(self, body: Mapping[str, Any]) -> None:
        self._start("api", partial(_ignore_errors, lambda: accept(parse_request(json.dumps(body)), self.messages_deps)))

    def _cancel(self, request_id: str) -> None:
        self._start("cancel", partial(_ignore_errors, lambda: cancel(ACME, request_id, self.messages_deps)))

    # -- running ------------------------------------------------------------------------------------------------

    def run(self) -> "Scenario":
        """Run until no event is left."""
        time = self.world.time
        while self.world.faults.calls < TOO_MANY and time.now < NOON + TOO_LONG:
            moments: list[tuple[datetime, Callable[[], None]]] = [(task.wake_at, partial(self._resume, task)) for task in time.tasks]
            moments += [(self.events[0][0], self._run_event)] if self.events else []
            moments += [(self._next_batch(), self._receive), (self._next_sweep(), self._sweep)]
            moment, act = min(moments, key=lambda pair: pair[0])
            if moment == NEVER:
                break
            time.now = max(time.now, moment)
            act()
            self._act_as_operator()
        else:
            self.world.violations.append("it does not end")
        return self

    def _resume(self, task: Task) -> None:
        time = self.world.time
        others = [other.wake_at for other in time.tasks if other is not task]
        events = [self.events[0][0]] if self.events else []
        time.resume(task, min(*others, *events, self._next_batch(), self._next_sweep(), NEVER))
        if task.bug is not None:
            raise task.bug

    def _run_event(self) -> None:
        self.events.pop(0)[2]()

    def _schedule_events(self, request_id: str, message_id: str, mail: Mail, tags: Mapping[str, str]) -> None:
        """Schedule SES's events of a mail."""
        assert self.feedback is not None
        for one in self.feedback.events(request_id, message_id, mail, tags):
            self._at(one.sent_at - NOON, self._receive_event, one)
            self.world.time.horizon = min(self.world.time.horizon, one.sent_at)

    def _receive_event(self, one: QueuedEvent) -> None:
        """Deliver an event to FeedbackFunction, and again after the visibility timeout unless it is acknowledged."""
        time, feedback = self.world.time, self.feedback
        if feedback is None or one.number not in feedback.waiting or one.receives == MAX_RECEIVES:
            return
        one.receives += 1
        self._at(time.now + VISIBILITY - NOON, self._receive_event, one)
        time.start(Task(f"feedback-{one.number}", time.now, time.now + FEEDBACK_TIMEOUT), partial(feedback.deliver, one))

    def _start(self, name: str, work: Callable[[], None]) -> None:
        time = self.world.time
        minutes = 400 if self.has_loose_clocks else 20
        skew = timedelta(seconds=self.rng.randrange(-minutes, minutes)) if self.rng.random() < 0.3 else timedelta()
        dies_at = NEVER if self.has_loose_clocks else time.now + SEND_TIMEOUT
        self.world.is_skewed |= bool(skew)
        time.start(Task(f"{name}-{next(self._names)}", time.now, dies_at, skew), work)

    def _running(self, name: str) -> int:
        return sum(task.name.startswith(name) for task in self.world.time.tasks)

    def _next_batch(self) -> datetime:
        return self.queue.next_visible() if self._running("send") < WORKERS else NEVER

    def _receive(self) -> None:
        taken = self.queue.receive(self.rng.choice((1, 1, 3)))
        if taken:
            self._start("send", partial(self._send, taken))

    def _send(self, taken: Sequence[Message]) -> None:
        now = self.send_deps.clock.now()
        batch = [Received(str(message.number), message.queue_message, message.receives) for message in taken]
        self.world.log(f"receives {[(message.number, message.receives) for message in taken]}")
        self.world.task.window |= {request_id for message in taken if (request_id := self._proven(message.queue_message))}
        deps = replace(self.send_deps, pacer=self.rng.choice(self.pacers))
        returned = send_batch(batch, deps, ends_at=now + SEND_TIMEOUT)
        self.queue.delete(message for message in taken if str(message.number) not in returned)

    def _proven(self, queue_message: QueueMessage) -> str | None:
        """Return the request whose unwritten result a message carries as a proof."""
        for (_, request_id), record in self.table.records.items():
            if queue_message.proof and f'"{record.owner}"' in queue_message.proof and record.status in (Status.SENDING, Status.UNKNOWN):
                return request_id
        return None

    def _next_sweep(self) -> datetime:
        if self._running("sweep"):
            return NEVER
        look = min(self.table.next_look(), *self.providers.marks.values(), NEVER)
        return max(look, self._swept_at + SWEEP_EVERY) if look != NEVER else NEVER

    def _sweep(self) -> None:
        self._swept_at = self.world.time.now
        ends_at = self.world.time.now + timedelta(seconds=50)
        for _ in range(2 if self.rng.random() < SWEPT_TWICE else 1):
            self._start("sweep", partial(_ignore_errors, lambda: sweep(self.sweep_deps, ends_at=ends_at)))

    # -- operators -------------------------------------------------------------------------------------------------------

    def _act_as_operator(self) -> None:
        """Schedule operators' actions on dead letters and unknowns, some hours later."""
        for dead_letter in self.queue.dead_letters[self._read_letters :]:
            if dead_letter.reason in (None, "processing_crashed"):
                self._later(600, 20_000, self._redrive, dead_letter)
        self._read_letters = len(self.queue.dead_letters)
        for record in self.table.records.values():
            attempt = record.request_id, record.attempt
            if record.status is Status.UNKNOWN and attempt not in self._read_unknowns:
                self._read_unknowns.add(attempt)
                if self.rng.random() < 0.3:
                    self._later(1000, 20_000, self._resolve_unknown, record)

    def _redrive(self, dead_letter: DeadLetter) -> None:
        """Redrive a dead letter as SQS does: with the same body and attributes, but a new SentTimestamp."""
        queue_message = (
            replace(dead_letter.queue_message, created_at=self.world.time.now) if dead_letter.is_raw else dead_letter.queue_message
        )
        self.world.poison.clear()  # the cause of the crashes is fixed
        self.queue.put(queue_message, timedelta(), is_raw=dead_letter.is_raw)

    def _resolve_unknown(self, record: Delivery) -> None:
        """Resolve an unknown correctly: as sent if SES accepted it."""
        accepted = self.ses.ledger[record.request_id]
        resolution = Resolution("sent" if accepted else "resend", "ops", "found in the SES events", self.world.time.now)
        self.world.log(f"operator resolves {record.request_id}: {resolution.outcome}")
        if not accepted:
            self.resent_by_operator.add(record.request_id)
        message_id = accepted[0] if accepted else None
        self._start(
            "operator",
            partial(
                _ignore_errors, lambda: resolve(record.tenant_id, record.request_id, resolution, self.messages_deps, message_id=message_id)
            ),
        )


def _ignore_errors(call: Callable[[], object]) -> None:
    """Make a call and ignore its errors."""
    try:
        call()
    except MailerError:
        return


def _wire(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
