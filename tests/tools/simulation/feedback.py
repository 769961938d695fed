"""SES's events of what it accepted, and FeedbackFunction: events get lost, come twice, late and in any order, and the tables fail.

It has chances and faults of its own, so that the rest of a story goes as it does without feedback, until an event changes something.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from mailer.domain.errors import DependencyError
from mailer.domain.facts import Facts
from mailer.domain.feedback import EventKind, MailRef, Refusal, SesEvent
from mailer.domain.mime import Mail
from mailer.ports import MergedFacts
from mailer.services.feedback.matching import FeedbackDependencies
from mailer.services.feedback.receive import ReceivedEvent, receive_batch
from support.fakes.ports import AtOnce, FakeFeedbackTable
from tools.local_aws.ses_events import AcceptedMail, RecipientOutcome, events_of
from tools.simulation.faults import Faults
from tools.simulation.world import SimClock, SimParkedBodies, SimTable, World

TIMEOUT = timedelta(seconds=30)
VISIBILITY = 6 * TIMEOUT
MAX_RECEIVES = 100

OUTCOMES = (RecipientOutcome.DELIVERED,) * 6 + (RecipientOutcome.BOUNCED, RecipientOutcome.COMPLAINED, RecipientOutcome.DELAYED)


class Quiet:
    """A telemetry that nobody reads."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Complaints(Quiet):
    """A telemetry that keeps what may not happen: SES's own events are not refused, and nothing raises what is no outage."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def feedback_refused(self, refusal: Refusal, event: SesEvent | None, fields: Any = ()) -> None:  # noqa: ARG002 - as the port has it
        # A delay that has no tags finds its mail by an event before it, which may be lost or late.
        if refusal is not Refusal.NO_RECORD or event is None or event.kind is not EventKind.DELIVERY_DELAY:
            self.found.append(f"an event was refused as {refusal}: {event and event.ref}")

    def failed(self, step: str, tenant_id: str | None, error: Exception) -> None:  # noqa: ARG002 - as the port has it
        if not isinstance(error, DependencyError):
            self.found.append(f"{step} failed: {error!r}")


class SimFeedbackTable(FakeFeedbackTable):
    """What SES told; every call may fail."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def merge(self, tenant_id: str, request_id: str, facts: Facts) -> MergedFacts:
        return self._world.call("DynamoDB", "merge facts", lambda: super(SimFeedbackTable, self).merge(tenant_id, request_id, facts))

    def find(self, account: str, region: str, message_id: str) -> MailRef | None:
        return self._world.call("DynamoDB", "find mail", lambda: super(SimFeedbackTable, self).find(account, region, message_id))

    def remember(self, account: str, region: str, message_id: str, mail: MailRef, told_at: datetime) -> None:
        write = lambda: super(SimFeedbackTable, self).remember(account, region, message_id, mail, told_at)  # noqa: E731 - see SimTrials
        self._world.call("DynamoDB", "remember mail", write)


@dataclass(eq=False)
class Waiting:
    """An event on FeedbackQueue."""

    number: int
    body: str
    request_id: str
    is_tagged: bool
    sent_at: datetime
    receives: int = 0


class SimFeedback:
    """The events of a story."""

    def __init__(self, world: World, table: SimTable, parked: SimParkedBodies, rng: Random, account: str) -> None:
        self._world, self._account, self._rng = world, account, rng
        world.feedback_chances = (rng, Faults.draw(rng))
        self.table = SimFeedbackTable(world)
        self.telemetry = Complaints()
        self.waiting: dict[int, Waiting] = {}
        """Events that are on the queue, or on their way there."""
        self.told: set[str] = set()
        """Requests of which an event was taken that names them."""
        self._lost = rng.choice((0.0, 0.1, 0.1, 0.5))
        """How likely an event gets lost on the way: SES's are best effort."""
        self._clock = SimClock(world)
        # The fakes have what the ports ask for, and `Complaints` answers to any name.
        telemetry: Any = self.telemetry
        self._deps = FeedbackDependencies(messages=table, feedback=self.table, parked=parked, telemetry=telemetry, clock=self._clock)
        self._count = 0

    def events(self, request_id: str, message_id: str, mail: Mail, tags: Mapping[str, str]) -> list[Waiting]:
        """Return the events of a mail that SES accepts now, each with the moment at which it comes."""
        rng, now = self._rng, self._world.time.now
        accepted = AcceptedMail(
            message_id=message_id,
            account=self._account,
            region="eu-west-1",
            source="hello@acme.example",
            destinations=tuple(mail.recipients),
            configuration_set="mail-acme",
            tags=tags,
            raw=b"From: hello@acme.example\r\nSubject: Hi\r\n\r\n",
            accepted_at=now.timestamp(),
        )
        outcome = rng.choice(OUTCOMES)
        found = []
        for event in events_of(accepted, dict.fromkeys(mail.recipients, outcome)):
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                if rng.random() >= self._lost:
                    after = timedelta(seconds=event.after + rng.choice((1, 1, 2, 5, 5, 20, rng.randrange(600), rng.randrange(20_000))))
                    self._count += 1
                    found.append(Waiting(self._count, json.dumps(event.envelope), request_id, event.kind != "DeliveryDelay", now + after))
        self.waiting |= {one.number: one for one in found}
        return found

    def take(self, one: Waiting) -> None:
        """Let FeedbackFunction take an event, in a process of its own; what it does not acknowledge stays on the queue."""
        self._world.say(f"takes event {one.number} of {one.request_id}, time {one.receives}")
        received = ReceivedEvent(str(one.number), one.body, one.sent_at)
        if not receive_batch([received], self._deps, AtOnce(), ends_at=self._clock.now() + TIMEOUT):
            self.waiting.pop(one.number, None)
            self.told |= {one.request_id} if one.is_tagged else set()
