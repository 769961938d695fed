"""Decide which addresses a tenant's mail leaves out: what SES tells of a recipient, a table of what follows, the entry that stands then.

An entry changes by reports, which come in any order, doubled or days late: the same reports lead to the same suppression. What an operator
lifted stays lifted, whatever arrives later about a time before.
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
"""Distinct requests that bounce softly, without a delivery between, until the address is suppressed."""

SUPPRESSED_BY_SES = timedelta(days=14)
"""How long an address is suppressed that is on SES's own list of all accounts: SES forgets it by then."""

MOST_SOFT_BOUNCES = 4 * SOFT_BOUNCES
"""Soft bounces that an entry keeps, the first ones: much mail may be in flight to an address."""

SOFT_BOUNCES_KEPT = timedelta(days=180)
"""How long soft bounces are counted after the last one: a monthly letter shows a mailbox that is full for good."""

LIFTING_KEPT = timedelta(days=36)
"""How long a lifting outlasts reports of the time before; no event is taken that is older than 35 days."""


class Reason(StrEnum):
    """Why an address is suppressed, the weakest first: of two that last as long the later one stands."""

    SOFT_BOUNCES = "soft_bounces"
    MANUAL = "manual"
    SES_LIST = "ses_list"
    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"


_STRENGTH: Mapping[Reason, int] = {reason: strength for strength, reason in enumerate(Reason)}


def suppression_key(address: str) -> str:
    """Give the form that an address is listed in: lower-cased as a whole, its domain in punycode.

    Mailboxes that differ only in the case of the local part are taken for one, as mail systems do.

    Raises:
        AddressError: it is no address that mail could go to.
    """
    return ascii_address(address).lower()


def digest(email: str) -> str:
    """Give the SHA-256 of a listed address, in hex: what events tell of it."""
    return hashlib.sha256(email.encode("ascii")).hexdigest()


# ── what SES tells, and what follows ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one event of SES tells of one recipient."""

    kind: Literal["delivery", "bounce", "complaint"]
    at: datetime
    request_id: str
    spelling: str | None = field(default=None, repr=False)
    """The address as the mail had it."""
    type: str = ""
    """Of a bounce its bounceType, of a complaint its complaintFeedbackType."""
    subtype: str = ""
    """The bounceSubType or complaintSubType."""
    status: str = ""
    """The enhanced status code (RFC 3463) that the recipient's server gave."""
    has_dsn: bool = True
    """Whether a bounce came with a delivery status notification (RFC 3464): automatic replies have none."""
    is_one_of_several: bool = False
    """Whether a complaint names several recipients of one domain: it may be another who complained."""


class Verdict(StrEnum):
    """What follows from a report."""

    NOTHING = "nothing"
    DELIVERED = "soft bounces before it do not count any more"
    SOFT = "counted"
    HARD = "suppressed"
    HARD_FOR_A_TIME = "suppressed for 14 days"
    SES_LIST = "suppressed, as the account's own list at SES holds it"
    COMPLAINT = "suppressed, as the recipient complained"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: the reports that it is about, and what follows from them. What is None may be anything."""

    verdict: Verdict
    kind: str
    type: str | None = None
    subtype: str | None = None
    status: str | None = None
    """A pattern."""
    has_dsn: bool | None = None

    def fits(self, report: Report) -> bool:
        """Whether a report is one of this row's."""
        wanted = (self.type, self.subtype, self.has_dsn)
        given = (report.type, report.subtype, report.has_dsn)
        return (
            self.kind == report.kind
            and all(one in (None, other) for one, other in zip(wanted, given, strict=True))
            and (self.status is None or re.fullmatch(self.status, report.status) is not None)
        )


_SENDER = r"5\.1\.[78]|5\.7\.2\d"
"""The sender's address or domain (RFC 3463), its authentication (RFC 7372), its null MX (RFC 7505), or how much it sends."""

_MESSAGE = r"5\.2\.3|5\.3\.4|5\.6\.\d{1,3}"
"""The message is too large, or its content is not taken (RFC 3463)."""

