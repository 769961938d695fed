"""SES's events are parsed; anything else on the queue is rejected."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.domain.feedback import MAX_DIAGNOSTIC, EventKind, MailRef, Refusal, SesEvent, VerifyRef, parse_event, unreadable_fields
from mailer.domain.tags import request_id_of, tagged, verify_tags
from support.fakes.ports import NOON
from support.ses_events import ACCOUNT, MESSAGE_ID, REGION, an_envelope, envelopes, read, replaced
from tools.local_aws.ses_events import RecipientOutcome

request_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True).filter(lambda text: text not in ("batch", "preview"))


def recipients_of(envelope: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Return status, SMTP status and diagnostic of each recipient of an event."""
    return {report.email: (report.status, report.fact.smtp_status, report.fact.diagnostic) for report in read(envelope).recipients}


# ── the six kinds ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("outcome", "kind", "expected"),
    [
        (RecipientOutcome.DELIVERED, "Delivery", ("delivered", "2.6.0", "250 2.6.0 Message received")),
        (RecipientOutcome.BOUNCED, "Bounce", ("bounced", "5.1.1", "smtp; 550 5.1.1 user unknown")),
        (RecipientOutcome.SUPPRESSED, "Bounce", ("bounced", "5.1.1", "Amazon SES has suppressed sending to this address")),
        (RecipientOutcome.MAILBOX_FULL, "Bounce", ("soft_bounced", "4.2.2", "smtp; 452 4.2.2 mailbox full")),
        (RecipientOutcome.OUT_OF_OFFICE, "Bounce", ("soft_bounced", "", "")),
        (RecipientOutcome.COMPLAINED, "Complaint", ("complained", "", "")),
        (RecipientOutcome.REJECTED, "Reject", ("rejected", "", "Bad content")),
        (RecipientOutcome.DELAYED, "DeliveryDelay", ("delayed", "4.4.1", "smtp; 421 4.4.1 Unable to connect to remote host")),
    ],
)
def test_each_kind_of_event_has_its_recipients(outcome: RecipientOutcome, kind: str, expected: tuple[str, str, str]) -> None:
    """Each has status, SMTP status and the receiving server's text."""
    assert recipients_of(an_envelope(kind, outcome)) == {"jo@example.com": expected}


def test_a_send_event_has_the_acceptance() -> None:
    """It has no recipients."""
    event = read(an_envelope("Send"))
    assert (event.kind, event.recipients) == (EventKind.SEND, ())
    assert (event.account, event.region, event.message_id, event.sending_account) == (ACCOUNT, REGION, MESSAGE_ID, ACCOUNT)
    assert (event.accepted_at, event.ref) == (NOON, MailRef("acme", "r1", 1))


def test_all_recipients_of_an_event_are_read() -> None:
    """All recipients of the event are in the result."""
    mailboxes = {f"{name}@example.com": RecipientOutcome.BOUNCED for name in ("a", "b", "c")}
    [bounce] = [event for event in envelopes(mailboxes) if event["detail"]["eventType"] == "Bounce"]
    assert recipients_of(bounce).keys() == mailboxes.keys()


def test_the_type_of_a_bounce_is_kept() -> None:
    """Suppressions depend on it."""
    event = read(an_envelope("Bounce", RecipientOutcome.SUPPRESSED))
    assert (event.type, event.subtype) == ("Permanent", "Suppressed")
    assert read(an_envelope("Complaint", RecipientOutcome.COMPLAINED)).type == "abuse"


def test_a_bounce_has_whether_a_server_reported_it() -> None:
    """Automatic replies come without a delivery status notification, and so without each of these fields."""
    assert read(an_envelope("Bounce", RecipientOutcome.BOUNCED)).has_dsn
    reply = an_envelope("Bounce", RecipientOutcome.OUT_OF_OFFICE)
    assert not read(reply).has_dsn
    assert read(replaced(reply, ("detail", "bounce", "reportingMTA"), "dsn; mx.example.com")).has_dsn
    for field in ({"action": "failed"}, {"status": "4.2.2"}, {"diagnosticCode": "smtp; 452 full"}):
        named = [{"emailAddress": "jo@example.com", **field}]
        assert read(replaced(reply, ("detail", "bounce", "bouncedRecipients"), named)).has_dsn


def test_a_not_spam_complaint_has_no_recipients() -> None:
    """Some mailbox providers let users withdraw a complaint."""
    complaint = an_envelope("Complaint", RecipientOutcome.COMPLAINED)
    event = read(replaced(complaint, ("detail", "complaint", "complaintFeedbackType"), "not-spam"))
    assert (event.type, event.recipients) == ("not-spam", ())


# ── recipients ──────────────────────────────────────────────────────────────────────────────────────────────────────────

