"""The providers table in moto: what each conditional write lets through, and what it does not."""

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
            with one_at_a_time:  # as DynamoDB writes an item; moto leaves it to its caller
                return call(*arguments)

        with patch.object(client, "_make_api_call", scheduled):
            yield client


@pytest.fixture
def table(dynamodb: "DynamoDBClient") -> DynamoProvidersTable:
    """Give each test a table of its own."""
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


NEWER = Resumption("sam", "mended", NOON, answered=NOTHING)
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
    resumption=Resumption("sam", "mended", NOON, "arn:aws:iam::123456789012:user/sam", Counts(sent=200, bounced=20)),
    release_at=NOON,
    has_suppressions=True,
)


@pytest.mark.parametrize(
    "row", [a_provider(), FULL, replace(FULL, resumption=Resumption("s", "x", NOON, answered=NOTHING))], ids=["plain", "full", "nothing"]
)
def test_reads_what_it_wrote(table: DynamoProvidersTable, row: Provider) -> None:
    """Every field survives, and the revision counts the write."""
    assert stored(table, row) == replace(row, revision=1)


def test_fills_every_field() -> None:
    """The row that the round trip is tried with leaves no field at its default: a field that is forgotten fails there."""
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


def test_reads_a_simulation_of_which_nothing_has_come(table: DynamoProvidersTable) -> None:
    """What is not reported is not in the item."""
    row = a_provider(active=a_config(simulation=Simulation(started_at=NOON)))
    assert stored(table, row) == replace(row, revision=1)


def test_reads_many_rows(table: DynamoProvidersTable) -> None:
    """More tenants than DynamoDB gives at once, some of them twice and some unknown."""
    tenants = [f"tenant-{n}" for n in range(205)]
    for tenant in tenants:
        assert table.replace(a_provider(tenant))
    found = table.get_many([*tenants, *tenants[:3], "nobody"])
    assert sorted(found) == sorted(tenants)
    assert {row.tenant_id for row in found.values()} == set(tenants)


# -- replace -------------------------------------------------------------------------------------------------------------


def test_a_row_is_made_once(table: DynamoProvidersTable) -> None:
    """Of two first writes the second is refused."""
    assert table.replace(a_provider(encrypted_external_id=b"first"))
    assert not table.replace(a_provider(encrypted_external_id=b"second"))
    assert row_of(table).encrypted_external_id == b"first"


def test_a_row_is_replaced_only_as_it_was_read(table: DynamoProvidersTable) -> None:
    """Whoever read an older revision is refused, and the row stands as the other left it."""
    read = stored(table, a_provider())
    assert table.replace(replace(read, sandbox="true"))
    assert not table.replace(replace(read, sandbox="false"))
    assert row_of(table).sandbox == "true"


@pytest.mark.parametrize("act", ["fault", "clear", "sandbox", "suspend", "released"])
def test_every_other_write_raises_the_revision(table: DynamoProvidersTable, act: str) -> None:
    """What sending or the sweeper wrote is never overwritten by someone who did not see it."""
    read = stored(table, a_provider(faulty_requests=frozenset({"r1"}), release_at=NOON))
    match act:
        case "fault":
            table.record_fault("acme", 1, "r2", DENIED)
        case "clear":
            table.clear_faults("acme", 1)
        case "sandbox":
            table.learn_sandbox("acme", 1)
        case "suspend":
            for request in ("r2", "r3"):
                table.record_fault("acme", 1, request, DENIED)
        case "released":
            assert table.released("acme", NOON + RELEASE_MARKED)
    assert not table.replace(replace(read, warnings=("lost",)))
    assert row_of(table).warnings == ()


@pytest.mark.parametrize("first", [True, False], ids=["first write", "later write"])
def test_a_lost_reply_is_no_lost_race(table: DynamoProvidersTable, first: bool) -> None:  # noqa: FBT001
    """The write succeeded and its reply was lost; the SDK's second try is refused, but the row is the one that was to be."""
    row = a_provider() if first else replace(stored(table, a_provider()), status=ProviderStatus.DISABLED)
    put = table._client.put_item

    def twice(**call: Any) -> Any:
        put(**call)
        return put(**call)

    with patch.object(table._client, "put_item", twice):
        assert table.replace(row)
    assert row_of(table).revision == row.revision + 1


