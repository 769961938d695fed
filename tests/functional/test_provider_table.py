"""The providers table in moto: what each conditional write accepts and refuses."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, Lock
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from mailer.adapters.dynamodb.providers_table import RELEASE_MARKED, DynamoProvidersTable
from mailer.domain import lifecycle
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.provider import Provider, ProviderStatus, Resumption, Simulation, StoredConfig
from mailer.domain.statistics import NOTHING, Counts
from support.aws import tables
from support.fakes.ports import NOON, FakeClock, a_config, a_provider

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DENIED = ErrorInfo("credentials_denied", "AWS denied ses:SendRawEmail", "Tenant: attach it.")


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
def table(dynamodb: "DynamoDBClient") -> DynamoProvidersTable:
    """Give each test its own table."""
    names = tables.create_tables(dynamodb, {name: f"{name}-{uuid4()}" for name in tables.resources("AWS::DynamoDB::Table")})
    return DynamoProvidersTable(dynamodb, names["ProvidersTable"], FakeClock())


def stored(table: DynamoProvidersTable, row: Provider) -> Provider:
    """Write a new row and read it back."""
    assert table.replace(row)
    return row_of(table, row.tenant_id)


def row_of(table: DynamoProvidersTable, tenant_id: str = "acme") -> Provider:
    row = table.get(tenant_id)
    assert row is not None
    return row


NEWER = Resumption("sam", "fixed", NOON, answered=NOTHING)
FULL = a_provider(
    status=ProviderStatus.SUSPENDED,
    versions=9,
    active=a_config(
        version=8,
        ciphertext=bytes(range(256)),
        configuration_set="news",
        max_send_rate=0.1,
        account="222222222222",
        quota_rate=14.5,
        quota_24h=50_000.0,
        error=DENIED,
        feedback_at=NOON,
        unheard_since=NOON,
        silent_since=NOON,
        simulation=Simulation(started_at=NOON, bounce_reported_at=NOON, complaint_reported_at=NOON),
    ),
    candidate=a_config(version=9, provider="smtp", region="", from_name="", credentials={"type": "smtp", "host": "localhost:1025"}),
    sandbox="true",
    updated_by="arn:aws:iam::123456789012:user/jo",
    deleted_at=NOON,
    warnings=("one", "two"),
    error=DENIED,
    faulty_requests=frozenset({"r1", "r2", "r3"}),
    resumption=Resumption("sam", "fixed", NOON, "arn:aws:iam::123456789012:user/sam", Counts(sent=200, bounced=20)),
    release_at=NOON,
    has_suppressions=True,
)


@pytest.mark.parametrize(
    "row", [a_provider(), FULL, replace(FULL, resumption=Resumption("s", "x", NOON, answered=NOTHING))], ids=["plain", "full", "nothing"]
)
def test_reads_what_it_wrote(table: DynamoProvidersTable, row: Provider) -> None:
    """Every field is preserved, and the revision counts the write."""
    assert stored(table, row) == replace(row, revision=1)


def test_the_full_row_sets_every_field() -> None:
    """A field that the round trip misses keeps its default, and fails here."""
    fresh = a_provider()
    same = {name for name in Provider.__dataclass_fields__ if getattr(FULL, name) == getattr(fresh, name)}
    assert same == {"tenant_id", "encrypted_external_id", "updated_at", "verified_at", "revision"}
    assert FULL.active is not None
    plain = a_config()
    assert {name for name in StoredConfig.__dataclass_fields__ if getattr(FULL.active, name) == getattr(plain, name)} == {
        "provider",
        "region",
        "from_address",
        "from_name",
        "credentials",
    }


def test_reads_a_simulation_without_reports(table: DynamoProvidersTable) -> None:
    """Missing reports are not stored."""
    row = a_provider(active=a_config(simulation=Simulation(started_at=NOON)))
    assert stored(table, row) == replace(row, revision=1)


def test_reads_many_rows(table: DynamoProvidersTable) -> None:
    """More tenants than DynamoDB returns at once, with duplicates and unknown ones."""
    tenants = [f"tenant-{n}" for n in range(205)]
    for tenant in tenants:
        assert table.replace(a_provider(tenant))
    found = table.get_many([*tenants, *tenants[:3], "nobody"])
    assert sorted(found) == sorted(tenants)
    assert {row.tenant_id for row in found.values()} == set(tenants)


# -- replace -------------------------------------------------------------------------------------------------------------


def test_a_row_is_created_once(table: DynamoProvidersTable) -> None:
    """Of two first writes the second is refused."""
    assert table.replace(a_provider(encrypted_external_id=b"first"))
    assert not table.replace(a_provider(encrypted_external_id=b"second"))
    assert row_of(table).encrypted_external_id == b"first"


def test_a_row_is_replaced_only_in_the_revision_that_was_read(table: DynamoProvidersTable) -> None:
    """A writer with an older revision is refused, and the other's write is kept."""
    read = stored(table, a_provider())
    assert table.replace(replace(read, sandbox="true"))
    assert not table.replace(replace(read, sandbox="false"))
    assert row_of(table).sandbox == "true"