BOUNCED_EMAIL = ("detail", "bounce", "bouncedRecipients", 0, "emailAddress")


@pytest.mark.parametrize("spelling", ["JO@Example.COM", "<jo@example.com>", "Jo <jo@example.com>", " jo@example.com "])
def test_an_address_has_the_mail_s_own_spelling(spelling: str) -> None:
    """A recipient is counted once, however servers spell it."""
    to = {"Jo@example.com": RecipientOutcome.BOUNCED, "b@example.com": RecipientOutcome.DELIVERED}
    bounce = next(event for event in envelopes(to) if event["detail"]["eventType"] == "Bounce")
    assert recipients_of(replaced(bounce, BOUNCED_EMAIL, spelling)).keys() == {"Jo@example.com"}


def test_recipients_that_differ_only_in_case_are_two() -> None:
    """The mail was sent to both; another spelling is one of them."""
    to = {"Jo@example.com": RecipientOutcome.BOUNCED, "jo@example.com": RecipientOutcome.BOUNCED}
    bounce = next(event for event in envelopes(to) if event["detail"]["eventType"] == "Bounce")
    assert recipients_of(bounce).keys() == {"Jo@example.com", "jo@example.com"}
    assert recipients_of(replaced(bounce, BOUNCED_EMAIL, "JO@example.com")).keys() == {"jo@example.com"}


def test_a_bounce_after_a_forward_belongs_to_the_recipient() -> None:
    """A mail to one recipient can only have bounced for that one; with several recipients it is not known for which one."""
    forwarded = replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), BOUNCED_EMAIL, "jo.private@example.net")
    assert recipients_of(forwarded).keys() == {"jo@example.com"}
    two = replaced(forwarded, ("detail", "mail", "destination"), ["jo@example.com", "b@example.com"])
    assert recipients_of(two) == {}


MANY = [f"{number}@example.com" for number in range(10_000)]


def test_many_foreign_recipients_do_not_hide_the_mail_s_own() -> None:
    """A hostile server may name any number of addresses: only the mail's own recipients count."""
    bounce = replaced(
        an_envelope("Bounce", RecipientOutcome.BOUNCED), ("detail", "mail", "destination"), ["jo@example.com", "b@example.com"]
    )
    named = [{"emailAddress": email, "status": "5.1.1"} for email in [*MANY, "JO@example.com", "b@example.com"]]
    assert recipients_of(replaced(bounce, ("detail", "bounce", "bouncedRecipients"), named)).keys() == {"jo@example.com", "b@example.com"}


def test_a_repeated_recipient_counts_once() -> None:
    """Every bounce of a mail to one recipient is that recipient's; the last one of the event counts."""
    bounce = an_envelope("Bounce", RecipientOutcome.BOUNCED)
    named = [{"emailAddress": email, "diagnosticCode": email} for email in MANY[:60]]
    [report] = read(replaced(bounce, ("detail", "bounce", "bouncedRecipients"), named)).recipients
    assert (report.email, report.fact.diagnostic) == ("jo@example.com", max(MANY[:60]))


@pytest.mark.parametrize("kind", ["Delivery", "Reject", "Send"])
def test_at_most_50_recipients_of_a_mail_are_read(kind: str) -> None:
    """The event still proves the acceptance, and 50 recipients fit into one item of DynamoDB."""
    outcome = RecipientOutcome.REJECTED if kind == "Reject" else RecipientOutcome.DELIVERED
    event = replaced(an_envelope(kind, outcome), ("detail", "mail", "destination"), MANY)
    event = replaced(event, ("detail", "delivery", "recipients"), MANY) if kind == "Delivery" else event
    assert read(event).destinations == tuple(MANY[:50])
    assert list(recipients_of(event)) == ([] if kind == "Send" else MANY[:50])


def test_without_the_mail_s_recipients_at_most_50_named_ones_are_read() -> None:
    """Without a list, named addresses are accepted."""
    event = replaced(replaced(an_envelope(), ("detail", "mail", "destination"), []), ("detail", "delivery", "recipients"), MANY)
    assert list(recipients_of(event)) == MANY[:50]


def test_a_bounce_is_never_older_than_its_mail() -> None:
    """With a slow clock's time it could count as before a lift, and suppress nothing."""
    slow = replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), ("detail", "bounce", "timestamp"), "2020-01-01T00:00:00Z")
    event = read(slow)
    assert event.at == event.accepted_at
    assert [report.fact.at for report in event.recipients] == [event.accepted_at]


@pytest.mark.parametrize(("subtype", "unsent"), [("OnAccountSuppressionList", True), ("General", False)])
def test_a_mail_that_ses_did_not_send_is_marked(subtype: str, unsent: bool) -> None:  # noqa: FBT001
    """SES does not count it in the account's rates."""
    bounce = replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), ("detail", "bounce", "bounceSubType"), subtype)
    assert [report.fact.unsent for report in read(bounce).recipients] == [unsent]


