"""From SES's event to the next mail: after the event is acknowledged a bounced address is not mailed, even if workers died."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Status
from mailer.domain.errors import DependencyError
from mailer.domain.suppressions import Reason
from mailer.services.feedback.matching import FeedbackDependencies
from mailer.services.feedback.receive import EVENT_SPAN, ReceivedEvent, receive_batch
from mailer.services.suppressions.reports import ReportDependencies, take_event
from support.fakes.ports import NOON, FakeFeedbackTable, InlineExecutor, a_delivery
from support.fakes.sending import Bench, a_queue_message
from support.ses_events import ACCOUNT, MESSAGE_ID, REGION, an_envelope, envelopes
from tools.local_aws.ses_events import RecipientOutcome

JO = "jo@example.com"


class WorkerDiedError(BaseException):
    """Ends a worker at a test's chosen step."""


class Scenario:
    """Sending and feedback with the same fakes; `write` is called with every write of feedback."""

    def __init__(self) -> None:
        sent = {"attempt": 1, "owner": "w1", "account": ACCOUNT, "region": REGION, "message_id": MESSAGE_ID, "sent_at": NOON}
        self.bench = bench = Bench(a_delivery("r1", Status.SENT, **sent))
        bench.clock.advance(timedelta(minutes=1))
        self.facts = FakeFeedbackTable()
        self.write: Callable[[], None] = lambda: None
        for table in (bench.messages, self.facts, bench.suppressions):
            table.before = table.after = lambda _: self.write()  # type: ignore[attr-defined]
        reports = ReportDependencies(suppressions=bench.suppressions, marks=self)
        self.deps = FeedbackDependencies(
            messages=bench.messages,
            feedback=self.facts,
            parked=bench.parked,
            telemetry=bench.telemetry,
            clock=bench.clock,
            reactions=[lambda accepted: take_event(accepted.event, accepted.mail, reports)],
        )

    def mark_suppressions(self, tenant_id: str) -> bool:
        """Mark the provider row that sending reads."""
        self.write()
        rows = self.bench.providers.rows
        rows[tenant_id] = replace(rows[tenant_id], has_suppressions=True)
        self.write()
        return True

    def deliver(self, *events: dict[str, Any]) -> list[str]:
        """Pass events to FeedbackFunction; return the numbers of those that are not acknowledged."""
        batch = [ReceivedEvent(str(number), json.dumps(event), self.bench.clock.now()) for number, event in enumerate(events)]
        return receive_batch(batch, self.deps, InlineExecutor(), ends_at=self.deps.clock.now() + EVENT_SPAN)

    def reasons(self) -> dict[str, Reason]:
        entries = self.bench.suppressions.entries.values()
        return {entry.email: entry.suppression.reason for entry in entries if entry.suppression}

    def is_mailed(self, request_id: str = "next") -> bool:
        """Send another mail to jo; return whether it was sent."""
        self.bench.receive(a_queue_message(request_id))
        record = self.bench.record(request_id)
        if record.error:
            assert record.error.code == "recipient_suppressed"
        return record.status is Status.SENT


BOUNCE = an_envelope("Bounce", RecipientOutcome.BOUNCED)


def test_each_outcome_suppresses_as_specified() -> None:
    """One mail has every outcome of SES's mailbox simulator."""
    scenario = Scenario()
    outcomes = {
        "fine@example.com": RecipientOutcome.DELIVERED,
        "gone@example.net": RecipientOutcome.BOUNCED,
        "listed@example.org": RecipientOutcome.SUPPRESSED,
        "full@example.edu": RecipientOutcome.MAILBOX_FULL,
        "away@example.info": RecipientOutcome.OUT_OF_OFFICE,
        "late@example.biz": RecipientOutcome.DELAYED,
        "angry@example.name": RecipientOutcome.COMPLAINED,
    }
    assert scenario.deliver(*envelopes(outcomes)) == []
    assert scenario.reasons() == {
        "gone@example.net": Reason.HARD_BOUNCE,
        "listed@example.org": Reason.HARD_BOUNCE,
        "angry@example.name": Reason.COMPLAINT,
    }
    assert list(scenario.bench.suppressions.entries["acme", "full@example.edu"].soft_bounces) == ["r1"]
    listed = scenario.bench.suppressions.entries["acme", "listed@example.org"].suppression
    assert listed is not None
    assert listed.expires_at == listed.at + timedelta(days=14)
    assert set(scenario.bench.suppressions.entries) == {("acme", email) for email in (*scenario.reasons(), "full@example.edu")}


def test_a_complaint_with_several_recipients_at_the_domain_is_marked() -> None:
    """SES names all of them."""
    scenario = Scenario()
    scenario.deliver(*envelopes({"a@example.com": RecipientOutcome.COMPLAINED, "b@example.com": RecipientOutcome.DELIVERED}))
    marks = [entry.suppression and entry.suppression.may_have_complained for entry in scenario.bench.suppressions.entries.values()]
    assert marks == [True, True]


def test_an_entry_keeps_the_spelling_that_ses_puts_on_its_list() -> None:
    """The entry applies to all spellings."""
    scenario = Scenario()
    scenario.deliver(*envelopes({"Jo@Example.com": RecipientOutcome.BOUNCED}))
    bounced = scenario.bench.suppressions.entries["acme", JO].suppression
    assert bounced is not None
    assert bounced.spelling == "Jo@Example.com"
    assert "Example" not in repr(bounced)


def test_a_hard_bounce_is_not_mailed_again_once_its_event_was_acknowledged() -> None:
    """The next request to that address ends without a call of SES."""
    scenario = Scenario()
    assert scenario.is_mailed("before")
    assert scenario.deliver(BOUNCE) == []
    assert not scenario.is_mailed()


def writes_of_an_event() -> int:
    scenario, count = Scenario(), 0

    def count_write() -> None:
        nonlocal count
        count += 1

    scenario.write = count_write
    assert scenario.deliver(BOUNCE) == []
    return count


def test_an_event_of_a_bounce_causes_several_writes() -> None:
    """The next test stops before and after each write of facts, counts, mark and entry."""
    assert writes_of_an_event() >= 8


@pytest.mark.parametrize("failure", [WorkerDiedError(), DependencyError("DynamoDB", "PutItem")], ids=["dies", "fails"])
@pytest.mark.parametrize("step", range(writes_of_an_event()))
def test_a_worker_that_stops_between_any_two_writes_loses_no_suppression(step: int, failure: BaseException) -> None:
    """The event was not acknowledged, so SQS redelivers it."""
    scenario, count = Scenario(), 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == step + 1:
            raise failure

    scenario.write = stop
    if isinstance(failure, WorkerDiedError):
        with pytest.raises(WorkerDiedError):
            scenario.deliver(BOUNCE)
    else:
        assert scenario.deliver(BOUNCE) == ["0"]
    entries = scenario.bench.suppressions.entries
    assert not entries or scenario.bench.providers.rows["acme"].has_suppressions  # sending would not look the entry up
    scenario.write = lambda: None
    assert scenario.deliver(BOUNCE) == []
    assert not scenario.is_mailed()
