"""The marks of whether SES's events come back, on the providers table in moto."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from mailer.adapters.dynamodb import provider_feedback
from mailer.adapters.dynamodb.provider_feedback import UNWATCHED_FOR, DynamoProviderFeedback
from mailer.adapters.dynamodb.providers_table import DynamoProvidersTable
from mailer.domain.errors import DependencyError
from mailer.domain.feedback_state import HEARD_EVERY, SILENT_AFTER, UNHEARD_AFTER, feedback_state
from mailer.domain.provider import Provider, ProviderStatus, Simulation, StoredConfig
from support.aws import tables
from support.fakes.ports import NOON, FakeClock, a_config, a_provider

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOMENT = timedelta(milliseconds=1)
MINUTE = timedelta(minutes=1)


class Marks:
    """The providers table with one row, and a process that marks it."""

    def __init__(self, client: "DynamoDBClient") -> None:
        names = tables.create_tables(client, {name: f"{name}-{uuid4()}" for name in tables.resources("AWS::DynamoDB::Table")})
        self.client, self.name = client, names["ProvidersTable"]
        self.rows = DynamoProvidersTable(client, self.name, FakeClock())
        self.marks = self.another_process()
        self.calls = 0

    def another_process(self) -> DynamoProviderFeedback:
        """Return a process with empty memory."""
        return DynamoProviderFeedback(self.client, self.name)

    def store(self, **config: Any) -> Provider:
        """Store a row whose active config has a configuration set by default."""
        return self.store_row(a_provider(active=watched(**config)))

    def store_row(self, row: Provider) -> Provider:
        assert self.rows.replace(row)
        return self.row

    @property
    def row(self) -> Provider:
        row = self.rows.get("acme")
        assert row is not None
        return row

    @property
    def config(self) -> StoredConfig:
        """Return the active config."""
        active = self.row.active
        assert active is not None
        return active


def watched(**fields: Any) -> StoredConfig:
    return a_config(**{"configuration_set": "mail-acme", "account": "222222222222", **fields})


@pytest.fixture(scope="module")
def dynamodb() -> Iterator["DynamoDBClient"]:
    with mock_aws():
        client = boto3.client("dynamodb", region_name="eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")
        call, one_at_a_time = client._make_api_call, Lock()

        def scheduled(*arguments: Any) -> Any:
            with one_at_a_time:  # as DynamoDB serializes the writes of an item; moto does not
                return call(*arguments)

        with patch.object(client, "_make_api_call", scheduled):
            yield client


@pytest.fixture
def table(dynamodb: "DynamoDBClient") -> Marks:
    return Marks(dynamodb)


def writes(table: Marks) -> Any:
    """Count the calls within a block."""
    return patch.object(table.client, "update_item", wraps=table.client.update_item)


# -- an event arrived ----------------------------------------------------------------------------------------------------


def test_the_first_event_proves_that_feedback_works(table: Marks) -> None:
    """The sending version is marked, and nothing that a caller is shown as changed has changed."""
    before = table.store()
    table.marks.event_arrived("acme", 1, NOON + MINUTE)
    assert (feedback_state(table.config), table.config.feedback_at) == ("proven", NOON + MINUTE)
    assert table.row == replace(before, active=replace(watched(), feedback_at=NOON + MINUTE), revision=before.revision + 1)


def test_a_mark_is_never_lost_to_a_concurrent_writer(table: Marks) -> None:
    """A writer that read the row before it must read it again: a passing verify keeps the mark of its own test mail."""
    read = table.store()
    table.marks.event_arrived("acme", 1, NOON)
    assert not table.rows.replace(replace(read, warnings=("lost",)))


def test_events_of_a_candidate_prove_the_candidate(table: Marks) -> None:
    """Its test mail is sent before it is promoted; the active config is not marked."""
    table.store_row(a_provider(versions=2, active=watched(), candidate=watched(version=2)))
    table.marks.event_arrived("acme", 2, NOON)
    assert table.config.feedback_at is None
    assert table.row.candidate == watched(version=2, feedback_at=NOON)


def test_a_candidate_that_is_promoted_meanwhile_is_marked(table: Marks) -> None:
    """A verify passed between two tries."""
    row = table.store_row(a_provider(versions=2, candidate=watched(version=2)))
    update = table.client.update_item

    def promote_first(**call: Any) -> Any:
        if call["ExpressionAttributeNames"]["#config"] == "candidate":
            table.rows.replace(replace(row, active=row.candidate, candidate=None))
        return update(**call)

    with patch.object(table.client, "update_item", promote_first):
        table.marks.event_arrived("acme", 2, NOON)
    assert table.config == watched(version=2, feedback_at=NOON)


def test_events_of_a_replaced_version_are_ignored(table: Marks) -> None:
    """They arrive days later, of mail sent with another key."""
    before = table.store_row(a_provider(versions=2, active=watched(version=2)))
    table.marks.event_arrived("acme", 1, NOON)
    assert table.row == before


@pytest.mark.parametrize("tenant_id", ["acme", "globex"])
def test_an_event_creates_no_config(table: Marks, tenant_id: str) -> None:
    """An update creates no row and restores no deleted config."""
    before = table.store_row(a_provider(status=ProviderStatus.DELETED, active=None))
    table.marks.event_arrived(tenant_id, 1, NOON)
    assert table.marks.sent(tenant_id, 1, NOON) is None
    assert table.row == before
    assert table.rows.get("globex") is None


def test_many_events_are_one_mark_in_ten_minutes(table: Marks) -> None:
    """A process does not repeat its mark, and another process's mark is kept."""
    table.store()
    with writes(table) as update:
        for second in range(600):
            table.marks.event_arrived("acme", 1, NOON + timedelta(seconds=second))
        assert update.call_count == 1
    other = table.another_process()
    other.event_arrived("acme", 1, NOON + HEARD_EVERY - MOMENT)
    assert table.config.feedback_at == NOON
    table.marks.event_arrived("acme", 1, NOON + HEARD_EVERY)
    assert table.config.feedback_at == NOON + HEARD_EVERY