@pytest.mark.parametrize("act", ["fault", "clear", "sandbox", "suspend", "released"])
def test_every_other_write_increments_the_revision(table: DynamoProvidersTable, act: str) -> None:
    """A writer that has not seen the update of sending or the sweeper cannot overwrite it."""
    read = stored(table, a_provider(faulty_requests=frozenset({"r1"}), release_at=NOON))
    match act:
        case "fault":
            table.record_fault("acme", 1, "r2", DENIED, NOON)
        case "clear":
            table.clear_faults("acme", 1)
        case "sandbox":
            table.learn_sandbox("acme", 1)
        case "suspend":
            for request in ("r2", "r3"):
                table.record_fault("acme", 1, request, DENIED, NOON)
        case "released":
            assert table.released("acme", NOON + RELEASE_MARKED)
    assert not table.replace(replace(read, warnings=("lost",)))
    assert row_of(table).warnings == ()


@pytest.mark.parametrize("first", [True, False], ids=["first write", "later write"])
def test_a_lost_reply_is_not_a_lost_race(table: DynamoProvidersTable, first: bool) -> None:  # noqa: FBT001
    """The write succeeded and its reply was lost: the SDK's retry fails its condition, but the row is the intended one."""
    row = a_provider() if first else replace(stored(table, a_provider()), status=ProviderStatus.DISABLED)
    put = table._client.put_item

    def twice(**call: Any) -> Any:
        put(**call)
        return put(**call)

    with patch.object(table._client, "put_item", twice):
        assert table.replace(row)
    assert row_of(table).revision == row.revision + 1


def test_only_one_of_many_writers_wins(table: DynamoProvidersTable) -> None:
    """Sixteen writers replace the same revision at once."""
    read = stored(table, a_provider())
    gate = Barrier(16)

    def write(number: int) -> bool:
        gate.wait()
        return table.replace(replace(read, warnings=(str(number),)))

    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(write, range(16)))
    assert won.count(True) == 1
    assert row_of(table).warnings == (str(won.index(True)),)


# -- faults and suspension -----------------------------------------------------------------------------------------------


def test_three_requests_suspend_a_version(table: DynamoProvidersTable) -> None:
    """The third distinct request suspends, returns True, and stores its error on the row without a caller."""
    stored(table, a_provider(updated_by="arn:aws:iam::123456789012:user/jo"))
    assert [table.record_fault("acme", 1, request, DENIED, NOON) for request in ("r1", "r2", "r3")] == [False, False, True]
    row = row_of(table)
    assert (row.status, row.error, row.faulty_requests) == (ProviderStatus.SUSPENDED, DENIED, {"r1", "r2", "r3"})
    assert row.updated_by is None


def test_one_request_suspends_no_version(table: DynamoProvidersTable) -> None:
    """However often it is retried, it counts once."""
    stored(table, a_provider())
    assert not any(table.record_fault("acme", 1, "r1", DENIED, NOON) for _ in range(10))
    assert row_of(table).status is ProviderStatus.ACTIVE


def test_a_success_resets_the_faults(table: DynamoProvidersTable) -> None:
    """Faults count since the last success."""
    stored(table, a_provider())
    for request in ("r1", "r2"):
        table.record_fault("acme", 1, request, DENIED, NOON)
    table.clear_faults("acme", 1)
    assert not any(table.record_fault("acme", 1, request, DENIED, NOON) for request in ("r3", "r4"))


def test_clearing_no_faults_writes_nothing(table: DynamoProvidersTable) -> None:
    """A tenant without faults costs no writes."""
    before = stored(table, a_provider())
    table.clear_faults("acme", 1)
    assert row_of(table) == before


