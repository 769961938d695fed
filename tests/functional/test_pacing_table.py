"""The pacing table on DynamoDB keeps the contract of `mailer.ports.PacingTable`, for any number of concurrent functions."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from botocore.config import Config

from mailer.adapters.dynamodb.pacing_table import KEPT, DynamoPacingTable
from mailer.domain.errors import DependencyError, UnreadableError
from mailer.domain.pacing import AccountRate, Booking, RateSource, RetryAt, Slot
from mailer.ports import PacingTable, RateConflictError
from mailer.services.pacing.pacing import Pacing
from support.fakes.pacing import FakePacingTable

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TIME = NOON.timestamp()
ACCOUNT = "123456789012/eu-central-1"
KNOWN = RateSource(configured=14.0)


@pytest.fixture(params=["dynamodb", "fake"])
def table(request: pytest.FixtureRequest, aws: Mapping[str, str]) -> PacingTable:
    """Return the table or its fake: the unit tests rely on the same behaviour."""
    return FakePacingTable() if request.param == "fake" else dynamodb(aws)


def dynamodb(aws: Mapping[str, str]) -> DynamoPacingTable:
    return DynamoPacingTable(boto3.client("dynamodb"), aws["PACING_TABLE"])


def account_rate(**fields: Any) -> AccountRate:
    return replace(AccountRate.initial(KNOWN, TIME), revision=1, **fields)


def booking(**fields: Any) -> Booking:
    return Booking(**{"end": "booked", "revision": 1, "is_idle": True, "start": 10.0, "weight": 3.0, "count": 3, **fields})


def refused(table: PacingTable, wanted: Booking) -> AccountRate | None:
    with pytest.raises(RateConflictError) as moved:
        table.book(ACCOUNT, wanted, NOON)
    return moved.value.current


def test_an_account_rate_is_read_as_it_was_stored(table: PacingTable) -> None:
    """With every field set and unset."""
    assert table.get(ACCOUNT) is None
    for account, stored in (
        (ACCOUNT, account_rate()),
        (
            "tenant/acme/eu-central-1",
            account_rate(cap=None, cap_at=0.0, throttled_at=TIME - 0.125, is_spent=True, waited=3.5, booked=7.25, promised=9.0),
        ),
    ):
        assert table.start(account, stored, NOON) == stored
        assert table.get(account) == stored


@pytest.mark.parametrize("rate", ["0", "-1"])
def test_a_rate_that_lets_nothing_out_is_unreadable(aws: Mapping[str, str], rate: str) -> None:
    """No version writes one; the clock of such an account would never show a slot."""
    table = dynamodb(aws)
    table.start(ACCOUNT, account_rate(), NOON)
    boto3.client("dynamodb").update_item(
        TableName=aws["PACING_TABLE"],
        Key={"account": {"S": ACCOUNT}},
        UpdateExpression="SET rate = :rate",
        ExpressionAttributeValues={":rate": {"N": rate}},
    )
    with pytest.raises(UnreadableError):
        table.get(ACCOUNT)


def test_only_one_function_creates_an_account_rate(table: PacingTable) -> None:
    """The other gets the current one."""
    table.start(ACCOUNT, account_rate(booked=1.0), NOON)
    with pytest.raises(RateConflictError) as moved:
        table.start(ACCOUNT, account_rate(booked=2.0), NOON)
    assert moved.value.current == account_rate(booked=1.0)


def test_an_idle_rate_is_booked_from_now_on(table: PacingTable) -> None:
    """Unused capacity is not saved up."""
    table.start(ACCOUNT, account_rate(booked=10.0), NOON)
    assert table.book(ACCOUNT, booking(behind=2.0), NOON) == account_rate(booked=13.0, waited=2.0)
    assert refused(table, booking(start=12.9)) == account_rate(booked=13.0, waited=2.0)


def test_a_busy_rate_is_booked_from_its_end_on(table: PacingTable) -> None:
    """As long as the whole booking is within the horizon."""
    table.start(ACCOUNT, account_rate(booked=11.0), NOON)
    assert table.book(ACCOUNT, booking(is_idle=False, latest=11.0), NOON).booked == 14.0
    assert refused(table, booking(is_idle=False, latest=13.9)) == account_rate(booked=14.0)
    assert refused(table, booking(is_idle=False, start=14.0)) == account_rate(booked=14.0)


def test_a_promise_moves_its_own_end(table: PacingTable) -> None:
    """On an idle and on a busy rate."""
    table.start(ACCOUNT, account_rate(booked=11.0), NOON)
    assert table.book(ACCOUNT, booking(end="promised", start=100.0), NOON) == account_rate(booked=11.0, promised=103.0)
    assert table.book(ACCOUNT, booking(end="promised", start=100.0, is_idle=False), NOON) == account_rate(booked=11.0, promised=106.0)


def test_a_full_rate_promises_slots_after_its_horizon(table: PacingTable) -> None:
    """Messages without a slot get a time to come back, batch after batch, whether or not others already wait."""
    pacing, batch = Pacing(table, functions=1), [50] * 100
    answers = [answer for _ in range(5) for answer in pacing.reserve(ACCOUNT, KNOWN, batch, [None] * len(batch), NOON)]
    parked = [answer.at for answer in answers if isinstance(answer, RetryAt) and answer.slot is None]
    assert len(parked) == 500 - 245  # 13.58 recipients a second for 900 s are 244 slots of 50, and the first
    assert parked == sorted(parked)
    assert max(parked) > NOON + timedelta(seconds=500 * 50 / 14 - 130)


@pytest.mark.parametrize("wanted", [booking(), booking(start=5.0, latest=1e9, is_idle=False)], ids=["idle", "busy"])
def test_nothing_is_booked_on_an_outdated_rate(table: PacingTable, wanted: Booking) -> None:
    """The rate has changed since the booking was planned."""
    table.start(ACCOUNT, account_rate(booked=0.0 if wanted.is_idle else 8.0), NOON)
    slower = account_rate(booked=0.0 if wanted.is_idle else 8.0).throttled(TIME)
    assert slower is not None
    table.repace(ACCOUNT, slower, NOON)
    assert refused(table, wanted) == slower


def test_nothing_is_booked_without_an_account_rate(table: PacingTable) -> None:
    """It may have been deleted."""
    assert refused(table, booking()) is None


def test_a_rate_change_keeps_concurrent_bookings(table: PacingTable) -> None:
    """It was planned on an item that may have changed since."""
    table.start(ACCOUNT, account_rate(throttled_at=TIME, waited=4.0), NOON)
    table.book(ACCOUNT, booking(), NOON)
    stored = table.repace(ACCOUNT, replace(account_rate(), revision=2, rate=5.0, cap=None), NOON)
    assert stored == replace(account_rate(), revision=2, rate=5.0, cap=None, booked=13.0)
    assert table.get(ACCOUNT) == stored


def test_only_one_function_changes_the_rate(table: PacingTable) -> None:
    """A throttle met by many functions slows down once."""
    table.start(ACCOUNT, account_rate(), NOON)
    first, second = replace(account_rate(), revision=2, rate=5.0), replace(account_rate(), revision=2, rate=6.0)
    table.repace(ACCOUNT, first, NOON)
    with pytest.raises(RateConflictError) as moved:
        table.repace(ACCOUNT, second, NOON)
    assert moved.value.current == first


def test_every_write_extends_the_time_to_live(aws: Mapping[str, str]) -> None:
    """A rate is kept for a week after its last use."""
    table = dynamodb(aws)
    writes = [
        lambda now: table.start(ACCOUNT, account_rate(), now),
        lambda now: table.book(ACCOUNT, booking(), now),
        lambda now: table.repace(ACCOUNT, replace(account_rate(), revision=2), now),
    ]
    for number, write in enumerate(writes):
        now = NOON + timedelta(hours=number)
        write(now)
        item = boto3.client("dynamodb").get_item(TableName=aws["PACING_TABLE"], Key={"account": {"S": ACCOUNT}})["Item"]
        assert item["ttl"] == {"N": str(int((now + KEPT).timestamp()))}


def serialized(table: DynamoPacingTable) -> DynamoPacingTable:
    """Serialize the calls, as DynamoDB does per item; moto's tables do not."""
    lock = Lock()

    def whole(call: Callable[..., Any]) -> Callable[..., Any]:
        def locked(**arguments: Any) -> Any:
            with lock:
                return call(**arguments)

        return locked

    for name in ("get_item", "put_item", "update_item"):
        setattr(table._client, name, whole(getattr(table._client, name)))
    return table


