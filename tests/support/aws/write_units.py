"""The write units of a write in DynamoDB, by partition of the table and its indexes.

DynamoDB developer guide: "Read and write operations", "Item sizes and formats", "Global secondary indexes".
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

Item = Mapping[str, Mapping[str, Any]]


def size(item: Item) -> int:
    """Return the size of an item in bytes."""
    return sum(len(name.encode()) + _size_of(value) for name, value in item.items())


def _size_of(value: Mapping[str, Any]) -> int:
    [(kind, content)] = value.items()
    return SIZES[kind](content)


SIZES: Mapping[str, Callable[[Any], int]] = {
    "S": lambda text: len(text.encode()),
    "N": lambda digits: ceil(len(digits) / 2) + 1,
    "B": len,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "M": lambda inner: 3 + len(inner) + size(inner),
    "L": lambda inner: 3 + len(inner) + sum(map(_size_of, inner)),
    "SS": lambda texts: sum(len(text.encode()) for text in texts),
}
"""Size of a value in bytes, by its type."""


@dataclass(frozen=True, slots=True)
class PartitionWrite:
    """The part of a write in one partition."""

    index: str
    """Empty: the table itself."""
    partition: str
    """The value of its partition key."""
    units: int


def partition_writes(table: Mapping[str, Any], before: Item, after: Item) -> Iterator[PartitionWrite]:
    """Yield the writes to the table, and to each index whose entry is added, removed, moved or changed."""
    yield PartitionWrite("", _partition(table, before or after), ceil(max(size(before), size(after), 1) / 1024))
    for index in table.get("GlobalSecondaryIndexes", []):
        old, new = (_entry(table, index, item) for item in (before, after))
        if _keys(index, old) == _keys(index, new):
            changed = [max(old, new, key=size)] if old != new else []
        else:
            changed = [entry for entry in (old, new) if entry]
        for entry in changed:
            yield PartitionWrite(index["IndexName"], _partition(index, entry), ceil(size(entry) / 1024))


def _partition(of: Mapping[str, Any], item: Item) -> str:
    [name] = [key["AttributeName"] for key in of["KeySchema"] if key["KeyType"] == "HASH"]
    return str(item[name]["S"])


def _entry(table: Mapping[str, Any], index: Mapping[str, Any], item: Item) -> Item:
    own = [key["AttributeName"] for key in index["KeySchema"]]
    if not all(name in item for name in own):
        return {}  # the index is sparse
    base = [key["AttributeName"] for key in table["KeySchema"]]
    more = index["Projection"].get("NonKeyAttributes", [])
    return {name: item[name] for name in {*own, *base, *more} if name in item}


def _keys(index: Mapping[str, Any], entry: Item) -> list[Any]:
    return [entry.get(key["AttributeName"]) for key in index["KeySchema"]]
