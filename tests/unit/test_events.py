"""Which writes other systems hear of, and what they are told."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mailer.domain.delivery import END_STATUSES, NEEDS_NEW_ID, Delivery, Resolution, Status
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.events import Event, RequestWritten, events_of, provider_changed, request_ended, what_changed
from mailer.domain.facts import FeedbackCounts, RecipientStatus
from mailer.domain.feedback_state import feedback_hint
from mailer.domain.provider import Provider, ProviderStatus, StoredConfig
from mailer.services.events.publish import ROUNDS, publish
from mailer.services.events.silence import note_sent
from support.fakes.ports import NOON, FakeTelemetry, a_config, a_delivery, a_provider

ROOT = Path(__file__).resolve().parents[2]
LATER = NOON + timedelta(seconds=1)
REJECTED = ErrorInfo("recipient_rejected", "SES refused an address")


@pytest.mark.parametrize("status", sorted(END_STATUSES))
def test_every_end_of_a_request_is_told(status: Status) -> None:
    """Whichever of the four it is, and whatever the request was before."""
    event = request_ended("e-1", a_delivery(status=Status.SENDING), a_delivery(status=status))
    assert event is not None
    assert (event.detail_type, event.detail["status"]) == ("Request Ended", status)


def test_the_first_write_of_a_request_may_be_its_end() -> None:
    """One that cannot be read fails without having been anything else."""
    assert request_ended("e-1", None, a_delivery(status=Status.FAILED))


@pytest.mark.parametrize("status", sorted(set(Status) - END_STATUSES))
def test_what_goes_on_is_not_told(status: Status) -> None:
    """A request that waits or is tried has no outcome yet."""
    assert request_ended("e-1", None, a_delivery(status=status)) is None


def test_a_note_on_an_ended_request_is_not_told() -> None:
    """Parking the body of an `unknown` ends it no second time."""
    held = a_delivery(status=Status.UNKNOWN)
    assert request_ended("e-1", held, replace(held, parked="parked/acme/r1/1.json")) is None


def test_an_unknown_that_is_settled_is_told_again() -> None:
    """What a proof or an operator made of it is news."""
    assert request_ended("e-1", a_delivery(status=Status.UNKNOWN), a_delivery(status=Status.SENT))


def test_the_detail_is_the_record_and_who_must_do_what() -> None:
    """It is all that a consumer needs; no recipient, body, key or place of a body is in it."""
    record = a_delivery(
        "invoice-1",
        Status.FAILED,
        error=REJECTED,
        attempt=2,
        owner="worker-1",
        parked="parked/acme/invoice-1/1.json",
        provider_version=3,
        correlation_id="c-1",
        updated_at=LATER,
    )
    event = request_ended("e-1", None, record)
    assert event is not None
    assert event.detail == {
        "version": "1",
        "id": "e-1",
        "tenantId": "acme",
        "requestId": "invoice-1",
        "status": "failed",
        "onUnknown": "hold",
        "provider": "ses",
        "configVersion": 3,
        "messageId": None,
        "attempts": 2,
        "recipients": 1,
        "correlationId": "c-1",
        "createdAt": "2026-11-24T12:00:00.000Z",
        "endedAt": "2026-11-24T12:00:01.000Z",
        "principal": None,
        "error": {"code": "recipient_rejected", "message": REJECTED.message, "retryable": False, "hint": f"{REJECTED.hint} {NEEDS_NEW_ID}"},
    }


def test_an_unknown_that_is_sent_again_has_not_ended() -> None:
    """Consumers hear of it once it is given up, or of what sending it again leads to."""
    lost = a_delivery(status=Status.UNKNOWN, on_unknown="resend")
    held = replace(lost, on_unknown="hold", parked="parked/acme/r1/1.json", updated_at=LATER)
    assert request_ended("e-1", a_delivery(status=Status.SENDING, on_unknown="resend"), lost) is None
    told = request_ended("e-2", lost, held)
    assert told is not None
    assert (told.detail["status"], told.detail["endedAt"]) == ("unknown", "2026-11-24T12:00:01.000Z")
    assert request_ended("e-3", held, replace(held, parked="parked/acme/r1/2.json")) is None
    assert request_ended("e-4", lost, replace(lost, status=Status.SENT)) is not None
    assert request_ended("e-5", held, replace(held, status=Status.SENT)) is not None


OPERATOR = "arn:aws:sts::123456789012:assumed-role/operators/jo"


@pytest.mark.parametrize(
    ("record", "principal"),
    [
        (a_delivery(status=Status.CANCELLED, cancelled_by=OPERATOR), OPERATOR),
        (a_delivery(status=Status.SENT, resolution=Resolution("sent", "Jo", "seen", NOON, OPERATOR)), OPERATOR),
        (a_delivery(status=Status.SENT, resolution=Resolution("resend", "Jo", "not seen", NOON, OPERATOR)), None),
        (a_delivery(status=Status.SENT), None),
    ],
)
def test_an_end_names_whose_call_it_was(record: Delivery, principal: str | None) -> None:
    """The authenticated identity, not the name that it gave; a mail that an operator had sent again ends by itself."""
    event = request_ended("e-1", a_delivery(status=Status.UNKNOWN), record)
    assert event is not None
    assert event.detail["principal"] == principal


# -- what became of a mail -----------------------------------------------------------------------------------------------


def counts(seconds: int = 0, **by_status: int) -> FeedbackCounts:
    """So many recipients in each status, the latest of it so many seconds after noon."""
    return FeedbackCounts(**by_status, first_at=NOON, last_at=NOON + timedelta(seconds=seconds), rank=sum(by_status.values()))


def reported(before: FeedbackCounts | None, after: FeedbackCounts | None) -> list[tuple[str, int]]:
    """Return the status and number of each event of a write to a mail's counts."""
    sent = a_delivery(status=Status.SENT, message_id="m-1")
    events = events_of(RequestWritten("e-1", replace(sent, feedback=before), replace(sent, feedback=after)))
    assert {event.detail_type for event in events} <= {"Delivery Reported"}
    return [(event.detail["status"], event.detail["recipients"]) for event in events]


