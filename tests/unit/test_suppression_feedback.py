"""From SES's event to the next mail: what bounced is not mailed again once its event was acknowledged, wherever a worker died."""

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
    """Ends a worker where a test wants it."""


class Story:
    """Sending and feedback over one set of fakes; every write of feedback passes `write`."""

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
        """Be the table of provider rows that sending reads."""
        self.write()
        rows = self.bench.providers.rows
        rows[tenant_id] = replace(rows[tenant_id], has_suppressions=True)
        self.write()
        return True

    def tell(self, *events: dict[str, Any]) -> list[str]:
        """Hand events to FeedbackFunction; return those that are not acknowledged."""
        batch = [ReceivedEvent(str(number), json.dumps(event), self.bench.clock.now()) for number, event in enumerate(events)]
        return receive_batch(batch, self.deps, InlineExecutor(), ends_at=self.deps.clock.now() + EVENT_SPAN)

    def reasons(self) -> dict[str, Reason]:
        entries = self.bench.suppressions.entries.values()
        return {entry.email: entry.suppression.reason for entry in entries if entry.suppression}

    def is_mailed(self, request_id: str = "next") -> bool:
        """Send another mail to jo; tell whether it went out."""
        self.bench.receive(a_queue_message(request_id))
        record = self.bench.record(request_id)
        if record.error:
            assert record.error.code == "recipient_suppressed"
        return record.status is Status.SENT


BOUNCE = an_envelope("Bounce", RecipientOutcome.BOUNCED)


def test_what_ses_tells_of_each_recipient_suppresses_as_the_table_says() -> None:
    """Each kind that SES's mailbox simulator makes, all of one mail."""
    story = Story()
    outcomes = {
        "fine@example.com": RecipientOutcome.DELIVERED,
        "gone@example.net": RecipientOutcome.BOUNCED,
        "listed@example.org": RecipientOutcome.SUPPRESSED,
        "full@example.edu": RecipientOutcome.MAILBOX_FULL,
        "away@example.info": RecipientOutcome.OUT_OF_OFFICE,
        "late@example.biz": RecipientOutcome.DELAYED,
        "angry@example.name": RecipientOutcome.COMPLAINED,
    }
    assert story.tell(*envelopes(outcomes)) == []
    assert story.reasons() == {
        "gone@example.net": Reason.HARD_BOUNCE,
        "listed@example.org": Reason.HARD_BOUNCE,
        "angry@example.name": Reason.COMPLAINT,
    }
    assert list(story.bench.suppressions.entries["acme", "full@example.edu"].soft_bounces) == ["r1"]
    listed = story.bench.suppressions.entries["acme", "listed@example.org"].suppression
    assert listed is not None
    assert listed.expires_at == listed.at + timedelta(days=14)
    assert set(story.bench.suppressions.entries) == {("acme", email) for email in (*story.reasons(), "full@example.edu")}


def test_a_complaint_where_several_are_at_the_domain_says_so() -> None:
    """SES names them all."""
    story = Story()
    story.tell(*envelopes({"a@example.com": RecipientOutcome.COMPLAINED, "b@example.com": RecipientOutcome.DELIVERED}))
    marks = [entry.suppression and entry.suppression.may_have_complained for entry in story.bench.suppressions.entries.values()]
    assert marks == [True, True]


def test_an_entry_keeps_the_spelling_that_ses_puts_on_its_list() -> None:
    """The entry itself is of all spellings."""
    story = Story()
    story.tell(*envelopes({"Jo@Example.com": RecipientOutcome.BOUNCED}))
    bounced = story.bench.suppressions.entries["acme", JO].suppression
    assert bounced is not None
    assert bounced.spelling == "Jo@Example.com"
    assert "Example" not in repr(bounced)


def test_a_hard_bounce_is_not_mailed_again_once_its_event_was_acknowledged() -> None:
    """The next request to that address ends, and SES is not asked."""
    story = Story()
    assert story.is_mailed("before")
    assert story.tell(BOUNCE) == []
    assert not story.is_mailed()


def writes_of_an_event() -> int:
    story, count = Story(), 0

    def one_more() -> None:
        nonlocal count
        count += 1

    story.write = one_more
    assert story.tell(BOUNCE) == []
    return count


def test_an_event_of_a_bounce_is_written_in_several_places() -> None:
    """Or the next test would try nothing: facts, counts, mark and entry, each before and after."""
    assert writes_of_an_event() >= 8


@pytest.mark.parametrize("failure", [WorkerDiedError(), DependencyError("DynamoDB", "PutItem")], ids=["dies", "fails"])
@pytest.mark.parametrize("place", range(writes_of_an_event()))
def test_a_worker_that_stops_between_any_two_writes_loses_no_suppression(place: int, failure: BaseException) -> None:
    """SQS has not been told that the event is done, and hands it out again."""
    story, count = Story(), 0

    def stops_there() -> None:
        nonlocal count
        count += 1
        if count == place + 1:
            raise failure

    story.write = stops_there
    if isinstance(failure, WorkerDiedError):
        with pytest.raises(WorkerDiedError):
            story.tell(BOUNCE)
    else:
        assert story.tell(BOUNCE) == ["0"]
    entries = story.bench.suppressions.entries
    assert not entries or story.bench.providers.rows["acme"].has_suppressions  # nobody would look
    story.write = lambda: None
    assert story.tell(BOUNCE) == []
    assert not story.is_mailed()