def test_only_one_of_many_writers_wins(table: DynamoProvidersTable) -> None:
    """Sixteen replace the same revision at once."""
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
    """The third distinct request suspends, is told so, and leaves its error on the row, which nobody's call has changed then."""
    stored(table, a_provider(updated_by="arn:aws:iam::123456789012:user/jo"))
    assert [table.record_fault("acme", 1, request, DENIED) for request in ("r1", "r2", "r3")] == [False, False, True]
    row = row_of(table)
    assert (row.status, row.error, row.faulty_requests) == (ProviderStatus.SUSPENDED, DENIED, {"r1", "r2", "r3"})
    assert row.updated_by is None


def test_one_request_suspends_nobody(table: DynamoProvidersTable) -> None:
    """However often it is tried: it is one request."""
    stored(table, a_provider())
    assert not any(table.record_fault("acme", 1, "r1", DENIED) for _ in range(10))
    assert row_of(table).status is ProviderStatus.ACTIVE


def test_a_success_in_between_starts_anew(table: DynamoProvidersTable) -> None:
    """Faults count since the last success."""
    stored(table, a_provider())
    for request in ("r1", "r2"):
        table.record_fault("acme", 1, request, DENIED)
    table.clear_faults("acme", 1)
    assert not any(table.record_fault("acme", 1, request, DENIED) for request in ("r3", "r4"))


def test_clearing_what_is_clear_is_no_write(table: DynamoProvidersTable) -> None:
    """A tenant in good health costs no writes."""
    before = stored(table, a_provider())
    table.clear_faults("acme", 1)
    assert row_of(table) == before


def test_faults_of_an_old_version_count_for_nothing(table: DynamoProvidersTable) -> None:
    """Mail that was under way with the old key cannot suspend the new one, nor clear what stands against it."""
    stored(table, a_provider(versions=2, active=a_config(version=2), faulty_requests=frozenset({"r1", "r2"})))
    assert not any(table.record_fault("acme", 1, f"old-{n}", DENIED) for n in range(5))
    table.clear_faults("acme", 1)
    table.learn_sandbox("acme", 1)
    row = row_of(table)
    assert (row.status, row.faulty_requests, row.sandbox) == (ProviderStatus.ACTIVE, {"r1", "r2"}, "unknown")


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
def test_only_an_active_provider_is_blamed_cleared_or_suspended(table: DynamoProvidersTable, row: Provider) -> None:
    """Late results of mail that was under way leave a row alone that has left `active`; above all a suspension is told once."""
    before = stored(table, row)
    assert not table.record_fault("acme", 1, "late", DENIED)
    table.clear_faults("acme", 1)
    table.learn_sandbox("acme", 1)
    assert row_of(table) == before


@pytest.mark.parametrize("act", ["fault", "clear", "sandbox"])
def test_a_tenant_without_a_row_gets_none(table: DynamoProvidersTable, act: str) -> None:
    """An update makes no row."""
    {"fault": lambda: table.record_fault("acme", 1, "r", DENIED), "clear": lambda: table.clear_faults("acme", 1)}.get(
        act, lambda: table.learn_sandbox("acme", 1)
    )()
    assert table.get("acme") is None


def test_a_crash_between_counting_and_suspending_is_made_good(table: DynamoProvidersTable) -> None:
    """Three requests stand on the row and nobody suspended it: the next fault does, and the set grows no further."""
    stored(table, a_provider(faulty_requests=frozenset({"r1", "r2", "r3"})))
    assert table.record_fault("acme", 1, "r4", DENIED)
    assert row_of(table).faulty_requests == {"r1", "r2", "r3"}


