"""SES's events are read as they come, and whatever else may lie on the queue is refused."""

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


def told(envelope: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Return what an event tells of each recipient."""
    return {report.email: (report.status, report.fact.smtp_status, report.fact.diagnostic) for report in read(envelope).recipients}


# ── the six kinds ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("outcome", "kind", "what"),
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
def test_each_kind_of_event_tells_of_its_recipients(outcome: RecipientOutcome, kind: str, what: tuple[str, str, str]) -> None:
    """Status, SMTP status and the words of the receiving server."""
    assert told(an_envelope(kind, outcome)) == {"jo@example.com": what}


def test_a_send_tells_that_ses_accepted_the_mail() -> None:
    """And of no recipient anything."""
    event = read(an_envelope("Send"))
    assert (event.kind, event.recipients) == (EventKind.SEND, ())
    assert (event.account, event.region, event.message_id, event.sending_account) == (ACCOUNT, REGION, MESSAGE_ID, ACCOUNT)
    assert (event.accepted_at, event.ref) == (NOON, MailRef("acme", "r1", 1))


def test_all_recipients_of_an_event_are_read() -> None:
    """Not only the first."""
    mailboxes = {f"{name}@example.com": RecipientOutcome.BOUNCED for name in ("a", "b", "c")}
    [bounce] = [one for one in envelopes(mailboxes) if one["detail"]["eventType"] == "Bounce"]
    assert told(bounce).keys() == mailboxes.keys()


def test_what_a_bounce_is_stays_known() -> None:
    """Who suppresses addresses goes by it."""
    event = read(an_envelope("Bounce", RecipientOutcome.SUPPRESSED))
    assert (event.type, event.subtype) == ("Permanent", "Suppressed")
    assert read(an_envelope("Complaint", RecipientOutcome.COMPLAINED)).type == "abuse"


def test_a_bounce_tells_whether_a_server_said_so() -> None:
    """Automatic replies come without a delivery status notification."""
    assert read(an_envelope("Bounce", RecipientOutcome.BOUNCED)).has_dsn
    reply = an_envelope("Bounce", RecipientOutcome.OUT_OF_OFFICE)
    assert not read(reply).has_dsn
    assert read(replaced(reply, ("detail", "bounce", "reportingMTA"), "dsn; mx.example.com")).has_dsn


def test_a_complaint_that_it_is_no_spam_complains_of_nothing() -> None:
    """Some providers let their users take it back."""
    complaint = an_envelope("Complaint", RecipientOutcome.COMPLAINED)
    event = read(replaced(complaint, ("detail", "complaint", "complaintFeedbackType"), "not-spam"))
    assert (event.type, event.recipients) == ("not-spam", ())


# ── recipients ────────────────────────────────────────────────────────────────────────────────────────────────────────────

BOUNCED_EMAIL = ("detail", "bounce", "bouncedRecipients", 0, "emailAddress")


@pytest.mark.parametrize("spelling", ["JO@Example.COM", "<jo@example.com>", "Jo <jo@example.com>", " jo@example.com "])
def test_an_address_is_the_mail_s_own_spelling(spelling: str) -> None:
    """Whatever the last server made of it: a recipient is counted once."""
    to = {"Jo@example.com": RecipientOutcome.BOUNCED, "b@example.com": RecipientOutcome.DELIVERED}
    bounce = next(one for one in envelopes(to) if one["detail"]["eventType"] == "Bounce")
    assert told(replaced(bounce, BOUNCED_EMAIL, spelling)).keys() == {"Jo@example.com"}


def test_a_bounce_behind_a_forward_is_of_the_recipient() -> None:
    """A mail to one recipient can only have bounced for that one; of several nobody can say which, and a stranger is not one of them."""
    forwarded = replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), BOUNCED_EMAIL, "jo.private@example.net")
    assert told(forwarded).keys() == {"jo@example.com"}
    two = replaced(forwarded, ("detail", "mail", "destination"), ["jo@example.com", "b@example.com"])
    assert told(two) == {}


MANY = [f"{number}@example.com" for number in range(10_000)]


def test_a_thousand_recipients_hide_none_of_the_mail_s_own() -> None:
    """A hostile server names in its notification whom it likes, and as many: the event counts for those whom the mail was sent to."""
    bounce = replaced(
        an_envelope("Bounce", RecipientOutcome.BOUNCED), ("detail", "mail", "destination"), ["jo@example.com", "b@example.com"]
    )
    named = [{"emailAddress": email, "status": "5.1.1"} for email in [*MANY, "JO@example.com", "b@example.com"]]
    assert told(replaced(bounce, ("detail", "bounce", "bouncedRecipients"), named)).keys() == {"jo@example.com", "b@example.com"}


def test_a_recipient_that_is_named_again_and_again_is_one() -> None:
    """Of a mail to one recipient whatever bounced is its own: the latest in order counts, and nothing is taken twice for it."""
    bounce = an_envelope("Bounce", RecipientOutcome.BOUNCED)
    named = [{"emailAddress": email, "diagnosticCode": email} for email in MANY[:60]]
    [report] = read(replaced(bounce, ("detail", "bounce", "bouncedRecipients"), named)).recipients
    assert (report.email, report.fact.diagnostic) == ("jo@example.com", max(MANY[:60]))


@pytest.mark.parametrize("kind", ["Delivery", "Reject", "Send"])
def test_a_mail_to_more_than_ses_takes_is_read_as_far_as_that(kind: str) -> None:
    """It proves that SES accepted it, and 50 recipients fit into one item of DynamoDB."""
    outcome = RecipientOutcome.REJECTED if kind == "Reject" else RecipientOutcome.DELIVERED
    event = replaced(an_envelope(kind, outcome), ("detail", "mail", "destination"), MANY)
    event = replaced(event, ("detail", "delivery", "recipients"), MANY) if kind == "Delivery" else event
    assert read(event).destinations == tuple(MANY[:50])
    assert list(told(event)) == ([] if kind == "Send" else MANY[:50])


def test_without_the_mail_s_recipients_no_more_than_ses_takes_are_read() -> None:
    """Whatever is named then is taken."""
    event = replaced(replaced(an_envelope(), ("detail", "mail", "destination"), []), ("detail", "delivery", "recipients"), MANY)
    assert list(told(event)) == MANY[:50]


def test_a_server_s_slow_clock_makes_no_bounce_older_than_its_mail() -> None:
    """It would count as one from before a lifting, and suppress nobody."""
    slow = replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), ("detail", "bounce", "timestamp"), "2020-01-01T00:00:00Z")
    event = read(slow)
    assert event.at == event.accepted_at
    assert [report.fact.at for report in event.recipients] == [event.accepted_at]


@pytest.mark.parametrize(("subtype", "unsent"), [("OnAccountSuppressionList", True), ("General", False)])
def test_a_mail_that_ses_kept_back_is_told_apart(subtype: str, unsent: bool) -> None:  # noqa: FBT001
    """SES leaves it out of the account's rates."""
    bounce = replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), ("detail", "bounce", "bounceSubType"), subtype)
    assert [report.fact.unsent for report in read(bounce).recipients] == [unsent]


