"""What SES tells is written down once, whatever comes twice, too early, too late, in any order, or from somebody else."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from mailer.domain import changes, delivery
from mailer.domain.delivery import ERASED_CONTENT, Delivery, EarlierAttempt, Resolution, Status
from mailer.domain.errors import DependencyError
from mailer.domain.facts import FeedbackCounts, RecipientStatus
from mailer.domain.feedback import FORGED, MailRef, Refusal, SesEvent, VerifyRef, parse_event
from mailer.domain.tags import tagged, verify_tags
from mailer.services.feedback import receive
from mailer.services.feedback.matching import AcceptedEvent, FeedbackDependencies
from mailer.services.feedback.receive import EVENT_SPAN, RECORD_EXPECTED, ReceivedEvent, receive_batch
from support.fakes.ports import (
    NOON,
    FakeClock,
    FakeFeedbackTable,
    FakeMessagesTable,
    FakeParkedBodies,
    FakeTelemetry,
    InlineExecutor,
    a_delivery,
)
from support.ses_events import ACCOUNT, MESSAGE_ID, REGION, an_envelope, envelopes, replaced
from tools.local_aws.ses_events import RecipientOutcome

MINUTE = timedelta(minutes=1)


def a_sent(status: Status = Status.SENT, **fields: Any) -> Delivery:
    """Make the record of a request whose first attempt was sent from the account of the events."""
    given: dict[str, Any] = {"attempt": 1, "owner": "w1", "account": ACCOUNT, "region": REGION, "provider_version": 7, **fields}
    if status is Status.SENT:
        given = {"message_id": MESSAGE_ID, "accepted_attempt": 1, "sent_at": NOON, **given}
    return a_delivery("r1", status, **given)


class Listener:
    """Keeps what it heard."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.versions: list[tuple[str, int]] = []
        self.verified: list[VerifyRef] = []
        self.refusal = refusal

    def heard(self, tenant_id: str, version: int, at: Any) -> None:  # noqa: ARG002 - as the port has it
        self.versions.append((tenant_id, version))

    def verify_heard(self, ref: VerifyRef, event: SesEvent) -> Refusal | None:  # noqa: ARG002 - as the port has it
        self.verified.append(ref)
        return self.refusal


class Inbox:
    """FeedbackFunction over fakes."""

    def __init__(self, *records: Delivery) -> None:
        self.messages, self.table, self.telemetry = FakeMessagesTable(*records), FakeFeedbackTable(), FakeTelemetry()
        self.parked, self.clock, self.listener = FakeParkedBodies(), FakeClock(NOON + MINUTE), Listener()
        self.reacted: list[AcceptedEvent] = []
        self.deps = FeedbackDependencies(
            messages=self.messages,
            feedback=self.table,
            parked=self.parked,
            telemetry=self.telemetry,
            clock=self.clock,
            listeners=[self.listener],
            reactions=[self.reacted.append],
        )

    def take(self, *events: dict[str, Any], sent_at: Any = None, left: timedelta = EVENT_SPAN) -> list[str]:
        """Take a batch in the time that is left; return the numbers of the events that are to come again."""
        batch = [ReceivedEvent(str(number), json.dumps(event), sent_at or self.clock.now()) for number, event in enumerate(events)]
        return receive_batch(batch, self.deps, InlineExecutor(), ends_at=self.clock.now() + left)

    def erase(self, _: Any = None) -> None:
        """Erase the request as `make erase` does: first the record, then the facts."""
        self.messages.records["acme", "r1"] = replace(self.record, content_hash=ERASED_CONTENT, feedback=None)
        self.table.of_request.clear()

    @property
    def record(self) -> Delivery:
        return self.messages.records["acme", "r1"]

    @property
    def refusals(self) -> list[Refusal]:
        return [arguments[0] for name, arguments in self.telemetry.entries if name == "feedback refused"]

    @property
    def recorded(self) -> list[Delivery]:
        return [arguments[0] for name, arguments in self.telemetry.entries if name == "recorded"]

    @property
    def counted(self) -> list[tuple[RecipientStatus, timedelta | None]]:
        return [arguments for name, arguments in self.telemetry.entries if name == "feedback"]


