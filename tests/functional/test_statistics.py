"""StatisticsFunction over the messages table's stream, its table, and its API route, in moto: each write is counted once."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from mailer import wiring
from mailer.adapters.dynamodb import messages_table
from mailer.adapters.dynamodb.codec import encode_all
from mailer.adapters.dynamodb.messages_table import record_key
from mailer.domain.delivery import Delivery, Status
from mailer.domain.errors import DependencyError
from mailer.domain.facts import FeedbackCounts
from mailer.domain.provider import Provider, ProviderStatus, Resumption
from mailer.domain.statistics import RETENTION, Bucket, Counts, account_series
from mailer.handlers import messages, statistics
from mailer.ports import Counted
from support.aws.api_calls import Answer, Context, call, event
from support.aws.streams import stream_record
from support.fakes.ports import NOON, FakeClock, a_config, a_delivery, a_provider

HOUR = timedelta(hours=1)
Records = Sequence[dict[str, Any]]


@pytest.fixture(autouse=True)
def clock(aws: Mapping[str, str]) -> Iterator[FakeClock]:  # noqa: ARG001 - with the environment of the stack
    """Set the clock to a quarter past twelve."""
    fake = FakeClock(NOON + timedelta(minutes=15))
    with patch.object(wiring, "clock", lambda: fake):
        yield fake


def item(record: Delivery | None) -> dict[str, Any] | None:
    if record is None:
        return None
    fields = {
        attribute: write(getattr(record, name)) for name, (attribute, write, _) in messages_table.FIELDS.items() if _given(record, name)
    }
    return fields | encode_all({})


def _given(record: Delivery, name: str) -> bool:
    return getattr(record, name) not in (None, ())


def written(number: int, new: Delivery, old: Delivery | None = None) -> dict[str, Any]:
    """Return the stream record of the shard's `number`th write; the sequence numbers have unequal lengths."""
    record = stream_record(item(new) or {}, item(old))
    return {**record, "dynamodb": {**record["dynamodb"], "SequenceNumber": str(95 + number)}}