def test_a_failed_mark_is_retried(table: Marks) -> None:
    """A failure is not remembered as a mark."""
    table.store()
    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem")
    for mark in (table.marks.event_arrived, table.marks.sent):
        with patch.object(table.client, "update_item", side_effect=throttled), pytest.raises(DependencyError):
            mark("acme", 1, NOON)
    table.marks.sent("acme", 1, NOON)
    assert table.config.unheard_since == NOON
    table.marks.event_arrived("acme", 1, NOON)
    assert table.config.feedback_at == NOON


def test_a_process_s_memory_is_bounded(table: Marks) -> None:
    """The oldest entry is evicted first, which only costs another write."""
    table.store()
    with patch.object(provider_feedback, "REMEMBERED", 2), writes(table) as update:
        for tenant in ("acme", "t1", "t2", "acme", "t2"):
            table.marks.event_arrived(tenant, 1, NOON)
        assert update.call_count == 4


# -- no event arrived ----------------------------------------------------------------------------------------------------


def send_until(table: Marks, end: datetime, *, start: datetime = NOON, every: timedelta = MINUTE) -> list[StoredConfig]:
    """Send mail at a fixed interval; return the configs that became silent."""
    mails = [start + n * every for n in range((end - start) // every + 1)]
    return [silent for at in mails if (silent := table.marks.sent("acme", 1, at))]


def test_a_version_that_sends_without_events_turns_silent_once(table: Marks) -> None:
    """After an hour; later mail does not report it again, from any process."""
    before = table.store()
    assert send_until(table, NOON + SILENT_AFTER - MINUTE) == []
    assert table.config == watched(unheard_since=NOON)
    [silent] = send_until(table, NOON + 2 * SILENT_AFTER, start=NOON + SILENT_AFTER)
    assert silent.version == 1
    assert feedback_state(table.config) == "silent"
    assert table.another_process().sent("acme", 1, NOON + 3 * SILENT_AFTER) is None
    assert (table.row.updated_at, table.row.status) == (before.updated_at, before.status)
    assert table.row.revision > before.revision


def test_a_version_with_events_is_never_silent(table: Marks) -> None:
    """For a day with a mail and an event per minute, with six writes per hour."""
    table.store()
    with writes(table):
        for minute in range(24 * 60):
            at = NOON + minute * MINUTE
            assert table.marks.sent("acme", 1, at) is None
            table.marks.event_arrived("acme", 1, at + timedelta(seconds=5))
    assert (feedback_state(table.config), table.config.unheard_since) == ("proven", None)
    assert table.row.revision <= 2 + 24 * 6


def test_a_tenant_that_sends_rarely_is_not_silent(table: Marks) -> None:
    """Each of its mails has an event; the hours in between do not count."""
    table.store()
    for day in range(5):
        for hour, minute in ((0, 0), (0, 9), (0, 11), (0, 19), (0, 25), (7, 0)):
            at = NOON + timedelta(days=day, hours=hour, minutes=minute)
            assert table.marks.sent("acme", 1, at) is None
            table.marks.event_arrived("acme", 1, at + timedelta(seconds=3))
        assert (table.config.unheard_since, table.config.silent_since) == (None, None)


def test_one_lost_event_makes_no_version_silent(table: Marks) -> None:
    """SES sometimes loses one; without later mail nothing follows from it."""
    table.store()
    assert send_until(table, NOON) == []
    assert feedback_state(table.config) == "unproven"
    table.marks.event_arrived("acme", 1, NOON + 5 * SILENT_AFTER)
    assert table.config.unheard_since is None


def test_an_event_ends_the_silence_and_the_next_silence_is_reported(table: Marks) -> None:
    """A rule that is disabled twice raises two alarms."""
    table.store()
    assert len(send_until(table, NOON + SILENT_AFTER)) == 1
    back = NOON + 2 * SILENT_AFTER
    table.marks.event_arrived("acme", 1, back)
    assert table.config == watched(feedback_at=back)
    assert len(send_until(table, back + 3 * SILENT_AFTER, start=back + MINUTE)) == 1
    assert table.config.unheard_since is not None
    assert table.config.unheard_since > back + UNHEARD_AFTER


def silent_after(table: Marks, meanwhile: Callable[[DynamoProviderFeedback], object], at: datetime) -> StoredConfig | None:
    """Send a mail from a process; before it marks the silence, run `meanwhile` in another one."""
    process = table.another_process()
    read = process._mark_unheard

    def then_others(*arguments: Any) -> StoredConfig | None:
        config = read(*arguments)
        meanwhile(table.another_process())
        return config

    with patch.object(process, "_mark_unheard", then_others):
        return process.sent("acme", 1, at)


def test_a_concurrent_event_prevents_the_silence(table: Marks) -> None:
    """The state that was read before it no longer counts."""
    late = NOON + SILENT_AFTER
    table.store(unheard_since=NOON)
    assert silent_after(table, lambda other: other.event_arrived("acme", 1, late), late) is None
    assert table.config == watched(feedback_at=late)


def test_a_silence_found_by_two_processes_is_reported_once(table: Marks) -> None:
    """By the other one."""
    late = NOON + SILENT_AFTER
    table.store(unheard_since=NOON)
    assert silent_after(table, lambda other: other.sent("acme", 1, late), late + MOMENT) is None
    assert table.config.silent_since == late


def test_an_event_clears_the_unheard_mark_however_recent_it_is(table: Marks) -> None:
    """The clock of the process that wrote it may be ahead."""
    table.store(feedback_at=NOON, unheard_since=NOON + MOMENT)
    table.marks.event_arrived("acme", 1, NOON + MINUTE)
    assert table.config == watched(feedback_at=NOON + MINUTE)


def test_an_event_marked_by_another_process_counts(table: Marks) -> None:
    """A process that finds a recent mark remembers it although it is another's: the version does not turn silent by that."""
    table.store()
    first, second = table.another_process(), table.another_process()
    first.event_arrived("acme", 1, NOON)
    second.event_arrived("acme", 1, NOON + HEARD_EVERY - MOMENT)  # needs no mark, and is remembered
    at = NOON + UNHEARD_AFTER - 2 * MOMENT
    assert table.marks.sent("acme", 1, at) is None
    second.event_arrived("acme", 1, at)  # still remembered
    assert table.another_process().sent("acme", 1, at + 2 * SILENT_AFTER) is None
    assert table.config.silent_since is None


def test_a_version_without_a_configuration_set_is_not_watched(table: Marks) -> None:
    """SES reports nothing of its mail; it costs one failed conditional write per day."""
    before = table.store(configuration_set=None)
    with writes(table) as update:
        assert send_until(table, NOON + 2 * UNWATCHED_FOR - MOMENT, every=timedelta(hours=1)) == []
        assert update.call_count == 2
    assert table.row == before


def test_mail_of_an_older_version_does_not_mark_the_new_one(table: Marks) -> None:
    """It was sent before the rotation, and is published after it."""
    before = table.store_row(a_provider(versions=2, active=watched(version=2, unheard_since=NOON)))
    assert table.marks.sent("acme", 1, NOON + 2 * SILENT_AFTER) is None
    assert table.row == before


def test_concurrent_processes_report_a_silence_once(table: Marks) -> None:
    """Each shard of the stream has its own process."""
    table.store(unheard_since=NOON)
    processes = [table.another_process() for _ in range(16)]
    moments = [NOON + SILENT_AFTER + n * MOMENT for n in range(16)]
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda each: each[0].sent("acme", 1, each[1]), zip(processes, moments, strict=True)))
    assert len([silent for silent in found if silent]) == 1


