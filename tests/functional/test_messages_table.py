"""The messages table on DynamoDB accepts, refuses and writes exactly what the state machine does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from moto import mock_aws

from mailer.adapters.botocore_patches.connections import use_own_connections
from mailer.adapters.botocore_patches.json_objects import require_json_objects
from mailer.adapters.dynamodb import batch_get, messages_table
from mailer.adapters.dynamodb.messages_table import (
    FIELDS,
    SWEEP_SHARDS,
    DynamoMessagesTable,
    record_key,
    status_attribute,
    sweep_shard,
    tenant_shard,
)
from mailer.adapters.transport.direct_calls import call_directly
from mailer.adapters.transport.formats import DYNAMODB
from mailer.domain import changes, delivery
from mailer.domain.changes import Deferral, Fence, SentBy
from mailer.domain.delivery import RECORD_RETENTION, RULES, Change, Delivery, EarlierAttempt, Resolution, Rule, Status, WaitsFor
from mailer.domain.errors import DependencyError, ErrorInfo
from mailer.domain.facts import FeedbackCounts
from mailer.ports import RefusedError
from support.aws import tables
from support.aws.canned import answer
from support.fakes.ports import NOON, a_delivery
from support.transitions import CHANGES, DEFERRAL, MS, REQUEST, cases, seen

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@contextmanager
def answering(client: "DynamoDBClient", operation: str, body: bytes) -> Iterator[None]:
    """Let DynamoDB respond to calls of one operation with 200 and this body, without executing them."""

    def say(request: AWSPreparedRequest, **_: Any) -> Any:
        return answer(request, 200, body)

    client.meta.events.register_first(f"before-send.dynamodb.{operation}", say)
    try:
        yield
    finally:
        client.meta.events.unregister(f"before-send.dynamodb.{operation}", say)


@pytest.fixture(scope="module")
def client() -> "Iterator[DynamoDBClient]":
    with mock_aws():
        client = boto3.client("dynamodb", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")
        use_own_connections(client)
        require_json_objects(client)
        call_directly(client, DYNAMODB)
        yield client


@pytest.fixture
def table(client: "DynamoDBClient") -> Iterator[DynamoMessagesTable]:
    """Create the template's tables, without the rest of the stack."""
    names = tables.create_tables(client)
    yield DynamoMessagesTable(client, names["MessagesTable"])
    for name in names.values():
        client.delete_table(TableName=name)


def store(table: DynamoMessagesTable, record: Delivery, **attributes: Any) -> None:
    """Write a record directly."""
    fields = {name: getattr(record, name) for name in FIELDS}
    item = {FIELDS[name][0]: FIELDS[name][1](value) for name, value in fields.items() if value not in (None, False)}
    table._client.put_item(TableName=table._table, Item={**record_key(record.tenant_id, record.request_id), **item, **attributes})


def item(table: DynamoMessagesTable, request_id: str = "r1") -> dict[str, Any]:
    """Read the raw item."""
    found: dict[str, Any] = table._client.get_item(TableName=table._table, Key=record_key("acme", request_id))["Item"]
    return found


def queued(request_id: str, age: timedelta = timedelta(), tenant_id: str = "acme") -> Change:
    """Return the change that records a request some time before noon."""
    request = replace(REQUEST, tenant_id=tenant_id, request_id=request_id, generation=0, created_at=NOON - age)
    return changes.queue(request, NOON - age)


# -- conditions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_conditions_agree_with_the_state_machine(table: DynamoMessagesTable, rule: str) -> None:
    """For every status and every broken guard DynamoDB allows what `domain.delivery` allows, and writes the same record."""
    for name, case in cases():
        if case.rule.name != rule:
            continue
        request_id = f"r{abs(hash(name))}"
        record = replace(case.record, request_id=request_id) if case.record else None
        change = replace(case.change, request_id=request_id)
        if record is not None:
            store(table, record)
        outcome = _try(table, change)
        if delivery.allows(change, record):
            assert outcome == delivery.apply(change, record) == table.get("acme", request_id), name
        elif record is not None and delivery.already_done(change, record):
            assert outcome == record, name
        else:
            assert outcome == ("refused", record), name


def _try(table: DynamoMessagesTable, change: Change) -> object:
    try:
        return table.apply(change)
    except RefusedError as refusal:
        return "refused", refusal.current


@pytest.mark.parametrize("name", ["begin", "accept", "defer_attempt", "fail_rejected", "mark_unknown"])
def test_a_change_whose_reply_was_lost_succeeds_when_repeated(table: DynamoMessagesTable, name: str) -> None:
    """The SDK's retry, or a proof, finds its own write and returns success."""
    record = seen(RULES[name], Status.QUEUED if name == "begin" else Status.SENDING)
    store(table, record)
    change = CHANGES[name](record)
    first = table.apply(change)
    assert table.apply(change) == first