@pytest.mark.parametrize("status", sorted(RecipientStatus))
def test_each_thing_that_ses_tells_of_a_recipient_is_told(status: RecipientStatus) -> None:
    """Under the name that the API has for it."""
    assert reported(None, counts(**{status: 1})) == [(status, 1)]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (counts(delivered=1), counts(1, delivered=2), [("delivered", 2)]),
        (counts(delivered=2), counts(1, delivered=1, complained=1), [("complained", 1)]),
        (counts(delivered=1), counts(1, delivered=2, bounced=1), [("delivered", 2), ("bounced", 1)]),
        (counts(delivered=1), counts(9, delivered=1), []),
        (counts(delivered=1), counts(delivered=1), []),
        (None, None, []),
    ],
)
def test_a_number_that_rises_is_told(before: FeedbackCounts | None, after: FeedbackCounts | None, told: Sequence[tuple[str, int]]) -> None:
    """With all recipients that have the status now; what falls, or only came later, is not told."""
    assert sorted(reported(before, after)) == sorted(told)


def test_a_report_says_of_which_mail_and_when_and_names_no_recipient() -> None:
    """Its id is that of the write and the status: two of one write are two events, however often they are published."""
    sent = a_delivery("invoice-1", Status.SENT, message_id="m-1", correlation_id="c-1")
    write = RequestWritten("e-1", sent, replace(sent, feedback=counts(5, delivered=3, bounced=1)))
    delivered, bounced = sorted(events_of(write), key=lambda event: event.id, reverse=True)
    assert delivered.detail == {
        "version": "1",
        "id": "e-1-delivered",
        "tenantId": "acme",
        "requestId": "invoice-1",
        "messageId": "m-1",
        "status": "delivered",
        "recipients": 3,
        "correlationId": "c-1",
        "at": "2026-11-24T12:00:05.000Z",
    }
    assert (bounced.id, bounced.at) == ("e-1-bounced", NOON + timedelta(seconds=5))


def test_a_write_may_end_a_request_and_report_of_its_mail() -> None:
    """As one whose record was restored from what is known."""
    sent = a_delivery(status=Status.SENT, feedback=counts(delivered=1))
    assert [event.detail_type for event in events_of(RequestWritten("e-1", None, sent))] == ["Request Ended", "Delivery Reported"]


@pytest.mark.parametrize(("before", "now"), [(None, True), (Status.SENDING, True), (Status.UNKNOWN, True), (Status.SENT, False)])
def test_a_mail_is_sent_once(before: Status | None, now: bool) -> None:  # noqa: FBT001
    """What is noted on the record of a mail that was sent sends it no second time."""
    old = before and a_delivery(status=before)
    assert RequestWritten("e-1", old, a_delivery(status=Status.SENT)).sent is now
    assert not RequestWritten("e-1", old, a_delivery(status=Status.FAILED)).sent


# -- silence -------------------------------------------------------------------------------------------------------------