BOUNCE = an_envelope("Bounce", RecipientOutcome.BOUNCED)


# ── facts and counts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_became_of_a_mail_stands_beside_sent() -> None:
    """Counts on the record, each recipient's last fact in the table of addresses; the end stays what it was."""
    inbox = Inbox(a_sent())
    to = {"jo@example.com": RecipientOutcome.DELIVERED, "gone@example.net": RecipientOutcome.BOUNCED}
    assert inbox.take(*envelopes(to)) == []
    assert inbox.record == replace(a_sent(), feedback=inbox.record.feedback)
    counts = inbox.record.feedback
    assert counts is not None
    assert (counts.delivered, counts.bounced, counts.complained, counts.rank) == (1, 1, 0, 16)
    assert {email: list(facts) for email, facts in inbox.table.facts("acme", "r1").items()} == {
        "jo@example.com": ["delivered"],
        "gone@example.net": ["bounced"],
    }
    assert inbox.refusals == []


def test_a_copy_of_an_event_counts_nothing() -> None:
    """Eight copies have been seen."""
    inbox = Inbox(a_sent())
    inbox.take(an_envelope())
    before, entries = inbox.record, len(inbox.messages.changes)
    assert inbox.take(*[an_envelope()] * 8) == []
    assert (inbox.record, len(inbox.messages.changes)) == (before, entries)
    assert inbox.counted == [(RecipientStatus.DELIVERED, timedelta(seconds=0.6))]


EVENTS = envelopes(
    {
        "jo@example.com": RecipientOutcome.OUT_OF_OFFICE,
        "late@example.net": RecipientOutcome.DELAYED,
        "gone@example.org": RecipientOutcome.BOUNCED,
        "angry@example.edu": RecipientOutcome.COMPLAINED,
    }
)


def outcome(events: Sequence[dict[str, Any]], record: Delivery, *, batch: int = 1) -> tuple[Delivery, Any, Any]:
    """Return what stands in both tables after some events."""
    inbox = Inbox(record)
    for start in range(0, len(events), batch):
        again = inbox.take(*events[start : start + batch])
        assert again == [] or events[start]["detail"]["eventType"] == "DeliveryDelay"
    return inbox.record, inbox.table.of_request, {kind for kind, _ in inbox.counted}


def test_any_order_of_a_mail_s_events_gives_the_same() -> None:
    """Every order of its first six events; the delay alone may come before it can be matched, and comes again then."""
    first = EVENTS[:6]
    wanted = outcome(first, a_sent())
    for order in permutations(first):
        record, facts, _ = outcome([*order, *(event for event in order if event["detail"]["eventType"] == "DeliveryDelay")], a_sent())
        assert (record, facts) == wanted[:2]


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_and_doubled_events_give_the_same_bytes(seed: int) -> None:
    """Thousands of events of some requests, eight copies of some, in batches of any size: the records are equal."""
    shuffle = random.Random(seed)  # noqa: S311 - a seed is a case
    wanted = outcome(EVENTS, a_sent())
    copies = [event for event in EVENTS for _ in range(shuffle.choice([1, 1, 2, 8]))]
    shuffle.shuffle(copies)
    delays = [event for event in EVENTS if event["detail"]["eventType"] == "DeliveryDelay"]
    record, facts, _ = outcome([*copies, *delays], a_sent(), batch=shuffle.choice([1, 3, 100]))
    assert (record, facts) == wanted[:2]


