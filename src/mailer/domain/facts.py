"""Merge and count what SES reported about each recipient of a request.

Facts join like sets: `merged` is idempotent, commutative and associative, so the same events give the same facts in any order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

FACT_RETENTION = timedelta(days=35)
"""How long the facts of a request are kept after its last event."""

MAX_RECIPIENTS = 50
"""Maximum recipients of one mail (SES's limit), and of a request's facts."""


class RecipientStatus(StrEnum):
    """The reported status of one recipient, the least significant first; the most significant one counts."""

    DELAYED = "delayed"
    SOFT_BOUNCED = "soft_bounced"  # also an out-of-office reply, which comes after the delivery
    DELIVERED = "delivered"
    REJECTED = "rejected"  # SES found a virus after it had accepted the mail
    BOUNCED = "bounced"
    COMPLAINED = "complained"

    @property
    def significance(self) -> int:
        """Its rank, from 1."""
        return _SIGNIFICANCE[self]


_SIGNIFICANCE = {status: place for place, status in enumerate(RecipientStatus, start=1)}


@dataclass(frozen=True, slots=True)
class Fact:
    """SES's latest report that a recipient has one status."""

    at: datetime
    smtp_status: str = ""
    """The enhanced status code (RFC 3463), such as 5.1.1; empty where SES gave none."""
    diagnostic: str = field(default="", repr=False)
    """The receiving server's response, truncated; it may contain the address."""
    unsent: bool = False
    """Whether SES did not send the mail because of the account's own list; SES does not count that in the account's rates."""
    first_at: datetime | None = None
    """When this status was first reported; None: at `at`."""

    @property
    def since(self) -> datetime:
        """When this status was first reported."""
        return self.first_at or self.at

    def joined(self, other: "Fact") -> "Fact":
        """Return the later of two facts, with the time of the first; it is `unsent` only if both are."""
        later, since = max(self, other, key=_lateness), min(self.since, other.since)
        return replace(later, first_at=since if since < later.at else None, unsent=self.unsent and other.unsent)


def _lateness(fact: Fact) -> tuple[datetime, str, str]:
    return fact.at, fact.smtp_status, fact.diagnostic


Facts = Mapping[str, Mapping[RecipientStatus, Fact]]
"""By recipient, by status."""

NO_FACTS: Facts = MappingProxyType({})


def merged(one: Facts, other: Facts) -> Facts:
    """Join two sets of facts: of each recipient and status the later fact; beyond MAX_RECIPIENTS the first by address."""
    recipients = sorted({*one, *other})[:MAX_RECIPIENTS]
    return {recipient: _joined(one.get(recipient, {}), other.get(recipient, {})) for recipient in recipients}


def _joined(one: Mapping[RecipientStatus, Fact], other: Mapping[RecipientStatus, Fact]) -> Mapping[RecipientStatus, Fact]:
    joined = dict(one)
    for status, fact in other.items():
        joined[status] = fact.joined(joined.get(status, fact))
    return joined


@dataclass(frozen=True, slots=True)
class RecipientFeedback:
    """One recipient's feedback as the API shows it: the most significant fact."""

    email: str = field(repr=False)
    status: RecipientStatus
    fact: Fact


def recipients_of(facts: Facts) -> Sequence[RecipientFeedback]:
    """Return each recipient with its most significant fact, by address."""
    latest = {recipient: max(of_one, key=lambda status: status.significance) for recipient, of_one in sorted(facts.items()) if of_one}
    return [RecipientFeedback(recipient, status, facts[recipient][status]) for recipient, status in latest.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackCounts:
    """Recipients by status, each counted once, and the times of SES's first and last report."""

    delivered: int = 0
    delayed: int = 0
    bounced: int = 0
    soft_bounced: int = 0
    complained: int = 0
    rejected: int = 0
    bounced_unsent: int = 0
    """Of those bounced: not sent by SES because of the account's own list, outside the rates."""
    complained_unsent: int = 0
    """The same of those complained."""
    first_at: datetime
    last_at: datetime
    rank: int
    """Twice the sum of the significances, minus those unsent: it only grows, so that older counts never replace newer ones."""

    def replaces(self, other: "FeedbackCounts | None") -> bool:
        """Whether these counts include reports that the others do not."""
        return other is None or self.rank > other.rank or self.last_at > other.last_at or self.first_at < other.first_at


def counts_of(facts: Facts) -> FeedbackCounts | None:
    """Count the recipients by status; None if there are none."""
    shown = recipients_of(facts)
    if not shown:
        return None
    each = [fact for of_one in facts.values() for fact in of_one.values()]
    by_status = Counter(recipient.status.value for recipient in shown)
    unsent = Counter(recipient.status for recipient in shown if recipient.fact.unsent)
    return FeedbackCounts(
        **by_status,
        bounced_unsent=unsent[RecipientStatus.BOUNCED],
        complained_unsent=unsent[RecipientStatus.COMPLAINED],
        first_at=min(fact.since for fact in each),
        last_at=max(fact.at for fact in each),
        rank=sum(2 * recipient.status.significance - recipient.fact.unsent for recipient in shown),
    )
