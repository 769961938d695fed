"""Parse an SES event as EventBridge queues it: the outcome of a mail by recipient, and the request that its tags name.

The body may be anything: what is not an SES event, or is about no mail of ours, gives a `Refusal`, never an exception.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import reduce
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mailer.domain.errors import RequestError
from mailer.domain.facts import MAX_RECIPIENTS, NO_FACTS, Fact, Facts, RecipientStatus, merged
from mailer.domain.message import REQUEST_ID, TENANT_ID
from mailer.domain.moments import from_millis, to_millis
from mailer.domain.tags import ATTEMPT, REQUEST, SIMULATION, TENANT, VERIFY, request_id_of
from mailer.domain.wire import load

ON_ACCOUNT_LIST = "OnAccountSuppressionList"
"""Subtype of a bounce or complaint about a mail that SES did not send, because the address is on the account's own suppression list."""

MAX_DIAGNOSTIC = 500
"""Maximum bytes of a receiving server's response: 50 recipients with every kind of fact then fit into one DynamoDB item (400 KB)."""


MAX_VALUES = 100_000
"""Maximum JSON values of one event: more than fit into an EventBridge entry, however many recipients a hostile server names."""


class EventKind(StrEnum):
    """The kind of an SES event, `detail.eventType`."""

    SEND = "Send"
    DELIVERY = "Delivery"
    BOUNCE = "Bounce"
    COMPLAINT = "Complaint"
    REJECT = "Reject"
    DELIVERY_DELAY = "DeliveryDelay"


class Refusal(StrEnum):
    """Why an event changes nothing."""

    UNREADABLE = "unreadable"
    """It is not an SES event, or SES changed its format: see `unreadable_fields`."""
    UNTAGGED = "untagged"
    """It is about mail that is not ours: the tenant uses the configuration set for other mail too."""
    TOO_OLD = "too_old"
    """The record of its request may have expired."""
    NO_RECORD = "no_record"
    """There is no record of its request, after retries for 15 minutes."""
    BAD_TAGS = "bad_tags"
    """Its tags are not as we write them."""
    FOREIGN_ACCOUNT = "foreign_account"
    """It comes from another account or region than the attempt was sent from."""
    UNKNOWN_ACCOUNT = "unknown_account"
    """The attempt's account is not known: the config was verified before accounts were stored, or more than ten later attempts of the
    request may have been accepted."""
    NO_ATTEMPT = "no_attempt"
    """The attempt was never made, or SES cannot have accepted it."""
    WRONG_MESSAGE = "wrong_message"
    """The attempt's mail has another SES messageId."""
    CONTRADICTION = "contradiction"
    """It proves that SES accepted a mail whose request ended as failed or cancelled."""


FORGED = frozenset({Refusal.BAD_TAGS, Refusal.FOREIGN_ACCOUNT, Refusal.NO_ATTEMPT, Refusal.WRONG_MESSAGE})
"""Refusals of events that SES does not emit for our mail: they are forged, or our records are wrong."""


@dataclass(frozen=True, slots=True)
class MailRef:
    """The mail that an event's tags name: one attempt of one request."""

    tenant_id: str
    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class VerifyRef:
    """The test mail that an event's tags name: of one version of a tenant's config."""

    tenant_id: str
    version: int
    simulation: int | None = None
    """The simulation that it belongs to, if `verify` was called with `simulate`."""


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What an event reports about one recipient."""

    email: str = field(repr=False)
    status: RecipientStatus
    fact: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class SesEvent:
    """One event. Account and region are the envelope's, which cannot be forged; times are aware, UTC, in whole milliseconds."""

    kind: EventKind
    account: str
    region: str
    told_at: datetime
    """When SES put the event on the bus."""
    at: datetime
    """When the reported outcome happened."""
    accepted_at: datetime
    """When SES accepted the mail."""
    message_id: str
    ref: MailRef | VerifyRef | None
    """The mail that its tags name; None if it has none of our tags, as may be the case with a DeliveryDelay."""
    sending_account: str | None = None
    """The account that sent the mail, according to the event's body."""
    destinations: tuple[str, ...] = field(default=(), repr=False)
    recipients: tuple[RecipientReport, ...] = ()
    type: str = ""
    """bounceType, complaintFeedbackType or delayType."""
    subtype: str = ""
    """bounceSubType or complaintSubType."""
    has_dsn: bool = False
    """Whether a bounce came with a delivery status notification (RFC 3464): automatic replies have none."""

    @property
    def facts(self) -> Facts:
        """Return its facts of each recipient."""
        return reduce(merged, ({report.email: {report.status: report.fact}} for report in self.recipients), NO_FACTS)


