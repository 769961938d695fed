"""Attribute values are written in DynamoDB's format and read back unchanged."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from boto3.dynamodb.types import TypeSerializer

from mailer.adapters.aws import UNREADABLE
from mailer.adapters.dynamodb import codec
from mailer.domain.delivery import Status
from mailer.domain.errors import ErrorInfo

MOMENT = datetime(2026, 11, 24, 8, 0, 0, 123_456, UTC)

VALUES: dict[str, Any] = {
    "text": "ü",
    "no text": "",
    "flags": [True, False],
    "numbers": [0, -1, 2**53],
    "bytes": b"\x00\xff",
    "set": frozenset({"b", "a"}),
    "map": {"in it": {"more": ["x", 1]}},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_are_written_as_the_sdk_writes_them(value: Any) -> None:
    """The result equals that of boto3's serializer, except for the order of a set."""
    boto3_value = TypeSerializer().serialize(set(value) if isinstance(value, frozenset) else value)
    assert codec.encode(value) == ({"SS": sorted(boto3_value["SS"])} if "SS" in boto3_value else boto3_value)


def test_an_enum_is_written_as_its_value() -> None:
    """An UpdateItem is sent as JSON of exactly this value."""
    written = codec.encode(Status.SENT)
    assert written == {"S": "sent"}
    assert type(written["S"]) is str


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("ü", codec.text),
        (frozenset({"a", "b"}), codec.texts),
        (7, codec.integer),
        (0.1, codec.number),
        (True, codec.flag),
        (b"x", codec.octets),
    ],
)
def test_written_values_are_read_back(value: Any, read: Callable[[Any], Any]) -> None:
    """Each type of the tables is tested."""
    assert read(codec.encode(value)) == value


def test_a_time_to_which_nothing_can_be_added_is_unreadable() -> None:
    """Only a caller may choose such a time."""
    last = codec.encode(datetime.max.replace(tzinfo=UTC))
    with pytest.raises(UNREADABLE):
        codec.moment(last)
    assert codec.any_moment(last).year == 9999
    assert codec.moment(codec.encode(datetime(2999, 12, 31, tzinfo=UTC))).year == 2999


def test_times_are_kept_to_the_millisecond() -> None:
    """They are truncated, not rounded: a time never moves into the future."""
    assert codec.encode(MOMENT) == {"N": "1795507200123"}
    assert codec.moment(codec.encode(MOMENT)) == MOMENT.replace(microsecond=123_000)


def test_unset_values_are_left_out() -> None:
    """DynamoDB accepts no empty set, and a sparse index no null; false, zero and empty text are values."""
    fields = {"none": None, "no set": frozenset(), "false": False, "zero": 0, "text": "", "list": ()}
    assert codec.encode_all(fields) == {"false": {"BOOL": False}, "zero": {"N": "0"}, "text": {"S": ""}, "list": {"L": []}}


@pytest.mark.parametrize("error", [ErrorInfo("throttled", "slow down", "wait"), ErrorInfo("throttled", "")])
def test_an_error_is_stored_with_its_remediation(error: ErrorInfo) -> None:
    """An error may also have none."""
    assert codec.error(codec.encode(codec.error_fields(error))) == error


@pytest.mark.parametrize(
    "read", [codec.text, codec.texts, codec.integer, codec.number, codec.flag, codec.moment, codec.octets, codec.error]
)
def test_another_type_is_unreadable(read: Callable[[Any], Any]) -> None:
    """Readers mark the record or row as damaged."""
    with pytest.raises(UNREADABLE):
        read({"NULL": True})
