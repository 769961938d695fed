"""The outcomes of mail are written to a restored messages table before anything is sent."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import boto3
import pytest
from aws_lambda_powertools import Logger
from moto import mock_aws

from mailer.adapters.dynamodb.messages_table import DynamoMessagesTable
from mailer.domain import changes
from mailer.domain.changes import SentBy
from mailer.domain.delivery import RECORD_RETENTION, Change, Delivery, Sent, Status
from mailer.domain.errors import ErrorInfo
from mailer.observability import LogTelemetry
from mailer.ports import RefusedError
from mailer_ops.adapters.outcome_restore import DynamoOutcomeRestore
from mailer_ops.operations.request_log import read_log
from mailer_ops.ports import FinalOutcome
from support.aws import tables
from support.fakes.ports import NOON, a_delivery
from support.transitions import DEFERRAL, REQUEST

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LATER = NOON + timedelta(hours=1)
SENT = FinalOutcome(tenant_id="acme", request_id="r1", status=Status.SENT, at=LATER, attempt=2, message_id="m1")
BEGIN = changes.begin(REQUEST, LATER, owner="w9", deadline=LATER, sent_by=SentBy("ses", 1))


@pytest.fixture
def client() -> "Iterator[DynamoDBClient]":
    with mock_aws():
        yield boto3.client("dynamodb", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture
def restored(client: "DynamoDBClient") -> DynamoMessagesTable:
    return DynamoMessagesTable(client, tables.create_tables(client)["MessagesTable"])


@pytest.fixture
def ends(restored: DynamoMessagesTable) -> DynamoOutcomeRestore:
    return DynamoOutcomeRestore(restored._client, restored._table)


def record(table: DynamoMessagesTable) -> Delivery:
    found = table.get("acme", "r1")
    assert found
    return found


def test_mail_whose_record_was_lost_cannot_pass_the_fence_again(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """Its messages on the queue find the end."""
    assert ends.write(SENT)
    with pytest.raises(RefusedError) as refused:
        restored.apply(BEGIN)
    assert refused.value.current == record(restored)
    assert (record(restored).status, record(restored).message_id, record(restored).sent_at) == (Status.SENT, "m1", LATER)


def test_a_caller_that_repeats_the_request_gets_the_end(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """The record matches any content, so that the same request is not refused as another one."""
    ends.write(SENT)
    [listed] = restored.list("acme", status=Status.SENT, limit=10, cursor=None).deliveries
    assert listed == record(restored)
    assert not listed.content_hash.startswith(REQUEST.content_hash.partition(":")[0])


@pytest.mark.parametrize(
    "open_one", [changes.queue(REQUEST, NOON), changes.defer(REQUEST, NOON, DEFERRAL), BEGIN], ids=lambda c: c.rule.target
)
def test_a_record_that_was_open_is_ended(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore, open_one: Change) -> None:
    """It keeps the data of its request, and the sweeper no longer checks it."""
    before = restored.apply(open_one)
    assert ends.write(SENT)
    ended = record(restored)
    assert ended.status is Status.SENT
    assert (ended.content_hash, ended.created_at, ended.generation) == (before.content_hash, before.created_at, before.generation)
    assert (ended.sweep_at, ended.due_at, ended.waits_for, ended.deadline) == (None, None, None, None)
    item: Any = restored._client.scan(TableName=restored._table)["Items"][0]
    assert "sweepShard" not in item
    assert item["ttl"] == {"N": str(int((LATER + RECORD_RETENTION).timestamp()))}


def test_a_known_end_is_kept(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """It is replaced only by SES's acceptance."""
    failed = replace(SENT, status=Status.FAILED, message_id=None, code="expired")
    assert ends.write(failed)
    assert not ends.write(replace(failed, status=Status.UNKNOWN, code="outcome_unknown"))
    assert record(restored).error == ErrorInfo("expired", "read from the log after a restore of the table")
    assert ends.write(SENT)
    assert not ends.write(replace(SENT, message_id="m2"))
    assert not ends.write(failed)
    assert (record(restored).status, record(restored).message_id) == (Status.SENT, "m1")


