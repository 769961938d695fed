"""Which writes are published as events, and their details."""

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
def test_every_final_status_is_published(status: Status) -> None:
    """Each of the four is published."""
    event = request_ended("e-1", a_delivery(status=Status.SENDING), a_delivery(status=status))
    assert event is not None
    assert (event.detail_type, event.detail["status"]) == ("Request Ended", status)


def test_a_first_write_with_a_final_status_is_published() -> None:
    """An invalid request fails with its first write."""
    assert request_ended("e-1", None, a_delivery(status=Status.FAILED))


@pytest.mark.parametrize("status", sorted(set(Status) - END_STATUSES))
def test_open_statuses_are_not_published(status: Status) -> None:
    """A request that waits or is in progress has no outcome yet."""
    assert request_ended("e-1", None, a_delivery(status=status)) is None


def test_a_change_without_a_new_status_is_not_published() -> None:
    """Parking the body of an `unknown` does not end it again."""
    held = a_delivery(status=Status.UNKNOWN)
    assert request_ended("e-1", held, replace(held, parked="parked/acme/r1/1.json")) is None


def test_a_resolved_unknown_is_published_again() -> None:
    """The resolution by a proof or an operator is a new outcome."""
    assert request_ended("e-1", a_delivery(status=Status.UNKNOWN), a_delivery(status=Status.SENT))


def test_the_detail_has_the_record_and_the_hint() -> None:
    """A consumer needs nothing else; it has no recipient, body or key of a body."""
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


def test_an_unknown_that_will_be_resent_is_not_published() -> None:
    """It is published when it is given up, or with the outcome of the resend."""
    lost = a_delivery(status=Status.UNKNOWN, on_unknown="resend")
    held = replace(lost, on_unknown="hold", parked="parked/acme/r1/1.json", updated_at=LATER)
    assert request_ended("e-1", a_delivery(status=Status.SENDING, on_unknown="resend"), lost) is None
    event = request_ended("e-2", lost, held)
    assert event is not None
    assert (event.detail["status"], event.detail["endedAt"]) == ("unknown", "2026-11-24T12:00:01.000Z")
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
def test_the_detail_names_the_principal(record: Delivery, principal: str | None) -> None:
    """It is the authenticated identity, not the given name; the end of a resent mail has no principal."""
    event = request_ended("e-1", a_delivery(status=Status.UNKNOWN), record)
    assert event is not None
    assert event.detail["principal"] == principal


# -- delivery reports ----------------------------------------------------------------------------------------------------


def counts(seconds: int = 0, **by_status: int) -> FeedbackCounts:
    """Counts by status, with the last event at these seconds after noon."""
    return FeedbackCounts(**by_status, first_at=NOON, last_at=NOON + timedelta(seconds=seconds), rank=sum(by_status.values()))


def reported(before: FeedbackCounts | None, after: FeedbackCounts | None) -> list[tuple[str, int]]:
    """Return the status and number of each event of a write to a mail's counts."""
    sent = a_delivery(status=Status.SENT, message_id="m-1")
    events = events_of(RequestWritten("e-1", replace(sent, feedback=before), replace(sent, feedback=after)))
    assert {event.detail_type for event in events} <= {"Delivery Reported"}
    return [(event.detail["status"], event.detail["recipients"]) for event in events]


@pytest.mark.parametrize("status", sorted(RecipientStatus))
def test_each_recipient_status_is_published(status: RecipientStatus) -> None:
    """The event has the API's name of the status."""
    assert reported(None, counts(**{status: 1})) == [(status, 1)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (counts(delivered=1), counts(1, delivered=2), [("delivered", 2)]),
        (counts(delivered=2), counts(1, delivered=1, complained=1), [("complained", 1)]),
        (counts(delivered=1), counts(1, delivered=2, bounced=1), [("delivered", 2), ("bounced", 1)]),
        (counts(delivered=1), counts(9, delivered=1), []),
        (counts(delivered=1), counts(delivered=1), []),
        (None, None, []),
    ],
)
def test_a_count_that_rises_is_published(
    before: FeedbackCounts | None, after: FeedbackCounts | None, expected: Sequence[tuple[str, int]]
) -> None:
    """The event has all recipients with the status now; a count that falls or has only a later time is not published."""
    assert sorted(reported(before, after)) == sorted(expected)


def test_a_report_has_the_mail_and_the_time_and_no_recipient() -> None:
    """Its id is made of the write and the status: each report of a write has its own, stable id."""
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


def test_one_write_may_end_a_request_and_report_a_delivery() -> None:
    """A restored record is written with both."""
    sent = a_delivery(status=Status.SENT, feedback=counts(delivered=1))
    assert [event.detail_type for event in events_of(RequestWritten("e-1", None, sent))] == ["Request Ended", "Delivery Reported"]


@pytest.mark.parametrize(("before", "now"), [(None, True), (Status.SENDING, True), (Status.UNKNOWN, True), (Status.SENT, False)])
def test_a_write_counts_as_sent_once(before: Status | None, now: bool) -> None:  # noqa: FBT001
    """A later write to a sent record does not count as another mail."""
    old = before and a_delivery(status=before)
    assert RequestWritten("e-1", old, a_delivery(status=Status.SENT)).sent is now
    assert not RequestWritten("e-1", old, a_delivery(status=Status.FAILED)).sent


# -- silent feedback -----------------------------------------------------------------------------------------------------