def test_what_a_server_said_is_cut_by_bytes() -> None:
    """The facts of 50 recipients must fit into one item."""
    diagnostic = ("detail", "bounce", "bouncedRecipients", 0, "diagnosticCode")
    [(_, _, said)] = told(replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), diagnostic, "💌" * 500)).values()
    assert said == "💌" * (MAX_DIAGNOSTIC // 4)


@pytest.mark.parametrize(
    "nobody", ["", "jo", "jo@", "@example.com", "jo smith@example.com", "a@b@c", "jo@exa\x00mple.com", None, 7, ["jo@example.com"]]
)
def test_what_is_no_address_is_no_recipient(nobody: object) -> None:
    """The event itself still proves that SES accepted the mail."""
    assert told(replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), BOUNCED_EMAIL, nobody)) == {}


def test_words_are_cut_and_fit_for_utf_8() -> None:
    """The receiving server may say anything, of any length."""
    bounce = an_envelope("Bounce", RecipientOutcome.BOUNCED)
    place = ("detail", "bounce", "bouncedRecipients", 0, "diagnosticCode")
    assert told(replaced(bounce, place, "\ud800" + "x" * 1000))["jo@example.com"][2] == "?" + "x" * 499
    without_status = replaced(bounce, ("detail", "bounce", "bouncedRecipients", 0, "status"), "nonsense 1.2")
    assert told(replaced(without_status, place, "550 not 15.1.1, 5.7.1 denied"))["jo@example.com"][1] == "5.7.1"