def test_only_one_of_two_workers_passes_the_fence(table: DynamoMessagesTable) -> None:
    """Each has its own token."""
    first, second = (changes.begin(REQUEST, NOON, owner=owner, deadline=NOON, sent_by=SentBy("ses", 1)) for owner in ("w1", "w2"))
    passed = table.apply(first)
    with pytest.raises(RefusedError) as refused:
        table.apply(second)
    assert passed.owner == "w1"
    assert refused.value.current == passed


def test_an_outage_is_a_dependency_error(table: DynamoMessagesTable) -> None:
    """Its text has the operation and no data."""
    broken = DynamoMessagesTable(table._client, "no-such-table")
    with pytest.raises(DependencyError, match=r"DynamoDB did not complete UpdateItem \(ResourceNotFoundException\)"):
        broken.apply(queued("r1"))
    with pytest.raises(DependencyError, match="GetItem"):
        broken.get("acme", "r1")
    with pytest.raises(DependencyError, match="Query"):
        broken.list("acme", status=None, limit=1, cursor=None)
    with pytest.raises(DependencyError, match="Query"):
        broken.due(0, NOON, 1)
    with pytest.raises(DependencyError, match="Query"):
        list(broken.waiting_for_provider("acme"))


# -- the item ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"{}", b'{"Attributes": null}', b'{"Attributes": {"tenantId": {"S": "acme"}}}', b"null", b'["?"]', b"", b'{"Attri']
)
def test_an_empty_success_of_a_write_is_a_dependency_error(table: DynamoMessagesTable, body: bytes) -> None:
    """So a fence with such a response proves that SES was not called, and gives no unknown."""
    begin = changes.begin(REQUEST, NOON, owner="w1", deadline=NOON, sent_by=SentBy("ses", 1))
    with answering(table._client, "UpdateItem", body), pytest.raises(DependencyError, match=r"UpdateItem|cannot be read"):
        table.apply(begin)


def test_an_empty_success_of_a_read_is_a_dependency_error(table: DynamoMessagesTable) -> None:
    """Nothing is treated as missing."""
    store(table, a_delivery("r1"), createdKey={"S": "2026-11-24T12:00:00.000+00:00#r1"})
    with answering(table._client, "BatchGetItem", b"{}"), pytest.raises(DependencyError, match="BatchGetItem"):
        table.list("acme", status=None, limit=5, cursor=None)


def test_every_field_of_a_record_is_read_back(table: DynamoMessagesTable) -> None:
    """Every field survives the table."""
    whole = Delivery(
        tenant_id="acme",
        request_id="r1",
        status=Status.UNKNOWN,
        content_hash="sha256-v1:aa",
        created_at=NOON,
        updated_at=NOON + MS,
        expires_at=NOON + timedelta(days=1),
        recipients=3,
        on_unknown="resend",
        attempt=2,
        owner="w",
        deadline=NOON,
        generation=5,
        redeliveries=2,
        due_at=NOON,
        waits_for=WaitsFor.PROVIDER,
        parked="parked/acme/r1/1.json",
        maybe_sent=True,
        provider="smtp",
        provider_version=7,
        account="111122223333",
        region="eu-west-1",
        earlier_attempts=(EarlierAttempt(0, None, None), EarlierAttempt(1, "444455556666", "us-east-1")),
        suppressed=1,
        message_id="m",
        accepted_attempt=2,
        confirmed_by="059f36b4-87a3-44ab-83d2-661980000001",
        sent_at=NOON,
        feedback=FeedbackCounts(
            delivered=1, delayed=2, bounced=3, soft_bounced=4, complained=5, rejected=6, first_at=NOON, last_at=NOON + MS, rank=70
        ),
        error=ErrorInfo("outcome_unknown", "lost", "look"),
        correlation_id="c",
        resolution=Resolution("sent", "ops", "seen in the events", NOON, "arn:aws:iam::123456789012:user/jo"),
        cancelled_by="arn:aws:iam::123456789012:user/jo",
        sweep_at=NOON,
    )
    assert all(getattr(whole, name) not in (None, False) for name in FIELDS)
    assert set(FIELDS) == set(Delivery.__dataclass_fields__)
    store(table, whole)
    assert table.get("acme", "r1") == whole


def test_an_unknown_id_is_none(table: DynamoMessagesTable) -> None:
    """It is not an error."""
    assert table.get("acme", "r1") is None


def each_rule(table: DynamoMessagesTable) -> Iterator[tuple[Rule, Change]]:
    """Bring the record into a state in which each rule applies, in turn; yield the rule and its change."""
    key = record_key("acme", "r1")
    for name, rule in RULES.items():
        source = next((s for s in sorted(rule.sources, key=str) if s is not None), None)
        table._client.delete_item(TableName=table._table, Key=key)
        if source is not None:
            store(table, seen(rule, source), ttl={"N": "1"}, sweepShard={"S": sweep_shard("acme", "r1")})
        yield rule, CHANGES[name](seen(rule, source or Status.QUEUED))