_NO_MAILBOX = r"5\.1\.(?![59]$)\d{1,3}|5\.4\.4"
"""No such mailbox, no such domain. 5.1.5 and 5.1.9 say that the address is valid."""

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
    # SES takes these for transient at times.
    Row(Verdict.HARD, "bounce", "Transient", status=_NO_MAILBOX),
    # Out-of-office replies and their like are reported as bounces, after the delivery.
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
"""What follows from each report: the first row that fits counts, and nothing follows where none does."""


def verdict_of(report: Report) -> Verdict:
    """Look a report up in the table."""
    return next((row.verdict for row in TABLE if row.fits(report)), Verdict.NOTHING)


# ── the entry of one address ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Why an address is left out, since when and until when."""

    reason: Reason
    at: datetime
    request_id: str | None = None
    """The request whose mail caused it."""
    expires_at: datetime | None = None
    """None: until it is lifted."""
    by: str | None = None
    """The ARN of the IAM identity that asked for it."""
    why: str | None = None
    may_have_complained: bool = False
    """Whether the complaint may be of another recipient at the same domain."""
    spelling: str | None = field(default=None, repr=False)
    """The address as the mail had it that SES told of: SES's own list keeps upper and lower case apart."""

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
    """What is known of one address of a tenant; one that is only counted is not suppressed."""

    tenant_id: str
    email: str = field(repr=False)
    """As `suppression_key` gives it."""
    suppression: Suppression | None = None
    """The strongest; a caller's word only where that lasts at least as long as all that SES told."""
    told: Suppression | None = None
    """What SES told, where a caller's word stands above it: another word replaces that one alone."""
    outlasted: tuple[Suppression, ...] = ()
    """What has an end, where soft bounces suppress for ever: it stands again if a late delivery takes that back. One word of a caller at
    most, and one that SES told."""
    soft_bounces: Mapping[str, datetime] = field(default_factory=dict)
    """Requests that bounced softly since the last delivery, and when; SOFT_BOUNCES of them suppress, and are kept then."""
    delivered_at: datetime | None = None
    """The last delivery that cleared soft bounces."""
    lifted: Lifting | None = None
    revision: int = 0
    """Counts the writes: whoever replaces the entry must have read the latest."""

    def in_force(self, now: datetime) -> Suppression | None:
        """Return its suppression, unless that has expired."""
        return self.suppression if self.suppression is not None and self.suppression.is_in_force(now) else None

    @property
    def told_by_ses(self) -> Suppression | None:
        """The strongest that SES told, whatever callers said."""
        return self.told if self.suppression is None or self.suppression.reason is Reason.MANUAL else self.suppression

    @property
    def forget_at(self) -> datetime | None:
        """When nothing of it is needed any more; None: not until it is lifted."""
        if self.suppression is not None and self.suppression.expires_at is None:
            return None
        ends = [moment + SOFT_BOUNCES_KEPT for moment in self.soft_bounces.values()]
        ends += [self.suppression.expires_at] if self.suppression and self.suppression.expires_at else []
        ends += [self.lifted.at + LIFTING_KEPT] if self.lifted else []
        ends += [self.delivered_at + LIFTING_KEPT] if self.delivered_at else []
        return max(ends, default=None)