def test_statuses_that_are_left_behind_are_counted_once() -> None:
    """A recipient that was delayed and then got it counts once as each; the time to the delivery is told with it."""
    inbox = Inbox(a_sent())
    events = envelopes({"late@example.net": RecipientOutcome.DELAYED})
    inbox.take(*events, *events)
    assert inbox.counted == [(RecipientStatus.DELAYED, None), (RecipientStatus.DELIVERED, timedelta(seconds=0.9))]


# ── proof ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["Send", "Delivery"])
@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN, Status.QUEUED, Status.DEFERRED])
def test_any_event_of_an_attempt_proves_that_ses_accepted_it(status: Status, kind: str) -> None:
    """With its messageId and SES's time; nothing is sent again, and the body that was kept for that goes."""
    inbox = Inbox(a_sent(status, parked="parked/acme/r1/0.json", due_at=NOON, deadline=NOON, on_unknown="resend"))
    inbox.parked.bodies["parked/acme/r1/0.json"] = "{}"
    assert inbox.take(an_envelope(kind)) == []
    sent = inbox.record
    assert (sent.status, sent.message_id, sent.sent_at, sent.due_at) == (Status.SENT, MESSAGE_ID, NOON, None)
    assert inbox.parked.bodies == {}
    assert inbox.recorded == [sent]
    begin = changes.begin(changes.request_of(sent), NOON, owner="w2", deadline=NOON, sent_by=changes.SentBy("ses", 7))
    assert not delivery.allows(begin, sent)


def test_a_body_that_was_parked_meanwhile_goes_too() -> None:
    """A worker holds an unknown for an operator while its event is on the way."""
    inbox = Inbox(a_sent(Status.UNKNOWN))
    inbox.parked.bodies["parked/acme/r1/0.json"] = "{}"

    def hold(_: Any) -> None:
        inbox.messages.before = lambda _: None
        inbox.messages.records["acme", "r1"] = replace(inbox.record, parked="parked/acme/r1/0.json")

    inbox.messages.before = hold
    assert inbox.take(an_envelope()) == []
    assert (inbox.record.status, inbox.parked.bodies) == (Status.SENT, {})


@pytest.mark.parametrize("where", ["confirm", "facts", "counts", "reaction"])
def test_a_proof_is_told_once_whatever_fails_after_it(where: str) -> None:
    """Its own reply that is lost, or a later step: the event comes again, and reports and deletes then what the first try left."""
    inbox = Inbox(a_sent(Status.UNKNOWN, parked="parked/acme/r1/0.json"))
    inbox.parked.bodies["parked/acme/r1/0.json"] = "{}"
    deps = inbox.deps
    match where:
        case "confirm" | "counts":
            rule = delivery.CONFIRM if where == "confirm" else delivery.NOTE_FEEDBACK
            inbox.messages.after = lambda change: _lost(change) if change.rule is rule else None
        case "facts":
            inbox.table.after = _lost
        case _:
            inbox.deps = replace(inbox.deps, reactions=[_lost])
    assert inbox.take(an_envelope()) == ["0"]
    assert inbox.recorded == []
    inbox.messages.after = inbox.table.after = lambda _: None
    inbox.deps = deps
    assert inbox.take(an_envelope()) == []
    assert (inbox.recorded, inbox.parked.bodies) == ([inbox.record], {})


def test_a_proof_is_told_once_however_many_copies_come() -> None:
    """One of them has proven it, also where another one had read the record before that."""
    inbox = Inbox(a_sent(Status.UNKNOWN))

    def copy(_: Any) -> None:
        inbox.messages.before = lambda _: None
        assert (
            receive_batch([ReceivedEvent("copy", json.dumps(an_envelope()), NOON)], inbox.deps, InlineExecutor(), ends_at=NOON + MINUTE)
            == []
        )

    inbox.clock.time = NOON
    inbox.messages.before = copy
    assert inbox.take(an_envelope(), an_envelope("Send")) == []
    assert (inbox.recorded, inbox.record.confirmed_by) == ([inbox.record], "copy")


