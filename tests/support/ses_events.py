"""SES events in the form of FeedbackQueue's messages, created by the code of the local AWS."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mailer.domain.feedback import SesEvent, parse_event
from mailer.domain.tags import tagged
from support.fakes.ports import NOON
from tools.local_aws.ses_events import AcceptedMail, RecipientOutcome, events_of

ACCOUNT, REGION, MESSAGE_ID = "111122223333", "eu-west-1", "0100019391a1b2c3-example"


def envelopes(
    outcomes: Mapping[str, RecipientOutcome],
    *,
    request_id: str = "r1",
    attempt: int = 1,
    tags: Mapping[str, str] | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Return every event of a mail of tenant acme whose recipients have these outcomes; by default with our tags."""
    mail = AcceptedMail(
        **{
            "message_id": MESSAGE_ID,
            "account": ACCOUNT,
            "region": REGION,
            "source": "billing@acme.example",
            "destinations": tuple(outcomes),
            "configuration_set": "mail-acme",
            "tags": tagged({}, tenant_id="acme", request_id=request_id, attempt=attempt) if tags is None else tags,
            "raw": b"From: billing@acme.example\r\nTo: jo@example.com\r\nSubject: Your invoice\r\n\r\nThank you.\r\n",
            "accepted_at": NOON.timestamp(),
            **fields,
        }
    )
    return [event.envelope for event in events_of(mail, {address.lower(): outcome for address, outcome in outcomes.items()})]


def an_envelope(kind: str = "Delivery", outcome: RecipientOutcome = RecipientOutcome.DELIVERED, **fields: Any) -> dict[str, Any]:
    """Return the last event of a kind, of a mail to jo@example.com."""
    found = [one for one in envelopes({"jo@example.com": outcome}, **fields) if one["detail"]["eventType"] == kind]
    return found[-1]


def replaced(document: Any, at: Sequence[str | int], value: Any) -> Any:
    """Return a document with one value replaced."""
    if not at:
        return value
    first, *rest = at
    items = document.items() if isinstance(document, dict) else enumerate(document)
    changed = {key: replaced(inner, rest, value) if key == first else inner for key, inner in items}
    if first not in changed:
        changed[first] = value
    return changed if isinstance(document, dict) else list(changed.values())


def read(envelope: dict[str, Any]) -> SesEvent:
    """Parse a valid event."""
    event = parse_event(json.dumps(envelope))
    assert isinstance(event, SesEvent), event
    return event
