"""The verdict of a storm detects every violation."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import ErrorInfo
from tools.local_aws.control import PublishedEvent, SeenRequest, SentMail
from tools.storm.requests import PlannedRequest
from tools.storm.suppressions import first_reports, left_out, mailed_again, suppressed_by
from tools.storm.verdict import Group, Verdict, hit_by_faults, judge, overlapping

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLANNED = PlannedRequest("acme", "storm-000001", "hold", copies=1, is_cancelled=False, send_at=None)
RECORD = Delivery(
    tenant_id="acme",
    request_id=PLANNED.request_id,
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


def verdict_of(
    record: Delivery | None,
    *mails: SentMail,
    planned: PlannedRequest = PLANNED,
    cancel_answer: int | None = None,
    excused: set[str] | None = None,
) -> Verdict:
    records = {record.request_id: record} if record else {}
    return judge([planned], records, mails, {planned.request_id: cancel_answer} if cancel_answer else {}, excused or set())


def test_a_request_sent_once_is_clean() -> None:
    """The usual case."""
    verdict = verdict_of(RECORD, MAIL)
    assert verdict.is_clean
    assert (verdict.accepted, verdict.resent, verdict.ends) == (1, 0, {"sent": 1})


@pytest.mark.parametrize(
    "record", [None, replace(RECORD, status=Status.SENDING), replace(RECORD, status=Status.UNKNOWN, on_unknown="resend"), RECORD]
)
def test_a_request_without_an_end_or_its_mail_is_lost(record: Delivery | None) -> None:
    """Cases: no record, an open one, an `unknown` before its resend, a `sent` without a mail at SES."""
    assert verdict_of(record).lost == [PLANNED.request_id]


def test_a_second_mail_is_a_violation() -> None:
    """Except with onUnknown resend, up to the number of attempts."""
    assert verdict_of(RECORD, MAIL, AGAIN).doubled == [PLANNED.request_id]
    planned = replace(PLANNED, on_unknown="resend")
    assert verdict_of(replace(RECORD, on_unknown="resend"), MAIL, AGAIN, planned=planned).doubled == [PLANNED.request_id]
    allowed = verdict_of(replace(RECORD, on_unknown="resend", attempt=2), MAIL, AGAIN, planned=planned)
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
def test_a_status_that_contradicts_the_mails_is_a_violation(status: Status, mails: list[SentMail], cancel_answer: int | None) -> None:
    """Cases: failed but valid, cancelled but sent or without a cancel call, sent despite a successful cancel, another mail's id."""
    assert verdict_of(replace(RECORD, status=status), *mails, cancel_answer=cancel_answer).wrong == [PLANNED.request_id]


def test_a_cancelled_request_is_clean() -> None:
    """Its caller cancelled it, and SES has no mail."""
    assert verdict_of(replace(RECORD, status=Status.CANCELLED), cancel_answer=200).is_clean


def test_an_unknown_needs_a_cause() -> None:
    """Causes are a terminated worker, and a fault of its SES call or of the write of its result."""
    unknown = replace(RECORD, status=Status.UNKNOWN, error=ErrorInfo("outcome_unknown", "lost"))
    assert verdict_of(unknown).unexplained == [PLANNED.request_id]
    assert verdict_of(unknown, excused={PLANNED.request_id}).is_clean


def test_a_mail_with_feedback_may_not_stay_unknown() -> None:
    """It may if SES has no mail, or without feedback."""
    unknown = replace(RECORD, status=Status.UNKNOWN, error=ErrorInfo("outcome_unknown", "lost"))
    records = {PLANNED.request_id: unknown}
    verdicts = [
        judge([PLANNED], records, mails, {}, {PLANNED.request_id}, tenants)
        for mails, tenants in (([MAIL], {"acme"}), ([MAIL], {"b"}), ([], {"acme"}))
    ]
    assert [(verdict.unresolved, verdict.is_clean) for verdict in verdicts] == [([PLANNED.request_id], False), ([], True), ([], True)]


def test_tenants_with_feedback_are_counted_separately() -> None:
    """This compares the numbers of mails that are sent twice."""
    other = replace(PLANNED, tenant_id="globex", request_id="storm-000002", on_unknown="resend")
    records = {PLANNED.request_id: RECORD, other.request_id: replace(RECORD, request_id=other.request_id, attempt=2)}
    without_feedback = [replace(mail, destinations=["storm-000002@customer.example"]) for mail in (MAIL, AGAIN)]
    verdict = judge([PLANNED, other], records, [MAIL, *without_feedback], {}, set(), {"acme"})
    assert (verdict.with_feedback, verdict.without_feedback) == (Group(requests=1, accepted=1), Group(requests=1, accepted=2, resent=1))