def test_a_record_that_waits_for_its_first_message_can_continue(table: DynamoMessagesTable) -> None:
    """Its generation 0 is written like any other.

    Without it no later write would be allowed, and messages would multiply forever.
    """
    first = replace(REQUEST, generation=0)
    begun = table.apply(changes.begin(first, NOON, owner="w", deadline=NOON, sent_by=SentBy("ses", 1)))
    deferral = Deferral(until=NOON, generation=0)
    table.apply(changes.defer_attempt(first, NOON, Fence(begun.attempt, "w"), deferral))
    assert item(table)["generation"] == {"N": "0"}
    waiting = table.get("acme", "r1")
    assert waiting
    assert table.apply(changes.reschedule(waiting, NOON)).status is Status.DEFERRED
    assert table.apply(changes.begin(first, NOON, owner="v", deadline=NOON, sent_by=SentBy("ses", 1))).attempt == 2


def test_only_ended_records_expire(table: DynamoMessagesTable) -> None:
    """Only ended records have a `ttl`, 35 days ahead, in seconds; a record that is reopened loses it."""
    for rule, change in each_rule(table):
        status = table.apply(change).status
        ttl = item(table).get("ttl")
        if rule.target is None:
            assert ttl == {"N": "1"}, rule.name  # it neither ends nor reopens
        else:
            ahead = {"N": str(int((NOON + RECORD_RETENTION).timestamp()))}
            assert ttl == (ahead if status in delivery.END_STATUSES else None), rule.name


def test_the_sweep_index_is_sparse(table: DynamoMessagesTable) -> None:
    """A record is in it, in its shard, exactly while the sweeper must check it."""
    for rule, change in each_rule(table):
        looked_at = table.apply(change).sweep_at is not None
        raw = item(table)
        assert ("sweepAt" in raw, raw.get("sweepShard")) == (looked_at, {"S": sweep_shard("acme", "r1")} if looked_at else None), rule.name


def test_the_status_index_follows_the_status(table: DynamoMessagesTable) -> None:
    """The list of a status has the record's current one."""
    table.apply(queued("r1"))
    assert {"statusShard": item(table)["statusShard"]} == status_attribute("acme", "r1", Status.QUEUED)
    table.apply(changes.begin(REQUEST, NOON, owner="w1", deadline=NOON, sent_by=SentBy("ses", 1)))
    assert {"statusShard": item(table)["statusShard"]} == status_attribute("acme", "r1", Status.SENDING)


def test_the_creation_time_stays_in_the_sort_key(table: DynamoMessagesTable) -> None:
    """Later changes do not affect the list's order."""
    table.apply(queued("r1", timedelta(hours=1)))
    first = item(table)["createdKey"]
    table.apply(changes.defer(REQUEST, NOON, DEFERRAL))
    assert item(table)["createdKey"] == first == {"S": "2026-11-24T11:00:00.000+00:00#r1"}


def test_shards_spread_requests() -> None:
    """No partition of the sweep index gets more than its share."""
    counts = [0] * SWEEP_SHARDS
    for number in range(200 * SWEEP_SHARDS):
        counts[int(sweep_shard("acme", f"r{number}"))] += 1
    assert min(counts) > 120


# -- lists ---------------------------------------------------------------------------------------------------------------


