"""Judge whether suppressions were respected: which mails went to a suppressed address, and which addresses were left out without cause."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tools.local_aws.control import PublishedEvent, SentMail
from tools.storm.faults import Span
from tools.storm.requests import PlannedRequest

type Listed = tuple[str, str]
"""The account of a tenant, and an address that it has suppressed."""


def suppressed_by(envelope: Mapping[str, Any]) -> Iterator[Listed]:
    """Yield what an event of SES suppresses."""
    detail = envelope["detail"]
    if detail["eventType"] == "Bounce" and detail["bounce"]["bounceType"] == "Permanent":
        recipients = detail["bounce"]["bouncedRecipients"]
    elif detail["eventType"] == "Complaint":
        recipients = detail["complaint"]["complainedRecipients"]
    else:
        recipients = []
    for recipient in recipients:
        yield envelope["account"], recipient["emailAddress"]


def first_reports(events: Iterable[PublishedEvent]) -> dict[Listed, float]:
    """Return when an event that suppresses an address first reached our queue."""
    first: dict[Listed, float] = {}
    for event in events:
        if event.lost or not event.routed:
            continue
        for listed in suppressed_by(event.envelope):
            first[listed] = min(event.time, first.get(listed, event.time))
    return first


def mailed_again(mails: Iterable[SentMail], acknowledged: Mapping[Listed, float], spans: Mapping[str, Sequence[Span]]) -> list[str]:
    """Return the requests that mailed an address in a batch that began after the event that suppresses it was acknowledged.

    All times are of one clock. A batch that began earlier may have read the suppressions before.
    """
    return [
        request_of(mail)
        for mail in mails
        for address in mail.destinations[1:]
        if _began(mail, spans) > acknowledged.get((mail.account, address), float("inf"))
    ]


def _began(mail: SentMail, spans: Mapping[str, Sequence[Span]]) -> float:
    """Return when the batch began that sent a mail: the earliest that was in progress then.

    SES may accept the mail of a worker that has been killed meanwhile: then it is the earliest that had begun.
    """
    begun = [(since, until) for since, until in spans.get(request_of(mail), []) if since <= mail.time]
    in_progress = [since for since, until in begun if mail.time <= until]
    return min(in_progress or [since for since, _ in begun], default=mail.time)


def left_out(
    mails: Iterable[SentMail], planned: Mapping[str, PlannedRequest], reported: Mapping[Listed, float]
) -> tuple[list[str], list[str]]:
    """Return the requests whose second recipient was left out after an event for it, and those where there was none."""
    with_cause: list[str] = []
    without_cause: list[str] = []
    for mail in mails:
        address = planned[request_of(mail)].also_to
        if address and address not in mail.destinations:
            is_reported = reported.get((mail.account, address), float("inf")) < mail.time
            (with_cause if is_reported else without_cause).append(request_of(mail))
    return with_cause, without_cause


def request_of(mail: SentMail) -> str:
    """Return the request of a mail, by its first recipient."""
    return mail.destinations[0].partition("@")[0]
