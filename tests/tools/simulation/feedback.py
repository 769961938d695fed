"""SES's events of accepted mail, and FeedbackFunction: events are lost, duplicated, late and reordered, and the tables fail.

It has its own random generator and faults, so that a scenario runs as without feedback until an event changes something.
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
from support.fakes.ports import FakeFeedbackTable, InlineExecutor
from tools.local_aws.ses_events import AcceptedMail, RecipientOutcome, events_of
from tools.simulation.faults import Faults
from tools.simulation.world import SimClock, SimParkedBodies, SimTable, World

TIMEOUT = timedelta(seconds=30)
VISIBILITY = 6 * TIMEOUT
MAX_RECEIVES = 100

OUTCOMES = (RecipientOutcome.DELIVERED,) * 6 + (RecipientOutcome.BOUNCED, RecipientOutcome.COMPLAINED, RecipientOutcome.DELAYED)


class SilentTelemetry:
    """Telemetry that discards everything."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class CheckedTelemetry(SilentTelemetry):
    """Telemetry that records violations: SES's own events must not be rejected, and only outages may raise."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def feedback_refused(self, refusal: Refusal, event: SesEvent | None, fields: Any = ()) -> None:  # noqa: ARG002 - as the port has it
        # A delay without tags finds its mail by an earlier event, which may be lost or late.
        if refusal is not Refusal.NO_RECORD or event is None or event.kind is not EventKind.DELIVERY_DELAY:
            self.found.append(f"an event was refused as {refusal}: {event and event.ref}")

    def failed(self, step: str, tenant_id: str | None, error: Exception) -> None:  # noqa: ARG002 - as the port has it
        if not isinstance(error, DependencyError):
            self.found.append(f"{step} failed: {error!r}")


class SimFeedbackTable(FakeFeedbackTable):
    """The feedback table; every call may fail."""

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
class QueuedEvent:
    """An event on FeedbackQueue."""

    number: int
    body: str
    request_id: str
    is_tagged: bool
    sent_at: datetime
    receives: int = 0


class SimFeedback:
    """The events of a scenario."""

    def __init__(self, world: World, table: SimTable, parked: SimParkedBodies, rng: Random, account: str) -> None:
        self._world, self._account, self._rng = world, account, rng
        world.feedback_chances = (rng, Faults.draw(rng))
        self.table = SimFeedbackTable(world)
        self.telemetry = CheckedTelemetry()
        self.waiting: dict[int, QueuedEvent] = {}
        """Events on the queue or on their way there."""
        self.delivered: set[str] = set()
        """Requests with a processed event that names them."""
        self._lost = rng.choice((0.0, 0.1, 0.1, 0.5))
        """Probability that an event is lost: SES's delivery of events is best effort."""
        self._clock = SimClock(world)
        # The fakes implement the ports; `CheckedTelemetry` has any attribute.
        telemetry: Any = self.telemetry
        self._deps = FeedbackDependencies(messages=table, feedback=self.table, parked=parked, telemetry=telemetry, clock=self._clock)
        self._count = 0

    def events(self, request_id: str, message_id: str, mail: Mail, tags: Mapping[str, str]) -> list[QueuedEvent]:
        """Return the events of a mail accepted now, each with its time of arrival."""
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
                    found.append(
                        QueuedEvent(self._count, json.dumps(event.envelope), request_id, event.kind != "DeliveryDelay", now + after)
                    )
        self.waiting |= {one.number: one for one in found}
        return found

    def deliver(self, one: QueuedEvent) -> None:
        """Invoke FeedbackFunction with an event, in its own process; an unacknowledged one stays on the queue."""
        self._world.log(f"processes event {one.number} of {one.request_id}, time {one.receives}")
        received = ReceivedEvent(str(one.number), one.body, one.sent_at)
        if not receive_batch([received], self._deps, InlineExecutor(), ends_at=self._clock.now() + TIMEOUT):
            self.waiting.pop(one.number, None)
            self.delivered |= {one.request_id} if one.is_tagged else set()