def test_faults_of_an_old_version_are_ignored(table: DynamoProvidersTable) -> None:
    """Late results of mail sent with the old key neither suspend the new one nor clear its faults."""
    stored(table, a_provider(versions=2, active=a_config(version=2), faulty_requests=frozenset({"r1", "r2"})))
    assert not any(table.record_fault("acme", 1, f"old-{n}", DENIED, NOON) for n in range(5))
    table.clear_faults("acme", 1)
    table.learn_sandbox("acme", 1)
    row = row_of(table)
    assert (row.status, row.faulty_requests, row.sandbox) == (ProviderStatus.ACTIVE, {"r1", "r2"}, "unknown")


def test_faults_from_before_a_verify_are_ignored(table: DynamoProvidersTable) -> None:
    """Mail that was prepared before it failed with what the verify has replaced: a session that was revoked, or rights."""
    stored(table, a_provider(faulty_requests=frozenset({"r1", "r2"}), verified_at=NOON + timedelta(minutes=1)))
    for verified_at in (NOON, None):
        assert not any(table.record_fault("acme", 1, f"late-{n}", DENIED, verified_at) for n in range(3))
    assert row_of(table).faulty_requests == {"r1", "r2"}
    assert table.record_fault("acme", 1, "r3", DENIED, NOON + timedelta(minutes=1))


def test_a_verify_between_counting_and_suspending_prevents_the_suspension(table: DynamoProvidersTable) -> None:
    """The count belongs to the row of the earlier verify."""
    stored(table, a_provider(faulty_requests=frozenset({"r1", "r2"})))
    update = table._client.update_item

    def then_verify(**arguments: Any) -> Any:
        answer = update(**arguments)
        if ":request" in arguments["ExpressionAttributeValues"]:
            assert table.replace(replace(row_of(table), verified_at=NOON + timedelta(minutes=1)))
        return answer

    with patch.object(table._client, "update_item", then_verify):
        assert not table.record_fault("acme", 1, "r3", DENIED, NOON)
    assert row_of(table).status is ProviderStatus.ACTIVE


def test_faults_of_a_row_without_a_verify_count(table: DynamoProvidersTable) -> None:
    """A row that was restored from before verifies were dated."""
    stored(table, a_provider(verified_at=None))
    assert [table.record_fault("acme", 1, request, DENIED, None) for request in ("r1", "r2", "r3")] == [False, False, True]


@pytest.mark.parametrize(
    "row",
    [
        a_provider(status=ProviderStatus.DISABLED, faulty_requests=frozenset({"r1", "r2"})),
        a_provider(status=ProviderStatus.SUSPENDED, faulty_requests=frozenset({"r1", "r2", "r3"})),
        a_provider(status=ProviderStatus.DELETED, active=None),
        a_provider(status=ProviderStatus.UNVERIFIED, active=None, candidate=a_config()),
    ],
    ids=lambda row: str(row.status),
)
def test_only_an_active_provider_gets_faults_or_is_suspended(table: DynamoProvidersTable, row: Provider) -> None:
    """Late results of mail in flight do not change a row that is no longer `active`; a suspension is reported only once."""
    before = stored(table, row)
    assert not table.record_fault("acme", 1, "late", DENIED, NOON)
    table.clear_faults("acme", 1)
    table.learn_sandbox("acme", 1)
    assert row_of(table) == before


@pytest.mark.parametrize("act", ["fault", "clear", "sandbox"])
def test_an_update_creates_no_row(table: DynamoProvidersTable, act: str) -> None:
    """Of a tenant without one."""
    {"fault": lambda: table.record_fault("acme", 1, "r", DENIED, NOON), "clear": lambda: table.clear_faults("acme", 1)}.get(
        act, lambda: table.learn_sandbox("acme", 1)
    )()
    assert table.get("acme") is None


def test_a_crash_between_counting_and_suspending_is_repaired_by_the_next_fault(table: DynamoProvidersTable) -> None:
    """Three requests are on the row and it was not suspended: the next fault suspends it, and the set does not grow."""
    stored(table, a_provider(faulty_requests=frozenset({"r1", "r2", "r3"})))
    assert table.record_fault("acme", 1, "r4", DENIED, NOON)
    assert row_of(table).faulty_requests == {"r1", "r2", "r3"}


