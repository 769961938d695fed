"""FeedbackFunction and the API over the stack in moto: from an event on the queue to the API's response."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import record_key
from mailer.domain import changes
from mailer.domain.changes import Fence, Request, SentBy
from mailer.domain.delivery import Status
from mailer.domain.errors import ErrorInfo
from mailer.domain.moments import to_millis
from mailer.domain.provider import Simulation, StoredConfig
from mailer.domain.tags import verify_tags
from mailer.handlers import feedback, messages
from mailer.services.feedback.receive import EVENT_SPAN
from support.aws import tables
from support.aws.api_calls import Context, event
from support.fakes.ports import NOON, FakeClock, a_config, a_provider
from support.servers.gateway import Gateway
from support.ses_events import ACCOUNT, MESSAGE_ID, REGION, an_envelope
from tools.local_aws.ses_events import RecipientOutcome

REQUEST = Request(
    tenant_id="acme",
    request_id="invoice-2026-0001",
    content_hash="sha256-v1:0",
    created_at=NOON,
    expires_at=NOON + timedelta(days=1),
    recipients=1,
)
ONE = "/tenants/acme/messages/invoice-2026-0001"
FENCE = Fence(1, "w1")


@pytest.fixture
def clock(aws: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Set the clock to a minute after the events, with the request's only attempt in progress."""
    assert aws
    clock = FakeClock(NOON + timedelta(minutes=1))
    monkeypatch.setattr(wiring, "clock", lambda: clock)
    sent_by = SentBy("ses", 1, ACCOUNT, "eu-central-1")
    wiring.messages_table().apply(changes.begin(REQUEST, NOON, owner="w1", deadline=NOON, sent_by=sent_by))
    return clock


def accept() -> None:
    wiring.messages_table().apply(changes.accept(REQUEST, NOON, FENCE, MESSAGE_ID))


def take(name: str) -> list[str]:
    """Pass a file of `events/` to the function; return the messages to redeliver."""
    return [failure["itemIdentifier"] for failure in feedback.handler(event(name), Context())["batchItemFailures"]]


def show(path: str = ONE) -> dict[str, Any]:
    answer = Gateway(messages.handler).call("GET", path)
    assert answer.status == 200
    shown: dict[str, Any] = answer.json
    return shown


@pytest.mark.parametrize(
    ("name", "column", "recipient"),
    [
        ("feedback-delivered", "delivered", {"status": "delivered", "smtpStatus": "2.6.0", "diagnostic": "250 2.6.0 Message received"}),
        ("feedback-bounced", "bounced", {"status": "bounced", "smtpStatus": "5.1.1", "diagnostic": "smtp; 550 5.1.1 user unknown"}),
        ("feedback-complained", "complained", {"status": "complained"}),
    ],
)
@pytest.mark.usefixtures("clock")
def test_an_event_is_shown_in_the_record_and_by_recipient(name: str, column: str, recipient: dict[str, str]) -> None:
    """Each event file of `make invoke FUNCTION=FeedbackFunction EVENT=events/…` has its documented effect."""
    accept()
    assert show()["feedback"] is None
    assert show(f"{ONE}/feedback") == {"recipients": []}
    assert take(name) == []
    record = show()
    counts = {name: count for name, count in record["feedback"].items() if not name.endswith("At")}
    assert counts == dict.fromkeys(("delivered", "delayed", "bounced", "softBounced", "complained", "rejected"), 0) | {column: 1}
    assert (record["status"], record["messageId"], record["suppressed"]) == ("sent", MESSAGE_ID, 0)
    [shown] = show(f"{ONE}/feedback")["recipients"]
    assert shown.pop("at") == record["feedback"]["lastAt"]
    assert shown == {"email": "jo@example.com", **recipient}


def test_several_events_of_a_recipient_are_merged(clock: FakeClock) -> None:
    """The complaint has precedence; a duplicate changes nothing."""
    accept()
    for name in ("feedback-complained", "feedback-delivered", "feedback-complained", "feedback-delivered"):
        assert take(name) == []
        clock.advance(timedelta(hours=1))
    counts = show()["feedback"]
    assert (counts["delivered"], counts["complained"]) == (0, 1)
    assert counts["firstAt"] < counts["lastAt"] < show()["updatedAt"] or counts["firstAt"] < counts["lastAt"]


