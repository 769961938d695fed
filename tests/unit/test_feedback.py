"""SES's events are recorded exactly once: duplicated, early, late, in any order, or forged."""

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
    attributes: dict[str, Any] = {"attempt": 1, "owner": "w1", "account": ACCOUNT, "region": REGION, "provider_version": 7, **fields}
    if status is Status.SENT:
        attributes = {"message_id": MESSAGE_ID, "accepted_attempt": 1, "sent_at": NOON, **attributes}
    return a_delivery("r1", status, **attributes)


class Listener:
    """Stores its calls."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.versions: list[tuple[str, int]] = []
        self.verified: list[VerifyRef] = []
        self.refusal = refusal

    def event_arrived(self, tenant_id: str, version: int, at: Any) -> None:  # noqa: ARG002 - as the port has it
        self.versions.append((tenant_id, version))

    def verify_event_arrived(self, ref: VerifyRef, event: SesEvent) -> Refusal | None:  # noqa: ARG002 - as the port has it
        self.verified.append(ref)
        return self.refusal


class Inbox:
    """FeedbackFunction with fakes."""

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
        """Process a batch within the time left; return the numbers of the events to redeliver."""
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


# ── facts and counts ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_feedback_is_recorded_beside_the_status() -> None:
    """The record gets counts, the feedback table each recipient's facts; the status does not change."""
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


def test_a_duplicate_event_is_not_counted() -> None:
    """SES was seen to send eight copies."""
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


def tables_after(events: Sequence[dict[str, Any]], record: Delivery, *, batch: int = 1) -> tuple[Delivery, Any, Any]:
    """Return the content of both tables after some events."""
    inbox = Inbox(record)
    for start in range(0, len(events), batch):
        redelivered = inbox.take(*events[start : start + batch])
        assert redelivered == [] or events[start]["detail"]["eventType"] == "DeliveryDelay"
    return inbox.record, inbox.table.of_request, {kind for kind, _ in inbox.counted}


def test_events_in_any_order_have_the_same_result() -> None:
    """Every order of six events of a mail is tested; only a delay may come before it can be matched, and is redelivered."""
    first = EVENTS[:6]
    expected = tables_after(first, a_sent())
    for order in permutations(first):
        record, facts, _ = tables_after([*order, *(event for event in order if event["detail"]["eventType"] == "DeliveryDelay")], a_sent())
        assert (record, facts) == expected[:2]


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_and_duplicate_events_have_the_same_result(seed: int) -> None:
    """Up to eight copies of each event, in batches of several sizes, give an equal record."""
    shuffle = random.Random(seed)  # noqa: S311 - a seed is a case
    expected = tables_after(EVENTS, a_sent())
    copies = [event for event in EVENTS for _ in range(shuffle.choice([1, 1, 2, 8]))]
    shuffle.shuffle(copies)
    delays = [event for event in EVENTS if event["detail"]["eventType"] == "DeliveryDelay"]
    record, facts, _ = tables_after([*copies, *delays], a_sent(), batch=shuffle.choice([1, 3, 100]))
    assert (record, facts) == expected[:2]


def test_earlier_statuses_are_counted_once() -> None:
    """A recipient with a delay and then a delivery counts once as each; the delivery has the time that it took."""
    inbox = Inbox(a_sent())
    events = envelopes({"late@example.net": RecipientOutcome.DELAYED})
    inbox.take(*events, *events)
    assert inbox.counted == [(RecipientStatus.DELAYED, None), (RecipientStatus.DELIVERED, timedelta(seconds=0.9))]


# ── proof ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["Send", "Delivery"])
@pytest.mark.parametrize("status", [Status.SENDING, Status.UNKNOWN, Status.QUEUED, Status.DEFERRED])
def test_any_event_of_an_attempt_proves_that_ses_accepted_it(status: Status, kind: str) -> None:
    """The record gets its messageId and SES's time; the request cannot be resent, and its parked body is deleted."""
    inbox = Inbox(a_sent(status, parked="parked/acme/r1/0.json", due_at=NOON, deadline=NOON, on_unknown="resend"))
    inbox.parked.bodies["parked/acme/r1/0.json"] = "{}"
    assert inbox.take(an_envelope(kind)) == []
    sent = inbox.record
    assert (sent.status, sent.message_id, sent.sent_at, sent.due_at) == (Status.SENT, MESSAGE_ID, NOON, None)
    assert inbox.parked.bodies == {}
    assert inbox.recorded == [sent]
    begin = changes.begin(changes.request_of(sent), NOON, owner="w2", deadline=NOON, sent_by=changes.SentBy("ses", 7))
    assert not delivery.allows(begin, sent)


