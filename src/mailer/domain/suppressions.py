"""Decide which addresses are suppressed for a tenant: SES's report about a recipient, the table of verdicts, the resulting entry.

Reports arrive in any order, twice or days late, and the same reports lead to the same suppression. A report of a time before a suppression
was lifted does not restore it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

from mailer.domain.addresses import ascii_address

SOFT_BOUNCES = 5
"""Distinct requests with a soft bounce, without a delivery in between, that suppress an address."""

SUPPRESSED_BY_SES = timedelta(days=14)
"""How long an address on SES's global list is suppressed: SES removes it by then."""

MOST_SOFT_BOUNCES = 4 * SOFT_BOUNCES
"""Maximum soft bounces that an entry keeps, the first ones: much mail to one address may be in flight."""

SOFT_BOUNCES_KEPT = timedelta(days=180)
"""How long soft bounces are counted after the last one: long enough for a monthly newsletter to a permanently full mailbox."""

LIFTING_KEPT = timedelta(days=36)
"""How long a lifting is kept, to ignore reports of the time before it; events older than 35 days are refused."""


class Reason(StrEnum):
    """Why an address is suppressed, the weakest first: of two suppressions with the same end the stronger one counts."""

    SOFT_BOUNCES = "soft_bounces"
    MANUAL = "manual"
    SES_LIST = "ses_list"
    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"


_STRENGTH: Mapping[Reason, int] = {reason: strength for strength, reason in enumerate(Reason)}


def suppression_key(address: str) -> str:
    """Normalize an address for the list: all lower case, the domain in punycode.

    Local parts that differ only in case are the same mailbox, as for most mail systems.

    Raises:
        AddressError: it is not a valid address.
    """
    return ascii_address(address).lower()


def digest(email: str) -> str:
    """Return the SHA-256 of a listed address, in hex: events contain it instead of the address."""
    return hashlib.sha256(email.encode("ascii")).hexdigest()


# ── SES's reports, and their verdicts ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one SES event reports about one recipient."""

    kind: Literal["delivery", "bounce", "complaint"]
    at: datetime
    request_id: str
    spelling: str | None = field(default=None, repr=False)
    """The address as it was in the mail."""
    type: str = ""
    """The bounceType or complaintFeedbackType."""
    subtype: str = ""
    """The bounceSubType or complaintSubType."""
    status: str = ""
    """The enhanced status code (RFC 3463) of the recipient's server."""
    has_dsn: bool = True
    """Whether a bounce came with a delivery status notification (RFC 3464): automatic replies have none."""
    is_one_of_several: bool = False
    """Whether a complaint names several recipients of one domain, any of whom may have complained."""


