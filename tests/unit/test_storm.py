"""A storm's judge: what it must not overlook."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import ErrorInfo
from tools.local_aws.control import SeenRequest, SentMail
from tools.storm.mail import Asked
from tools.storm.verdict import Group, Verdict, judge, met, struck

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ASKED = Asked("acme", "storm-000001", "hold", copies=1, is_withdrawn=False, send_at=None)
RECORD = Delivery(
    tenant_id="acme",
    request_id=ASKED.request_id,
    status=Status.SENT,
    content_hash="sha256-v1:1",
    created_at=NOON,
    updated_at=NOON,
    expires_at=NOON,
    recipients=1,
    attempt=1,
    message_id="m-1",
)
MAIL = SentMail(1, "m-1", 0.0, "AKIA", "1", "us-east-1", "a@acme.example", ["storm-000001@customer.example"], 1, "", {}, Path())
AGAIN = replace(MAIL, number=2, message_id="m-2")


def ruling(
    record: Delivery | None, *mails: SentMail, asked: Asked = ASKED, cancel_answer: int | None = None, excused: set[str] | None = None
) -> Verdict:
    records = {record.request_id: record} if record else {}
    return judge([asked], records, mails, {asked.request_id: cancel_answer} if cancel_answer else {}, excused or set())


def test_a_request_that_was_sent_once_is_well() -> None:
    """As it is with almost all of them."""
    verdict = ruling(RECORD, MAIL)
    assert verdict.is_clean
    assert (verdict.accepted, verdict.resent, verdict.ends) == (1, 0, {"sent": 1})


@pytest.mark.parametrize(
    "record", [None, replace(RECORD, status=Status.SENDING), replace(RECORD, status=Status.UNKNOWN, on_unknown="resend"), RECORD]
)
def test_without_an_end_or_without_its_mail_it_is_lost(record: Delivery | None) -> None:
    """No record, an open one, an `unknown` that is still to be sent again, a `sent` that SES knows nothing of."""
    assert ruling(record).lost == [ASKED.request_id]


def test_a_second_mail_is_one_too_many() -> None:
    """Unless the caller allows it, and no more often than it was tried."""
    assert ruling(RECORD, MAIL, AGAIN).doubled == [ASKED.request_id]
    asked = replace(ASKED, on_unknown="resend")
    assert ruling(replace(RECORD, on_unknown="resend"), MAIL, AGAIN, asked=asked).doubled == [ASKED.request_id]
    allowed = ruling(replace(RECORD, on_unknown="resend", attempt=2), MAIL, AGAIN, asked=asked)
    assert (allowed.doubled, allowed.resent) == ([], 1)


@pytest.mark.parametrize(
    ("status", "mails", "cancel_answer"),
    [
        (Status.FAILED, [], None),
        (Status.FAILED, [MAIL], None),
        (Status.CANCELLED, [MAIL], 200),
        (Status.CANCELLED, [], None),
        (Status.SENT, [MAIL], 200),
        (Status.SENT, [AGAIN], None),
        (Status.UNKNOWN, [], 200),
    ],
)
def test_an_end_that_belies_what_happened_is_wrong(status: Status, mails: list[SentMail], cancel_answer: int | None) -> None:
    """Failed though nothing was wrong with it, cancelled but sent or never withdrawn, withdrawn but not cancelled, another mail's id."""
    assert ruling(replace(RECORD, status=status), *mails, cancel_answer=cancel_answer).wrong == [ASKED.request_id]


def test_a_withdrawn_request_is_well() -> None:
    """Cancelled on its caller's word, and SES has no mail of it."""
    assert ruling(replace(RECORD, status=Status.CANCELLED), cancel_answer=200).is_clean


def test_an_unknown_needs_an_excuse() -> None:
    """A worker that died with it, or a fault on its way to SES or on the record of the result."""
    unknown = replace(RECORD, status=Status.UNKNOWN, error=ErrorInfo("outcome_unknown", "lost"))
    assert ruling(unknown).unexplained == [ASKED.request_id]
    assert ruling(unknown, excused={ASKED.request_id}).is_clean


def test_what_ses_told_of_may_not_stay_unknown() -> None:
    """A mail that it accepted, of a tenant whose events come back; of another tenant, and without a mail, nobody can know."""
    unknown = replace(RECORD, status=Status.UNKNOWN, error=ErrorInfo("outcome_unknown", "lost"))
    records = {ASKED.request_id: unknown}
    verdicts = [
        judge([ASKED], records, mails, {}, {ASKED.request_id}, told)
        for mails, told in (([MAIL], {"acme"}), ([MAIL], {"b"}), ([], {"acme"}))
    ]
    assert [(verdict.unsettled, verdict.is_clean) for verdict in verdicts] == [([ASKED.request_id], False), ([], True), ([], True)]


def test_tenants_whose_events_come_back_are_counted_apart() -> None:
    """To compare how many mails went out twice."""
    other = replace(ASKED, tenant_id="globex", request_id="storm-000002", on_unknown="resend")
    records = {ASKED.request_id: RECORD, other.request_id: replace(RECORD, request_id=other.request_id, attempt=2)}
    theirs = [replace(mail, destinations=["storm-000002@customer.example"]) for mail in (MAIL, AGAIN)]
    verdict = judge([ASKED, other], records, [MAIL, *theirs], {}, set(), {"acme"})
    assert (verdict.told, verdict.untold) == (Group(requests=1, accepted=1), Group(requests=1, accepted=2, resent=1))


def test_a_fault_excuses_those_alone_whose_call_it_hit_in_the_window() -> None:
    """Not one on another call, and not one on another request's."""
    call = SeenRequest(1, 0.0, "ses", "POST", "/", "SendRawEmail", "AKIA", "1", 1, "reset", 0, [7], ["storm-000001"])
    others = [replace(call, faults=[], marks=["storm-000002"]), replace(call, operation="GetItem", marks=["storm-000003"])]
    assert struck([call, *others]) == {"storm-000001"}


def test_an_outage_excuses_those_alone_who_were_under_way() -> None:
    """In whose hands they were before or after it does not count."""
    spans = {"before": [(0.0, 1.0)], "during": [(5.0, 6.0)], "into": [(0.0, 1.0), (2.0, 4.5)], "after": [(8.0, 9.0)]}
    assert met(spans, [(4.0, 7.0)]) == {"during", "into"}