def test_a_concurrently_parked_body_is_deleted_too() -> None:
    """A worker parks the body of an unknown while its event is processed."""
    inbox = Inbox(a_sent(Status.UNKNOWN))
    inbox.parked.bodies["parked/acme/r1/0.json"] = "{}"

    def hold(_: Any) -> None:
        inbox.messages.before = lambda _: None
        inbox.messages.records["acme", "r1"] = replace(inbox.record, parked="parked/acme/r1/0.json")

    inbox.messages.before = hold
    assert inbox.take(an_envelope()) == []
    assert (inbox.record.status, inbox.parked.bodies) == (Status.SENT, {})


@pytest.mark.parametrize("where", ["confirm", "facts", "counts", "reaction"])
def test_a_proof_is_reported_once_after_any_failure(where: str) -> None:
    """If its reply is lost or a later step fails, the redelivered event reports it and deletes the body."""
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


def test_a_proof_is_reported_once_with_several_copies() -> None:
    """Only the copy that wrote the proof reports it, even if another had read the record before."""
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


def test_an_event_of_an_earlier_attempt_is_a_proof_too() -> None:
    """The request was requeued since, and attempted again from another account."""
    earlier = EarlierAttempt(1, ACCOUNT, REGION)
    for status in (Status.QUEUED, Status.SENDING, Status.UNKNOWN):
        inbox = Inbox(a_sent(status, attempt=2, account="444455556666", earlier_attempts=(earlier,), maybe_sent=True))
        assert inbox.take(an_envelope()) == []
        assert (inbox.record.status, inbox.record.accepted_attempt, inbox.record.message_id) == (Status.SENT, 1, MESSAGE_ID)
        assert inbox.record.feedback is not None
        assert inbox.listener.versions == []  # the version of an earlier attempt is not stored


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_an_event_that_contradicts_the_status_is_only_counted(status: Status) -> None:
    """A final status that callers have read is not changed; an operator has to look."""
    inbox = Inbox(a_sent(status))
    assert inbox.take(an_envelope()) == []
    assert (inbox.record, inbox.table.of_request, inbox.refusals) == (a_sent(status), {}, [Refusal.CONTRADICTION])
    assert [accepted.record for accepted in inbox.reacted] == [a_sent(status)]  # bounces and complaints still count
    assert inbox.listener.versions == []


@pytest.mark.parametrize(("meanwhile", "refusals"), [(Status.SENT, []), (Status.FAILED, [Refusal.CONTRADICTION])])
def test_a_worker_may_write_the_final_status_first(meanwhile: Status, refusals: list[Refusal]) -> None:
    """The worker writes SES's response between the read of the record and its change."""
    inbox = Inbox(a_sent(Status.SENDING))

    def end(_: Any) -> None:
        inbox.messages.before = lambda _: None
        inbox.messages.records["acme", "r1"] = a_sent(meanwhile)

    inbox.messages.before = end
    assert inbox.take(an_envelope()) == []
    assert (inbox.record.status, inbox.refusals) == (meanwhile, refusals)
    assert (inbox.record.feedback is not None) == (meanwhile is Status.SENT)


# ── whose event it is ───────────────────────────────────────────────────────────────────────────────────────────────────

OTHER = "444455556666"
TAGS = {"tenant_id": "acme", "request_id": "r1", "attempt": 1}