def test_a_success_between_counting_and_suspending_prevents_the_suspension(table: DynamoProvidersTable) -> None:
    """It has cleared the faults, and another one was counted since: fewer than three suspend nothing."""
    stored(table, a_provider(faulty_requests=frozenset({"r1", "r2"})))
    update = table._client.update_item

    def then_send(**arguments: Any) -> Any:
        answer = update(**arguments)
        if ":request" in arguments["ExpressionAttributeValues"]:
            with patch.object(table._client, "update_item", update):
                table.clear_faults("acme", 1)
                table.record_fault("acme", 1, "r4", DENIED, NOON)
        return answer

    with patch.object(table._client, "update_item", then_send):
        assert not table.record_fault("acme", 1, "r3", DENIED, NOON)
    assert (row_of(table).status, row_of(table).faulty_requests) == (ProviderStatus.ACTIVE, {"r4"})


def test_only_one_of_many_threads_reports_the_suspension(table: DynamoProvidersTable) -> None:
    """A whole batch fails at once: one of its messages suspends, and the set has no more than three."""
    stored(table, a_provider())
    gate = Barrier(16)

    def fail(number: int) -> bool:
        gate.wait()
        return table.record_fault("acme", 1, f"r{number}", DENIED, NOON)

    with ThreadPoolExecutor(16) as threads:
        reported = list(threads.map(fail, range(16)))
    assert reported.count(True) == 1
    assert len(row_of(table).faulty_requests) == 3


def test_learns_the_sandbox(table: DynamoProvidersTable) -> None:
    """Once: a known sandbox is not written again."""
    stored(table, a_provider())
    for _ in range(2):
        table.learn_sandbox("acme", 1)
    assert (row_of(table).sandbox, row_of(table).revision) == ("true", 2)


# -- releases ------------------------------------------------------------------------------------------------------------


def test_lists_tenants_to_release_in_the_order_of_their_marks(table: DynamoProvidersTable) -> None:
    """Only marked rows are in the index."""
    for minutes, tenant in ((2, "late"), (0, "early"), (1, "middle")):
        stored(table, a_provider(tenant, release_at=NOON + timedelta(minutes=minutes)))
    stored(table, a_provider("unmarked"))
    assert table.releasing() == ["early", "middle", "late"]


def test_a_mark_is_kept_until_every_older_batch_has_ended(table: DynamoProvidersTable) -> None:
    """A batch that read the row before the change may park mail after the first sweep; the next sweeps still see the mark."""
    stored(table, a_provider(release_at=NOON))
    assert not table.released("acme", NOON + RELEASE_MARKED - timedelta(milliseconds=1))
    assert table.releasing() == ["acme"]
    assert table.released("acme", NOON + RELEASE_MARKED)
    assert table.releasing() == []
    assert row_of(table).release_at is None


def test_a_renewed_mark_is_kept(table: DynamoProvidersTable) -> None:
    """A tenant that was enabled again during the sweep stays on the sweeper's list."""
    read = stored(table, a_provider(release_at=NOON))
    now = NOON + RELEASE_MARKED
    assert table.replace(replace(read, release_at=now))
    assert not table.released("acme", now)
    assert table.releasing() == ["acme"]


def test_an_unmarked_tenant_is_not_released(table: DynamoProvidersTable) -> None:
    """With and without a row."""
    stored(table, a_provider())
    assert [table.released(tenant, NOON) for tenant in ("acme", "nobody")] == [False, False]
    assert table.get("nobody") is None


# -- outages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "x"), ReadTimeoutError(endpoint_url="x")],
    ids=["throttled", "timeout"],
)
@pytest.mark.parametrize("act", ["get", "get_many", "replace", "fault", "clear", "releasing", "released"])
def test_an_outage_is_a_dependency_error(table: DynamoProvidersTable, act: str, failure: Exception) -> None:
    """Every failure of DynamoDB is the same kind of error; its text has the operation and no data."""
    acts = {
        "get": lambda: table.get("acme"),
        "get_many": lambda: table.get_many(["acme"]),
        "replace": lambda: table.replace(a_provider()),
        "fault": lambda: table.record_fault("acme", 1, "r", DENIED, NOON),
        "clear": lambda: table.clear_faults("acme", 1),
        "releasing": table.releasing,
        "released": lambda: table.released("acme", NOON),
    }

    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    with patch.object(table._client, "_make_api_call", fail), pytest.raises(DependencyError) as seen:
        acts[act]()
    assert "acme" not in str(seen.value)