def judge(entry: Entry, report: Report) -> Entry:
    """Return the entry after a report; the very same one where nothing follows from it."""
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
    """Forget the soft bounces before a delivery, and the suppression if it was told late that one came between them.

    Where none were counted nothing is noted, as most addresses have none; a delivery after the last that it takes lifts nothing.
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
    """Replace the soft bounces, and what followed from those before."""
    outlasted: Sequence[Suppression] = ()
    if _is_of_soft_bounces(entry):
        word = entry.suppression if entry.suppression and entry.suppression.reason is Reason.MANUAL else None
        outlasted, entry = entry.outlasted, replace(entry, suppression=word, told=None, outlasted=())
    entry = replace(entry, soft_bounces=soft_bounces)
    for one in outlasted:
        entry = suppress_manually(entry, one, one.at) if one.reason is Reason.MANUAL else _suppressed(entry, one)
    enough = _of_soft_bounces(soft_bounces)
    return _suppressed(entry, enough) if enough else entry


def _is_of_soft_bounces(entry: Entry) -> bool:
    """Whether the strongest that SES told follows from soft bounces, and may be taken back with them."""
    return entry.told_by_ses is not None and entry.told_by_ses == _of_soft_bounces(entry.soft_bounces)


def _with_outlasted(entry: Entry, *suppressions: Suppression | None) -> Entry:
    """Keep what has an end beneath a suppression by soft bounces: the latest word of a caller, and the strongest that SES told."""
    word = next((one for one in entry.outlasted if one.reason is Reason.MANUAL), None)
    told = next((one for one in entry.outlasted if one.reason is not Reason.MANUAL), None)
    for one in suppressions:
        if one is not None and one.reason is Reason.MANUAL:
            word = one
        elif one is not None and (told is None or _strength(one) > _strength(told)):
            told = one
    outlasted = tuple(one for one in (word, told) if one is not None)
    return entry if outlasted == entry.outlasted else replace(entry, outlasted=outlasted)


def _of_soft_bounces(soft_bounces: Mapping[str, datetime]) -> Suppression | None:
    """Return what follows from soft bounces without a delivery between: a suppression by the first that makes them enough."""
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
    """Add what SES told to what stands."""
    told, stands = entry.told_by_ses, entry.suppression
    word = stands if stands is not None and stands.reason is Reason.MANUAL else None
    if told is not None and _strength(suppression) <= _strength(told):
        return _with_outlasted(entry, suppression) if _is_of_soft_bounces(entry) and suppression.expires_at else entry
    if word is not None and _strength(word) > _strength(suppression):
        entry = replace(entry, told=suppression)
        return _with_outlasted(entry, told) if _is_of_soft_bounces(entry) else replace(entry, outlasted=())
    entry = replace(entry, suppression=suppression, told=None)
    return _with_outlasted(entry, word, told) if _is_of_soft_bounces(entry) else replace(entry, outlasted=())


_FOR_EVER = datetime.max.replace(tzinfo=UTC)


def _strength(suppression: Suppression) -> tuple[datetime, int, bool, float, str]:
    """Order suppressions: what lasts longer stands, then the stronger reason, then the earlier one, whatever order they come in."""
    return (
        suppression.expires_at or _FOR_EVER,
        _STRENGTH[suppression.reason],
        not suppression.may_have_complained,
        -suppression.at.timestamp(),
        suppression.request_id or "",
    )


def suppress_manually(entry: Entry, suppression: Suppression, now: datetime) -> Entry:
    """Return the entry after a caller's word; it replaces an earlier word, and what SES told only where it outlasts that.

    What it outlasts is kept beneath it, so that a later word with an end does not end what SES told.
    """
    told = entry.told_by_ses
    if told is None or not told.is_in_force(now) or _strength(suppression) > _strength(told):
        return replace(entry, suppression=suppression, told=told)
    if entry.suppression is not told:
        entry = replace(entry, suppression=told, told=None)
    return _with_outlasted(entry, suppression) if _is_of_soft_bounces(entry) else entry


def lift(entry: Entry, lifting: Lifting) -> Entry:
    """Return the entry once its address may be mailed again; its soft bounces are forgotten too.

    What happened after the lifting was asked for stands: SES is asked in between, and may tell of a bounce meanwhile.
    """
    later = [one for one in (entry.suppression, entry.told) if one is not None and one.at > lifting.at]
    stands, told = [*later, None, None][:2]
    soft = {request_id: at for request_id, at in entry.soft_bounces.items() if at > lifting.at}
    outlasted = tuple(one for one in entry.outlasted if one.at > lifting.at)
    return _recounted(replace(entry, suppression=stands, told=told, outlasted=outlasted, delivered_at=None, lifted=lifting), soft)