@pytest.mark.usefixtures("clock")
def test_an_event_makes_an_unknown_sent() -> None:
    """The unknown was held for an operator, with its body in the bucket."""
    key = wiring.parked_bodies().park("acme", "invoice-2026-0001", "{}")
    lost = wiring.messages_table().apply(changes.mark_unknown(REQUEST, NOON, FENCE, ErrorInfo("outcome_unknown", "lost")))
    wiring.messages_table().apply(changes.hold(lost, NOON, key))
    assert show()["status"] == "unknown"
    assert take("feedback-bounced") == []
    record = show()
    assert (record["status"], record["messageId"], record["error"]) == ("sent", MESSAGE_ID, None)
    assert record["sentAt"] == "2026-11-24T12:00:00.000Z"
    with pytest.raises(KeyError):
        wiring.parked_bodies().fetch(key)


@pytest.mark.usefixtures("clock")
def test_no_event_is_started_without_time_to_finish() -> None:
    """Otherwise Lambda would end it, and SQS would redeliver the whole batch."""
    accept()
    almost = Context(seconds_left=EVENT_SPAN // timedelta(seconds=1) - 1)
    [record] = event("feedback-bounced")["Records"]
    assert feedback.handler({"Records": [record]}, almost) == {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert show()["feedback"] is None
    assert take("feedback-bounced") == []


@pytest.mark.usefixtures("aws")
def test_a_call_that_hangs_ends_within_an_event_s_time() -> None:
    """After three tries; and the function has some seconds left to start events."""
    config: Any = wiring.dynamodb().meta.config
    hung = timedelta(seconds=config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout))
    timeout = tables.resources("AWS::Serverless::Function")["FeedbackFunction"]["Properties"]["Timeout"]
    assert hung < EVENT_SPAN <= timedelta(seconds=timeout - 5)


@pytest.mark.usefixtures("clock")
def test_an_invalid_event_is_acknowledged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be redelivered forever; an alarm is raised, and the log names its invalid fields."""
    assert take("feedback-malformed") == []
    assert '"FeedbackUnreadable"' in capsys.readouterr().out
    line = vars(caplog.records[-1])
    assert (line["reason"], line["fields"]) == ("unreadable", "account, detail, region, source, time")


def test_an_event_before_its_record_is_redelivered(clock: FakeClock) -> None:
    """For a quarter of an hour after it was queued."""
    body = json.dumps(an_envelope(request_id="not-yet"))
    [record] = event("feedback-bounced")["Records"]
    sent_at = str(int(NOON.timestamp() * 1000))
    early = {"Records": [{**record, "body": body, "attributes": {"SentTimestamp": sent_at}}]}
    assert feedback.handler(early, Context())["batchItemFailures"] == [{"itemIdentifier": record["messageId"]}]
    clock.advance(timedelta(minutes=15))
    assert feedback.handler(early, Context())["batchItemFailures"] == []


@pytest.mark.usefixtures("clock")
def test_feedback_of_other_tenants_and_erased_requests_is_not_found() -> None:
    """As for their records: another tenant's, an unknown request's, an erased one's."""
    accept()
    take("feedback-bounced")
    api = Gateway(messages.handler)
    for path in ("/tenants/globex/messages/invoice-2026-0001/feedback", "/tenants/acme/messages/no-such/feedback"):
        assert api.call("GET", path).is_problem(404, "not_found")
    wiring.messages_table()._client.update_item(
        TableName=wiring.settings().messages_table,
        Key=record_key("acme", "invoice-2026-0001"),
        UpdateExpression="SET contentHash = :erased",
        ExpressionAttributeValues={":erased": {"S": "erased-v1:"}},
    )
    assert api.call("GET", f"{ONE}/feedback").is_problem(404, "not_found")


@pytest.mark.usefixtures("clock")
def test_the_event_file_of_the_route_has_api_gateway_s_format() -> None:
    """`make invoke FUNCTION=MessagesFunction EVENT=events/messages-feedback.json`."""
    accept()
    take("feedback-delivered")
    answer = messages.handler(event("messages-feedback"), Context())
    assert [one["email"] for one in json.loads(answer["body"])["recipients"]] == ["jo@example.com"]


@pytest.mark.usefixtures("clock")
def test_no_address_is_logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether an event is accepted, refused, or could not be written."""
    caplog.set_level("DEBUG")
    accept()
    take("feedback-bounced")
    [record] = event("feedback-bounced")["Records"]
    foreign = json.dumps({**json.loads(record["body"]), "account": "444455556666"})
    feedback.handler({"Records": [{**record, "body": foreign}]}, Context())
    boto3.client("dynamodb").delete_table(TableName=wiring.settings().feedback_table)
    assert take("feedback-complained") != []
    written = caplog.text + repr([vars(line) for line in caplog.records]) + "".join(capsys.readouterr())
    assert "feedback refused" in written
    assert "jo@example.com" not in written
    assert "user unknown" not in written


def test_feedback_of_a_failed_request_is_counted(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing changes, and the metric of its alarm is emitted."""
    assert clock
    wiring.messages_table().apply(changes.fail_rejected(REQUEST, NOON, FENCE, ErrorInfo("recipient_rejected", "no")))
    before = wiring.messages_table().get("acme", "invoice-2026-0001")
    assert take("feedback-bounced") == []
    assert wiring.messages_table().get("acme", "invoice-2026-0001") == before
    assert before is not None
    assert replace(before).status is Status.FAILED
    assert "FeedbackContradiction" in capsys.readouterr().out


# ── the provider's record ───────────────────────────────────────────────────────────────────────────────────────────────


def take_envelope(envelope: dict[str, Any]) -> list[str]:
    """Pass an event to the function as SQS does; return the messages to redeliver."""
    message = {**event("feedback-delivered")["Records"][0], "body": json.dumps(envelope)}
    return [failure["itemIdentifier"] for failure in feedback.handler({"Records": [message]}, Context())["batchItemFailures"]]


def active_config() -> StoredConfig:
    row = wiring.providers_table().get("acme")
    assert row is not None
    assert row.active is not None
    return row.active


def test_an_event_of_a_mail_proves_the_version_that_sent_it(clock: FakeClock) -> None:
    """The provider's record says that events arrive, and when the last one did."""
    accept()
    wiring.providers_table().replace(a_provider(active=a_config(configuration_set="mail-acme", unheard_since=NOON, silent_since=NOON)))
    assert take("feedback-delivered") == []
    assert active_config() == a_config(configuration_set="mail-acme", feedback_at=clock.now())


def test_the_events_of_a_simulation_are_marked_on_the_provider_only(clock: FakeClock) -> None:
    """Its mails have no request, so there is no record."""
    config = a_config(configuration_set="mail-acme", account=ACCOUNT, region=REGION, simulation=Simulation(started_at=NOON))
    wiring.providers_table().replace(a_provider(active=config))
    tags = verify_tags("acme", 1, to_millis(NOON))
    assert take_envelope(an_envelope("Bounce", RecipientOutcome.BOUNCED, tags=tags)) == []
    assert take_envelope(an_envelope("Complaint", RecipientOutcome.COMPLAINED, tags=tags)) == []
    now = clock.now()
    simulation = Simulation(started_at=NOON, bounce_reported_at=now, complaint_reported_at=now)
    assert active_config() == replace(config, feedback_at=now, simulation=simulation)


def test_an_event_of_a_test_mail_is_redelivered_until_verify_knows_the_account(clock: FakeClock) -> None:
    """Meanwhile an event of another tenant's account proves nothing."""
    assert clock
    config = a_config(configuration_set="mail-acme", region=REGION)
    assert wiring.providers_table().replace(a_provider(active=config))
    envelope = an_envelope("Send", tags=verify_tags("acme", 1))
    assert len(take_envelope(envelope)) == 1
    assert wiring.providers_table().replace(a_provider(active=replace(config, account=ACCOUNT), revision=1))
    assert take_envelope({**envelope, "account": "999999999999"}) == []
    assert active_config().feedback_at is None
    assert take_envelope(envelope) == []
    assert active_config().feedback_at == clock.now()