def test_concurrent_functions_get_different_slots(aws: Mapping[str, str]) -> None:
    """Sixteen of them reserve repeatedly for one account; no slot is given twice, and none is skipped."""
    table = serialized(dynamodb(aws))
    functions = [Pacing(table, functions=100) for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: functions[n % 16].reserve(ACCOUNT, KNOWN, [1] * 5, [None] * 5, NOON), range(64)))
    every = [answer for some in answers for answer in some]
    stored = table.get(ACCOUNT)
    assert stored is not None
    assert stored.booked == 320
    slots = [a.slot if isinstance(a, RetryAt) else round((a.at - NOON).total_seconds() * stored.rate) for a in every]
    assert sorted(slots) == list(range(320))


def test_a_lost_reply_wastes_slots_and_gives_none_twice(aws: Mapping[str, str]) -> None:
    """The SDK repeats the write: the account sends a little less for a moment."""
    table = dynamodb(aws)
    table.start(ACCOUNT, account_rate(booked=100.0), NOON)
    update = table._client.update_item

    def twice(**call: Any) -> Any:
        update(**call)
        return update(**call)

    with patch.object(table._client, "update_item", twice):
        answers = Pacing(table, functions=1).reserve(ACCOUNT, KNOWN, [1] * 30, [None] * 30, NOON)
    assert [a.slot for a in answers if isinstance(a, RetryAt)] == list(range(130, 160))
    stored = table.get(ACCOUNT)
    assert stored is not None
    assert stored.booked == 160