class Verdict(StrEnum):
    """The consequence of a report."""

    NOTHING = "nothing"
    DELIVERED = "soft bounces before it no longer count"
    SOFT = "counted"
    HARD = "suppressed"
    HARD_FOR_A_TIME = "suppressed for 14 days"
    SES_LIST = "suppressed, as it is on the account's own list at SES"
    COMPLAINT = "suppressed, as the recipient complained"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: the reports that it matches and their verdict. None matches anything."""

    verdict: Verdict
    kind: str
    type: str | None = None
    subtype: str | None = None
    status: str | None = None
    """A regular expression."""
    has_dsn: bool | None = None

    def fits(self, report: Report) -> bool:
        """Whether this row matches a report."""
        wanted = (self.type, self.subtype, self.has_dsn)
        given = (report.type, report.subtype, report.has_dsn)
        return (
            self.kind == report.kind
            and all(one in (None, other) for one, other in zip(wanted, given, strict=True))
            and (self.status is None or re.fullmatch(self.status, report.status) is not None)
        )


_SENDER = r"5\.1\.[78]|5\.7\.2\d"
"""Faults of the sender: its address or domain (RFC 3463), its authentication (RFC 7372), its null MX (RFC 7505), or its volume."""

_MESSAGE = r"5\.2\.3|5\.3\.4|5\.6\.\d{1,3}"
"""The message is too large, or its content is not accepted (RFC 3463)."""

_NO_MAILBOX = r"5\.1\.(?![59]$)\d{1,3}|5\.4\.4"
"""No such mailbox or domain. 5.1.5 and 5.1.9 mean that the address is valid."""

TABLE: Sequence[Row] = (
    Row(Verdict.SES_LIST, "bounce", "Permanent", "OnAccountSuppressionList"),
    Row(Verdict.HARD_FOR_A_TIME, "bounce", "Permanent", "Suppressed"),
    # The sender was at fault, not the address: a domain without DMARC must not empty a tenant's list of customers.
    Row(Verdict.NOTHING, "bounce", status=_SENDER),
    Row(Verdict.HARD, "bounce", "Permanent"),
    # The message was at fault, not the address.
    Row(Verdict.NOTHING, "bounce", "Transient", "MessageTooLarge"),
    Row(Verdict.NOTHING, "bounce", "Transient", "ContentRejected"),
    Row(Verdict.NOTHING, "bounce", "Transient", "AttachmentRejected"),
    Row(Verdict.NOTHING, "bounce", "Transient", status=_MESSAGE),
    # SES sometimes reports these as transient.
    Row(Verdict.HARD, "bounce", "Transient", status=_NO_MAILBOX),
    # Automatic replies, such as out-of-office, are reported as bounces after the delivery.
    Row(Verdict.NOTHING, "bounce", "Transient", "General", has_dsn=False),
    Row(Verdict.SOFT, "bounce", "Transient", "MailboxFull"),
    Row(Verdict.SOFT, "bounce", "Transient", "General"),
    Row(Verdict.SOFT, "bounce", "Transient", status=r"5\.\d{1,3}\.\d{1,3}"),
    Row(Verdict.SOFT, "bounce", "Transient", status=r"4\.4\.7"),
    Row(Verdict.SOFT, "bounce", "Undetermined"),
    Row(Verdict.SES_LIST, "complaint", subtype="OnAccountSuppressionList"),
    Row(Verdict.NOTHING, "complaint", "not-spam"),
    Row(Verdict.COMPLAINT, "complaint"),
    Row(Verdict.DELIVERED, "delivery"),
)
"""The verdict of each report: that of the first row that matches, NOTHING if none does."""


def verdict_of(report: Report) -> Verdict:
    """Look up a report in the table."""
    return next((row.verdict for row in TABLE if row.fits(report)), Verdict.NOTHING)


# ── the entry of one address ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Why an address is suppressed, since when and until when."""

    reason: Reason
    at: datetime
    request_id: str | None = None
    """The request whose mail caused it."""
    expires_at: datetime | None = None
    """None: until it is lifted."""
    by: str | None = None
    """The ARN of the IAM identity that requested it."""
    why: str | None = None
    may_have_complained: bool = False
    """Whether another recipient at the same domain may have complained."""
    spelling: str | None = field(default=None, repr=False)
    """The address as it was in the mail that SES reported: SES's own list is case-sensitive."""

    def is_in_force(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or self.expires_at > now


@dataclass(frozen=True, slots=True)
class Lifting:
    """When an address was last lifted, by whom and why."""

    at: datetime
    by: str | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The state of one address of a tenant: its suppression, or only its soft bounces so far."""

    tenant_id: str
    email: str = field(repr=False)
    """As `suppression_key` normalizes it."""
    suppression: Suppression | None = None
    """The strongest one; a manual one only if it lasts at least as long as SES's."""
    by_ses: Suppression | None = None
    """SES's suppression, if a manual one has precedence: a further manual one replaces only the manual one."""
    shorter: tuple[Suppression, ...] = ()
    """Suppressions with an end, beneath one without an end by soft bounces: they are restored if a late delivery cancels that. At most one
    manual one and one of SES."""
    soft_bounces: Mapping[str, datetime] = field(default_factory=dict)
    """Requests with a soft bounce since the last delivery, and when; SOFT_BOUNCES of them suppress the address, and are then kept."""
    delivered_at: datetime | None = None
    """The last delivery that cleared soft bounces."""
    lifted: Lifting | None = None
    revision: int = 0
    """Number of writes; a write is conditional on the revision that was read."""

    def in_force(self, now: datetime) -> Suppression | None:
        """Return its suppression, unless it has expired."""
        return self.suppression if self.suppression is not None and self.suppression.is_in_force(now) else None

    @property
    def strongest_by_ses(self) -> Suppression | None:
        """The strongest suppression of SES, whatever callers have requested."""
        return self.by_ses if self.suppression is None or self.suppression.reason is Reason.MANUAL else self.suppression

    @property
    def forget_at(self) -> datetime | None:
        """When the entry may be deleted; None: not until it is lifted."""
        if self.suppression is not None and self.suppression.expires_at is None:
            return None
        ends = [moment + SOFT_BOUNCES_KEPT for moment in self.soft_bounces.values()]
        ends += [self.suppression.expires_at] if self.suppression and self.suppression.expires_at else []
        ends += [self.lifted.at + LIFTING_KEPT] if self.lifted else []
        ends += [self.delivered_at + LIFTING_KEPT] if self.delivered_at else []
        return max(ends, default=None)


def judge(entry: Entry, report: Report) -> Entry:
    """Return the entry after a report; the same object if the report changes nothing."""
    if entry.lifted is not None and report.at <= entry.lifted.at:
        return entry
    match verdict_of(report):
        case Verdict.NOTHING:
            return entry
        case Verdict.DELIVERED:
            return _delivered(entry, report.at)
        case Verdict.SOFT:
            return _counted(entry, report)
        case verdict:
            return _suppressed(entry, _suppression(verdict, report))


def _delivered(entry: Entry, at: datetime) -> Entry:
    """Drop the soft bounces before a delivery, and their suppression if the delivery was between them and its report late.

    Without soft bounces, the usual case, nothing is noted. A delivery after the soft bounce that suppressed the address lifts nothing.
    """
    enough = _of_soft_bounces(entry.soft_bounces)
    if not entry.soft_bounces or (entry.delivered_at and at <= entry.delivered_at) or (enough and at >= enough.at):
        return entry
    return _recounted(replace(entry, delivered_at=at), {name: moment for name, moment in entry.soft_bounces.items() if moment > at})


def _counted(entry: Entry, report: Report) -> Entry:
    known = (entry.delivered_at, entry.soft_bounces.get(report.request_id))
    if any(moment is not None and report.at <= moment for moment in known):
        return entry
    counted = _by_time({**entry.soft_bounces, report.request_id: report.at})[:MOST_SOFT_BOUNCES]
    return entry if dict(counted) == entry.soft_bounces else _recounted(entry, dict(counted))


def _recounted(entry: Entry, soft_bounces: Mapping[str, datetime]) -> Entry:
    """Replace the soft bounces, and the suppression that followed from the old ones."""
    shorter: Sequence[Suppression] = ()
    if _is_of_soft_bounces(entry):
        manual = entry.suppression if entry.suppression and entry.suppression.reason is Reason.MANUAL else None
        shorter, entry = entry.shorter, replace(entry, suppression=manual, by_ses=None, shorter=())
    entry = replace(entry, soft_bounces=soft_bounces)
    for one in shorter:
        entry = suppress_manually(entry, one, one.at) if one.reason is Reason.MANUAL else _suppressed(entry, one)
    enough = _of_soft_bounces(soft_bounces)
    return _suppressed(entry, enough) if enough else entry


def _is_of_soft_bounces(entry: Entry) -> bool:
    """Whether SES's strongest suppression follows from soft bounces, and may be cancelled with them."""
    return entry.strongest_by_ses is not None and entry.strongest_by_ses == _of_soft_bounces(entry.soft_bounces)


def _with_shorter(entry: Entry, *suppressions: Suppression | None) -> Entry:
    """Keep suppressions with an end beneath one by soft bounces: the latest manual one, and the strongest of SES."""
    manual = next((one for one in entry.shorter if one.reason is Reason.MANUAL), None)
    of_ses = next((one for one in entry.shorter if one.reason is not Reason.MANUAL), None)
    for one in suppressions:
        if one is not None and one.reason is Reason.MANUAL:
            manual = one
        elif one is not None and (of_ses is None or _strength(one) > _strength(of_ses)):
            of_ses = one
    shorter = tuple(one for one in (manual, of_ses) if one is not None)
    return entry if shorter == entry.shorter else replace(entry, shorter=shorter)


def _of_soft_bounces(soft_bounces: Mapping[str, datetime]) -> Suppression | None:
    """Return the suppression that follows from soft bounces without a delivery in between, by the one that reached SOFT_BOUNCES."""
    first = _by_time(soft_bounces)[:SOFT_BOUNCES]
    if len(first) < SOFT_BOUNCES:
        return None
    request_id, at = first[-1]
    return Suppression(reason=Reason.SOFT_BOUNCES, at=at, request_id=request_id)


def _by_time(soft_bounces: Mapping[str, datetime]) -> Sequence[tuple[str, datetime]]:
    return sorted(soft_bounces.items(), key=lambda one: (one[1], one[0]))


def _suppression(verdict: Verdict, report: Report) -> Suppression:
    reason = {Verdict.SES_LIST: Reason.SES_LIST, Verdict.COMPLAINT: Reason.COMPLAINT}.get(verdict, Reason.HARD_BOUNCE)
    return Suppression(
        reason=reason,
        at=report.at,
        request_id=report.request_id,
        expires_at=report.at + SUPPRESSED_BY_SES if verdict is Verdict.HARD_FOR_A_TIME else None,
        may_have_complained=reason is Reason.COMPLAINT and report.is_one_of_several,
        spelling=report.spelling,
    )


def _suppressed(entry: Entry, suppression: Suppression) -> Entry:
    """Add a suppression of SES to the entry."""
    of_ses, current = entry.strongest_by_ses, entry.suppression
    manual = current if current is not None and current.reason is Reason.MANUAL else None
    if of_ses is not None and _strength(suppression) <= _strength(of_ses):
        return _with_shorter(entry, suppression) if _is_of_soft_bounces(entry) and suppression.expires_at else entry
    if manual is not None and _strength(manual) > _strength(suppression):
        entry = replace(entry, by_ses=suppression)
        return _with_shorter(entry, of_ses) if _is_of_soft_bounces(entry) else replace(entry, shorter=())
    entry = replace(entry, suppression=suppression, by_ses=None)
    return _with_shorter(entry, manual, of_ses) if _is_of_soft_bounces(entry) else replace(entry, shorter=())


_NO_END = datetime.max.replace(tzinfo=UTC)


def _strength(suppression: Suppression) -> tuple[datetime, int, bool, float, str]:
    """Order suppressions, whatever the order of their reports: the longer one wins, then the stronger reason, then the earlier one."""
    return (
        suppression.expires_at or _NO_END,
        _STRENGTH[suppression.reason],
        not suppression.may_have_complained,
        -suppression.at.timestamp(),
        suppression.request_id or "",
    )


def suppress_manually(entry: Entry, suppression: Suppression, now: datetime) -> Entry:
    """Return the entry after a manual suppression, which replaces an earlier manual one, and SES's only if it lasts longer.

    SES's is then kept beneath it, so that a later manual one with an earlier end does not shorten it.
    """
    of_ses = entry.strongest_by_ses
    if of_ses is None or not of_ses.is_in_force(now) or _strength(suppression) > _strength(of_ses):
        # An earlier manual one beneath soft bounces is replaced too: a late delivery would restore it.
        shorter = tuple(one for one in entry.shorter if one.reason is not Reason.MANUAL)
        return replace(entry, suppression=suppression, by_ses=of_ses, shorter=shorter)
    if entry.suppression is not of_ses:
        entry = replace(entry, suppression=of_ses, by_ses=None)
    return _with_shorter(entry, suppression) if _is_of_soft_bounces(entry) else entry


def lift(entry: Entry, lifting: Lifting) -> Entry:
    """Return the entry without its suppression and soft bounces.

    Those from after the lifting was requested are kept: SES is called in between, and may report a bounce meanwhile.
    """
    later = [one for one in (entry.suppression, entry.by_ses) if one is not None and one.at > lifting.at]
    current, of_ses = [*later, None, None][:2]
    soft = {request_id: at for request_id, at in entry.soft_bounces.items() if at > lifting.at}
    shorter = tuple(one for one in entry.shorter if one.at > lifting.at)
    return _recounted(replace(entry, suppression=current, by_ses=of_ses, shorter=shorter, delivered_at=None, lifted=lifting), soft)