# ── the event as SES writes it ──────────────────────────────────────────────────────────────────────────────────────────

_MOMENT = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


def _moment(value: Any) -> datetime:
    """Parse a time of this millennium, truncated to milliseconds as in the tables."""
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("must be a time")
    return from_millis(to_millis(datetime.fromisoformat(value).astimezone(UTC)))


def _line(value: Any) -> str:
    """Read text that may come from any server: truncated, without what UTF-8 cannot encode."""
    return value[:MAX_DIAGNOSTIC].encode("utf-8", "replace")[:MAX_DIAGNOSTIC].decode("utf-8", "ignore") if isinstance(value, str) else ""


def _at_most_ses_takes(value: Any) -> Any:
    """Truncate the recipients of a mail to SES's limit; a mail with more is not ours."""
    return value[:MAX_RECIPIENTS] if isinstance(value, list) else value


def _own_tags(value: Any) -> Any:
    """Pick our tags; each of them has one value."""
    if not isinstance(value, Mapping):
        return {}
    named = {name: value[name] for name in (TENANT, REQUEST, ATTEMPT, VERIFY, SIMULATION) if name in value}
    return {name: values[0] if isinstance(values, list) and len(values) == 1 else "" for name, values in named.items()}


_Moment = Annotated[datetime, BeforeValidator(_moment)]
_Line = Annotated[str, BeforeValidator(_line)]
_Account = Annotated[str, Field(pattern=r"^[0-9]{12}$")]


class _Ses(BaseModel):
    """Part of an event; SES may add fields at any time."""

    # Built on the first event: other functions import this module only for its names.
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, hide_input_in_errors=True, defer_build=True)


class _Mail(_Ses):
    timestamp: _Moment
    message_id: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
    destination: Annotated[tuple[_Line, ...], BeforeValidator(_at_most_ses_takes)] = ()
    sending_account_id: _Account | None = None
    tags: Annotated[dict[str, _Line], BeforeValidator(_own_tags)] = Field(default_factory=dict)


class _Recipient(_Ses):
    email_address: _Line
    action: _Line = ""
    status: _Line = ""
    diagnostic_code: _Line = ""


# Reported recipients have no limit: a hostile server may name a thousand, which must not hide those that the mail was sent to.
_Recipients = tuple[_Recipient, ...]


@dataclass(frozen=True, slots=True)
class _Report:
    """What the kind-specific part of an event reports."""

    status: RecipientStatus | None = None
    recipients: tuple[_Recipient, ...] = ()
    at: datetime | None = None
    """None: when SES put the event on the bus."""
    type: str = ""
    subtype: str = ""
    has_dsn: bool = False


class _Part(_Ses):
    """The kind-specific part of an event; a Send reports only that SES accepted the mail."""

    def report(self, mail: _Mail) -> _Report:
        """Return what it reports about which recipients."""
        return _Report(at=mail.timestamp)


def _of_each(addresses: Iterable[str], diagnostic: str) -> tuple[_Recipient, ...]:
    return tuple(_Recipient.model_construct(email_address=address, diagnostic_code=diagnostic) for address in addresses)


class _Delivery(_Part):
    timestamp: _Moment
    recipients: tuple[_Line, ...]
    smtp_response: _Line = ""

    def report(self, mail: _Mail) -> _Report:  # noqa: ARG002 - as the others
        return _Report(RecipientStatus.DELIVERED, _of_each(self.recipients, self.smtp_response), self.timestamp)


