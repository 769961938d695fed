"""Published events of suppressions: the change, its time and its principal."""

from dataclasses import replace
from datetime import timedelta

import pytest

from mailer.domain.events import EntryWritten, events_of
from mailer.domain.suppressions import Entry, Lifting, Reason, Suppression, digest
from support.fakes.ports import NOON
from support.fakes.suppressions import an_entry

DAY = timedelta(days=1)
SOFT = an_entry(reason=Reason.SOFT_BOUNCES, spelling="Jo@Example.com")
EARLIER = Lifting(NOON - 9 * DAY, "arn:earlier", "x")
LIFTED = Lifting(NOON + DAY, "arn:caller", "mailbox is back")


def published(old: Entry | None, new: Entry) -> tuple[str, str, str | None]:
    """Return change, day and principal."""
    [event] = events_of(EntryWritten("e-1", old, new))
    assert event.detail["changedAt"] == event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert event.detail["emailSha256"] == digest("jo@example.com")
    assert "Jo" not in str(event)
    return event.detail["change"], event.detail["changedAt"][:10], event.detail["principal"]


def test_a_suppression_is_published() -> None:
    """It may be caused by SES's events or by a caller."""
    assert published(None, SOFT) == ("suppressed", "2026-11-24", None)
    manual = Suppression(reason=Reason.MANUAL, at=NOON + DAY, by="arn:caller")
    assert published(SOFT, replace(SOFT, suppression=manual, by_ses=SOFT.suppression)) == ("suppressed", "2026-11-25", "arn:caller")


@pytest.mark.parametrize("before", [None, EARLIER])
def test_a_lift_is_published_with_its_principal(before: Lifting | None) -> None:
    """It is the principal of the last lift."""
    old = replace(SOFT, lifted=before)
    assert published(old, replace(old, suppression=None, lifted=LIFTED)) == ("lifted", "2026-11-25", "arn:caller")


@pytest.mark.parametrize("before", [None, EARLIER])
def test_a_lift_by_a_late_delivery_has_no_principal(before: Lifting | None) -> None:
    """An earlier lift's principal is not used; the delivery may be older than the suppression."""
    old = replace(SOFT, lifted=before)
    assert published(old, replace(old, suppression=None, delivered_at=NOON - DAY)) == ("lifted", "2026-11-24", None)


def test_changes_without_effect_are_not_published() -> None:
    """The effective suppression does not change."""
    assert events_of(EntryWritten("e-1", SOFT, replace(SOFT, soft_bounces={"r1": NOON}))) == []
    assert events_of(EntryWritten("e-1", SOFT, replace(SOFT, by_ses=SOFT.suppression))) == []
