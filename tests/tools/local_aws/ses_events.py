"""Create SES's events of a mail, in EventBridge envelopes.

The addresses of SES's mailbox simulator determine the outcome (developer guide, "Using the mailbox simulator"). Mail to any other address
is delivered, unless a test sets another outcome.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from enum import StrEnum
from typing import Any
from uuid import uuid4

SIMULATOR = "simulator.amazonses.com"
DETAIL_TYPES = {
    "Send": "Email Sent",
    "Delivery": "Email Delivered",
    "Bounce": "Email Bounced",
    "Complaint": "Email Complaint Received",
    "Reject": "Email Rejected",
    "DeliveryDelay": "Email Delivery Delayed",
}
"""The `detail-type` of each `detail.eventType`."""


class RecipientOutcome(StrEnum):
    """Outcome of a mail for one recipient."""

    DELIVERED = "delivered"
    BOUNCED = "bounced"  # the mailbox does not exist
    SUPPRESSED = "suppressed"  # on a suppression list: SES accepts it and does not send it
    MAILBOX_FULL = "mailbox full"  # a soft bounce
    COMPLAINED = "complained"  # delivered, then marked as spam
    OUT_OF_OFFICE = "out of office"  # delivered, then answered automatically, which SES reports as a soft bounce
    DELAYED = "delayed"  # the recipient's server is temporarily unavailable; delivered in the end
    REJECTED = "rejected"  # a virus: SES accepts it and sends it to no recipient


AT_THE_SIMULATOR = {
    "success": RecipientOutcome.DELIVERED,
    "bounce": RecipientOutcome.BOUNCED,
    "complaint": RecipientOutcome.COMPLAINED,
    "ooto": RecipientOutcome.OUT_OF_OFFICE,
    "suppressionlist": RecipientOutcome.SUPPRESSED,
}
"""By the local part, up to a `+label`."""

DELIVERABLE = {RecipientOutcome.DELIVERED, RecipientOutcome.COMPLAINED, RecipientOutcome.OUT_OF_OFFICE, RecipientOutcome.DELAYED}
BOUNCES = {
    RecipientOutcome.BOUNCED: ("Permanent", "General", "5.1.1", "smtp; 550 5.1.1 user unknown"),
    RecipientOutcome.SUPPRESSED: ("Permanent", "Suppressed", "5.1.1", "Amazon SES has suppressed sending to this address"),
    RecipientOutcome.MAILBOX_FULL: ("Transient", "MailboxFull", "4.2.2", "smtp; 452 4.2.2 mailbox full"),
}
"""Type, subtype, status and diagnostic code of each kind of bounce that replaces a delivery."""

STEP = 0.3
"""Seconds from a mail's acceptance to its send event, its delivery, and later events."""


@dataclass(frozen=True, slots=True)
class AcceptedMail:
    """Data of a mail's events."""

    message_id: str
    account: str
    region: str
    source: str
    destinations: tuple[str, ...]
    configuration_set: str
    tags: Mapping[str, str]
    raw: bytes
    accepted_at: float


@dataclass(frozen=True, slots=True)
class Event:
    """One event, `after` seconds after the mail was accepted."""

    kind: str
    after: float
    envelope: dict[str, Any]


type _Report = tuple[str, float, dict[str, Any]]
"""Kind, seconds after the acceptance, and the object of the kind."""


def outcome_at_ses(address: str) -> RecipientOutcome:
    """Return the outcome of a mail to an address if no test sets another."""
    local, _, domain = address.lower().rpartition("@")
    known = AT_THE_SIMULATOR if domain == SIMULATOR else {}
    return known.get(local.partition("+")[0], RecipientOutcome.DELIVERED)


def events_of(mail: AcceptedMail, instead: Mapping[str, RecipientOutcome]) -> list[Event]:
    """List SES's events of a mail, in order; `instead` sets other outcomes of addresses."""
    outcomes = {address: instead.get(address.lower(), outcome_at_ses(address)) for address in _bare(mail.destinations)}
    reports: list[_Report] = [("Send", STEP, {"send": {}})]
    if RecipientOutcome.REJECTED in outcomes.values():
        reports.append(("Reject", STEP * 2, {"reject": {"reason": "Bad content"}}))
    else:
        reports += [*_delays(outcomes), *_bounces(outcomes), *_deliveries(outcomes), *_later_reports(outcomes)]
    return [Event(kind, after, _envelope(mail, kind, after, detail)) for kind, after, detail in reports]


def _delays(outcomes: Mapping[str, RecipientOutcome]) -> Iterator[_Report]:
    for address in _addresses_with(outcomes, RecipientOutcome.DELAYED):
        reply = {"emailAddress": address, "status": "4.4.1", "diagnosticCode": "smtp; 421 4.4.1 Unable to connect to remote host"}
        yield "DeliveryDelay", STEP * 2, {"deliveryDelay": {"delayType": "TransientCommunicationFailure", "delayedRecipients": [reply]}}