class _Bounce(_Part):
    timestamp: _Moment
    bounce_type: _Line
    bounce_sub_type: _Line = ""
    bounced_recipients: _Recipients
    reporting_mta: Annotated[_Line, Field(alias="reportingMTA")] = ""

    def report(self, mail: _Mail) -> _Report:  # noqa: ARG002 - as the others
        status = RecipientStatus.BOUNCED if self.bounce_type == "Permanent" else RecipientStatus.SOFT_BOUNCED
        # SES gives these fields only if there was a notification.
        has_dsn = bool(self.reporting_mta) or any(one.action or one.status or one.diagnostic_code for one in self.bounced_recipients)
        return _Report(status, self.bounced_recipients, self.timestamp, self.bounce_type, self.bounce_sub_type, has_dsn)


class _Complaint(_Part):
    timestamp: _Moment
    complaint_feedback_type: _Line = ""
    complaint_sub_type: _Line = ""
    complained_recipients: _Recipients

    def report(self, mail: _Mail) -> _Report:  # noqa: ARG002 - as the others
        # Some mailbox providers let users report a mail as not spam.
        status = None if self.complaint_feedback_type == "not-spam" else RecipientStatus.COMPLAINED
        return _Report(status, self.complained_recipients, self.timestamp, self.complaint_feedback_type, self.complaint_sub_type)


class _Reject(_Part):
    reason: _Line = ""

    def report(self, mail: _Mail) -> _Report:
        return _Report(RecipientStatus.REJECTED, _of_each(mail.destination, self.reason))


class _DeliveryDelay(_Part):
    timestamp: _Moment
    delay_type: _Line = ""
    delayed_recipients: _Recipients

    def report(self, mail: _Mail) -> _Report:  # noqa: ARG002 - as the others
        return _Report(RecipientStatus.DELAYED, self.delayed_recipients, self.timestamp, self.delay_type)


class _Detail(_Ses):
    event_type: EventKind
    mail: _Mail
    send: _Part | None = None
    delivery: _Delivery | None = None
    bounce: _Bounce | None = None
    complaint: _Complaint | None = None
    reject: _Reject | None = None
    delivery_delay: _DeliveryDelay | None = None


class _Envelope(_Ses):
    source: Literal["aws.ses"]
    account: _Account
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    time: _Moment
    detail: _Detail


# ── its content ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_event(body: str) -> SesEvent | Refusal:
    """Parse the body of a queued event."""
    try:
        document, _ = load(body, max_values=MAX_VALUES)
        envelope = _Envelope.model_validate(document, by_alias=True, by_name=False)
    except (RequestError, ValidationError, RecursionError):
        return Refusal.UNREADABLE
    report = _report(envelope)
    ref = _ref(envelope.detail.mail.tags)
    if report is None or isinstance(ref, Refusal):
        return Refusal.UNREADABLE if report is None else Refusal.BAD_TAGS
    return _event(envelope, report, ref)


def unreadable_fields(body: str) -> Sequence[str]:
    """Name the fields that make an event unreadable, without their values."""
    try:
        document, _ = load(body, max_values=MAX_VALUES)
        envelope = _Envelope.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        return sorted(
            {".".join(str(name) for name in problem["loc"] if isinstance(name, str)) or "(no object)" for problem in error.errors()}
        )
    except (RequestError, RecursionError):
        return ["(no JSON)"]
    kind = envelope.detail.event_type
    return [] if _report(envelope) else [f"detail.{kind[0].lower()}{kind[1:]}"]


def _report(envelope: _Envelope) -> _Report | None:
    """Return the report of the kind-specific part; None if the part is missing."""
    detail = envelope.detail
    parts: Mapping[EventKind, _Part | None] = {
        EventKind.SEND: detail.send,
        EventKind.DELIVERY: detail.delivery,
        EventKind.BOUNCE: detail.bounce,
        EventKind.COMPLAINT: detail.complaint,
        EventKind.REJECT: detail.reject,
        EventKind.DELIVERY_DELAY: detail.delivery_delay,
    }
    part = parts[detail.event_type]
    return part.report(detail.mail) if part else None


_ENVELOPE_PRECISION = timedelta(seconds=1)
"""EventBridge writes whole seconds."""