def test_a_newer_end_replaces_an_unknown(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """The request was sent again after the backup; an end older than the unknown, or of an earlier attempt, is not written."""
    restored.apply(BEGIN)
    unknown = replace(SENT, status=Status.UNKNOWN, attempt=1, message_id=None, code="outcome_unknown")
    assert ends.write(unknown)
    failed = replace(unknown, status=Status.FAILED, code="recipient_rejected")
    assert not ends.write(replace(failed, at=LATER - timedelta(minutes=1)))
    assert not ends.write(replace(failed, at=LATER + timedelta(minutes=1), attempt=0))
    assert ends.write(replace(failed, at=LATER + timedelta(minutes=1)))
    assert record(restored).status is Status.FAILED


def test_an_acceptance_removes_the_error(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """The restored record's error was of an earlier try."""
    restored.apply(changes.defer(REQUEST, NOON, replace(DEFERRAL, error=ErrorInfo("throttled", "too fast"))))
    ends.write(SENT)
    assert record(restored).error is None


def test_a_reopened_record_is_read_as_it_was_written(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """With its index entries: it is listed, and the sweeper finds it."""
    waiting = restored.apply(changes.defer(REQUEST, NOON, DEFERRAL))
    wanted = replace(waiting, maybe_sent=True, parked="parked/acme/r1/0.json", sweep_at=NOON)
    before = record(restored)
    ends.reopen(wanted, before)
    assert record(restored) == wanted
    assert [listed.request_id for listed in restored.list("acme", status=Status.DEFERRED, limit=10, cursor=None).deliveries] == ["r1"]
    assert [due for shard in range(16) for due in restored.due(shard, NOON, 10)] == [wanted]
    with pytest.raises(RefusedError):
        ends.reopen(wanted, replace(before, generation=before.generation + 1))
    with pytest.raises(RefusedError):
        ends.reopen(wanted, None)


def test_an_unknown_is_held(restored: DynamoMessagesTable, ends: DynamoOutcomeRestore) -> None:
    """Whatever its caller chose: the rest of the log may be missing."""
    restored.apply(replace(BEGIN, initial_fields={**(BEGIN.initial_fields or {}), "on_unknown": "resend"}))
    ends.write(replace(SENT, status=Status.UNKNOWN, message_id=None, code="outcome_unknown"))
    assert (record(restored).status, record(restored).on_unknown, record(restored).ended) == (Status.UNKNOWN, "hold", True)


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_log_lines_are_those_of_the_functions(restored: DynamoMessagesTable, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """At every LogLevel; a change of the log's texts or fields that the replay misses fails here."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", level)
    log = StringIO()
    telemetry = LogTelemetry(Logger(service=f"replayed-{level}", stream=log), Mock)
    telemetry.answered(
        a_delivery(attempt=2, owner="w1", account="111122223333", region="eu-west-1"), Sent("m1"), {"provider": timedelta(seconds=1)}
    )
    restored.apply(changes.fail_unsent(replace(REQUEST, request_id="r2"), NOON, ErrorInfo("expired", "late")))
    telemetry.recorded(restored.get("acme", "r2") or record(restored))
    restored.apply(changes.defer(replace(REQUEST, request_id="r3"), NOON, replace(DEFERRAL, parked="parked/acme/r3/0.json")))
    waiting = replace(restored.get("acme", "r3") or record(restored), maybe_sent=True)
    telemetry.recorded(waiting)
    outcomes = read_log(log.getvalue().splitlines())
    assert outcomes.unreadable == 0
    assert {
        request: (outcome.status, outcome.message_id, outcome.code, outcome.attempt) for (_, request), outcome in outcomes.newest.items()
    } == {
        "r1": (Status.SENT, "m1", None, 2),
        "r2": (Status.FAILED, None, "expired", 0),
        "r3": (Status.DEFERRED, None, DEFERRAL.error and DEFERRAL.error.code, 0),
    }
    assert (outcomes.newest["acme", "r1"].outcome.account, outcomes.newest["acme", "r1"].outcome.region) == ("111122223333", "eu-west-1")
    parked = outcomes.newest["acme", "r3"]
    assert (parked.parked, parked.maybe_sent, parked.generation) == ("parked/acme/r3/0.json", True, DEFERRAL.generation)
    assert (parked.created_at, parked.expires_at) == (waiting.created_at, waiting.expires_at)