def test_a_fault_excuses_only_the_requests_of_calls_in_the_window() -> None:
    """Requests of other operations, or of calls without a fault, are not excused."""
    call = SeenRequest(1, 0.0, "ses", "POST", "/", "SendRawEmail", "AKIA", "1", 1, "reset", 0, [7], ["storm-000001"])
    others = [replace(call, faults=[], marks=["storm-000002"]), replace(call, operation="GetItem", marks=["storm-000003"])]
    assert hit_by_faults([call, *others]) == {"storm-000001"}


def test_an_outage_excuses_only_requests_in_progress() -> None:
    """Requests before or after it are not excused."""
    spans = {"before": [(0.0, 1.0)], "during": [(5.0, 6.0)], "into": [(0.0, 1.0), (2.0, 4.5)], "after": [(8.0, 9.0)]}
    assert overlapping(spans, [(4.0, 7.0)]) == {"during", "into"}


LISTED = ("1", "bounce+0@simulator.amazonses.com")
BOTH = replace(MAIL, time=5.0, destinations=[*MAIL.destinations, LISTED[1]])


def bounce(at: float, kind: str = "Permanent") -> PublishedEvent:
    who = [{"emailAddress": LISTED[1]}]
    detail = {"eventType": "Bounce", "bounce": {"bounceType": kind, "bouncedRecipients": who}}
    return PublishedEvent(1, at, "1", "Bounce", "m-1", routed=True, lost=False, faults=[], envelope={"account": "1", "detail": detail})


def test_a_mail_to_an_address_suppressed_before_its_batch_is_a_violation() -> None:
    """Not if its batch began before the event was acknowledged, in any of the workers that had the request, nor in another account."""
    found = {began: mailed_again([BOTH], {LISTED: 3.0}, {PLANNED.request_id: [(began, 6.0), (4.5, 6.0)]}) for began in (2.0, 4.0)}
    assert found == {2.0: [], 4.0: [PLANNED.request_id]}
    assert mailed_again([BOTH], {LISTED: 3.0}, {PLANNED.request_id: [(5.5, 6.0)]}) == [PLANNED.request_id]
    assert mailed_again([BOTH], {("2", LISTED[1]): 3.0}, {}) == []
    assert mailed_again([MAIL], {LISTED: 0.0}, {}) == []


def test_an_address_is_left_out_after_an_event_only() -> None:
    """Not before the first one, and a planned recipient that was mailed is none."""
    planned = {PLANNED.request_id: replace(PLANNED, also_to=LISTED[1])}
    alone = replace(BOTH, destinations=MAIL.destinations)
    assert left_out([alone], planned, first_reports([bounce(6.0), bounce(4.0)])) == ([PLANNED.request_id], [])
    assert left_out([alone], planned, first_reports([bounce(6.0)])) == ([], [PLANNED.request_id])
    assert left_out([alone], planned, first_reports([bounce(4.0, "Transient")])) == ([], [PLANNED.request_id])
    assert left_out([BOTH], planned, {}) == ([], [])
    assert left_out([MAIL], {PLANNED.request_id: PLANNED}, {}) == ([], [])


def test_a_complaint_suppresses_too() -> None:
    """As a permanent bounce does."""
    detail = {"eventType": "Complaint", "complaint": {"complainedRecipients": [{"emailAddress": LISTED[1]}]}}
    assert list(suppressed_by({"account": "1", "detail": detail})) == [LISTED]
    assert list(suppressed_by({"account": "1", "detail": {"eventType": "Delivery"}})) == []


@pytest.mark.parametrize("broken", ["mailed_again", "left_out_wrongly"])
def test_a_suppression_that_was_not_respected_is_a_violation(broken: str) -> None:
    """The verdict is not clean then."""
    assert not Verdict(**{broken: [PLANNED.request_id]}).is_clean


def test_a_mail_that_ses_accepts_after_its_worker_was_killed_is_judged_by_its_batch() -> None:
    """The proxy forwards the call though the caller is gone."""
    assert mailed_again([BOTH], {LISTED: 4.0}, {PLANNED.request_id: [(2.0, 4.9)]}) == []
    assert mailed_again([BOTH], {LISTED: 1.0}, {PLANNED.request_id: [(2.0, 4.9)]}) == [PLANNED.request_id]


def test_events_that_did_not_reach_us_are_no_cause_to_leave_anybody_out() -> None:
    """They were lost, or no rule leads to our queue."""
    assert first_reports([replace(bounce(4.0), lost=True), replace(bounce(5.0), routed=False), bounce(6.0)]) == {LISTED: 6.0}
