"""PublishFunction over the stream records of real writes, in moto; the bus is a stub with given responses."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from botocore.exceptions import ClientError

from mailer import wiring
from mailer.adapters.dynamodb.messages_table import record_key
from mailer.domain import changes
from mailer.domain.changes import Fence, Request, SentBy
from mailer.domain.delivery import Delivery
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.facts import FeedbackCounts
from mailer.domain.feedback_state import feedback_state
from mailer.domain.provider import ProviderStatus, StoredConfig
from mailer.domain.suppressions import Entry, Lifting, digest
from mailer.handlers import publish
from support.aws.api_calls import Context, event
from support.aws.streams import read_stream, stream_record
from support.fakes.ports import NOON, a_config, a_provider
from support.fakes.suppressions import an_entry

LATE = NOON + timedelta(days=1)
SENT = {"Entries": [{"EventId": "1"}] * 10, "FailedEntryCount": 0}


@pytest.fixture
def bus(aws: Mapping[str, str]) -> Iterator[MagicMock]:  # noqa: ARG001 - with the environment of the stack
    """PutEvents, which confirms as many events as it was given."""
    answer = lambda Entries: {"Entries": [{"EventId": "1"} for _ in Entries], "FailedEntryCount": 0}  # noqa: E731,N803 - boto3's name
    with patch.object(wiring._client("events"), "put_events", side_effect=answer) as put_events:
        yield put_events


def entries(bus: MagicMock) -> list[dict[str, Any]]:
    return [entry for call in bus.call_args_list for entry in call.kwargs["Entries"]]


def details(bus: MagicMock) -> list[Any]:
    return [json.loads(entry["Detail"]) for entry in entries(bus)]


def end_some(count: int = 1) -> None:
    """Let requests of acme fail before they were tried."""
    for number in range(count):
        request = Request(
            tenant_id="acme", request_id=f"r{number}", content_hash="sha256-v1:0", created_at=NOON, expires_at=NOON, recipients=1
        )
        wiring.messages_table().apply(changes.queue(request, NOON))
        wiring.messages_table().apply(changes.fail_unsent(request, NOON, ErrorInfo("expired", "too late")))


def test_suppressions_and_liftings_are_published_without_the_address(aws: Mapping[str, str], bus: MagicMock) -> None:
    """With its digest; soft bounces alone are not published."""
    table = wiring.suppressions_table()
    counted = Entry(tenant_id="acme", email="jo@example.com", soft_bounces={"r1": NOON})
    suppressed = replace(an_entry(), revision=1)
    lifted = replace(suppressed, suppression=None, lifted=Lifting(NOON, "arn:caller", "it is back"), revision=2)
    assert all(table.replace(entry) for entry in (counted, suppressed, lifted))
    assert publish.handler({"Records": read_stream(aws["SUPPRESSIONS_TABLE"])}, Context()) == {"published": 2}
    assert [entry["DetailType"] for entry in entries(bus)] == ["Suppression Changed"] * 2
    assert [(detail["change"], detail["reason"], detail["principal"]) for detail in details(bus)] == [
        ("suppressed", "hard_bounce", None),
        ("lifted", "hard_bounce", "arn:caller"),
    ]
    assert {detail["emailSha256"] for detail in details(bus)} == {digest("jo@example.com")}
    assert "jo@example.com" not in str(entries(bus))
    assert "it is back" not in str(entries(bus))


def test_an_end_is_published_as_it_is_in_the_table(aws: Mapping[str, str], bus: MagicMock) -> None:
    """One event for two writes: on the stack's bus, with the version of the detail and the time of the end."""
    end_some()
    assert publish.handler({"Records": read_stream(aws["MESSAGES_TABLE"])}, Context()) == {"published": 1}
    [entry] = entries(bus)
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == (aws["EVENT_BUS"], "tenantmail", "Request Ended")
    assert entry["Time"] == NOON
    [detail] = details(bus)
    assert (detail["version"], detail["status"], detail["error"]["code"]) == ("1", "failed", "expired")


def test_a_change_of_a_provider_is_published_without_its_ciphertext(aws: Mapping[str, str], bus: MagicMock) -> None:
    """The stream's row has the encrypted config, the event does not."""
    table = wiring.providers_table()
    assert table.replace(a_provider(status=ProviderStatus.UNVERIFIED, active=None, candidate=a_config(ciphertext=b"sealed\xff")))
    publish.handler({"Records": read_stream(aws["PROVIDERS_TABLE"])}, Context())
    [detail] = details(bus)
    assert (detail["tenantId"], detail["change"], detail["configVersion"]) == ("acme", "stored", 1)
    assert "ciphertext" not in str(entries(bus))


def send(request_id: str, at: datetime) -> Delivery:
    """Let a request of acme be sent with version 1, and accepted at this time."""
    table = wiring.messages_table()
    request = Request(tenant_id="acme", request_id=request_id, content_hash="sha256-v1:0", created_at=NOON, expires_at=LATE, recipients=3)
    table.apply(changes.begin(request, at, owner="w", deadline=LATE, sent_by=SentBy("ses", 1, "222222222222", "eu-west-1")))
    return table.apply(changes.accept(request, at, Fence(1, "w"), "m-1"))