def test_a_diagnostic_is_truncated_by_bytes() -> None:
    """The facts of 50 recipients must fit into one item."""
    diagnostic = ("detail", "bounce", "bouncedRecipients", 0, "diagnosticCode")
    [(_, _, diagnostic_text)] = recipients_of(replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), diagnostic, "💌" * 500)).values()
    assert diagnostic_text == "💌" * (MAX_DIAGNOSTIC // 4)


@pytest.mark.parametrize(
    "nobody", ["", "jo", "jo@", "@example.com", "jo smith@example.com", "a@b@c", "jo@exa\x00mple.com", None, 7, ["jo@example.com"]]
)
def test_an_invalid_address_is_not_a_recipient(nobody: object) -> None:
    """The event still proves that SES accepted the mail."""
    assert recipients_of(replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), BOUNCED_EMAIL, nobody)) == {}


def test_texts_are_truncated_and_valid_utf_8() -> None:
    """The receiving server may send any text of any length."""
    bounce = an_envelope("Bounce", RecipientOutcome.BOUNCED)
    place = ("detail", "bounce", "bouncedRecipients", 0, "diagnosticCode")
    assert recipients_of(replaced(bounce, place, "\ud800" + "x" * 1000))["jo@example.com"][2] == "?" + "x" * 499
    without_status = replaced(bounce, ("detail", "bounce", "bouncedRecipients", 0, "status"), "nonsense 1.2")
    assert recipients_of(replaced(without_status, place, "550 not 15.1.1, 5.7.1 denied"))["jo@example.com"][1] == "5.7.1"


def test_a_fact_is_not_later_than_its_event() -> None:
    """A receiving server's clock is not trusted; times have milliseconds, like the tables."""
    bounce = an_envelope("Bounce", RecipientOutcome.BOUNCED)
    late = read(replaced(bounce, ("detail", "bounce", "timestamp"), "2999-01-01T00:00:00Z"))
    assert late.at == late.told_at + timedelta(seconds=1) == late.recipients[0].fact.at
    fine = read(replaced(bounce, ("detail", "bounce", "timestamp"), "2026-11-24T13:00:00.123456+01:00"))
    assert fine.at == NOON.replace(microsecond=123_000)
    assert read(replaced(bounce, ("detail", "mail", "timestamp"), "2999-01-01T00:00:00Z")).accepted_at == late.at


# ── tags ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(request_id=request_ids, attempt=st.integers(1, 999_999_999))
def test_tags_are_read_back(request_id: str, attempt: int) -> None:
    """Every possible request id survives."""
    tags = tagged({}, tenant_id="acme", request_id=request_id, attempt=attempt, correlation_id="order-7")
    assert read(an_envelope(tags=tags)).ref == MailRef("acme", request_id, attempt)


@given(tag=st.text("_dcx.:-9", max_size=8))
def test_a_tag_that_the_service_does_not_write_has_no_request(tag: str) -> None:
    """Each tag encodes at most one id."""
    request_id = request_id_of(tag)
    assert request_id is None or tagged({}, tenant_id="a", request_id=request_id, attempt=1)["tenantmail-request"] == tag


def test_a_test_mail_s_tags_name_its_version() -> None:
    """It has no request record."""
    assert read(an_envelope(tags=verify_tags("acme", 7))).ref == VerifyRef("acme", 7)
    assert read(an_envelope(tags=verify_tags("acme", 7, 1_764_000_000))).ref == VerifyRef("acme", 7, 1_764_000_000)


def test_mail_without_our_tags_has_no_reference() -> None:
    """SES's sample of a DeliveryDelay has no tags; the tenant's other mail does not have ours."""
    assert read(an_envelope("DeliveryDelay", RecipientOutcome.DELAYED)).ref is None
    assert read(an_envelope(tags={"campaign": "spring"})).ref is None


OURS = tagged({}, tenant_id="acme", request_id="r1", attempt=1)


@pytest.mark.parametrize(
    "tags",
    [
        *({name: value for name, value in OURS.items() if name != left_out} for left_out in OURS),
        {**OURS, "tenantmail-tenant": "../globex"},
        {**OURS, "tenantmail-request": "r_1"},
        {**OURS, "tenantmail-request": "preview"},
        *({**OURS, "tenantmail-attempt": attempt} for attempt in ("0", "-1", "01", "1.0", "x", "", "1" * 10)),
        {**OURS, "tenantmail-verify": "1"},
        {"tenantmail-tenant": "acme", "tenantmail-verify": "0"},
        {"tenantmail-verify": "1"},
        {"tenantmail-tenant": "acme", "tenantmail-verify": "1", "tenantmail-simulation": "x"},
        {"tenantmail-tenant": "acme", "tenantmail-simulation": "1"},
    ],
)
def test_forged_tags_are_refused(tags: dict[str, str]) -> None:
    """They were set by somebody in the tenant's account."""
    assert parse_event(json.dumps(an_envelope(tags=tags))) is Refusal.BAD_TAGS