def _event(envelope: _Envelope, report: _Report, ref: MailRef | VerifyRef | None) -> SesEvent:
    mail = envelope.detail.mail
    latest = envelope.time + _ENVELOPE_PRECISION
    # A bounce's time is from the other server's clock, and cannot be before its mail.
    at = min(max(report.at or envelope.time, mail.timestamp), latest)
    return SesEvent(
        kind=envelope.detail.event_type,
        account=envelope.account,
        region=envelope.region,
        told_at=envelope.time,
        at=at,
        accepted_at=min(mail.timestamp, latest),
        message_id=mail.message_id,
        ref=ref,
        sending_account=mail.sending_account_id,
        destinations=tuple(filter(None, map(_address, mail.destination))),
        recipients=_recipients(report, at, mail.destination),
        type=report.type,
        subtype=report.subtype,
        has_dsn=report.has_dsn,
    )


def _recipients(report: _Report, at: datetime, destination: Sequence[str]) -> tuple[RecipientReport, ...]:
    """Return the reports about the mail's recipients, one per recipient."""
    if report.status is None:
        return ()
    of_mail = dict.fromkeys(address for address in map(_address, destination) if address)
    # Recipients that differ only in the case of the local part are two (RFC 5321 §2.4).
    known = {**{address.lower(): address for address in of_mail}, **{address: address for address in of_mail}}
    only = next(iter(of_mail)) if len(of_mail) == 1 else None
    facts: dict[str, Fact] = {}
    for reported in report.recipients:
        address = _address(reported.email_address)
        if email := address and (only or _recipient(address, known)):
            fact = Fact(at, _smtp_status(reported), reported.diagnostic_code, report.subtype == ON_ACCOUNT_LIST)
            facts[email] = fact.joined(facts.get(email, fact))
    return tuple(RecipientReport(email, report.status, fact) for email, fact in islice(facts.items(), MAX_RECIPIENTS))


def _recipient(address: str, known: Mapping[str, str]) -> str | None:
    """Return the recipient of the mail that a reported address matches; None if there is none.

    A bounce names the final recipient as the last server spells it: for forwarded mail an address that we never sent to. A hostile server
    could name any address, which must not be suppressed for that.
    """
    return known.get(address) or known.get(address.lower()) if known else address


_ADDRESS = re.compile(r"[^\s<>@\x00-\x20\x7f]{1,256}@[^\s<>@\x00-\x20\x7f]{1,255}")


def _address(text: str) -> str | None:
    """Return the address in `jo@example.com` and `Jo <jo@example.com>`."""
    _, bracket, rest = text.rpartition("<")
    address = rest.partition(">")[0] if bracket else text.strip()
    return address if _ADDRESS.fullmatch(address) else None


_SMTP_STATUS = re.compile(r"(?<![0-9.])[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")


def _smtp_status(reported: _Recipient) -> str:
    """Return the enhanced status code (RFC 3463), from the event's field or from the server's response."""
    found = _SMTP_STATUS.search(reported.status) or _SMTP_STATUS.search(reported.diagnostic_code)
    return found[0] if found else ""


# ── its tags ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SIMULATION = re.compile(r"[0-9]{1,18}")


def _verify_ref(tenant_id: str, tags: Mapping[str, str]) -> VerifyRef | Literal[Refusal.BAD_TAGS]:
    version, simulation = tags[VERIFY], tags.get(SIMULATION)
    is_known = tags.keys() <= {TENANT, VERIFY, SIMULATION} and _NUMBER.fullmatch(version)
    if not is_known or (simulation is not None and not _SIMULATION.fullmatch(simulation)):
        return Refusal.BAD_TAGS
    return VerifyRef(tenant_id, int(version), None if simulation is None else int(simulation))


def _ref(tags: Mapping[str, str]) -> MailRef | VerifyRef | Literal[Refusal.BAD_TAGS] | None:
    """Return the mail that the tags name; None if none of them is ours."""
    if not tags:
        return None
    tenant_id = tags.get(TENANT, "")
    if not re.fullmatch(TENANT_ID, tenant_id):
        return Refusal.BAD_TAGS
    if VERIFY in tags:
        return _verify_ref(tenant_id, tags)
    request_id = request_id_of(tags.get(REQUEST, ""))
    is_whole = tags.keys() == {TENANT, REQUEST, ATTEMPT} and _NUMBER.fullmatch(tags[ATTEMPT])
    if not is_whole or not request_id or not re.fullmatch(REQUEST_ID, request_id):
        return Refusal.BAD_TAGS
    return MailRef(tenant_id, request_id, int(tags[ATTEMPT]))