class FakeFeedbackWatch:
    """Stores marks of sent mail; returns the silent configs that a test sets."""

    def __init__(self, silent: Mapping[str, StoredConfig] = MappingProxyType({}), *, down_for: str = "") -> None:
        self.calls: list[tuple[str, int, datetime]] = []
        self._silent, self._down_for = silent, down_for

    def sent(self, tenant_id: str, version: int, at: datetime) -> StoredConfig | None:
        if tenant_id == self._down_for:
            raise DependencyError("DynamoDB", "UpdateItem")
        self.calls.append((tenant_id, version, at))
        return self._silent.get(tenant_id)


def sent(tenant_id: str = "acme", version: int | None = 1, at: datetime | None = NOON) -> Delivery:
    return a_delivery(status=Status.SENT, tenant_id=tenant_id, provider_version=version, sent_at=at, updated_at=at or NOON)


def test_a_batch_marks_each_version_once_with_its_latest_mail() -> None:
    """A hundred mails of one tenant make one mark; a record without time or version makes none."""
    marks = FakeFeedbackWatch()
    note_sent([sent(at=LATER), sent(), sent(version=2), sent("globex"), sent(version=None), sent(at=None)], marks, FakeTelemetry())
    assert marks.calls == [("acme", 1, LATER), ("acme", 2, NOON), ("globex", 1, NOON)]


def test_a_mail_that_was_resolved_late_counts_from_its_resolution() -> None:
    """Counted from SES's time, days ago, its version would be silent at once instead of after an hour."""
    marks = FakeFeedbackWatch()
    note_sent([replace(sent(at=LATER), sent_at=NOON - timedelta(days=3))], marks, FakeTelemetry())
    assert marks.calls == [("acme", 1, LATER)]


def test_a_version_that_becomes_silent_is_reported_with_a_hint() -> None:
    """The tenant's record has the same hint."""
    config = a_config(configuration_set="mail-acme", account="222222222222", unheard_since=NOON)
    telemetry = FakeTelemetry()
    note_sent([sent()], FakeFeedbackWatch({"acme": config}), telemetry)
    [(name, (tenant_id, version, hint))] = telemetry.entries
    assert (name, tenant_id, version) == ("feedback silent", "acme", 1)
    assert hint == feedback_hint(replace(config, silent_since=NOON))


def test_a_failed_mark_does_not_stop_other_tenants() -> None:
    """The tenant's next mail sets the mark; the batch is not repeated for it."""
    marks, telemetry = FakeFeedbackWatch(down_for="acme"), FakeTelemetry()
    note_sent([sent(), sent("globex")], marks, telemetry)
    assert marks.calls == [("globex", 1, NOON)]
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
def test_each_change_of_a_provider_has_a_name(old: Provider | None, new: Provider, change: str, version: int) -> None:
    """The event also has the changed version."""
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
def test_internal_marks_are_not_published_as_changes(new: Provider) -> None:
    """Only changes by a caller and suspensions are published."""
    assert what_changed(ACTIVE, replace(new, revision=2)) is None


def test_a_reserved_external_id_is_not_published() -> None:
    """Onboarding reserves it before there is a provider."""
    assert what_changed(None, a_provider(status=ProviderStatus.DELETED, active=None)) is None


def test_a_suspension_has_its_error_and_hint() -> None:
    """The error is the one that caused the suspension."""
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


def test_the_documented_report_is_current() -> None:
    """The code makes the page's detail from an equal write."""
    page = (ROOT / "docs/events.md").read_text()
    shown = json.loads(page.partition("## Delivery Reported")[2].partition("```json\n")[2].partition("```")[0])
    correlation_id, message_id = shown["correlationId"], shown["messageId"]
    mail = a_delivery(shown["requestId"], Status.SENT, message_id=message_id, correlation_id=correlation_id)
    [event] = events_of(RequestWritten(shown["id"].partition("-")[0], mail, replace(mail, feedback=counts(5, bounced=1))))
    assert event.detail == shown


@pytest.mark.parametrize("detail_type", ["Request Ended", "Provider Changed"])
def test_the_documented_examples_are_current(detail_type: str) -> None:
    """The code makes the page's details from equal writes."""
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
    event = request_ended(shown["id"], None, record) if detail_type == "Request Ended" else provider_changed(shown["id"], third, suspended)
    assert event is not None
    assert event.detail == shown


# -- publishing ----------------------------------------------------------------------------------------------------------


class FakeBus:
    """Accepts each event after a set number of rejections."""

    def __init__(self, **refusals: int) -> None:
        self.refusals = refusals
        self.calls: list[list[str]] = []
        self.accepted: list[str] = []

    def put(self, events: Any) -> list[Event]:
        self.calls.append([event.id for event in events])
        left = [event for event in events if self.refusals.get(event.id, 0) > 0]
        for event in left:
            self.refusals[event.id] -= 1
        self.accepted += [event.id for event in events if event not in left]
        return left


def an_event(event_id: str) -> Event:
    return Event(id=event_id, detail_type="Request Ended", at=NOON, detail={})


def test_only_rejected_events_are_put_again() -> None:
    """Accepted events are not repeated."""
    bus = FakeBus(b=1)
    publish([an_event("a"), an_event("b")], bus)
    assert bus.calls == [["a", "b"], ["b"]]


def test_without_events_no_call_is_made() -> None:
    """A batch may have no event."""
    bus = FakeBus()
    publish([], bus)
    assert bus.calls == []


def test_events_that_stay_rejected_raise_an_error() -> None:
    """The stream then redelivers the batch."""
    bus = FakeBus(b=ROUNDS)
    with pytest.raises(DependencyError):
        publish([an_event("a"), an_event("b")], bus)
    assert len(bus.calls) == ROUNDS
    assert bus.accepted == ["a"]