def test_keys_that_stay_unprocessed_are_a_dependency_error(table: DynamoProvidersTable) -> None:
    """A throttled BatchGetItem is not repeated forever."""

    def none_of_it(*, RequestItems: Any) -> Any:  # noqa: N803 - DynamoDB's name
        return {"Responses": {}, "UnprocessedKeys": RequestItems}

    with patch.object(table._client, "batch_get_item", none_of_it), pytest.raises(DependencyError):
        table.get_many(["acme"])


# ── the mark of suppressions ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mark_refuses_writers_that_read_the_row_before(table: DynamoProvidersTable) -> None:
    """A change of the provider based on the unmarked row would remove the mark."""
    read = stored(table, a_provider())
    assert table.mark_suppressions("acme")
    assert not table.replace(replace(read, sandbox="true"))
    marked = row_of(table)
    assert marked.has_suppressions
    assert table.replace(replace(marked, sandbox="true"))
    assert row_of(table).has_suppressions


def test_a_marked_row_is_not_written_again(table: DynamoProvidersTable) -> None:
    """Otherwise each suppression would conflict with the provider API."""
    stored(table, a_provider())
    assert table.mark_suppressions("acme")
    marked = row_of(table)
    assert table.mark_suppressions("acme")
    assert row_of(table) == marked


def test_a_tenant_without_a_row_cannot_be_marked(table: DynamoProvidersTable) -> None:
    """No row is created, because it would have no provider."""
    assert not table.mark_suppressions("acme")
    assert table.get("acme") is None


@pytest.mark.parametrize("change", [lambda row: lifecycle.delete(row, NOON), lambda row: lifecycle.erase(lifecycle.delete(row, NOON))])
def test_the_mark_outlives_the_provider(table: DynamoProvidersTable, change: Callable[[Provider], Provider]) -> None:
    """A later tenant with the same id must not mail bounced addresses."""
    stored(table, a_provider())
    assert table.mark_suppressions("acme")
    assert table.replace(change(row_of(table)))
    assert row_of(table).has_suppressions


# -- the reputation guard ------------------------------------------------------------------------------------------------

AT_RISK = ErrorInfo("reputation_at_risk", "30 bounces of 200 recipients")
RESUMED = Resumption("sam", "fixed", NOON)


@pytest.mark.parametrize("resumption", [None, RESUMED])
def test_a_tenant_is_suspended_for_its_reputation_once(table: DynamoProvidersTable, resumption: Resumption | None) -> None:
    """A second judgement of the same mail changes nothing; the row has the error and no caller."""
    judged = stored(table, a_provider(updated_by="arn:aws:iam::123456789012:user/jo", resumption=resumption))
    assert table.suspend_at_risk("acme", AT_RISK, judged)
    assert not table.suspend_at_risk("acme", AT_RISK, judged)
    row = row_of(table)
    assert (row.status, row.error, row.updated_by, row.resumption) == (ProviderStatus.SUSPENDED, AT_RISK, None, resumption)
    assert (row.revision, row.active) == (judged.revision + 1, judged.active)


@pytest.mark.parametrize("status", [ProviderStatus.DISABLED, ProviderStatus.SUSPENDED, ProviderStatus.DELETED])
def test_an_inactive_provider_is_not_suspended_for_its_reputation(table: DynamoProvidersTable, status: ProviderStatus) -> None:
    """Its row is not changed, not even an error of the account."""
    row = stored(table, a_provider(status=status, error=DENIED))
    assert not table.suspend_at_risk("acme", AT_RISK, replace(row, status=ProviderStatus.ACTIVE))
    assert row_of(table) == row


@pytest.mark.parametrize(("known", "current"), [(None, RESUMED), (replace(RESUMED, at=NOON - timedelta(hours=1)), RESUMED)])
def test_a_resumption_after_the_judgement_prevents_the_suspension(
    table: DynamoProvidersTable, known: Resumption | None, current: Resumption
) -> None:
    """Somebody resumed the provider while its mail was judged."""
    row = stored(table, a_provider(resumption=current))
    assert not table.suspend_at_risk("acme", AT_RISK, replace(row, resumption=known))
    assert row_of(table).status is ProviderStatus.ACTIVE


def test_a_tenant_without_a_row_is_not_suspended(table: DynamoProvidersTable) -> None:
    """No row is created."""
    assert not table.suspend_at_risk("acme", AT_RISK, a_provider())
    assert table.get("acme") is None