def test_a_time_is_not_after_the_event_that_tells_of_it() -> None:
    """A receiving server's clock counts for nothing; times have the milliseconds that the tables keep."""
    bounce = an_envelope("Bounce", RecipientOutcome.BOUNCED)
    late = read(replaced(bounce, ("detail", "bounce", "timestamp"), "2999-01-01T00:00:00Z"))
    assert late.at == late.told_at + timedelta(seconds=1) == late.recipients[0].fact.at
    fine = read(replaced(bounce, ("detail", "bounce", "timestamp"), "2026-11-24T13:00:00.123456+01:00"))
    assert fine.at == NOON.replace(microsecond=123_000)
    assert read(replaced(bounce, ("detail", "mail", "timestamp"), "2999-01-01T00:00:00Z")).accepted_at == late.at


# ── whose mail it is ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(request_id=request_ids, attempt=st.integers(1, 999_999_999))
def test_what_was_tagged_is_read_back(request_id: str, attempt: int) -> None:
    """Every id that a request may have."""
    tags = tagged({}, tenant_id="acme", request_id=request_id, attempt=attempt, correlation_id="order-7")
    assert read(an_envelope(tags=tags)).ref == MailRef("acme", request_id, attempt)


@given(tag=st.text("_dcx.:-9", max_size=8))
def test_a_tag_that_we_do_not_write_is_of_no_request(tag: str) -> None:
    """Each tag stands for at most one id."""
    request_id = request_id_of(tag)
    assert request_id is None or tagged({}, tenant_id="a", request_id=request_id, attempt=1)["tenantmail-request"] == tag


def test_a_test_mail_is_that_of_a_version() -> None:
    """It has a record nowhere."""
    assert read(an_envelope(tags=verify_tags("acme", 7))).ref == VerifyRef("acme", 7)
    assert read(an_envelope(tags=verify_tags("acme", 7, 1_764_000_000))).ref == VerifyRef("acme", 7, 1_764_000_000)


def test_mail_without_our_tags_may_be_ours() -> None:
    """SES's sample of a DeliveryDelay has no tags; other mail of the tenant has none of ours."""
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
def test_tags_that_we_do_not_write_are_refused(tags: dict[str, str]) -> None:
    """They were made up, in the tenant's account."""
    assert parse_event(json.dumps(an_envelope(tags=tags))) is Refusal.BAD_TAGS


def test_a_tag_has_one_value() -> None:
    """Two would leave open which of them counts."""
    twice = replaced(an_envelope(), ("detail", "mail", "tags", "tenantmail-tenant"), ["acme", "globex"])
    assert parse_event(json.dumps(twice)) is Refusal.BAD_TAGS


# ── what is no event ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "7", '"x"', "{}", "[" * 100_000, "9" * 5_000, '{"a":NaN}', "\ud800", "[1,2"])
def test_what_is_no_object_is_unreadable(body: str) -> None:
    """Whoever put it there."""
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
def test_an_event_that_is_not_as_ses_writes_it_is_unreadable(place: tuple[str, ...], value: object) -> None:
    """It is counted, and nothing of it is believed."""
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
def test_what_makes_an_event_unreadable_is_named_by_its_fields(body: str, fields: list[str]) -> None:
    """Operators see what SES has changed, and no address."""
    assert unreadable_fields(body) == fields
    assert bool(fields) is (parse_event(body) is Refusal.UNREADABLE)


def test_what_ses_may_add_does_no_harm() -> None:
    """New fields come without notice."""
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
def test_an_event_with_anything_anywhere_is_read_or_refused(place: tuple[str | int, ...], value: object) -> None:
    """Never an exception, whatever JSON stands where."""
    body = json.dumps(replaced(an_envelope("Bounce", RecipientOutcome.BOUNCED), place, value))
    assert isinstance(parse_event(body), SesEvent | Refusal)
    assert bool(unreadable_fields(body)) is (parse_event(body) is Refusal.UNREADABLE)


@settings(max_examples=100, deadline=None)
@given(body=st.text() | json_values.map(json.dumps))
def test_anything_at_all_is_unreadable(body: str) -> None:
    """Text and JSON that is no event."""
    assert parse_event(body) is Refusal.UNREADABLE
    assert unreadable_fields(body)