def test_a_lost_reply_does_not_suppress_the_report(table: Marks) -> None:
    """The SDK's retry fails on its own earlier write."""
    table.store(unheard_since=NOON)
    update = table.client.update_item

    def twice(**call: Any) -> Any:
        if "silentSince = :at" in call["UpdateExpression"]:
            update(**call)
        return update(**call)

    with patch.object(table.client, "update_item", twice):
        assert table.marks.sent("acme", 1, NOON + SILENT_AFTER) is not None


def test_an_unreadable_row_is_a_failure_of_the_mark(table: Marks) -> None:
    """A later version wrote it; the caller decides what to do."""
    table.store(unheard_since=NOON)
    table.client.update_item(
        TableName=table.name,
        Key={"tenantId": {"S": "acme"}},
        UpdateExpression="SET #status = :new",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":new": {"S": "paused"}},
    )
    with pytest.raises(DependencyError):
        table.marks.sent("acme", 1, NOON + SILENT_AFTER)
    table.marks.event_arrived("acme", 1, NOON)


# -- simulations ---------------------------------------------------------------------------------------------------------


def test_a_simulation_shows_its_events(table: Marks) -> None:
    """Each kind separately, at its first event; other processes' memory does not matter."""
    table.store(simulation=Simulation(started_at=NOON))
    for minutes in (1, 2):
        table.marks.simulated("acme", 1, NOON, "bounce", NOON + minutes * MINUTE)
    assert table.config.simulation == Simulation(started_at=NOON, bounce_reported_at=NOON + MINUTE)
    table.marks.simulated("acme", 1, NOON, "complaint", NOON + 3 * MINUTE)
    assert table.config.simulation == Simulation(started_at=NOON, bounce_reported_at=NOON + MINUTE, complaint_reported_at=NOON + 3 * MINUTE)


@pytest.mark.parametrize("simulation", [Simulation(started_at=NOON + MINUTE), None])
def test_events_of_an_earlier_simulation_are_ignored(table: Marks, simulation: Simulation | None) -> None:
    """A late bounce would hide that the rule was disabled since."""
    before = table.store(simulation=simulation)
    table.marks.simulated("acme", 1, NOON, "bounce", NOON + 2 * MINUTE)
    assert table.row == before
