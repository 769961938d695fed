"""How many messages of one tenant DynamoDB takes, played with the real writes of a message; and what a simulated partition takes."""

import pytest

from mailer.adapters.dynamodb.messages_table import TENANT_SHARDS
from support.aws.tables import template
from support.aws.write_units import PartitionWrite, partition_writes
from support.throttling import UNITS, Partitions, highest
from tools.bench.tenant.simulation import PATHS, bookings, play, units_of

GOAL = 1000
"""Messages a second of one tenant."""


def write(partition: str, index: str = "", units: int = 100) -> PartitionWrite:
    return PartitionWrite(index, partition, units)


# -- the simulated table -------------------------------------------------------------------------------------------------


def test_a_partition_takes_so_many_units_a_second() -> None:
    """What it has not used of the last second may be used at once; no more."""
    partitions = Partitions()
    assert partitions.write([write("a")], 0.0)
    assert not partitions.write([write("a", units=1)], 0.0)
    assert partitions.write([write("a", units=1000)], 9.0)
    assert not partitions.write([write("a", units=1)], 9.0)
    assert partitions.write([write("b")], 9.0)


def test_an_index_holds_up_the_writes_of_its_table() -> None:
    """A write is refused as a whole, and then costs no partition anything."""
    partitions = Partitions()
    assert partitions.write([write("a", "by", 100)], 0.0)
    assert not partitions.write([write("t", units=60), write("a", "by", 1)], 0.0)
    assert partitions.write([write("t", units=100)], 0.0)


def test_keys_that_share_a_partition_take_from_each_other() -> None:
    """Until DynamoDB has told the hot one apart."""
    partitions = Partitions(shared=1)
    assert partitions.write([write("hot")], 0.0)
    assert not partitions.write([write("quiet", units=1)], 0.0)


def test_a_write_costs_what_each_index_takes_of_it() -> None:
    """An entry that moves is one deletion and one addition, each in its own partition; one that does not change costs nothing."""
    table = template()["Resources"]["MessagesTable"]["Properties"]
    before = {"tenantShard": {"S": "a#1"}, "requestId": {"S": "r"}, "createdKey": {"S": "k"}, "statusShard": {"S": "a#queued#1"}}
    after = {**before, "statusShard": {"S": "a#sending#1"}, "padding": {"S": "x" * 1024}}
    assert set(partition_writes(table, before, after)) == {
        PartitionWrite("", "a#1", 2),
        PartitionWrite("byStatus", "a#queued#1", 1),
        PartitionWrite("byStatus", "a#sending#1", 1),
    }


def test_the_highest_that_holds_is_found() -> None:
    """Also where none does, or all do."""
    assert [highest(lambda n: n <= bound, 100, 10) for bound in (5, 10, 69, 1000)] == [0, 10, 60, 100]  # noqa: B023  # called at once


# -- one large tenant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_one_tenant_sends_a_thousand_a_second(path: str) -> None:
    """Its shards take all writes of its messages at once."""
    assert play(GOAL, path, shards=TENANT_SHARDS)["acme"].throttled == 0


def test_one_partition_a_tenant_would_stall_it_and_take_others_along() -> None:
    """What the shards are for."""
    outcomes = play(GOAL, "from SQS", shards=1, shared=16, others=30)
    assert outcomes["acme"].failed > 0.2
    assert outcomes["others"].throttled > 0.02
    sharded = play(GOAL, "from SQS", shards=TENANT_SHARDS, shared=16, others=30)
    assert sharded["others"].throttled == 0


def test_messages_cost_as_many_units_as_the_guide_says() -> None:
    """Shards cost none: docs/deploy.md counts eight from SQS."""
    assert units_of("from SQS") == 8


def test_the_item_of_an_account_is_no_bottleneck() -> None:
    """One booking a batch; a partition takes a thousand writes."""
    assert bookings(GOAL, 100, 10) < UNITS / 40
    assert bookings(GOAL, 10, 10) < UNITS / 5
