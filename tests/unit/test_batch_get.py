"""Many items are read by key in calls that DynamoDB takes; keys that it leaves unprocessed are asked for again, but not for ever."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mailer.adapters.dynamodb import batch_get
from mailer.domain.errors import DependencyError

KEYS: Sequence[Any] = [{"id": {"S": f"k{number}"}} for number in range(250)]


class Table:
    """Answers each call as `takes` says: with the items of so many of its keys."""

    def __init__(self, takes: Callable[[int], int]) -> None:
        self.takes = takes
        self.asked: list[int] = []

    def batch_get_item(self, *, RequestItems: Any) -> Any:  # noqa: N803  # boto3's name
        [(name, asked)] = RequestItems.items()
        assert asked["ConsistentRead"] is True
        keys = asked["Keys"]
        self.asked.append(len(keys))
        taken = self.takes(len(keys))
        left = {name: {**asked, "Keys": keys[taken:]}} if keys[taken:] else {}
        return {"Responses": {name: keys[:taken]}, "UnprocessedKeys": left}

    def read(self, keys: Sequence[Any] = KEYS) -> Sequence[Any]:
        client: Any = self
        return list(batch_get.batch_get(client, "t", keys))


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take every wait at its longest, and do not wait; the waits that were asked for."""
    waits: list[float] = []
    monkeypatch.setattr(batch_get.time, "sleep", waits.append)
    monkeypatch.setattr(batch_get.random, "uniform", lambda _low, high: high)
    return waits


def test_keys_go_in_calls_of_a_hundred(bounds: list[float]) -> None:
    """DynamoDB takes no more; nothing is waited for where nothing is left."""
    table = Table(lambda asked: asked)
    assert table.read() == KEYS
    assert table.asked == [100, 100, 50]
    assert bounds == []


def test_what_is_left_is_asked_for_again_later_and_later(bounds: list[float]) -> None:
    """A throttled table answers a part of what it was asked; the rest comes after waits that double."""
    table = Table(lambda asked: (asked + 1) // 2)
    assert table.read(KEYS[:8]) == KEYS[:8]
    assert table.asked == [8, 4, 2, 1]
    assert bounds == [0.05, 0.1, 0.2]


@pytest.mark.parametrize("taken", [0, 1], ids=["nothing", "one at a time"])
def test_a_table_that_is_throttled_for_long_is_given_up(bounds: list[float], taken: int) -> None:
    """Also where each call gets on a little: a batch has no time for hundreds of calls."""
    table = Table(lambda _: taken)
    with pytest.raises(DependencyError, match="throttled"):
        table.read(KEYS[:100])
    assert len(table.asked) == batch_get.TRIES
    assert sum(bounds) == pytest.approx(1.55)


def test_nothing_is_asked_for_no_keys() -> None:
    """DynamoDB refuses a call without any."""
    table = Table(lambda asked: asked)
    assert table.read([]) == []
    assert table.asked == []