class FakeWatch:
    """Keeps what was marked as sent; answers as a test prepares."""

    def __init__(self, silent: Mapping[str, StoredConfig] = MappingProxyType({}), *, down_for: str = "") -> None:
        self.marked: list[tuple[str, int, datetime]] = []
        self._silent, self._down_for = silent, down_for

    def sent(self, tenant_id: str, version: int, at: datetime) -> StoredConfig | None:
        if tenant_id == self._down_for:
            raise DependencyError("DynamoDB", "UpdateItem")
        self.marked.append((tenant_id, version, at))
        return self._silent.get(tenant_id)


def sent(tenant_id: str = "acme", version: int | None = 1, at: datetime | None = NOON) -> Delivery:
    return a_delivery(status=Status.SENT, tenant_id=tenant_id, provider_version=version, sent_at=at, updated_at=at or NOON)


def test_a_batch_marks_each_version_once_at_its_latest_mail() -> None:
    """A hundred mails of one tenant are one mark; a record that does not say when, or of which version, is none."""
    marks = FakeWatch()
    note_sent([sent(at=LATER), sent(), sent(version=2), sent("globex"), sent(version=None), sent(at=None)], marks, FakeTelemetry())
    assert marks.marked == [("acme", 1, LATER), ("acme", 2, NOON), ("globex", 1, NOON)]


def test_a_mail_that_was_settled_late_counts_from_when_it_was_settled() -> None:
    """SES accepted it days ago: counted from then its version would be silent at the next mail, and no hour after it."""
    marks = FakeWatch()
    note_sent([replace(sent(at=LATER), sent_at=NOON - timedelta(days=3))], marks, FakeTelemetry())
    assert marks.marked == [("acme", 1, LATER)]


def test_a_version_that_turns_silent_is_reported_with_what_to_look_at() -> None:
    """Operators and the tenant's record say the same."""
    config = a_config(configuration_set="mail-acme", account="222222222222", unheard_since=NOON)
    telemetry = FakeTelemetry()
    note_sent([sent()], FakeWatch({"acme": config}), telemetry)
    [(what, (tenant_id, version, hint))] = telemetry.entries
    assert (what, tenant_id, version) == ("feedback silent", "acme", 1)
    assert hint == feedback_hint(replace(config, silent_since=NOON))


def test_a_mark_that_fails_keeps_no_other_tenant_from_its_own() -> None:
    """The tenant's next mail makes it good: nothing is published twice for it."""
    marks, telemetry = FakeWatch(down_for="acme"), FakeTelemetry()
    note_sent([sent(), sent("globex")], marks, telemetry)
    assert marks.marked == [("globex", 1, NOON)]
    assert [(name, arguments[0]) for name, arguments in telemetry.entries] == [("failed", "mark as sent")]


# -- providers -----------------------------------------------------------------------------------------------------------


def changed(row: Provider, **fields: Any) -> Provider:
    return replace(row, updated_at=LATER, **fields)


ACTIVE = a_provider()
CANDIDATE = changed(ACTIVE, versions=2, candidate=a_config(version=2))
DENIED = ErrorInfo("credentials_denied", "denied")


@pytest.mark.parametrize(
    ("old", "new", "change", "version"),
    [
        (None, a_provider(status=ProviderStatus.UNVERIFIED, active=None, candidate=a_config()), "stored", 1),
        (ACTIVE, CANDIDATE, "stored", 2),
        (CANDIDATE, changed(ACTIVE, versions=2, active=a_config(version=2), verified_at=LATER), "verified", 2),
        (ACTIVE, changed(ACTIVE, active=a_config(error=DENIED)), "verifyFailed", 1),
        (replace(CANDIDATE, updated_at=NOON), replace(CANDIDATE, candidate=a_config(version=2, error=DENIED)), "verifyFailed", 2),
        (ACTIVE, changed(ACTIVE, status=ProviderStatus.DISABLED), "disabled", 1),
        (replace(ACTIVE, status=ProviderStatus.DISABLED), changed(ACTIVE), "enabled", 1),
        (ACTIVE, changed(ACTIVE, status=ProviderStatus.SUSPENDED, error=DENIED), "suspended", 1),
        (ACTIVE, changed(ACTIVE, status=ProviderStatus.DELETED, active=None, deleted_at=LATER), "deleted", 1),
    ],
)
def test_each_change_of_a_provider_has_its_name(old: Provider | None, new: Provider, change: str, version: int) -> None:
    """And the version that it happened to."""
    event = provider_changed("e-1", old, new)
    assert event is not None
    assert (event.detail["change"], event.detail["configVersion"]) == (change, version)