def test_a_booking_on_an_idle_rate_is_repeated_after_itself_if_its_reply_was_lost(aws: Mapping[str, str]) -> None:
    """The retry finds the rate busy; its messages wait until the end of the first booking."""
    table = dynamodb(aws)
    table.start(ACCOUNT, account_rate(), NOON)
    update, lost = table._client.update_item, [1]

    def once_lost(**call: Any) -> Any:
        answer = update(**call)
        return update(**call) if lost and lost.pop() else answer

    with patch.object(table._client, "update_item", once_lost):
        [answer] = Pacing(table, functions=100).reserve(ACCOUNT, KNOWN, [1], [None], NOON)
    assert isinstance(answer, Slot)
    assert answer.at - NOON == pytest.approx(timedelta(seconds=1 / account_rate().rate), abs=timedelta(milliseconds=1))


def test_an_unavailable_table_is_a_dependency_error() -> None:
    """For each call."""
    once = Config(retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client = boto3.client("dynamodb", region_name="eu-central-1", endpoint_url="http://127.0.0.1:1", config=once, **keys)
    table = DynamoPacingTable(client, "none")
    for call in (
        lambda: table.get(ACCOUNT),
        lambda: table.start(ACCOUNT, account_rate(), NOON),
        lambda: table.book(ACCOUNT, booking(), NOON),
        lambda: table.repace(ACCOUNT, account_rate(), NOON),
    ):
        with pytest.raises(DependencyError):
            call()
