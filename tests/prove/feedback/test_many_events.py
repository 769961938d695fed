"""SES's events by the ten thousand: in any order, duplicated, and forged."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mailer.domain.delivery import Delivery, Status
from mailer.domain.feedback import SesEvent, parse_event
from mailer.domain.tags import tagged
from mailer.services.feedback.matching import FeedbackDependencies
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
from support.ses_events import REGION, envelopes
from tools.local_aws.ses_events import RecipientOutcome

QUEUED_AT = NOON + timedelta(hours=1)
REQUESTS, HOSTILE, BATCH = 800, 100_000, 100
OUTCOMES = list(RecipientOutcome)
ACCOUNTS: Mapping[str, str] = {"acme": "111122223333", "globex": "444455556666"}
"""Two tenants, each with its own account."""


def records(count: int) -> list[Delivery]:
    """Return records of both tenants in every state that mail accepted by SES may be in."""
    statuses = [Status.SENT, Status.SENDING, Status.UNKNOWN, Status.QUEUED, Status.DEFERRED]
    return [
        replace(
            a_delivery(f"r{number}", statuses[number % len(statuses)], attempt=1, account=account, region=REGION, provider_version=1),
            tenant_id=tenant_id,
        )
        for number in range(count)
        for tenant_id, account in ACCOUNTS.items()
    ]


def events_of(record: Delivery, number: int) -> list[dict[str, Any]]:
    """Return SES's events of a mail to several recipients, of each kind in turn."""
    to = {f"{name}@{name}.example": OUTCOMES[(number + place) % len(OUTCOMES)] for place, name in enumerate("abcd")}
    tags = tagged({}, tenant_id=record.tenant_id, request_id=record.request_id, attempt=1)
    return envelopes(to, tags=tags, account=record.account, message_id=f"{record.tenant_id}-{record.request_id}")


class Inbox:
    """FeedbackFunction over the tables' fakes."""

    def __init__(self, table: FakeMessagesTable) -> None:
        self.messages, self.table, self.telemetry = table, FakeFeedbackTable(), FakeTelemetry()
        self.clock = FakeClock(QUEUED_AT)
        self.deps = FeedbackDependencies(
            messages=table, feedback=self.table, parked=FakeParkedBodies(), telemetry=self.telemetry, clock=self.clock
        )

    def take(self, bodies: list[str]) -> None:
        """Process events in batches; failed ones are delivered again at the end."""
        again: list[str] = []
        for _ in range(2):
            again = []
            for start in range(0, len(bodies), BATCH):
                batch = [ReceivedEvent(str(n), body, QUEUED_AT) for n, body in enumerate(bodies[start : start + BATCH], start)]
                again += [
                    bodies[int(number)]
                    for number in receive_batch(batch, self.deps, InlineExecutor(), ends_at=self.deps.clock.now() + EVENT_SPAN)
                ]
            bodies = again
            self.clock.advance(RECORD_EXPECTED)
        assert not again, "an event is still waiting"


def proven(inbox: Inbox) -> dict[tuple[str, str], Delivery]:
    """Return the current records, without the event that proved each mail sent."""
    return {ids: replace(record, confirmed_by=None) for ids, record in sorted(inbox.messages.records.items())}


def test_ten_thousand_events_in_any_order_give_the_same_bytes() -> None:
    """Duplicated, some eight times, and shuffled over all requests: records and facts are equal, to the last character.

    The only difference is which event was the first, and so proved the mail sent.
    """
    shuffle, all_of_them = random.Random(1), records(REQUESTS)  # noqa: S311 - reproducible
    events = [json.dumps(event) for number, record in enumerate(all_of_them) for event in events_of(record, number)]
    copies = [event for event in events for _ in range(shuffle.choice([1, 1, 2, 8]))]
    shuffle.shuffle(copies)
    assert len(copies) >= 10_000
    plain, shuffled = Inbox(FakeMessagesTable(*all_of_them)), Inbox(FakeMessagesTable(*all_of_them))
    plain.take(events)
    shuffled.take(copies)
    print(f"{len(events)} events in order, {len(copies)} doubled and shuffled, {len(all_of_them)} records")
    assert proven(plain) == proven(shuffled)
    assert dict(sorted(plain.table.of_request.items())) == dict(sorted(shuffled.table.of_request.items()))
    assert all(record.status is Status.SENT and record.feedback for record in plain.messages.records.values())