def active_config() -> StoredConfig:
    row = wiring.providers_table().get("acme")
    assert row is not None
    assert row.active is not None
    return row.active


@pytest.mark.usefixtures("bus")
def test_a_tenant_that_sends_for_an_hour_without_events_is_reported(aws: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Once, by the metric of the alarm; its record is silent from then on."""
    wiring.providers_table().replace(a_provider(active=a_config(configuration_set="mail-acme", account="222222222222")))
    for minutes in range(0, 100, 10):
        send(f"r{minutes:02}", NOON + timedelta(minutes=minutes))
    for record in read_stream(aws["MESSAGES_TABLE"]):
        publish.handler({"Records": [record]}, Context())
    assert feedback_state(active_config()) == "silent"
    assert active_config().unheard_since == NOON
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"FeedbackSilent"' in line]
    assert [metric["FeedbackSilent"] for metric in metrics] == [[1.0]]


def test_failed_marks_do_not_repeat_a_batch(aws: Mapping[str, str], bus: MagicMock) -> None:
    """The events are already on the bus: the stream must not redeliver them."""
    send("r1", NOON)
    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem")
    with patch.object(wiring.dynamodb(), "update_item", side_effect=throttled):
        assert publish.handler({"Records": read_stream(aws["MESSAGES_TABLE"])}, Context()) == {"published": 1}
    assert len(entries(bus)) == 1


def test_delivery_reports_are_published_as_they_are_in_the_table(aws: Mapping[str, str], bus: MagicMock) -> None:
    """Each increase, after the end of the request, without addresses."""
    sent = send("r1", NOON)
    for counts in (
        FeedbackCounts(delivered=2, first_at=NOON, last_at=NOON, rank=6),
        FeedbackCounts(delivered=2, bounced=1, first_at=NOON, last_at=LATE, rank=11),
    ):
        wiring.messages_table().apply(changes.note_feedback(sent, LATE, counts))
    assert publish.handler({"Records": read_stream(aws["MESSAGES_TABLE"])}, Context()) == {"published": 3}
    assert [entry["DetailType"] for entry in entries(bus)] == ["Request Ended", "Delivery Reported", "Delivery Reported"]
    assert [(detail["status"], detail["recipients"], detail["messageId"]) for detail in details(bus)[1:]] == [
        ("delivered", 2, "m-1"),
        ("bounced", 1, "m-1"),
    ]
    assert entries(bus)[-1]["Time"] == LATE


def test_ten_events_are_put_on_the_bus_per_call(aws: Mapping[str, str], bus: MagicMock) -> None:
    """EventBridge's maximum."""
    end_some(12)
    publish.handler({"Records": read_stream(aws["MESSAGES_TABLE"])}, Context())
    assert [len(call.kwargs["Entries"]) for call in bus.call_args_list] == [10, 2]


def test_only_a_throttled_event_is_put_again(aws: Mapping[str, str], bus: MagicMock) -> None:
    """A response may fail some of its events; the others are not published twice."""
    end_some(2)
    throttled = {"Entries": [{"EventId": "1"}, {"ErrorCode": "ThrottlingException"}], "FailedEntryCount": 1}
    bus.side_effect = [throttled, SENT | {"Entries": [{"EventId": "2"}]}]
    publish.handler({"Records": read_stream(aws["MESSAGES_TABLE"])}, Context())
    assert [detail["requestId"] for detail in details(bus)] == ["r0", "r1", "r1"]


def test_an_outage_of_the_bus_leaves_the_batch_on_the_stream(aws: Mapping[str, str], bus: MagicMock) -> None:
    """Lambda redelivers the batch after an error; the events then have the same ids."""
    end_some()
    records = read_stream(aws["MESSAGES_TABLE"])
    healthy, bus.side_effect = bus.side_effect, ClientError({"Error": {"Code": "InternalException"}}, "PutEvents")
    with pytest.raises(DependencyError):
        publish.handler({"Records": records}, Context())
    bus.side_effect = healthy
    publish.handler({"Records": records}, Context())
    assert len({detail["id"] for detail in details(bus)}) == 1


def test_an_unreadable_write_does_not_stop_the_batch(aws: Mapping[str, str], bus: MagicMock, caplog: pytest.LogCaptureFixture) -> None:
    """It is reported with its tenant; the writes after it are published."""
    end_some()
    foreign = stream_record({**record_key("globex", "r1"), "tenantId": {"S": "globex"}, "status": {"S": "lost"}})
    assert publish.handler({"Records": [foreign, *read_stream(aws["MESSAGES_TABLE"])]}, Context()) == {"published": 1}
    assert [detail["tenantId"] for detail in details(bus)] == ["acme"]
    assert [(line.step, line.tenant_id) for line in caplog.records if line.levelname == "ERROR"] == [("publish", "globex")]  # type: ignore[attr-defined]


def test_the_event_file_has_lambda_s_format(bus: MagicMock) -> None:
    """`make invoke FUNCTION=PublishFunction EVENT=events/publish.json` publishes one end and one change."""
    assert publish.handler(event("publish"), Context()) == {"published": 2}
    assert [entry["DetailType"] for entry in entries(bus)] == ["Request Ended", "Provider Changed"]