def _bounces(outcomes: Mapping[str, RecipientOutcome]) -> Iterator[_Report]:
    for outcome, (kind, subtype, status, diagnostic) in BOUNCES.items():
        if addresses := _addresses_with(outcomes, outcome):
            who = [{"emailAddress": one, "action": "failed", "status": status, "diagnosticCode": diagnostic} for one in addresses]
            yield "Bounce", STEP * 2, {"bounce": {"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": who}}


def _deliveries(outcomes: Mapping[str, RecipientOutcome]) -> Iterator[_Report]:
    """Report each domain once: its server accepts a mail for all its recipients together."""
    for addresses in _by_domain(_addresses_with(outcomes, *DELIVERABLE)).values():
        late = any(outcomes[address] is RecipientOutcome.DELAYED for address in addresses)
        reply = {"recipients": addresses, "smtpResponse": "250 2.6.0 Message received", "remoteMtaIp": "192.0.2.25"}
        yield "Delivery", STEP * 3 if late else STEP * 2, {"delivery": reply}


def _later_reports(outcomes: Mapping[str, RecipientOutcome]) -> Iterator[_Report]:
    """Report complaints and automatic replies. A complaint names all recipients at the domain, because SES does not know which it was."""
    for addresses in _by_domain(_addresses_with(outcomes, *DELIVERABLE)).values():
        if any(outcomes[address] is RecipientOutcome.COMPLAINED for address in addresses):
            who = [{"emailAddress": address} for address in addresses]
            yield "Complaint", STEP * 3, {"complaint": {"complainedRecipients": who, "complaintFeedbackType": "abuse"}}
    for address in _addresses_with(outcomes, RecipientOutcome.OUT_OF_OFFICE):
        reply = {"bounceType": "Transient", "bounceSubType": "General", "bouncedRecipients": [{"emailAddress": address}]}
        yield "Bounce", STEP * 3, {"bounce": reply}


def _envelope(mail: AcceptedMail, kind: str, after: float, detail: dict[str, Any]) -> dict[str, Any]:
    at = _stamp(mail.accepted_at + after)
    arn = f"arn:aws:ses:{mail.region}:{mail.account}:configuration-set/{mail.configuration_set}"
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": DETAIL_TYPES[kind],
        "source": "aws.ses",
        "account": mail.account,
        "time": f"{at.partition('.')[0]}Z",
        "region": mail.region,
        "resources": [arn],
        "detail": {"eventType": kind, "mail": _mail_object(mail, kind), **{name: _dated(name, part, at) for name, part in detail.items()}},
    }


def _dated(name: str, part: dict[str, Any], at: str) -> dict[str, Any]:
    """Add the times and ids of each kind of report."""
    more: dict[str, Any] = {"timestamp": at} if name not in ("send", "reject") else {}
    if name in ("bounce", "complaint"):
        more["feedbackId"] = str(uuid4())
    if name == "delivery":
        more |= {"processingTimeMillis": round(STEP * 1000), "reportingMTA": "a1-2.smtp-out.amazonses.com"}
    if name == "deliveryDelay":
        more["expirationTime"] = at
    return {**part, **more}


def _mail_object(mail: AcceptedMail, kind: str) -> dict[str, Any]:
    headers = BytesHeaderParser(policy=policy.default).parsebytes(mail.raw)
    listed = [{"name": name, "value": str(value)} for name, value in headers.items()]
    common = {"from": [str(headers["From"])], "to": [str(headers["To"])], "messageId": mail.message_id, "subject": str(headers["Subject"])}
    return {
        "timestamp": _stamp(mail.accepted_at),
        "source": mail.source,
        "sourceArn": f"arn:aws:ses:{mail.region}:{mail.account}:identity/{mail.source}",
        "sendingAccountId": mail.account,
        "messageId": mail.message_id,
        "destination": list(mail.destinations),
        "headersTruncated": False,
        "headers": listed,
        "commonHeaders": common,
        "tags": _tags(mail, kind),
    }


def _tags(mail: AcceptedMail, kind: str) -> dict[str, list[str]]:
    """Return the tags of an event; a DeliveryDelay has none of the sender's, as in SES's sample."""
    own = {"ses:configuration-set": [mail.configuration_set]}
    if kind == "DeliveryDelay":
        return own
    domain = re.sub(r".*@|>$", "", mail.source)
    senders = {name: [value] for name, value in mail.tags.items()}
    return {"ses:source-ip": ["127.0.0.1"], "ses:from-domain": [domain], "ses:caller-identity": ["mail"], **own, **senders}


def _bare(destinations: tuple[str, ...]) -> list[str]:
    return [address for _, address in getaddresses(list(destinations))]


def _addresses_with(outcomes: Mapping[str, RecipientOutcome], *wanted: RecipientOutcome) -> list[str]:
    return [address for address, outcome in outcomes.items() if outcome in wanted]


def _by_domain(addresses: list[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for address in addresses:
        groups[address.rpartition("@")[2].lower()].append(address)
    return groups


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