def sent(number: int, tenant_id: str = "acme", *, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    record = a_delivery(f"r{number}", Status.SENT, tenant_id=tenant_id, sent_at=at, updated_at=at, **fields)
    return written(number, record, a_delivery(f"r{number}", Status.SENDING, tenant_id=tenant_id))


def deliver(records: Records, shard: str = "shard-1") -> Mapping[str, Any]:
    return statistics.handler({"Records": records, "shardId": shard}, Context())


def counts(series: str = "acme", hour: datetime = NOON) -> Counts:
    return wiring.statistics_table().read(series, hour, hour + HOUR).get(hour, Counts())


# -- once, however often a batch is delivered ----------------------------------------------------------------------------


def test_a_batch_is_counted_and_returns_a_window_state() -> None:
    """Lambda treats a response without a state as a failure."""
    assert deliver([sent(number) for number in range(10)]) == {"state": {}}
    assert counts() == Counts(sent=10)


def test_the_end_of_a_window_without_records_counts_nothing() -> None:
    """Lambda signals the end with an empty batch."""
    assert statistics.handler({"Records": [], "shardId": "shard-1", "isFinalInvokeForWindow": True}, Context()) == {"state": {}}


def test_a_redelivered_batch_counts_nothing() -> None:
    """As after a crash that followed its last write."""
    batch = [sent(number) for number in range(10)]
    for _ in range(3):
        deliver(batch)
    assert counts() == Counts(sent=10)


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_batch_with_other_bounds_is_counted_once(cut: int) -> None:
    """Bisected after an error, or read from an earlier position: what was counted before is skipped, the rest is counted."""
    stream = [sent(number) for number in range(12)]
    deliver(stream[:6])
    deliver(stream[:cut])
    deliver(stream[cut:])
    assert counts() == Counts(sent=12)


def test_shards_are_counted_separately() -> None:
    """Sequence numbers of different shards cannot be compared; a shard's successor starts from its own numbers."""
    deliver([sent(number) for number in (50, 60)], "shard-1")
    deliver([sent(number) for number in (10, 20)], "shard-2")
    deliver([sent(number) for number in (10, 20)], "shard-2")
    deliver([sent(number) for number in (50, 60)], "shard-1")
    assert counts() == Counts(sent=4)


@pytest.mark.parametrize("crash_after", range(4))
def test_a_crash_between_two_buckets_counts_nothing_twice_or_never(crash_after: int) -> None:
    """Some tenants of the batch are counted, others not: after the redelivery each has its own count, once."""
    batch = [sent(0, "ann"), sent(1, "bob"), sent(2, "ann", at=NOON - HOUR), sent(3, "bob", at=NOON - HOUR)]
    table, left = wiring.statistics_table(), [crash_after]
    write = table._add

    def crashing(*arguments: Any) -> Any:
        if left[0] == 0:
            raise SystemExit
        left[0] -= 1
        return write(*arguments)

    with patch.object(table, "_add", crashing), pytest.raises(SystemExit):
        deliver(batch)
    deliver(batch)
    for tenant in ("ann", "bob"):
        assert (counts(tenant), counts(tenant, NOON - HOUR)) == (Counts(sent=1), Counts(sent=1))


def client_with(effect: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Wrap UpdateItem of the statistics table's client."""
    client = wiring.statistics_table()._client
    return patch.object(client, "update_item", effect(client.update_item))


def test_a_lost_reply_adds_nothing_twice() -> None:
    """The write happened and its response was lost: the batch fails, and its redelivery finds it counted."""

    def losing(update: Callable[..., Any]) -> Callable[..., Any]:
        def lose(**arguments: Any) -> Any:
            update(**arguments)
            raise ReadTimeoutError(endpoint_url="dynamodb")

        return lose

    batch = [sent(0), sent(1)]
    with client_with(losing), pytest.raises(DependencyError):
        deliver(batch)
    deliver(batch)
    assert counts() == Counts(sent=2)


def test_an_outage_fails_the_batch() -> None:
    """Lambda redelivers it, and nothing is skipped."""

    def failing(_: Callable[..., Any]) -> Callable[..., Any]:
        def fail(**_: Any) -> Any:
            raise ClientError({"Error": {"Code": "InternalServerError"}}, "UpdateItem")

        return fail

    with client_with(failing), pytest.raises(DependencyError):
        deliver([sent(0)])
    deliver([sent(0)])
    assert counts() == Counts(sent=1)


def test_an_earlier_invocation_that_still_runs_adds_nothing_twice() -> None:
    """It timed out for Lambda, not for DynamoDB: its write comes between ours, and each skips what the other added."""
    table, stream = wiring.statistics_table(), [Counted(str(number), Counts(sent=1)) for number in range(10, 30)]
    update = table._client.update_item
    bucket = Bucket("acme", NOON)

    def overtaken(**arguments: Any) -> Any:
        with patch.object(table._client, "update_item", update):
            table.add(bucket, "shard-1", stream[:8])
        return update(**arguments)

    with patch.object(table._client, "update_item", overtaken):
        table.add(bucket, "shard-1", stream[:15])
    table.add(bucket, "shard-1", stream[:20])
    assert counts() == Counts(sent=20)


def test_a_bucket_that_keeps_changing_fails_the_batch() -> None:
    """After a bounded number of tries; no write is skipped."""
    table = wiring.statistics_table()
    with patch.object(table, "_add", return_value="0" * 40), pytest.raises(DependencyError):
        table.add(Bucket("acme", NOON), "shard-1", [Counted("1", Counts(sent=1))])


def test_any_cuts_repeats_and_crashes_count_each_write_once() -> None:
    """Thirty runs: the stream is delivered from every position at which a reader may restart, in batches of any length."""
    chance = random.Random(7)  # noqa: S311  # no secret
    for run in range(30):
        series, length = f"tenant-{run}", chance.randint(1, 12)
        stream = [Counted(str(95 + number), Counts(sent=1, bounced=number % 2)) for number in range(length)]
        checkpoint = 0
        while checkpoint < length:
            start, end = chance.randint(0, checkpoint), chance.randint(checkpoint + 1, length)
            wiring.statistics_table().add(Bucket(series, NOON), "shard-1", stream[start:end])
            checkpoint = end if chance.random() < 0.6 else checkpoint
        assert counts(series) == Counts(sent=length, bounced=length // 2), run


def test_an_unreadable_write_does_not_stop_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported with its tenant, and the writes after it are counted."""
    foreign = stream_record({**record_key("globex", "r1"), "tenantId": {"S": "globex"}, "status": {"S": "lost"}})
    foreign["dynamodb"]["SequenceNumber"] = "96"
    deliver([foreign, sent(2)])
    assert counts() == Counts(sent=1)
    assert [(line.step, line.tenant_id) for line in caplog.records if line.levelname == "ERROR"] == [("count", "globex")]  # type: ignore[attr-defined]


# -- the counts ----------------------------------------------------------------------------------------------------------


def test_feedback_is_counted_in_the_hour_of_its_mail() -> None:
    """By a later write of the same record, without counting the mail again."""
    accepted = a_delivery("r1", Status.SENT, sent_at=NOON, recipients=2)
    feedback = FeedbackCounts(delivered=1, bounced=1, first_at=NOON, last_at=NOON + HOUR, rank=2)
    deliver([written(1, accepted), written(2, a_delivery("r1", Status.SENT, sent_at=NOON, recipients=2, feedback=feedback), accepted)])
    assert counts() == Counts(sent=2, delivered=1, bounced=1)


def test_a_batch_is_one_write_per_hour_and_tenant() -> None:
    """Also for a thousand records."""
    with patch.object(wiring.statistics_table(), "_add", wraps=wiring.statistics_table()._add) as write:
        deliver([sent(number, at=NOON + timedelta(minutes=number % 60)) for number in range(1000)])
    assert write.call_count == 1
    assert counts() == Counts(sent=1000)


def test_counts_are_kept_for_ninety_days(aws: Mapping[str, str]) -> None:
    """Long enough to show the whole ninetieth day, and no longer."""
    deliver([sent(1)])
    [kept] = boto3.client("dynamodb").scan(TableName=aws["STATISTICS_TABLE"])["Items"]
    after = int(kept["ttl"]["N"]) - NOON.timestamp()
    assert RETENTION + timedelta(days=1) <= timedelta(seconds=after) <= RETENTION + timedelta(days=2)


# -- over the API --------------------------------------------------------------------------------------------------------


def ask(tenant: str = "acme", **query: str) -> Answer:
    asked = {
        **event("statistics"),
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
    }
    return call(messages.handler, asked, tenant=tenant)


def test_a_tenant_s_counts_are_shown_by_hour() -> None:
    """Without a range those of the last 24 hours, the current hour last."""
    deliver([sent(1), sent(2, at=NOON - HOUR), sent(3, "globex")])
    answer = ask().json
    starts = [bucket["from"] for bucket in answer["buckets"]]
    assert (len(starts), starts[0], starts[-1]) == (24, "2026-11-23T13:00:00.000Z", "2026-11-24T12:00:00.000Z")
    assert [bucket["sent"] for bucket in answer["buckets"]] == [0] * 22 + [1, 1]
    assert answer["account"] is None


def test_the_event_file_requests_days() -> None:
    """`make invoke FUNCTION=MessagesFunction EVENT=events/statistics.json`."""
    deliver([sent(1), sent(2, at=NOON - timedelta(hours=13))])
    answer = call(messages.handler, event("statistics")).json
    assert {bucket["from"]: bucket["sent"] for bucket in answer["buckets"]} == {
        "2026-11-22T00:00:00.000Z": 0,
        "2026-11-23T00:00:00.000Z": 1,
        "2026-11-24T00:00:00.000Z": 1,
    }


def test_the_counts_of_a_shared_account_are_shown_with_the_tenant_s() -> None:
    """They include all tenants that send from the account in that region, as SES judges them."""
    config = a_config(account="222222222222", region="eu-west-1")
    assert wiring.providers_table().replace(a_provider(active=config))
    from_there = {"account": "222222222222", "region": "eu-west-1"}
    deliver([sent(1, **from_there), sent(2, "globex", **from_there), sent(3, "globex", account="222222222222", region="eu-west-2")])
    answer = ask(by="day", **{"from": "2026-11-24T00:00:00Z"}).json
    assert [bucket["sent"] for bucket in answer["buckets"]] == [1]
    assert (answer["account"]["account"], answer["account"]["region"]) == ("222222222222", "eu-west-1")
    assert [bucket["sent"] for bucket in answer["account"]["buckets"]] == [2]
    assert counts(account_series("222222222222", "eu-west-2")) == Counts(sent=1)


def test_a_range_is_rounded_to_whole_hours() -> None:
    """From the hour of `from` to the one before `to`; a `to` in the future means now."""
    begins = [
        bucket["from"][11:13] for bucket in ask(**{"from": "2026-11-24T10:30:00+01:00", "to": "2026-11-24T11:00:00Z"}).json["buckets"]
    ]
    assert begins == ["09", "10"]
    assert len(ask(**{"from": "2026-11-24T11:59:59Z", "to": "2027-01-01T00:00:00Z"}).json["buckets"]) == 2


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
        ({"from": "2026-11-24"}, "from"),
        ({"from": "1795514400000"}, "from"),
        ({"to": "2026-11-24T10:00:00"}, "to"),
        ({"by": "week"}, "by"),
        ({"by": "Hour"}, "by"),
        ({"from": "2026-11-24T11:00:00Z", "to": "2026-11-24T11:00:00Z"}, "from"),
        ({"from": "2026-11-24T12:15:00Z"}, "from"),
        ({"from": "2027-01-01T00:00:00Z"}, "from"),
        ({"from": "2026-08-25T23:59:59Z"}, "from"),
        ({"to": "2026-08-01T00:00:00Z"}, "to"),
    ],
)
def test_an_invalid_range_is_refused(query: dict[str, str], path: str) -> None:
    """A time without an offset, an empty range, or one from before the retention."""
    refusal = ask(**query)
    assert refusal.status == 400
    assert [fault["path"] for fault in refusal.json["errors"]] == [path]


def test_ninety_days_are_shown() -> None:
    """Also by hours, the longest range."""
    assert len(ask(**{"from": "2026-08-26T00:00:00Z"}).json["buckets"]) == 90 * 24 + 13
    assert len(ask(by="day", **{"from": "2026-08-26T12:15:00Z"}).json["buckets"]) == 91


@pytest.mark.parametrize("status", [ProviderStatus.DELETED, None])
def test_counts_outlive_the_provider(status: ProviderStatus | None) -> None:
    """They are still shown; the account is not known then."""
    if status:
        assert wiring.providers_table().replace(a_provider(status=status, active=None))
    deliver([sent(1)])
    answer = ask().json
    assert (answer["buckets"][-1]["sent"], answer["account"]) == (1, None)


# -- the reputation guard ------------------------------------------------------------------------------------------------


def bounces(first: int, number: int) -> Records:
    """Return writes of mail that was sent earlier and has now bounced."""
    feedback = FeedbackCounts(bounced=1, first_at=NOON, last_at=NOON, rank=5)
    mails = [a_delivery(f"r{first + one}", Status.SENT, sent_at=NOON) for one in range(number)]
    return [written(first + one, replace(mail, feedback=feedback), mail) for one, mail in enumerate(mails)]


@pytest.fixture
def guarding() -> Iterator[None]:
    """Set the guard to pause."""
    with patch.object(wiring, "guard_dependencies", lambda: replace(GUARD(), mode="pause")):
        yield


GUARD = wiring.guard_dependencies


@pytest.mark.usefixtures("guarding")
def test_a_tenant_is_suspended_once_by_the_bounce_that_reaches_the_limit() -> None:
    """Twenty of two hundred in an hour; a redelivered batch does not suspend it again, even after a resumption."""
    assert wiring.providers_table().replace(a_provider())
    deliver([sent(number) for number in range(200)])
    deliver(bounces(200, 19))
    assert status() == ("active", None)
    batch = bounces(300, 1)
    deliver(batch)
    deliver(batch)
    assert status() == ("suspended", "reputation_at_risk")
    resumed = replace(provider(), status=ProviderStatus.ACTIVE, error=None, resumption=Resumption("sam", "fixed", NOON))
    assert wiring.providers_table().replace(resumed)
    deliver(batch)
    deliver(bounces(400, 100))
    assert status() == ("active", None)


def provider() -> Provider:
    row = wiring.providers_table().get("acme")
    assert row is not None
    return row


def status() -> tuple[str, str | None]:
    row = provider()
    return row.status, row.error.code if row.error else None


def test_the_guard_only_warns_by_default(caplog: pytest.LogCaptureFixture) -> None:
    """A log line with the numbers, and the mail still goes out."""
    assert wiring.providers_table().replace(a_provider())
    deliver([*(sent(number) for number in range(200)), *bounces(200, 20)])
    assert status() == ("active", None)
    [line] = [record for record in caplog.records if record.message == "reputation at risk"]
    assert "20 bounces of 200 recipients" in line.finding  # type: ignore[attr-defined]


@pytest.mark.usefixtures("guarding")
def test_a_crash_between_counting_and_judging_is_repaired_by_the_redelivery() -> None:
    """The redelivered batch counts nothing, and is judged."""
    assert wiring.providers_table().replace(a_provider())
    batch = [*(sent(number) for number in range(200)), *bounces(200, 20)]
    with patch.object(statistics, "guard", side_effect=SystemExit), pytest.raises(SystemExit):
        deliver(batch)
    assert status() == ("active", None)
    deliver(batch)
    assert counts() == Counts(sent=200, bounced=20)
    assert status() == ("suspended", "reputation_at_risk")


@pytest.mark.usefixtures("guarding")
def test_a_failed_judgement_does_not_fail_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    """The counted writes are not redelivered."""
    with patch.object(wiring.providers_table(), "get", side_effect=DependencyError("DynamoDB", "GetItem")):
        deliver([*(sent(number) for number in range(200)), *bounces(200, 20)])
    assert [line.step for line in caplog.records if line.levelname == "ERROR"] == ["guard"]  # type: ignore[attr-defined]