def test_an_event_of_an_earlier_attempt_proves_as_much() -> None:
    """The request was queued again since, and begun again, from another account."""
    earlier = EarlierAttempt(1, ACCOUNT, REGION)
    for status in (Status.QUEUED, Status.SENDING, Status.UNKNOWN):
        inbox = Inbox(a_sent(status, attempt=2, account="444455556666", earlier_attempts=(earlier,), maybe_sent=True))
        assert inbox.take(an_envelope()) == []
        assert (inbox.record.status, inbox.record.accepted_attempt, inbox.record.message_id) == (Status.SENT, 1, MESSAGE_ID)
        assert inbox.record.feedback is not None
        assert inbox.listener.versions == []  # which version sent that attempt is not kept


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_evidence_against_an_end_changes_nothing_and_is_counted(status: Status) -> None:
    """What was promised to whoever read that end is kept; somebody has to look."""
    inbox = Inbox(a_sent(status))
    assert inbox.take(an_envelope()) == []
    assert (inbox.record, inbox.table.of_request, inbox.refusals) == (a_sent(status), {}, [Refusal.CONTRADICTION])
    assert [accepted.record for accepted in inbox.reacted] == [a_sent(status)]  # a bounce or a complaint is one all the same
    assert inbox.listener.versions == []


@pytest.mark.parametrize(("meanwhile", "refusals"), [(Status.SENT, []), (Status.FAILED, [Refusal.CONTRADICTION])])
def test_a_worker_may_be_first_with_the_end(meanwhile: Status, refusals: list[Refusal]) -> None:
    """Between the reading of the record and its change the worker writes what SES answered."""
    inbox = Inbox(a_sent(Status.SENDING))

    def end(_: Any) -> None:
        inbox.messages.before = lambda _: None
        inbox.messages.records["acme", "r1"] = a_sent(meanwhile)

    inbox.messages.before = end
    assert inbox.take(an_envelope()) == []
    assert (inbox.record.status, inbox.refusals) == (meanwhile, refusals)
    assert (inbox.record.feedback is not None) == (meanwhile is Status.SENT)


# ── whose event it is ─────────────────────────────────────────────────────────────────────────────────────────────────────

OTHER = "444455556666"
TAGS = {"tenant_id": "acme", "request_id": "r1", "attempt": 1}

