"""The costs in docs/deploy.md and docs/scale.md are those of the functions."""

import os
import subprocess
import sys

from support.aws import tables
from tools.docs import costs


def test_the_cost_tables_are_up_to_date() -> None:
    """Counted again; if this fails, `PYTHONPATH=src:tests python -m tools.docs.costs` writes them."""
    # In a process of its own, because the functions' log output is counted too.
    path = os.pathsep.join(str(tables.ROOT / folder) for folder in ("src", "tests"))
    command = [sys.executable, tables.ROOT / "tests/tools/docs/costs.py", "--print"]
    made = subprocess.run(command, env={"PATH": os.environ["PATH"], "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert "".join(page.read_text(encoding="utf-8") for page in costs.PAGES).splitlines() == made.stdout.splitlines()


TABLE = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "byDue",
            "KeySchema": [{"AttributeName": "due", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["note"]},
        }
    ],
}
"""A table with one sparse index."""


def item(**attributes: str) -> costs.Item:
    return {"id": {"S": "1"}, **{name: {"S": text} for name, text in attributes.items()}}


def test_writes_are_counted_as_dynamodb_bills_them() -> None:
    """The table by kilobyte; an index if an entry is added, changed or removed, and twice if it moves."""
    units = costs.write_units
    assert units(TABLE, {}, item()) == 1
    assert units(TABLE, {}, item(text="x" * 1024)) == 2
    assert units(TABLE, item(text="x" * 2048), item()) == 3  # the larger of the two counts
    assert units(TABLE, {}, item(due="1")) == 2
    assert units(TABLE, item(due="1"), item()) == 2
    assert units(TABLE, item(due="1"), item(due="2")) == 3
    assert units(TABLE, item(due="1"), item(due="1", note="n")) == 2
    assert units(TABLE, item(due="1"), item(due="1", other="o")) == 1


def test_reads_are_counted_as_dynamodb_bills_them() -> None:
    """By four kilobytes, at least one; half for an index, which is read eventually consistently."""
    large = item(text="x" * 4096)
    assert costs.read_units("GetItem", {"Item": large}) == 2
    assert costs.read_units("GetItem", {}) == 1
    assert costs.read_units("BatchGetItem", {"Responses": {"t": [item(), large]}}) == 3
    assert costs.read_units("Query", {"Items": [item()]}) == 0.5
    assert costs.read_units("Query", {"Items": [item()]}, {"ConsistentRead": True}) == 1
    assert costs.read_units("BatchGetItem", {"Responses": {"t": [large]}}, {"RequestItems": {"t": {"Keys": [{}, {}, {}]}}}) == 4


def test_sqs_bills_each_64_kib() -> None:
    """Of all bodies of one request together."""
    assert [costs.chunks("x"), costs.chunks("x" * 65537), costs.chunks(*["x" * 32768] * 2)] == [1, 2, 1]