@pytest.mark.parametrize(
    "new",
    [
        replace(ACTIVE, faulty_requests=frozenset({"r1"})),
        replace(ACTIVE, sandbox="true"),
        replace(ACTIVE, release_at=NOON),
        replace(ACTIVE, active=a_config(feedback_at=NOON, unheard_since=NOON, silent_since=NOON)),
    ],
)
def test_what_sending_learns_and_the_sweeper_marks_is_no_change(new: Provider) -> None:
    """Consumers hear of what somebody did to a provider, and of its suspension."""
    assert what_changed(ACTIVE, replace(new, revision=2)) is None


def test_an_external_id_that_is_reserved_is_no_change() -> None:
    """Onboarding looks; there is no provider yet."""
    assert what_changed(None, a_provider(status=ProviderStatus.DELETED, active=None)) is None


def test_a_suspension_says_why_and_who_must_do_what() -> None:
    """The error is the one that suspended it."""
    event = provider_changed("e-1", ACTIVE, changed(ACTIVE, status=ProviderStatus.SUSPENDED, error=DENIED))
    assert event is not None
    assert event.detail == {
        "version": "1",
        "id": "e-1",
        "tenantId": "acme",
        "change": "suspended",
        "status": "suspended",
        "configVersion": 1,
        "changedAt": "2026-11-24T12:00:01.000Z",
        "principal": None,
        "error": {"code": "credentials_denied", "message": "denied", "retryable": True, "hint": DENIED.hint},
    }


def test_the_documented_report_is_what_is_told() -> None:
    """The very detail of the page, made from the write that it stands for."""
    page = (ROOT / "docs/events.md").read_text()
    shown = json.loads(page.partition("## Delivery Reported")[2].partition("```json\n")[2].partition("```")[0])
    correlation_id, message_id = shown["correlationId"], shown["messageId"]
    mail = a_delivery(shown["requestId"], Status.SENT, message_id=message_id, correlation_id=correlation_id)
    [event] = events_of(RequestWritten(shown["id"].partition("-")[0], mail, replace(mail, feedback=counts(5, bounced=1))))
    assert event.detail == shown


@pytest.mark.parametrize("detail_type", ["Request Ended", "Provider Changed"])
def test_the_documented_example_is_what_is_told(detail_type: str) -> None:
    """The very details of the page, made by the code from the writes that they stand for."""
    page = (ROOT / "docs/events.md").read_text()
    shown = json.loads(page.partition(f"## {detail_type}")[2].partition("```json\n")[2].partition("```")[0])
    error = ErrorInfo(shown["error"]["code"], shown["error"]["message"])
    record = a_delivery(
        shown["requestId"] if detail_type == "Request Ended" else "r1",
        Status.FAILED,
        error=error,
        attempt=1,
        provider_version=3,
        correlation_id="6bc28136-1f0a-4c3e-9a53-0d1d6f5a2b11",
        updated_at=LATER,
    )
    third = replace(ACTIVE, versions=3, active=a_config(version=3))
    suspended = changed(third, status=ProviderStatus.SUSPENDED, error=error)
    told = request_ended(shown["id"], None, record) if detail_type == "Request Ended" else provider_changed(shown["id"], third, suspended)
    assert told is not None
    assert told.detail == shown


# -- telling -------------------------------------------------------------------------------------------------------------


class FakeBus:
    """Takes events once it has refused each as often as told."""

    def __init__(self, **refusals: int) -> None:
        self.refusals = refusals
        self.calls: list[list[str]] = []
        self.told: list[str] = []

    def put(self, events: Any) -> list[Event]:
        self.calls.append([event.id for event in events])
        left = [event for event in events if self.refusals.get(event.id, 0) > 0]
        for event in left:
            self.refusals[event.id] -= 1
        self.told += [event.id for event in events if event not in left]
        return left


def an_event(event_id: str) -> Event:
    return Event(id=event_id, detail_type="Request Ended", at=NOON, detail={})


def test_what_the_bus_did_not_take_is_put_again_alone() -> None:
    """Its neighbours are told once."""
    bus = FakeBus(b=1)
    publish([an_event("a"), an_event("b")], bus)
    assert bus.calls == [["a", "b"], ["b"]]


def test_nothing_is_put_for_nothing() -> None:
    """A batch may hold no end at all."""
    bus = FakeBus()
    publish([], bus)
    assert bus.calls == []


def test_what_cannot_be_told_is_not_forgotten() -> None:
    """The error makes the stream hand it out again."""
    bus = FakeBus(b=ROUNDS)
    with pytest.raises(DependencyError):
        publish([an_event("a"), an_event("b")], bus)
    assert len(bus.calls) == ROUNDS
    assert bus.told == ["a"]