def test_a_tag_has_one_value() -> None:
    """With two values it is not clear which counts."""
    twice = replaced(an_envelope(), ("detail", "mail", "tags", "tenantmail-tenant"), ["acme", "globex"])
    assert parse_event(json.dumps(twice)) is Refusal.BAD_TAGS


# ── unreadable events ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "7", '"x"', "{}", "[" * 100_000, "9" * 5_000, '{"a":NaN}', "\ud800", "[1,2"])
def test_a_body_that_is_not_an_object_is_unreadable(body: str) -> None:
    """Anything may be on the queue."""
    assert parse_event(body) is Refusal.UNREADABLE


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("source",), "acme.ses"),
        (("account",), "11112222333"),
        (("account",), 111122223333),
        (("account",), "111122223333\n"),
        (("region",), "eu west"),
        (("time",), "yesterday"),
        (("time",), 1_764_000_000),
        (("time",), "1026-11-24T12:00:00Z"),
        (("time",), "2026-13-24T12:00:00Z"),
        (("detail",), "Delivery"),
        (("detail", "eventType"), "Open"),
        (("detail", "eventType"), "Bounce"),  # without the part that a bounce has
        (("detail", "mail"), None),
        (("detail", "mail", "messageId"), "x" * 201),
        (("detail", "mail", "messageId"), "with blank"),
        (("detail", "mail", "sendingAccountId"), "acme"),
        (("detail", "delivery", "timestamp"), None),
    ],
)
def test_a_malformed_event_is_unreadable(place: tuple[str, ...], value: object) -> None:
    """No part of it is used."""
    assert parse_event(json.dumps(replaced(an_envelope(), place, value))) is Refusal.UNREADABLE


BAD_IDS = replaced(replaced(an_envelope(), ("account",), "jo@example.com"), ("detail", "mail", "messageId"), "jo@example.com x")
BAD_RECIPIENT = replaced(
    an_envelope("Bounce", RecipientOutcome.BOUNCED),
    ("detail", "bounce", "bouncedRecipients"),
    [{"emailAddress": "a@b.example"}, "jo@example.com"],
)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("{", ["(no JSON)"]),
        ("[" * 100_000, ["(no JSON)"]),
        ("7", ["(no object)"]),
        (json.dumps(BAD_IDS), ["account", "detail.mail.messageId"]),
        (json.dumps(BAD_RECIPIENT), ["detail.bounce.bouncedRecipients"]),
        (json.dumps(replaced(an_envelope(), ("detail", "eventType"), "DeliveryDelay")), ["detail.deliveryDelay"]),
        (json.dumps(an_envelope()), []),
    ],
)
def test_unreadable_fields_are_named(body: str, fields: list[str]) -> None:
    """Operators see what SES has changed, without addresses."""
    assert unreadable_fields(body) == fields
    assert bool(fields) is (parse_event(body) is Refusal.UNREADABLE)


def test_unknown_fields_are_ignored() -> None:
    """SES adds fields without notice."""
    more = replaced(replaced(an_envelope(), ("detail", "mail", "news"), {"x": 1}), ("ipPool",), "shared")
    assert read(more) == read(an_envelope()) or read(more).ref == MailRef("acme", "r1", 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
PLACES = [
    *(("detail", "bounce", name) for name in ("timestamp", "bounceType", "bounceSubType", "bouncedRecipients")),
    *(("detail", "mail", name) for name in ("timestamp", "messageId", "destination", "tags", "sendingAccountId")),
    *((name,) for name in ("source", "account", "region", "time", "detail")),
    ("detail", "bounce", "bouncedRecipients", 0),
    ("detail", "mail", "tags", "tenantmail-request"),
    BOUNCED_EMAIL,
]


@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(PLACES), value=json_values)
def test_an_event_with_any_value_in_any_field_is_read_or_refused(place: tuple[str | int, ...], value: object) -> None:
    """No JSON value in any place raises an exception."""
    body = json.dumps(replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), place, value))
    assert isinstance(parse_event(body), SesEvent | Refusal)
    assert bool(unreadable_fields(body)) is (parse_event(body) is Refusal.UNREADABLE)


@settings(max_examples=100, deadline=None)
@given(body=st.text() | json_values.map(json.dumps))
def test_any_other_body_is_unreadable(body: str) -> None:
    """Text and JSON that is not an event are rejected."""
    assert parse_event(body) is Refusal.UNREADABLE
    assert unreadable_fields(body)
