"""Reading, listing and cancelling requests."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.delivery import Change, Status
from mailer.domain.errors import CODES, RequestError
from mailer.services.api.messages import cancel, get, list_newest
from support.fakes.messages import fake_deps
from support.fakes.ports import NOON, FakeMessagesTable, FakeParkedBodies, a_delivery


def refused(call: Any, *arguments: Any, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        call(*arguments, **options)
    return refusal.value


def test_an_unknown_id_is_not_found() -> None:
    """A record that does not exist under this tenant is 404, also if another tenant has it."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1")))
    assert get("acme", "r1", deps).request_id == "r1"
    assert refused(get, "acme", "r2", deps).code == "not_found"
    assert refused(get, "bravo", "r1", deps).code == "not_found"


def test_a_list_has_pages() -> None:
    """The newest record is first; each page has the cursor of the next."""
    table = FakeMessagesTable(*[a_delivery(f"r{n}", created_at=NOON + timedelta(minutes=n)) for n in range(3)])
    deps = fake_deps(messages=table)
    first = list_newest("acme", deps, status=None, limit=2, cursor=None)
    rest = list_newest("acme", deps, status=None, limit=2, cursor=first.cursor)
    assert [d.request_id for d in [*first.deliveries, *rest.deliveries]] == ["r2", "r1", "r0"]
    assert rest.cursor is None


def test_a_cursor_of_another_list_is_not_found() -> None:
    """A forged cursor and one of another tenant or status are rejected."""
    table = FakeMessagesTable(*[a_delivery(f"r{n}", tenant_id="bravo") for n in range(2)])
    deps = fake_deps(messages=table)
    foreign = list_newest("bravo", deps, status=None, limit=1, cursor=None).cursor
    own = list_newest("bravo", deps, status=Status.QUEUED, limit=1, cursor=None).cursor
    for cursor in (foreign, own, "made-up"):
        assert refused(list_newest, "acme", deps, status=None, limit=1, cursor=cursor).code == "not_found"


# ── cancel ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [Status.QUEUED, Status.DEFERRED])
def test_waiting_requests_can_be_cancelled(status: Status) -> None:
    """Queued and deferred requests end as cancelled."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", status)))
    assert cancel("acme", "r1", deps).status is Status.CANCELLED
    assert deps.messages.get("acme", "r1").status is Status.CANCELLED
    assert [event for event, _ in deps.telemetry.entries] == ["recorded"]


@pytest.mark.parametrize("status", [Status.SENDING, Status.SENT, Status.FAILED, Status.UNKNOWN])
def test_requests_in_progress_or_ended_cannot_be_cancelled(status: Status) -> None:
    """The error names the status; the record does not change."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", status)))
    refusal = refused(cancel, "acme", "r1", deps)
    assert refusal.code == "not_cancellable"
    assert status in str(refusal)
    assert deps.messages.get("acme", "r1").status is status


def test_a_maybe_sent_request_cannot_be_cancelled() -> None:
    """`cancelled` means not sent, which is not certain for a resent unknown."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", maybe_sent=True)))
    refusal = refused(cancel, "acme", "r1", deps)
    assert refusal.code == "not_cancellable"
    assert "earlier attempt" in str(refusal)
    assert "of which no attempt may have been sent" in CODES[refusal.code].hint


def test_cancelling_twice_is_not_an_error() -> None:
    """A caller that lost the first response gets the same one again."""
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1")))
    assert cancel("acme", "r1", deps) == cancel("acme", "r1", deps)


def test_cancelling_an_unknown_id_is_not_found() -> None:
    """The response is a 404."""
    assert refused(cancel, "acme", "r1", fake_deps()).code == "not_found"


def test_a_request_that_is_concurrently_started_is_not_cancelled() -> None:
    """The worker passes the fence between the API's read and write, and wins."""
    table = FakeMessagesTable(a_delivery("r1"))

    def begin(_: Change) -> None:
        table.records["acme", "r1"] = replace(table.records["acme", "r1"], status=Status.SENDING, attempt=1)

    table.before = begin
    assert refused(cancel, "acme", "r1", fake_deps(messages=table)).code == "not_cancellable"


def test_the_body_of_a_cancelled_request_is_deleted() -> None:
    """Nothing of a cancelled mail stays in the bucket."""
    parked = FakeParkedBodies()
    key = parked.park("acme", "r1", "{}")
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", Status.DEFERRED, parked=key)), parked=parked)
    cancel("acme", "r1", deps)
    assert not parked.bodies


def test_a_body_that_is_parked_during_the_cancellation_is_deleted() -> None:
    """A worker parks it between the API's read and write; the written record has its key."""
    parked, table = FakeParkedBodies(), FakeMessagesTable(a_delivery("r1"))

    def park(_: Change) -> None:
        table.records["acme", "r1"] = replace(table.records["acme", "r1"], status=Status.DEFERRED, parked=parked.park("acme", "r1", "{}"))

    table.before = park
    cancel("acme", "r1", fake_deps(messages=table, parked=parked))
    assert not parked.bodies


def test_a_failing_bucket_does_not_undo_a_cancellation() -> None:
    """The record decides; lifecycle rules delete the body later."""
    parked = FakeParkedBodies()
    key = parked.park("acme", "r1", "{}")
    parked.broken = True
    deps = fake_deps(messages=FakeMessagesTable(a_delivery("r1", Status.DEFERRED, parked=key)), parked=parked)
    assert cancel("acme", "r1", deps).status is Status.CANCELLED
    assert "failed" in [event for event, _ in deps.telemetry.entries]