def test_more_records_than_one_read_are_listed(table: DynamoMessagesTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchGetItem accepts 100 keys; here it is three."""
    monkeypatch.setattr(batch_get, "KEYS", 3)
    for number in range(8):
        table.apply(queued(f"r{number}", timedelta(minutes=number)))
    assert [d.request_id for d in table.list("acme", status=None, limit=9, cursor=None).deliveries] == [f"r{n}" for n in range(8)]


def test_unprocessed_keys_are_read_again(table: DynamoMessagesTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled BatchGetItem returns only some of its keys."""
    for number in range(3):
        table.apply(queued(f"r{number}", timedelta(minutes=number)))
    read = table._client.batch_get_item

    def one_at_a_time(*, RequestItems: Any) -> Any:  # noqa: N803 - boto3's name
        [(name, asked)] = RequestItems.items()
        first, *rest = asked["Keys"]
        answer = read(RequestItems={name: {**asked, "Keys": [first]}})
        return {**answer, "UnprocessedKeys": {name: {**asked, "Keys": rest}} if rest else {}}

    monkeypatch.setattr(table._client, "batch_get_item", one_at_a_time)
    assert [d.request_id for d in table.list("acme", status=None, limit=9, cursor=None).deliveries] == ["r0", "r1", "r2"]


def test_an_index_entry_without_a_record_is_left_out(table: DynamoMessagesTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes lag behind the table."""
    table.apply(queued("r1"))
    nothing = {"Responses": {table._table: []}, "UnprocessedKeys": {}}
    monkeypatch.setattr(table._client, "batch_get_item", lambda **_: nothing)
    assert table.list("acme", status=None, limit=9, cursor=None).deliveries == []


# -- reads of the sweeper ------------------------------------------------------------------------------------------------


def due_everywhere(table: DynamoMessagesTable, limit: int = 9) -> list[str]:
    return [d.request_id for shard in range(SWEEP_SHARDS) for d in table.due(shard, NOON, limit)]


def test_due_records_are_found_in_their_shard(table: DynamoMessagesTable) -> None:
    """Not before their time, and not without one."""
    for name, sweep_at in {"now": NOON, "past": NOON - MS, "later": NOON + MS}.items():
        table.apply(replace(queued(name), sets={"sweep_at": sweep_at}))
    table.apply(changes.fail_unsent(replace(REQUEST, request_id="ended"), NOON, ErrorInfo("expired", "too late")))
    assert sorted(due_everywhere(table)) == ["now", "past"]
    assert [d.request_id for d in table.due(int(sweep_shard("acme", "past")), NOON, 9) if d.request_id == "past"] == ["past"]


def test_due_records_are_returned_longest_overdue_first_up_to_the_limit(table: DynamoMessagesTable) -> None:
    """A run is bounded, and starts with the longest overdue."""
    shard = sweep_shard("acme", "r0")
    ids = [f"r{n}" for n in range(1000) if sweep_shard("acme", f"r{n}") == shard][:4]
    for age, request_id in enumerate(ids):
        table.apply(replace(queued(request_id), sets={"sweep_at": NOON - age * MS}))
    assert [d.request_id for d in table.due(int(shard), NOON, 3)] == ids[:0:-1]


def test_records_that_wait_for_their_provider_are_found_oldest_first(table: DynamoMessagesTable) -> None:
    """Of one tenant, deferred, and waiting for nothing else."""
    for number in range(3):
        request = replace(REQUEST, request_id=f"r{number}", created_at=NOON - timedelta(minutes=number))
        table.apply(changes.defer(request, NOON, DEFERRAL))
    table.apply(changes.defer(replace(REQUEST, request_id="timed"), NOON, replace(DEFERRAL, waits_for=WaitsFor.TIME)))
    table.apply(changes.defer(replace(REQUEST, request_id="theirs", tenant_id="other"), NOON, DEFERRAL))
    table.apply(changes.cancel(a_delivery("r1", Status.DEFERRED, content_hash="sha256-v1:aa", generation=4), NOON))
    assert [d.request_id for d in table.waiting_for_provider("acme")] == ["r2", "r0"]


def test_more_waiting_records_than_one_page_are_found(table: DynamoMessagesTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read as needed, 100 at a time; here it is three."""
    monkeypatch.setattr(messages_table, "_PAGE", 3)
    for number in range(7):
        table.apply(changes.defer(replace(REQUEST, request_id=f"r{number}"), NOON, DEFERRAL))
    assert [d.request_id for d in table.waiting_for_provider("acme")] == [f"r{n}" for n in range(7)]


def test_more_waiting_records_of_a_shard_than_one_page_are_found(table: DynamoMessagesTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard continues after its page, in order with the others."""
    monkeypatch.setattr(messages_table, "_PAGE", 2)
    crowded = [f"r{n}" for n in range(100) if tenant_shard("acme", f"r{n}") == "acme#3"][:5]
    for minutes, request_id in enumerate(["r0", *crowded, "r1"]):
        request = replace(REQUEST, request_id=request_id, created_at=NOON + timedelta(minutes=minutes))
        table.apply(changes.defer(request, NOON, DEFERRAL))
    assert [d.request_id for d in table.waiting_for_provider("acme")] == ["r0", *crowded, "r1"]


def test_a_refused_fence_returns_the_record(table: DynamoMessagesTable) -> None:
    """The caller decides by the current record, without a second read."""
    store(table, replace(seen(RULES["begin"], Status.SENT), message_id="m-1"))
    with pytest.raises(RefusedError) as refused:
        table.apply(changes.begin(REQUEST, NOON, owner="w", deadline=NOON, sent_by=SentBy("ses", 1)))
    assert refused.value.current is not None
    assert (refused.value.current.status, refused.value.current.message_id) == (Status.SENT, "m-1")


def test_a_change_of_a_missing_record_is_refused_with_none(table: DynamoMessagesTable) -> None:
    """Such as a result for an expired record."""
    with pytest.raises(RefusedError) as refused:
        table.apply(changes.accept(REQUEST, NOON, Fence(1, "w"), "m-1"))
    assert refused.value.current is None
