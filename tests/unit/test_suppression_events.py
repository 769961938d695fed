"""What other systems hear of a suppression: what suppressed or lifted an address, when, and whose call it was."""

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


def told(old: Entry | None, new: Entry) -> tuple[str, str, str | None]:
    """Return what changed, when and by whom."""
    [event] = events_of(EntryWritten("e-1", old, new))
    assert event.detail["changedAt"] == event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert event.detail["emailSha256"] == digest("jo@example.com")
    assert "Jo" not in str(event)
    return event.detail["change"], event.detail["changedAt"][:10], event.detail["principal"]


def test_an_address_that_is_suppressed_is_told_of() -> None:
    """By SES's events, or by a caller."""
    assert told(None, SOFT) == ("suppressed", "2026-11-24", None)
    word = Suppression(reason=Reason.MANUAL, at=NOON + DAY, by="arn:caller")
    assert told(SOFT, replace(SOFT, suppression=word, told=SOFT.suppression)) == ("suppressed", "2026-11-25", "arn:caller")


@pytest.mark.parametrize("before", [None, EARLIER])
def test_a_lifting_tells_of_the_call(before: Lifting | None) -> None:
    """The last one."""
    old = replace(SOFT, lifted=before)
    assert told(old, replace(old, suppression=None, lifted=LIFTED)) == ("lifted", "2026-11-25", "arn:caller")


@pytest.mark.parametrize("before", [None, EARLIER])
def test_what_a_late_delivery_takes_back_was_nobody_s_call(before: Lifting | None) -> None:
    """Whoever lifted it earlier; the delivery may be older than the suppression."""
    old = replace(SOFT, lifted=before)
    assert told(old, replace(old, suppression=None, delivered_at=NOON - DAY)) == ("lifted", "2026-11-24", None)


def test_what_only_counts_or_stands_beneath_is_not_told() -> None:
    """The address is suppressed as before."""
    assert events_of(EntryWritten("e-1", SOFT, replace(SOFT, soft_bounces={"r1": NOON}))) == []
    assert events_of(EntryWritten("e-1", SOFT, replace(SOFT, told=SOFT.suppression))) == []