JUNK: list[Any] = [None, True, 0, -1, 1e308, "", "\x00", "\ud800", "x" * 2_000, [], {}, [[]], {"a": {}}]
JUNK += ["acme", "globex", "1", "2026-11-24T12:00:00Z"]


def spoiled(event: Any, rng: random.Random, depth: int = 0) -> Any:
    """Return an event with invalid values in one or a few places."""
    if not isinstance(event, dict | list) or not event or (depth and rng.random() < 0.3):
        return rng.choice(JUNK)
    if isinstance(event, dict):
        place = rng.choice(list(event))
        return {**event, place: spoiled(event[place], rng, depth + 1)}
    number = rng.randrange(len(event))
    return [spoiled(entry, rng, depth + 1) if at == number else entry for at, entry in enumerate(event)]


def forged(event: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return an event of globex: from its own account, with arbitrary tags and ids, also those of acme's mail."""
    tags = {name: [rng.choice(["acme", "globex", f"r{rng.randrange(9)}", "1", "2", "0", "x"])] for name in event["detail"]["mail"]["tags"]}
    tags |= {"tenantmail-tenant": [rng.choice(["acme", "globex"])], "tenantmail-request": [f"r{rng.randrange(9)}"]}
    mail = {**event["detail"]["mail"], "tags": tags, "messageId": rng.choice(["acme-r1", "globex-r1", "made-up"])}
    return {**event, "account": ACCOUNTS["globex"], "detail": {**event["detail"], "mail": mail}}


def test_a_hundred_thousand_hostile_events_change_nothing() -> None:
    """With invalid values in any place, or forged by another tenant: none raises, and none has an effect on the other tenant."""
    rng = random.Random(2)  # noqa: S311 - reproducible
    all_of_them = records(9)
    mine = {(record.tenant_id, record.request_id): record for record in all_of_them if record.tenant_id == "acme"}
    theirs = [record for record in all_of_them if record.tenant_id == "globex"]
    pool = [event for number, record in enumerate(theirs) for event in events_of(record, number)]
    inbox = Inbox(FakeMessagesTable(*all_of_them))
    bodies = []
    for _ in range(HOSTILE):
        event: Any = rng.choice(pool)
        event = forged(event, rng) if rng.random() < 0.5 else event
        event = {**spoiled(event, rng), "account": ACCOUNTS["globex"]} if rng.random() < 0.7 else event
        bodies.append(json.dumps(event))
    bodies = [body[: rng.randrange(len(body))] if rng.random() < 0.05 else body for body in bodies]
    inbox.take(bodies)
    readable = sum(isinstance(parse_event(body), SesEvent) for body in bodies[:1_000])
    print(f"{HOSTILE} hostile events, about {readable / 10:.0f} % of them readable; refused: {_refusals(inbox)}")
    assert [entry for entry in inbox.telemetry.entries if entry[0] == "failed"] == []
    assert {ids: record for ids, record in inbox.messages.records.items() if ids[0] == "acme"} == mine
    assert {ids for ids in inbox.table.of_request if ids[0] == "acme"} == set()


def _refusals(inbox: Inbox) -> dict[str, int]:
    counted: dict[str, int] = {}
    for name, arguments in inbox.telemetry.entries:
        if name == "feedback refused":
            counted[arguments[0].value] = counted.get(arguments[0].value, 0) + 1
    return counted