FORGERIES: dict[str, tuple[dict[str, Any], Refusal]] = {
    "another account": (an_envelope(account=OTHER), Refusal.FOREIGN_ACCOUNT),
    "another region": (an_envelope(region="us-east-1"), Refusal.FOREIGN_ACCOUNT),
    "another sending account": (replaced(an_envelope(), ("detail", "mail", "sendingAccountId"), OTHER), Refusal.FOREIGN_ACCOUNT),
    "another mail": (an_envelope(message_id="0100-other"), Refusal.WRONG_MESSAGE),
    "a future attempt": (an_envelope(attempt=2), Refusal.NO_ATTEMPT),
    "another tenant's request": (
        an_envelope(account=OTHER, tags=tagged({}, tenant_id="acme", request_id="r1", attempt=1)),
        Refusal.FOREIGN_ACCOUNT,
    ),
    "tags without a request": (an_envelope(tags={"tenantmail-tenant": "acme"}), Refusal.BAD_TAGS),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_event_changes_nothing(forgery: str) -> None:
    """It is rejected, counted, and raises an alarm."""
    event, refusal = FORGERIES[forgery]
    inbox = Inbox(a_sent())
    assert inbox.take(event) == []
    assert (inbox.record, inbox.table.of_request, inbox.table.of_message) == (a_sent(), {}, {})
    assert inbox.refusals == [refusal]
    assert refusal in FORGED
    assert (inbox.reacted, inbox.listener.versions) == ([], [])


def test_events_of_an_attempt_of_an_unknown_account_are_refused() -> None:
    """A config that was verified before accounts were stored has to be verified again."""
    inbox = Inbox(a_sent(account=None))
    inbox.take(an_envelope())
    assert inbox.refusals == [Refusal.UNKNOWN_ACCOUNT]
    assert Refusal.UNKNOWN_ACCOUNT not in FORGED
    inbox = Inbox(a_sent(Status.UNKNOWN, attempt=2, earlier_attempts=(EarlierAttempt(1, None, None),)))
    inbox.take(an_envelope())
    assert inbox.refusals == [Refusal.UNKNOWN_ACCOUNT]


def test_events_of_an_attempt_that_was_proven_unsent_are_refused() -> None:
    """Earlier attempts are stored only if SES may have accepted them."""
    inbox = Inbox(a_sent(attempt=3, accepted_attempt=3, earlier_attempts=(EarlierAttempt(2, ACCOUNT, REGION),)))
    inbox.take(an_envelope(attempt=1))
    assert inbox.refusals == [Refusal.NO_ATTEMPT]


def test_an_event_with_another_id_than_the_operator_s_is_accepted() -> None:
    """The operator may have mistyped the messageId."""
    resolution = Resolution("sent", "ops", "seen", NOON)
    inbox = Inbox(a_sent(message_id="0100-typo", accepted_attempt=1, resolution=resolution))
    assert inbox.take(an_envelope()) == []
    assert (inbox.refusals, inbox.record.message_id) == ([], "0100-typo")
    assert inbox.record.feedback is not None


# ── events without tags ─────────────────────────────────────────────────────────────────────────────────────────────────

SEND, DELAY, *_ = envelopes({"jo@example.com": RecipientOutcome.DELAYED})


def test_a_delay_is_matched_by_its_messageid() -> None:
    """SES's sample of a DeliveryDelay has no tags; an earlier event of the mail had them."""
    inbox = Inbox(a_sent())
    assert inbox.take(SEND, DELAY) == []
    assert inbox.record.feedback is not None
    assert inbox.record.feedback.delayed == 1
    assert inbox.table.of_message == {(ACCOUNT, REGION, MESSAGE_ID): MailRef("acme", "r1", 1)}


@pytest.mark.parametrize("difference", [{"account": OTHER}, {"region": "us-east-1"}])
def test_a_messageid_is_valid_within_its_account_and_region(difference: dict[str, str]) -> None:
    """Another account's event with this id is of another mail."""
    inbox = Inbox(a_sent())
    inbox.take(SEND)
    assert inbox.take({**DELAY, **difference}) == ["0"]
    assert inbox.record.feedback is None


def test_a_delay_waits_for_an_event_with_tags() -> None:
    """It waits for a quarter of an hour; then it is rejected and counted."""
    inbox = Inbox(a_sent())
    received_at = inbox.clock.now()
    assert inbox.take(DELAY) == ["0"]
    inbox.clock.advance(RECORD_EXPECTED)
    assert inbox.take(DELAY, sent_at=received_at) == []
    assert inbox.refusals == [Refusal.NO_RECORD]


def test_other_mail_of_the_tenant_is_ignored() -> None:
    """The tenant may use the configuration set for other mail; its events are no forgeries."""
    inbox = Inbox(a_sent())
    assert inbox.take(an_envelope(tags={"campaign": "spring"}, message_id="0100-other")) == []
    assert inbox.refusals == [Refusal.UNTAGGED]
    assert Refusal.UNTAGGED not in FORGED


def test_the_messageid_is_stored_while_a_delay_may_follow() -> None:
    """A mail that all recipients got does not need it, and costs no write."""
    inbox = Inbox(a_sent())
    inbox.take(an_envelope())
    assert inbox.table.of_message == {}
    inbox.take(an_envelope("Bounce", RecipientOutcome.MAILBOX_FULL, destinations=("jo@example.com", "b@example.com")))
    assert inbox.table.of_message == {(ACCOUNT, REGION, MESSAGE_ID): MailRef("acme", "r1", 1)}


# ── too early, too late ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_waits_for_its_record() -> None:
    """It waits for a quarter of an hour, in which a restored table may get the record back."""
    inbox = Inbox()
    received_at = inbox.clock.now()
    inbox.clock.advance(RECORD_EXPECTED - timedelta(seconds=1))
    assert inbox.take(an_envelope(), sent_at=received_at) == ["0"]
    assert inbox.refusals == []
    inbox.messages.records["acme", "r1"] = a_sent()
    assert inbox.take(an_envelope(), sent_at=received_at) == []
    assert inbox.record.feedback is not None


def test_an_event_without_a_record_is_dropped_in_the_end() -> None:
    """It is rejected and counted."""
    inbox = Inbox()
    assert inbox.take(an_envelope(), sent_at=inbox.clock.now() - RECORD_EXPECTED) == []
    assert inbox.refusals == [Refusal.NO_RECORD]


def test_an_erased_request_counts_as_missing() -> None:
    """Nothing of its recipients is recorded any more."""
    inbox = Inbox(a_sent(content_hash=ERASED_CONTENT))
    assert inbox.take(an_envelope(), sent_at=inbox.clock.now() - RECORD_EXPECTED) == []
    assert (inbox.refusals, inbox.table.of_request) == ([Refusal.NO_RECORD], {})


@pytest.mark.parametrize("feedback", [None, FeedbackCounts(complained=1, first_at=NOON - MINUTE, last_at=NOON + MINUTE, rank=12)])
def test_a_request_that_is_erased_concurrently_keeps_no_address(feedback: FeedbackCounts | None) -> None:
    """The facts are written after the erasure: the record is read again after that, also if its counts do not change."""
    inbox = Inbox(a_sent(feedback=feedback))
    inbox.table.before = inbox.erase
    assert inbox.take(BOUNCE) == ["0"]
    assert (inbox.table.of_request, inbox.record.feedback, inbox.reacted, inbox.counted) == ({}, None, [], [])


def test_a_record_that_expires_concurrently_leaves_no_address() -> None:
    """It was erased more than 15 days after its end."""
    inbox = Inbox(a_sent())
    inbox.table.after = lambda _: inbox.messages.records.clear()
    assert inbox.take(BOUNCE) == ["0"]
    assert inbox.table.of_request == {}


def test_an_unknown_that_is_erased_concurrently_is_not_proven() -> None:
    """An event does not change an erased record."""
    inbox = Inbox(a_sent(Status.UNKNOWN))
    inbox.messages.before = inbox.erase
    assert inbox.take(an_envelope()) == ["0"]
    assert (inbox.record.status, inbox.record.message_id, inbox.table.of_request) == (Status.UNKNOWN, None, {})


def test_facts_left_by_a_crash_are_deleted_by_the_redelivered_event() -> None:
    """The function crashed between writing the facts and reading the erased record."""
    inbox = Inbox(a_sent())
    inbox.table.before = inbox.erase
    inbox.messages.before = _lost
    assert inbox.take(an_envelope()) == ["0"]
    assert inbox.table.of_request
    inbox.table.before = inbox.messages.before = lambda _: None
    assert inbox.take(an_envelope(), sent_at=inbox.clock.now() - RECORD_EXPECTED) == []
    assert (inbox.table.of_request, inbox.refusals) == ({}, [Refusal.NO_RECORD])


@pytest.mark.parametrize(("age", "refusals"), [(timedelta(days=35), []), (timedelta(days=35, seconds=1), [Refusal.TOO_OLD])])
def test_an_event_is_accepted_for_35_days(age: timedelta, refusals: list[Refusal]) -> None:
    """After that the record may have expired, and the id may be another request's."""
    inbox = Inbox(a_sent())
    inbox.clock.time = NOON + age
    assert inbox.take(replaced(an_envelope(), ("time",), "2026-11-24T12:00:00Z")) == []
    assert inbox.refusals == refusals


def test_an_event_of_the_future_is_refused() -> None:
    """Clocks may differ by less than an hour."""
    inbox = Inbox(a_sent())
    inbox.clock.time = NOON - timedelta(hours=2)
    assert inbox.take(an_envelope()) == []
    assert inbox.refusals == [Refusal.UNREADABLE]


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lost(_: Any) -> None:
    raise DependencyError("DynamoDB", "UpdateItem")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", ["messages", "table"])
def test_an_event_with_a_failed_write_is_redelivered(table: str, when: str) -> None:
    """A write that failed or lost its reply is repeated, with the result of one write."""
    expected = Inbox(a_sent(Status.UNKNOWN))
    expected.take(an_envelope())
    inbox = Inbox(a_sent(Status.UNKNOWN))
    setattr(getattr(inbox, table), when, _lost)
    assert inbox.take(an_envelope()) == ["0"]
    setattr(getattr(inbox, table), when, lambda _: None)
    assert inbox.take(an_envelope()) == []
    assert (inbox.record, inbox.table.of_request) == (expected.record, expected.table.of_request)


def test_a_crash_between_facts_and_counts_is_repaired() -> None:
    """The redelivered event writes the counts of the facts."""
    inbox = Inbox(a_sent())
    inbox.messages.before = _lost
    assert inbox.take(an_envelope()) == ["0"]
    assert inbox.table.of_request
    inbox.messages.before = lambda _: None
    assert inbox.take(an_envelope()) == []
    assert inbox.record.feedback is not None


def test_an_unreadable_event_is_reported_with_its_fields() -> None:
    """The event is lost: an operator has to see what SES has changed."""
    inbox = Inbox(a_sent())
    assert inbox.take(replaced(an_envelope(), ("account",), "acme")) == []
    [(refusal, event, fields)] = [arguments for name, arguments in inbox.telemetry.entries if name == "feedback refused"]
    assert (refusal, event, fields) == (Refusal.UNREADABLE, None, ["account"])


def test_a_mail_to_too_many_recipients_is_counted_up_to_fifty() -> None:
    """Its acceptance is still proven."""
    many = [f"{number}@example.com" for number in range(60)]
    event = replaced(replaced(an_envelope(), ("detail", "mail", "destination"), many), ("detail", "delivery", "recipients"), many)
    inbox = Inbox(a_sent(Status.UNKNOWN))
    assert inbox.take(event) == []
    assert inbox.record.status is Status.SENT
    assert inbox.record.feedback is not None
    assert (inbox.record.feedback.delivered, inbox.refusals) == (50, [])


def test_a_failing_event_does_not_stop_others() -> None:
    """Neither does an unreadable one."""
    inbox = Inbox(a_sent(), replace(a_sent(), request_id="r2", message_id="0100-two"))

    def refuse_first(facts: Any) -> None:
        if "jo@example.com" in facts:
            raise DependencyError("DynamoDB", "PutItem")

    inbox.table.before = refuse_first
    two = an_envelope(request_id="r2", message_id="0100-two")
    second = replaced(
        replaced(two, ("detail", "mail", "destination"), ["b@example.com"]), ("detail", "delivery", "recipients"), ["b@example.com"]
    )
    assert inbox.take(an_envelope(), {"no": "event"}, second) == ["0"]
    assert inbox.messages.records["acme", "r2"].feedback is not None
    assert inbox.refusals == [Refusal.UNREADABLE]


def test_an_exception_affects_one_event() -> None:
    """It is redelivered until the bug is fixed."""
    inbox = Inbox(a_sent())
    inbox.table.before = lambda _: 1 / 0  # type: ignore[assignment]
    assert inbox.take(an_envelope(), {"no": "event"}) == ["0"]
    [(step, tenant_id, error)] = [arguments for name, arguments in inbox.telemetry.entries if name == "failed"]
    assert (step, tenant_id, type(error)) == ("feedback", None, ZeroDivisionError)


def test_an_exception_in_parsing_affects_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its batch are recorded, and it is redelivered alone."""
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


def test_events_that_cannot_be_started_in_time_are_redelivered() -> None:
    """DynamoDB is slow: finished events are not repeated, as they would be after a timeout of the function."""
    inbox = Inbox(a_sent(), *(replace(a_sent(), request_id=f"r{number}", message_id=f"0100-{number}") for number in (2, 3)))
    inbox.table.after = lambda _: inbox.clock.advance(timedelta(seconds=3))
    others = [an_envelope(request_id=f"r{number}", message_id=f"0100-{number}") for number in (2, 3)]
    assert inbox.take(an_envelope(), *others, {"no": "event"}, left=EVENT_SPAN + timedelta(seconds=3)) == ["2", "3"]
    recorded = [inbox.messages.records["acme", request_id].feedback is not None for request_id in ("r1", "r2", "r3")]
    assert (recorded, inbox.refusals) == ([True, True, False], [])


def test_later_counts_are_not_overwritten_by_a_slow_writer() -> None:
    """Of two functions with events of one mail, the counts with more facts win, in either order of writes."""
    inbox = Inbox(a_sent())
    newer_counts = FeedbackCounts(complained=1, first_at=NOON, last_at=NOON + MINUTE, rank=12)

    def write_newer_counts(change: Any) -> None:
        if change.rule is delivery.NOTE_FEEDBACK:
            inbox.messages.records["acme", "r1"] = replace(a_sent(), feedback=newer_counts)

    inbox.messages.before = write_newer_counts
    assert inbox.take(an_envelope()) == []
    assert inbox.record.feedback == newer_counts


# ── reactions ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reactions_run_before_the_event_is_acknowledged() -> None:
    """They get the current record; if one fails, the event is redelivered."""
    inbox = Inbox(a_sent(Status.UNKNOWN))
    assert inbox.take(BOUNCE) == []
    [accepted] = inbox.reacted
    assert (accepted.mail, accepted.record) == (MailRef("acme", "r1", 1), inbox.record)
    assert (accepted.event.type, accepted.event.recipients[0].email) == ("Permanent", "jo@example.com")
    assert inbox.listener.versions == [("acme", 7)]
    inbox.deps = replace(inbox.deps, reactions=[_lost])
    assert inbox.take(BOUNCE) == ["0"]


def test_an_event_of_a_test_mail_is_passed_to_the_provider_listener() -> None:
    """It has no request; a forged one is rejected like any other."""
    inbox = Inbox()
    assert inbox.take(an_envelope(tags=verify_tags("acme", 3))) == []
    assert (inbox.listener.verified, inbox.refusals) == ([VerifyRef("acme", 3)], [])
    inbox.listener.refusal = Refusal.FOREIGN_ACCOUNT
    inbox.take(an_envelope(tags=verify_tags("acme", 3)))
    assert inbox.refusals == [Refusal.FOREIGN_ACCOUNT]


def test_a_refusal_shows_no_address() -> None:
    """Log lines and exceptions show `repr`."""
    event = parse_event(json.dumps(BOUNCE))
    assert isinstance(event, SesEvent)
    assert "example.com" not in repr(event)
    assert "user unknown" not in repr(event)