def test_a_success_between_counting_and_suspending_counts(table: DynamoProvidersTable) -> None:
    """It has cleared the faults, and another one has come since: three that are no more suspend nobody."""
    stored(table, a_provider(faulty_requests=frozenset({"r1", "r2"})))
    update = table._client.update_item

    def then_send(**arguments: Any) -> Any:
        answer = update(**arguments)
        if ":request" in arguments["ExpressionAttributeValues"]:
            with patch.object(table._client, "update_item", update):
                table.clear_faults("acme", 1)
                table.record_fault("acme", 1, "r4", DENIED)
        return answer

    with patch.object(table._client, "update_item", then_send):
        assert not table.record_fault("acme", 1, "r3", DENIED)
    assert (row_of(table).status, row_of(table).faulty_requests) == (ProviderStatus.ACTIVE, {"r4"})


def test_a_suspension_is_told_once_among_many_threads(table: DynamoProvidersTable) -> None:
    """A whole batch fails at once: one of its messages suspends, and the set stays as small as it has to be."""
    stored(table, a_provider())
    gate = Barrier(16)

    def fail(number: int) -> bool:
        gate.wait()
        return table.record_fault("acme", 1, f"r{number}", DENIED)

    with ThreadPoolExecutor(16) as threads:
        told = list(threads.map(fail, range(16)))
    assert told.count(True) == 1
    assert len(row_of(table).faulty_requests) == 3


def test_learns_the_sandbox(table: DynamoProvidersTable) -> None:
    """Once: knowing it already is no write."""
    stored(table, a_provider())
    for _ in range(2):
        table.learn_sandbox("acme", 1)
    assert (row_of(table).sandbox, row_of(table).revision) == ("true", 2)


# -- releases ------------------------------------------------------------------------------------------------------------


def test_lists_tenants_to_release_longest_marked_first(table: DynamoProvidersTable) -> None:
    """Only rows with a mark stand in the index."""
    for minutes, tenant in ((2, "late"), (0, "early"), (1, "middle")):
        stored(table, a_provider(tenant, release_at=NOON + timedelta(minutes=minutes)))
    stored(table, a_provider("unmarked"))
    assert table.releasing() == ["early", "middle", "late"]


def test_a_mark_stays_until_every_older_batch_is_over(table: DynamoProvidersTable) -> None:
    """A batch that read the row before the change may park mail after the first sweep: the mark is still there for the next ones."""
    stored(table, a_provider(release_at=NOON))
    assert not table.released("acme", NOON + RELEASE_MARKED - timedelta(milliseconds=1))
    assert table.releasing() == ["acme"]
    assert table.released("acme", NOON + RELEASE_MARKED)
    assert table.releasing() == []
    assert row_of(table).release_at is None


def test_a_mark_made_anew_is_kept(table: DynamoProvidersTable) -> None:
    """Who was enabled again while the sweeper was at work is not taken off its list."""
    read = stored(table, a_provider(release_at=NOON))
    now = NOON + RELEASE_MARKED
    assert table.replace(replace(read, release_at=now))
    assert not table.released("acme", now)
    assert table.releasing() == ["acme"]


def test_nobody_is_released_who_is_not_marked(table: DynamoProvidersTable) -> None:
    """Neither a row without a mark nor no row at all."""
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
    """Whatever DynamoDB does not do, callers see one kind of error, whose text names the operation and no data."""
    acts = {
        "get": lambda: table.get("acme"),
        "get_many": lambda: table.get_many(["acme"]),
        "replace": lambda: table.replace(a_provider()),
        "fault": lambda: table.record_fault("acme", 1, "r", DENIED),
        "clear": lambda: table.clear_faults("acme", 1),
        "releasing": table.releasing,
        "released": lambda: table.released("acme", NOON),
    }

    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    with patch.object(table._client, "_make_api_call", fail), pytest.raises(DependencyError) as seen:
        acts[act]()
    assert "acme" not in str(seen.value)


def test_keys_that_stay_unprocessed_are_an_outage(table: DynamoProvidersTable) -> None:
    """A throttled BatchGetItem that gets nowhere does not go round for ever."""

    def none_of_it(*, RequestItems: Any) -> Any:  # noqa: N803 - DynamoDB's name
        return {"Responses": {}, "UnprocessedKeys": RequestItems}

    with patch.object(table._client, "batch_get_item", none_of_it), pytest.raises(DependencyError):
        table.get_many(["acme"])


