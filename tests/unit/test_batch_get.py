"""Many items are read by key in calls within DynamoDB's limits; unprocessed keys are requested again, a limited number of times."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mailer.adapters.dynamodb import batch_get
from mailer.domain.errors import DependencyError

KEYS: Sequence[Any] = [{"id": {"S": f"k{number}"}} for number in range(250)]


class Table:
    """Returns the items of as many keys of each call as `takes` says."""

    def __init__(self, takes: Callable[[int], int]) -> None:
        self.takes = takes
        self.requested: list[int] = []

    def batch_get_item(self, *, RequestItems: Any) -> Any:  # noqa: N803  # boto3's name
        [(name, requested)] = RequestItems.items()
        assert requested["ConsistentRead"] is True
        keys = requested["Keys"]
        self.requested.append(len(keys))
        taken = self.takes(len(keys))
        unprocessed = {name: {**requested, "Keys": keys[taken:]}} if keys[taken:] else {}
        return {"Responses": {name: keys[:taken]}, "UnprocessedKeys": unprocessed}

    def read(self, keys: Sequence[Any] = KEYS) -> Sequence[Any]:
        client: Any = self
        return list(batch_get.batch_get(client, "t", keys))


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace waiting; return the waits, each at its maximum."""
    waits: list[float] = []
    monkeypatch.setattr(batch_get.time, "sleep", waits.append)
    monkeypatch.setattr(batch_get.random, "uniform", lambda _low, high: high)
    return waits


def test_keys_are_requested_in_calls_of_a_hundred(waits: list[float]) -> None:
    """A hundred is DynamoDB's limit; without unprocessed keys there is no wait."""
    table = Table(lambda requested: requested)
    assert table.read() == KEYS
    assert table.requested == [100, 100, 50]
    assert waits == []


def test_unprocessed_keys_are_requested_again_with_backoff(waits: list[float]) -> None:
    """A throttled table returns a part of the keys; the waits before the rest double."""
    table = Table(lambda requested: (requested + 1) // 2)
    assert table.read(KEYS[:8]) == KEYS[:8]
    assert table.requested == [8, 4, 2, 1]
    assert waits == [0.05, 0.1, 0.2]


@pytest.mark.parametrize("taken", [0, 1], ids=["nothing", "one at a time"])
def test_a_table_that_stays_throttled_raises_an_error(waits: list[float], taken: int) -> None:
    """Also if each call returns a little: a batch has no time for hundreds of calls."""
    table = Table(lambda _: taken)
    with pytest.raises(DependencyError, match="throttled"):
        table.read(KEYS[:100])
    assert len(table.requested) == batch_get.TRIES
    assert sum(waits) == pytest.approx(1.55)


def test_without_keys_no_call_is_made() -> None:
    """DynamoDB rejects a call without keys."""
    table = Table(lambda requested: requested)
    assert table.read([]) == []
    assert table.requested == []
