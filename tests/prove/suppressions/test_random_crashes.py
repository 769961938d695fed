"""Suppressions under random crashes: 1 600 random scenarios of one tenant, from bounces to mail without the bounced addresses.

Mail is sent, SES's events arrive late, duplicated and in any order, workers crash or fail at any write, others act between any two writes,
callers suppress addresses for a time and lift them. Once an event of a hard bounce or complaint is acknowledged, no batch that starts
later mails its address, until somebody lifts it.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer.domain.errors import DependencyError, RequestError
from mailer.domain.feedback import EventKind, SesEvent, parse_event
from mailer.services.feedback.matching import FeedbackDependencies
from mailer.services.feedback.receive import EVENT_SPAN, ReceivedEvent, receive_batch
from mailer.services.suppressions import lists
from mailer.services.suppressions.lists import SuppressionDependencies, SuppressionRequest
from mailer.services.suppressions.reports import ReportDependencies, take_event
from support.fakes.ports import FakeFeedbackTable, InlineExecutor, a_config, a_provider
from support.fakes.providers import FakeAccount, FakeProviderFactory, FakeStore
from support.fakes.sending import Bench, a_queue_message
from support.ses_events import ACCOUNT, REGION, envelopes
from tools.local_aws.ses_events import RecipientOutcome

SCENARIOS, STEPS = 1600, 16
OUTCOMES = {
    "fine@a.example": RecipientOutcome.DELIVERED,
    "gone@b.example": RecipientOutcome.BOUNCED,
    "Gone@C.example": RecipientOutcome.BOUNCED,
    "angry@d.example": RecipientOutcome.COMPLAINED,
    "listed@f.example": RecipientOutcome.SUPPRESSED,
    "full@e.example": RecipientOutcome.MAILBOX_FULL,
}
LEFT_OUT = {"gone@b.example", "gone@c.example", "angry@d.example", "listed@f.example"}
"""Normalized addresses that one event suppresses, for longer than a scenario takes."""


class Crash(BaseException):
    """The crash of a worker, which no code may catch."""


@dataclass
class Scenario:
    """One tenant's mail and events; the seed decides everything."""

    seed: int
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)  # noqa: S311 - a scenario must be reproducible
        self.addresses = self.rng.sample(sorted(OUTCOMES), self.rng.randint(1, 3))
        """Few, so that most steps are about the same addresses."""
        self.bench = bench = Bench()
        bench.providers.rows["acme"] = a_provider(active=a_config(account=ACCOUNT, region=REGION))
        self.queue: list[str] = []
        """Events that are not acknowledged, each as often as SES emitted it."""
        self.acknowledged: dict[str, list[datetime]] = {email: [] for email in LEFT_OUT}
        """Times of the acknowledged bounces and complaints of an address."""
        self.faulty = self.between = False
        facts = FakeFeedbackTable()
        for table in (bench.messages, facts, bench.suppressions):
            table.before = table.after = lambda _: self.at_a_write()
        reports = ReportDependencies(suppressions=bench.suppressions, marks=self)
        self.feedback = FeedbackDependencies(
            messages=bench.messages,
            feedback=facts,
            parked=bench.parked,
            telemetry=bench.telemetry,
            clock=bench.clock,
            reactions=[lambda accepted: take_event(accepted.event, accepted.mail, reports)],
        )
        self.callers = SuppressionDependencies(
            suppressions=bench.suppressions,
            marks=self,
            providers=FakeStore(),
            provider_factory=FakeProviderFactory(FakeAccount(None)),  # type: ignore[arg-type]  # it is not called
            clock=bench.clock,
            workers=InlineExecutor(),
        )

    # -- faults ------------------------------------------------------------------------------------------------------------

    def at_a_write(self) -> None:
        """Before and after each write: the worker may crash, DynamoDB may fail, or another worker may act."""
        if not self.faulty:
            return
        chance = self.rng.random()
        if chance < 0.07:
            self.happened["crashed"] += 1
            raise Crash
        if chance < 0.14:
            self.happened["failed"] += 1
            raise DependencyError("DynamoDB", "PutItem")
        if chance < 0.24 and not self.between:
            self.between = True
            self.happened["acted in between"] += 1
            self.act(self.rng.choice([self.deliver_events, self.put, self.lift, self.send]))
            self.between = False

    def mark_suppressions(self, tenant_id: str) -> bool:
        """Mark the row in the providers that sending reads."""
        self.at_a_write()
        rows = self.bench.providers.rows
        rows[tenant_id] = replace(rows[tenant_id], has_suppressions=True)
        self.at_a_write()
        return True

    def act(self, step: Callable[[], None]) -> None:
        """Run one step of a worker, with faults unless it sends."""
        faulty, between = self.faulty, self.between
        self.faulty = step != self.send and self.rng.random() < 0.8
        try:
            step()
        except (Crash, DependencyError):
            self.happened[f"{step.__name__} failed or crashed"] += 1
        finally:
            self.faulty, self.between = faulty, between

    # -- steps -------------------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Send a mail to some addresses; it must not go to those whose events were acknowledged before the batch."""
        left_out = {email for email in LEFT_OUT if self.must_be_suppressed(email)}
        number = self.happened["requested"]
        self.happened["requested"] += 1
        to = self.rng.sample(self.addresses, self.rng.randint(1, len(self.addresses)))
        message = {"to": [{"email": address} for address in to], "subject": "Hi", "text": "Hello."}
        mails = len(self.bench.provider.mails)
        assert self.bench.receive(a_queue_message(f"r{number}", message=message)) == []
        record = self.bench.record(f"r{number}")
        self.happened["left out"] += record.suppressed
        if record.status is not Status.SENT:
            assert record.error is not None
            assert record.error.code == "recipient_suppressed"
            self.happened["all left out"] += 1
            return
        [mail] = self.bench.provider.mails[mails:]
        mailed = {address.lower() for address in mail.recipients}
        assert not mailed & left_out, f"scenario {self.seed}: {mailed & left_out} mailed again"
        self.publish(record, mail.recipients)

    def publish(self, record: Any, recipients: tuple[str, ...]) -> None:
        outcomes = {address: OUTCOMES[next(one for one in OUTCOMES if one.lower() == address.lower())] for address in recipients}
        events = envelopes(
            outcomes, request_id=record.request_id, message_id=record.message_id, accepted_at=self.bench.clock.now().timestamp()
        )
        for event in events:
            self.queue += [json.dumps(event)] * self.rng.choice([1, 1, 1, 3])

    def deliver_events(self) -> None:
        """Deliver some events to FeedbackFunction; those that it does not acknowledge are delivered again."""
        self.bench.clock.advance(timedelta(seconds=2))
        self.rng.shuffle(self.queue)
        batch, now = self.queue[:4], self.bench.clock.now()
        received = [ReceivedEvent(str(number), body, now) for number, body in enumerate(batch)]
        left = receive_batch(received, self.feedback, InlineExecutor(), ends_at=now + EVENT_SPAN)
        for number, body in enumerate(batch):
            if str(number) not in left and body in self.queue:
                self.queue.remove(body)
                self.acknowledge(body)

    def acknowledge(self, body: str) -> None:
        event = parse_event(body)
        assert isinstance(event, SesEvent)
        if event.kind in (EventKind.BOUNCE, EventKind.COMPLAINT):
            for recipient in event.recipients:
                if recipient.email.lower() in LEFT_OUT:
                    self.acknowledged[recipient.email.lower()].append(event.at)

    def put(self) -> None:
        """Suppress an address manually, often only for a moment: SES's suppression must outlast it."""
        ends = self.bench.clock.now() + timedelta(seconds=5) if self.rng.random() < 0.7 else None
        lists.suppress("acme", SuppressionRequest(self.an_address(), "asked by phone", ends), self.callers)
        self.happened["put"] += 1

    def lift(self) -> None:
        with suppress(RequestError):
            lists.lift_suppression("acme", self.an_address(), self.callers, by=None, why="mailbox is back")
            self.happened["lifted"] += 1

    def an_address(self) -> str:
        return self.rng.choice(self.addresses).lower()

    def must_be_suppressed(self, email: str) -> bool:
        """Whether an acknowledged event of an address is from after its last lifting, even if the call of the lifting failed."""
        entry = self.bench.suppressions.entries.get(("acme", email))
        lifted = entry.lifted.at if entry and entry.lifted else None
        return any(lifted is None or at > lifted for at in self.acknowledged[email])

    def run(self) -> None:
        """Run all steps, deliver every event, then send to each address."""
        for _ in range(STEPS):
            self.act(self.rng.choices([self.send, self.deliver_events, self.put, self.lift], [3, 6, 4, 1])[0])
        while self.queue:
            self.deliver_events()
        for _ in range(3):
            self.bench.clock.advance(timedelta(seconds=6))  # suppressions for a moment have expired
            self.send()


@pytest.mark.parametrize("part", range(4))
def test_a_bounced_address_is_not_mailed_after_the_acknowledgement(part: int) -> None:
    """Whatever crashes, fails, is delivered twice or happens in between."""
    happened: Counter[str] = Counter()
    for seed in range(part, SCENARIOS, 4):
        scenario = Scenario(seed)
        scenario.run()
        happened += scenario.happened
    print(", ".join(f"{count} {what}" for what, count in sorted(happened.items())))
    # Without these the scenarios would prove nothing.
    least = {"left out": 500, "all left out": 100, "crashed": 300, "failed": 300, "acted in between": 300, "lifted": 50, "put": 100}
    assert {what: happened[what] for what, number in least.items() if happened[what] < number} == {}