# ── the mark of suppressions ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mark_stands_and_makes_whoever_read_the_row_before_read_it_again(table: DynamoProvidersTable) -> None:
    """A change of the provider that had read the row without it would take it away."""
    read = stored(table, a_provider())
    assert table.mark_suppressions("acme")
    assert not table.replace(replace(read, sandbox="true"))
    marked = row_of(table)
    assert marked.has_suppressions
    assert table.replace(replace(marked, sandbox="true"))
    assert row_of(table).has_suppressions


def test_a_mark_that_stands_is_not_written_again(table: DynamoProvidersTable) -> None:
    """Or each suppression would disturb the provider API."""
    stored(table, a_provider())
    assert table.mark_suppressions("acme")
    marked = row_of(table)
    assert table.mark_suppressions("acme")
    assert row_of(table) == marked


def test_a_tenant_without_a_row_cannot_be_marked(table: DynamoProvidersTable) -> None:
    """And none is made: it would be no provider's."""
    assert not table.mark_suppressions("acme")
    assert table.get("acme") is None


@pytest.mark.parametrize("change", [lambda row: lifecycle.delete(row, NOON), lambda row: lifecycle.erase(lifecycle.delete(row, NOON))])
def test_the_mark_outlives_the_provider(table: DynamoProvidersTable, change: Callable[[Provider], Provider]) -> None:
    """Whoever comes under the tenant's id next must not mail what bounced."""
    stored(table, a_provider())
    assert table.mark_suppressions("acme")
    assert table.replace(change(row_of(table)))
    assert row_of(table).has_suppressions


# -- what the reputation guard does --------------------------------------------------------------------------------------

AT_RISK = ErrorInfo("reputation_at_risk", "30 bounces of 200 recipients")
RESUMED = Resumption("sam", "mended", NOON)


@pytest.mark.parametrize("resumption", [None, RESUMED])
def test_a_tenant_is_suspended_for_its_reputation_once(table: DynamoProvidersTable, resumption: Resumption | None) -> None:
    """The second judgement of the same mail finds it done; the row tells why, and that the service did it."""
    judged = stored(table, a_provider(updated_by="arn:aws:iam::123456789012:user/jo", resumption=resumption))
    assert table.suspend_at_risk("acme", AT_RISK, judged)
    assert not table.suspend_at_risk("acme", AT_RISK, judged)
    row = row_of(table)
    assert (row.status, row.error, row.updated_by, row.resumption) == (ProviderStatus.SUSPENDED, AT_RISK, None, resumption)
    assert (row.revision, row.active) == (judged.revision + 1, judged.active)


@pytest.mark.parametrize("status", [ProviderStatus.DISABLED, ProviderStatus.SUSPENDED, ProviderStatus.DELETED])
def test_who_does_not_send_is_not_suspended_for_its_reputation(table: DynamoProvidersTable, status: ProviderStatus) -> None:
    """What stands there stays, an error of the account's as well."""
    row = stored(table, a_provider(status=status, error=DENIED))
    assert not table.suspend_at_risk("acme", AT_RISK, replace(row, status=ProviderStatus.ACTIVE))
    assert row_of(table) == row


@pytest.mark.parametrize(("known", "stands"), [(None, RESUMED), (replace(RESUMED, at=NOON - timedelta(hours=1)), RESUMED)])
def test_a_resumption_that_the_judge_did_not_know_of_stands(
    table: DynamoProvidersTable, known: Resumption | None, stands: Resumption
) -> None:
    """Somebody answered for the mail while it was judged."""
    row = stored(table, a_provider(resumption=stands))
    assert not table.suspend_at_risk("acme", AT_RISK, replace(row, resumption=known))
    assert row_of(table).status is ProviderStatus.ACTIVE


def test_a_tenant_that_is_not_there_is_not_suspended(table: DynamoProvidersTable) -> None:
    """No row is made of it."""
    assert not table.suspend_at_risk("acme", AT_RISK, a_provider())
    assert table.get("acme") is None
