"""SES's events become suppressions before they are acknowledged, even if workers die."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.suppressions import Entry, Reason, Report
from mailer.services.suppressions.reports import ReportDependencies, take_reports
from support.fakes.ports import NOON
from support.fakes.suppressions import FakeMarks, FakeSuppressionsTable, an_entry

DAY = timedelta(days=1)


@dataclass
class Scene:
    """The service with fakes."""

    suppressions: FakeSuppressionsTable = field(default_factory=FakeSuppressionsTable)
    marks: FakeMarks = field(default_factory=FakeMarks)

    @property
    def deps(self) -> ReportDependencies:
        return ReportDependencies(suppressions=self.suppressions, marks=self.marks)

    def take(self, *reports: tuple[str, Report]) -> None:
        take_reports("acme", reports, self.deps)

    def reason(self, email: str) -> Reason | None:
        entry = self.suppressions.entries.get(("acme", email))
        return entry.suppression.reason if entry and entry.suppression else None


def hard(address: str = "Jo@Example.com", **fields: Any) -> tuple[str, Report]:
    attributes = {"kind": "bounce", "at": NOON, "request_id": "r1", "type": "Permanent", "subtype": "General", **fields}
    return address, Report(**attributes)


def soft(number: int) -> tuple[str, Report]:
    return hard(type="Transient", subtype="MailboxFull", request_id=f"r{number}", at=NOON + number * DAY)


def test_a_hard_bounce_is_stored_in_the_form_that_sending_looks_up() -> None:
    """The tenant is marked, because sending reads only marked tenants' lists."""
    scene = Scene()
    scene.take(hard("Jo@Bücher.example"))
    assert scene.reason("jo@xn--bcher-kva.example") is Reason.HARD_BOUNCE
    assert scene.marks.marked == {"acme"}


def test_all_recipients_of_an_event_are_read_at_once_and_suppressed() -> None:
    """An event may have fifty recipients."""
    scene = Scene()
    scene.take(*(hard(f"{n}@example.com") for n in range(50)))
    assert [scene.reason(f"{n}@example.com") for n in range(50)] == [Reason.HARD_BOUNCE] * 50
    assert len(scene.suppressions.reads) == 1


def test_a_duplicate_event_writes_nothing() -> None:
    """SES was seen to send eight copies."""
    scene = Scene()
    scene.take(hard())
    before = dict(scene.suppressions.entries)
    scene.take(hard())
    assert scene.suppressions.entries == before


def test_a_delivery_writes_and_marks_nothing() -> None:
    """Most events are deliveries of addresses without an entry."""
    scene = Scene()
    scene.take(hard(kind="delivery", type=""))
    assert not scene.suppressions.entries
    assert not scene.marks.marked


def test_soft_bounces_are_counted_without_a_mark_until_they_suppress() -> None:
    """A tenant with only counts causes no reads by sending."""
    scene = Scene()
    for number in range(4):
        scene.take(soft(number))
    assert not scene.marks.marked
    scene.take(soft(4))
    assert scene.reason("jo@example.com") is Reason.SOFT_BOUNCES
    assert scene.marks.marked == {"acme"}


def test_an_invalid_address_does_not_stop_others() -> None:
    """Events may contain any text as an address."""
    scene = Scene()
    scene.take(hard("nobody"), hard("jö@example.com"), hard("a@example.com"))
    assert list(scene.suppressions.entries) == [("acme", "a@example.com")]


def test_events_of_a_tenant_without_a_row_are_ignored() -> None:
    """It cannot send, so its events must not be retried forever."""
    scene = Scene(marks=FakeMarks(unknown={"acme"}))
    scene.take(hard())
    assert not scene.suppressions.entries


def test_a_concurrent_write_is_not_lost() -> None:
    """Two concurrent events of one address both count."""
    scene = Scene()

    def other(_: Entry) -> None:
        scene.suppressions.before = lambda _: None
        scene.take(hard(kind="complaint", type="abuse", request_id="r2"))

    scene.suppressions.before = other
    scene.take(hard())
    assert scene.reason("jo@example.com") is Reason.COMPLAINT


def test_endless_contention_redelivers_the_event() -> None:
    """An event that was not written is not acknowledged."""
    scene = Scene(FakeSuppressionsTable(replace(an_entry(), suppression=None, soft_bounces={"r0": NOON})))

    def change_concurrently(_: Entry) -> None:
        stored = scene.suppressions.entries["acme", "jo@example.com"]
        scene.suppressions.entries["acme", "jo@example.com"] = replace(stored, revision=stored.revision + 1)

    scene.suppressions.before = change_concurrently
    with pytest.raises(DependencyError):
        scene.take(hard())


def test_an_unreadable_entry_redelivers_the_event() -> None:
    """A later version may have written it."""
    scene = Scene()
    scene.suppressions.unreadable = {"jo@example.com"}
    with pytest.raises(UnreadableError):
        scene.take(hard())


def test_an_unreadable_entry_does_not_stop_the_others_of_its_event() -> None:
    """They are suppressed now, not when the event is given up after hours."""
    scene = Scene()
    scene.suppressions.unreadable = {"a@example.com"}
    with pytest.raises(UnreadableError):
        scene.take(hard("a@example.com"), hard("b@example.com"))
    assert set(scene.suppressions.entries) == {("acme", "b@example.com")}


class WorkerDiedError(Exception):
    """Ends a worker at a test's chosen step."""


def _die(*_: object) -> None:
    raise WorkerDiedError


@pytest.mark.parametrize("place", ["before the mark", "after the mark", "after the first entry", "after the second entry"])
def test_a_crash_at_any_step_is_completed_by_the_redelivered_event(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event was not acknowledged, so it is redelivered. There is never an entry without the mark."""
    scene = Scene()
    written: list[Entry] = []

    def dies_after(count: int) -> Any:
        def note(entry: Entry) -> None:
            written.append(entry)
            if len(written) == count:
                _die()

        return note

    match place:
        case "before the mark":
            monkeypatch.setattr(scene.marks, "mark_suppressions", _die)
        case "after the mark":
            scene.suppressions.before = _die
        case "after the first entry":
            scene.suppressions.after = dies_after(1)
        case _:
            scene.suppressions.after = dies_after(2)
    with pytest.raises(WorkerDiedError):
        scene.take(hard("a@example.com"), hard("b@example.com"))
    assert not scene.suppressions.entries or scene.marks.marked == {"acme"}
    monkeypatch.undo()
    scene.suppressions.before = scene.suppressions.after = lambda _: None
    scene.take(hard("a@example.com"), hard("b@example.com"))
    assert [scene.reason(email) for email in ("a@example.com", "b@example.com")] == [Reason.HARD_BOUNCE] * 2
    assert scene.marks.marked == {"acme"}


def test_a_failed_mark_redelivers_the_event_and_leaves_no_entry() -> None:
    """An entry without a mark would never be used: the next copy of the event would find it and write nothing."""
    scene = Scene(marks=FakeMarks(broken=True))
    with pytest.raises(DependencyError):
        scene.take(hard())
    assert not scene.suppressions.entries