FORGERIES: dict[str, tuple[dict[str, Any], Refusal]] = {
    "another account": (an_envelope(account=OTHER), Refusal.FOREIGN_ACCOUNT),
    "another region": (an_envelope(region="us-east-1"), Refusal.FOREIGN_ACCOUNT),
    "another account sent it": (replaced(an_envelope(), ("detail", "mail", "sendingAccountId"), OTHER), Refusal.FOREIGN_ACCOUNT),
    "another mail": (an_envelope(message_id="0100-other"), Refusal.WRONG_MESSAGE),
    "an attempt to come": (an_envelope(attempt=2), Refusal.NO_ATTEMPT),
    "another tenant's request": (
        an_envelope(account=OTHER, tags=tagged({}, tenant_id="acme", request_id="r1", attempt=1)),
        Refusal.FOREIGN_ACCOUNT,
    ),
    "tags of nobody": (an_envelope(tags={"tenantmail-tenant": "acme"}), Refusal.BAD_TAGS),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_what_others_make_up_changes_nothing(how: str) -> None:
    """It is refused, counted, and wakes somebody."""
    event, refusal = FORGERIES[how]
    inbox = Inbox(a_sent())
    assert inbox.take(event) == []
    assert (inbox.record, inbox.table.of_request, inbox.table.of_message) == (a_sent(), {}, {})
    assert inbox.refusals == [refusal]
    assert refusal in FORGED
    assert (inbox.reacted, inbox.listener.versions) == ([], [])


def test_an_attempt_of_an_account_that_is_not_known_has_no_events() -> None:
    """A key that was verified before accounts were kept has to be verified once more."""
    inbox = Inbox(a_sent(account=None))
    inbox.take(an_envelope())
    assert inbox.refusals == [Refusal.UNKNOWN_ACCOUNT]
    assert Refusal.UNKNOWN_ACCOUNT not in FORGED
    inbox = Inbox(a_sent(Status.UNKNOWN, attempt=2, earlier_attempts=(EarlierAttempt(1, None, None),)))
    inbox.take(an_envelope())
    assert inbox.refusals == [Refusal.UNKNOWN_ACCOUNT]


def test_an_attempt_that_was_proven_unsent_has_no_events() -> None:
    """Only those after which the request was queued again are kept beside the last one."""
    inbox = Inbox(a_sent(attempt=3, accepted_attempt=3, earlier_attempts=(EarlierAttempt(2, ACCOUNT, REGION),)))
    inbox.take(an_envelope(attempt=1))
    assert inbox.refusals == [Refusal.NO_ATTEMPT]


def test_an_operator_s_messageid_is_not_held_against_an_event() -> None:
    """He may have mistyped it; SES's own event may not be refused for that."""
    word = Resolution("sent", "ops", "seen", NOON)
    inbox = Inbox(a_sent(message_id="0100-typo", accepted_attempt=1, resolution=word))
    assert inbox.take(an_envelope()) == []
    assert (inbox.refusals, inbox.record.message_id) == ([], "0100-typo")
    assert inbox.record.feedback is not None


# ── events without tags ───────────────────────────────────────────────────────────────────────────────────────────────────

SEND, DELAY, *_ = envelopes({"jo@example.com": RecipientOutcome.DELAYED})


def test_a_delay_finds_its_mail_by_the_messageid() -> None:
    """SES's own sample of it has no tags; an event before it had some."""
    inbox = Inbox(a_sent())
    assert inbox.take(SEND, DELAY) == []
    assert inbox.record.feedback is not None
    assert inbox.record.feedback.delayed == 1
    assert inbox.table.of_message == {(ACCOUNT, REGION, MESSAGE_ID): MailRef("acme", "r1", 1)}


@pytest.mark.parametrize("stranger", [{"account": OTHER}, {"region": "us-east-1"}])
def test_a_messageid_counts_within_its_account_and_region(stranger: dict[str, str]) -> None:
    """Another account's event with this id is about another mail."""
    inbox = Inbox(a_sent())
    inbox.take(SEND)
    assert inbox.take({**DELAY, **stranger}) == ["0"]
    assert inbox.record.feedback is None


def test_a_delay_waits_for_the_event_that_tells_whose_it_is() -> None:
    """For a quarter of an hour; then it is counted."""
    inbox = Inbox(a_sent())
    began = inbox.clock.now()
    assert inbox.take(DELAY) == ["0"]
    inbox.clock.advance(RECORD_EXPECTED)
    assert inbox.take(DELAY, sent_at=began) == []
    assert inbox.refusals == [Refusal.NO_RECORD]


def test_other_mail_of_the_tenant_is_none_of_ours() -> None:
    """It may use the configuration set for whatever it sends."""
    inbox = Inbox(a_sent())
    assert inbox.take(an_envelope(tags={"campaign": "spring"}, message_id="0100-other")) == []
    assert inbox.refusals == [Refusal.UNTAGGED]
    assert Refusal.UNTAGGED not in FORGED


def test_the_messageid_is_kept_while_a_delay_may_follow() -> None:
    """A mail that every recipient got needs it no more, and costs no write."""
    inbox = Inbox(a_sent())
    inbox.take(an_envelope())
    assert inbox.table.of_message == {}
    inbox.take(an_envelope("Bounce", RecipientOutcome.MAILBOX_FULL, destinations=("jo@example.com", "b@example.com")))
    assert inbox.table.of_message == {(ACCOUNT, REGION, MESSAGE_ID): MailRef("acme", "r1", 1)}


# ── too early, too late ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_before_its_record_waits_for_it() -> None:
    """For a quarter of an hour: a table that is restored may know it again by then."""
    inbox = Inbox()
    began = inbox.clock.now()
    inbox.clock.advance(RECORD_EXPECTED - timedelta(seconds=1))
    assert inbox.take(an_envelope(), sent_at=began) == ["0"]
    assert inbox.refusals == []
    inbox.messages.records["acme", "r1"] = a_sent()
    assert inbox.take(an_envelope(), sent_at=began) == []
    assert inbox.record.feedback is not None


def test_an_event_without_a_record_is_given_up() -> None:
    """Nobody knows such a request."""
    inbox = Inbox()
    assert inbox.take(an_envelope(), sent_at=inbox.clock.now() - RECORD_EXPECTED) == []
    assert inbox.refusals == [Refusal.NO_RECORD]


def test_a_request_that_was_erased_has_no_record() -> None:
    """Nothing of its recipients is written down any more."""
    inbox = Inbox(a_sent(content_hash=ERASED_CONTENT))
    assert inbox.take(an_envelope(), sent_at=inbox.clock.now() - RECORD_EXPECTED) == []
    assert (inbox.refusals, inbox.table.of_request) == ([Refusal.NO_RECORD], {})


@pytest.mark.parametrize("known", [None, FeedbackCounts(complained=1, first_at=NOON - MINUTE, last_at=NOON + MINUTE, rank=12)])
def test_a_request_that_is_erased_meanwhile_keeps_no_address(known: FeedbackCounts | None) -> None:
    """The erasure has passed when the facts are written: the record is looked at once more after that, also if its counts stay."""
    inbox = Inbox(a_sent(feedback=known))
    inbox.table.before = inbox.erase
    assert inbox.take(BOUNCE) == ["0"]
    assert (inbox.table.of_request, inbox.record.feedback, inbox.reacted, inbox.counted) == ({}, None, [], [])


def test_a_record_that_is_gone_meanwhile_leaves_no_address() -> None:
    """It was erased more than 15 days after its end."""
    inbox = Inbox(a_sent())
    inbox.table.after = lambda _: inbox.messages.records.clear()
    assert inbox.take(BOUNCE) == ["0"]
    assert inbox.table.of_request == {}


def test_an_unknown_that_is_erased_meanwhile_stays_what_it_was() -> None:
    """An erased record is proven to be nothing."""
    inbox = Inbox(a_sent(Status.UNKNOWN))
    inbox.messages.before = inbox.erase
    assert inbox.take(an_envelope()) == ["0"]
    assert (inbox.record.status, inbox.record.message_id, inbox.table.of_request) == (Status.UNKNOWN, None, {})


def test_facts_that_a_crash_left_of_an_erased_request_go_when_its_event_comes_again() -> None:
    """The function died between the facts and the look at the record."""
    inbox = Inbox(a_sent())
    inbox.table.before = inbox.erase
    inbox.messages.before = _lost
    assert inbox.take(an_envelope()) == ["0"]
    assert inbox.table.of_request
    inbox.table.before = inbox.messages.before = lambda _: None
    assert inbox.take(an_envelope(), sent_at=inbox.clock.now() - RECORD_EXPECTED) == []
    assert (inbox.table.of_request, inbox.refusals) == ({}, [Refusal.NO_RECORD])


@pytest.mark.parametrize(("age", "refusals"), [(timedelta(days=35), []), (timedelta(days=35, seconds=1), [Refusal.TOO_OLD])])
def test_an_event_is_taken_for_35_days(age: timedelta, refusals: list[Refusal]) -> None:
    """After that the record may be gone, and the id another request's."""
    inbox = Inbox(a_sent())
    inbox.clock.time = NOON + age
    assert inbox.take(replaced(an_envelope(), ("time",), "2026-11-24T12:00:00Z")) == []
    assert inbox.refusals == refusals


def test_an_event_of_tomorrow_is_none() -> None:
    """Clocks differ by less than an hour."""
    inbox = Inbox(a_sent())
    inbox.clock.time = NOON - timedelta(hours=2)
    assert inbox.take(an_envelope()) == []
    assert inbox.refusals == [Refusal.UNREADABLE]


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lost(_: Any) -> None:
    raise DependencyError("DynamoDB", "UpdateItem")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", ["messages", "table"])
def test_an_event_that_could_not_be_written_comes_again(table: str, when: str) -> None:
    """A write that failed, or whose reply was lost, is made again, and leaves what one write would have left."""
    wanted = Inbox(a_sent(Status.UNKNOWN))
    wanted.take(an_envelope())
    inbox = Inbox(a_sent(Status.UNKNOWN))
    setattr(getattr(inbox, table), when, _lost)
    assert inbox.take(an_envelope()) == ["0"]
    setattr(getattr(inbox, table), when, lambda _: None)
    assert inbox.take(an_envelope()) == []
    assert (inbox.record, inbox.table.of_request) == (wanted.record, wanted.table.of_request)


def test_a_crash_between_facts_and_counts_does_no_harm() -> None:
    """The facts are there; the event that comes again writes their counts."""
    inbox = Inbox(a_sent())
    inbox.messages.before = _lost
    assert inbox.take(an_envelope()) == ["0"]
    assert inbox.table.of_request
    inbox.messages.before = lambda _: None
    assert inbox.take(an_envelope()) == []
    assert inbox.record.feedback is not None


def test_an_unreadable_event_is_named_by_its_fields() -> None:
    """It is lost: somebody has to see what SES has changed."""
    inbox = Inbox(a_sent())
    assert inbox.take(replaced(an_envelope(), ("account",), "acme")) == []
    [(refusal, event, fields)] = [arguments for name, arguments in inbox.telemetry.entries if name == "feedback refused"]
    assert (refusal, event, fields) == (Refusal.UNREADABLE, None, ["account"])


def test_a_mail_to_more_than_ses_takes_counts_as_far_as_it_is_known() -> None:
    """Its acceptance is proven all the same."""
    many = [f"{number}@example.com" for number in range(60)]
    event = replaced(replaced(an_envelope(), ("detail", "mail", "destination"), many), ("detail", "delivery", "recipients"), many)
    inbox = Inbox(a_sent(Status.UNKNOWN))
    assert inbox.take(event) == []
    assert inbox.record.status is Status.SENT
    assert inbox.record.feedback is not None
    assert (inbox.record.feedback.delivered, inbox.refusals) == (50, [])


def test_a_failing_event_holds_up_no_other() -> None:
    """Nor does one that is no event."""
    inbox = Inbox(a_sent(), replace(a_sent(), request_id="r2", message_id="0100-two"))

    def refuse_first(facts: Any) -> None:
        if "jo@example.com" in facts:
            raise DependencyError("DynamoDB", "PutItem")

    inbox.table.before = refuse_first
    two = an_envelope(request_id="r2", message_id="0100-two")
    fine = replaced(
        replaced(two, ("detail", "mail", "destination"), ["b@example.com"]), ("detail", "delivery", "recipients"), ["b@example.com"]
    )
    assert inbox.take(an_envelope(), {"no": "event"}, fine) == ["0"]
    assert inbox.messages.records["acme", "r2"].feedback is not None
    assert inbox.refusals == [Refusal.UNREADABLE]


def test_a_bug_costs_one_event() -> None:
    """It comes again until somebody has mended that."""
    inbox = Inbox(a_sent())
    inbox.table.before = lambda _: 1 / 0  # type: ignore[assignment]
    assert inbox.take(an_envelope(), {"no": "event"}) == ["0"]
    [(step, tenant_id, error)] = [arguments for name, arguments in inbox.telemetry.entries if name == "failed"]
    assert (step, tenant_id, type(error)) == ("feedback", None, ZeroDivisionError)


def test_a_bug_in_reading_costs_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its batch are written down, and it comes again alone."""
    inbox = Inbox(a_sent())

    def read_some(body: str) -> SesEvent | Refusal:
        if "Bounce" in body:
            raise ZeroDivisionError
        return parse_event(body)

    monkeypatch.setattr(receive, "parse_event", read_some)
    assert inbox.take(an_envelope(), BOUNCE, {"no": "event"}) == ["1"]
    assert inbox.record.feedback is not None
    assert inbox.record.feedback.delivered == 1
    [(step, tenant_id, error)] = [arguments for name, arguments in inbox.telemetry.entries if name == "failed"]
    assert (step, tenant_id, type(error)) == ("read feedback", None, ZeroDivisionError)


def test_what_cannot_be_begun_in_time_comes_again_alone() -> None:
    """DynamoDB is slow: its neighbours that are done are not repeated, as they would be if the function's time ran out."""
    inbox = Inbox(a_sent(), *(replace(a_sent(), request_id=f"r{number}", message_id=f"0100-{number}") for number in (2, 3)))
    inbox.table.after = lambda _: inbox.clock.advance(timedelta(seconds=3))
    others = [an_envelope(request_id=f"r{number}", message_id=f"0100-{number}") for number in (2, 3)]
    assert inbox.take(an_envelope(), *others, {"no": "event"}, left=EVENT_SPAN + timedelta(seconds=3)) == ["2", "3"]
    told = [inbox.messages.records["acme", request_id].feedback is not None for request_id in ("r1", "r2", "r3")]
    assert (told, inbox.refusals) == ([True, True, False], [])


def test_later_counts_are_not_overwritten_by_a_slow_writer() -> None:
    """Of two functions at the same mail the one that knows more has the last word, whichever writes last."""
    inbox = Inbox(a_sent())
    more = FeedbackCounts(complained=1, first_at=NOON, last_at=NOON + MINUTE, rank=12)

    def newer(change: Any) -> None:
        if change.rule is delivery.NOTE_FEEDBACK:
            inbox.messages.records["acme", "r1"] = replace(a_sent(), feedback=more)

    inbox.messages.before = newer
    assert inbox.take(an_envelope()) == []
    assert inbox.record.feedback == more


# ── who else is told ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_those_who_react_are_told_before_the_event_is_acknowledged() -> None:
    """With the record as it stands then; where one of them fails, the event comes again."""
    inbox = Inbox(a_sent(Status.UNKNOWN))
    assert inbox.take(BOUNCE) == []
    [accepted] = inbox.reacted
    assert (accepted.mail, accepted.record) == (MailRef("acme", "r1", 1), inbox.record)
    assert (accepted.event.type, accepted.event.recipients[0].email) == ("Permanent", "jo@example.com")
    assert inbox.listener.versions == [("acme", 7)]
    inbox.deps = replace(inbox.deps, reactions=[_lost])
    assert inbox.take(BOUNCE) == ["0"]


def test_an_event_of_a_test_mail_is_for_the_provider_s_record() -> None:
    """It has no request; where it comes from somebody else it is refused as any other."""
    inbox = Inbox()
    assert inbox.take(an_envelope(tags=verify_tags("acme", 3))) == []
    assert (inbox.listener.verified, inbox.refusals) == ([VerifyRef("acme", 3)], [])
    inbox.listener.refusal = Refusal.FOREIGN_ACCOUNT
    inbox.take(an_envelope(tags=verify_tags("acme", 3)))
    assert inbox.refusals == [Refusal.FOREIGN_ACCOUNT]


def test_a_refusal_shows_no_address() -> None:
    """Log lines and exceptions show what `repr` shows."""
    event = parse_event(json.dumps(BOUNCE))
    assert isinstance(event, SesEvent)
    assert "example.com" not in repr(event)
    assert "user unknown" not in repr(event)
