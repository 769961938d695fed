"""The throughput of one tenant's partitions in DynamoDB, simulated with the real writes of a message; and the simulated partitions."""

import pytest

from mailer.adapters.dynamodb.messages_table import TENANT_SHARDS
from support.aws.tables import template
from support.aws.write_units import PartitionWrite, partition_writes
from support.throttling import UNITS, Partitions, highest
from tools.bench.tenant.simulation import PATHS, bookings, simulate, units_of

TARGET_RATE = 1000
"""Messages a second of one tenant."""


def write(partition: str, index: str = "", units: int = 100) -> PartitionWrite:
    return PartitionWrite(index, partition, units)


# -- the simulated table -------------------------------------------------------------------------------------------------


def test_a_partition_has_a_limit_of_units_per_second() -> None:
    """Only the unused units of the last second can be used later."""
    partitions = Partitions()
    assert partitions.write([write("a")], 0.0)
    assert not partitions.write([write("a", units=1)], 0.0)
    assert partitions.write([write("a", units=1000)], 9.0)
    assert not partitions.write([write("a", units=1)], 9.0)
    assert partitions.write([write("b")], 9.0)


def test_an_index_throttles_the_writes_of_its_table() -> None:
    """A write is rejected as a whole, and then uses no units of any partition."""
    partitions = Partitions()
    assert partitions.write([write("a", "by", 100)], 0.0)
    assert not partitions.write([write("t", units=60), write("a", "by", 1)], 0.0)
    assert partitions.write([write("t", units=100)], 0.0)


def test_keys_in_one_partition_share_its_units() -> None:
    """This is so until DynamoDB splits off the hot key."""
    partitions = Partitions(shared=1)
    assert partitions.write([write("hot")], 0.0)
    assert not partitions.write([write("quiet", units=1)], 0.0)


def test_a_write_s_units_include_the_indexes() -> None:
    """A moved entry is one deletion and one addition, each in its own partition; an unchanged entry costs nothing."""
    table = template()["Resources"]["MessagesTable"]["Properties"]
    before = {"tenantShard": {"S": "a#1"}, "requestId": {"S": "r"}, "createdKey": {"S": "k"}, "statusShard": {"S": "a#queued#1"}}
    after = {**before, "statusShard": {"S": "a#sending#1"}, "padding": {"S": "x" * 1024}}
    assert set(partition_writes(table, before, after)) == {
        PartitionWrite("", "a#1", 2),
        PartitionWrite("byStatus", "a#queued#1", 1),
        PartitionWrite("byStatus", "a#sending#1", 1),
    }


def test_the_highest_multiple_is_found() -> None:
    """It is also found if the condition holds for none or for all."""
    assert [highest(lambda n: n <= bound, 100, 10) for bound in (5, 10, 69, 1000)] == [0, 10, 60, 100]  # noqa: B023  # called at once


# -- one large tenant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_one_tenant_sends_a_thousand_a_second(path: str) -> None:
    """Its shards take all writes of its messages without throttling."""
    assert simulate(TARGET_RATE, path, shards=TENANT_SHARDS)["acme"].throttled == 0


def test_one_partition_per_tenant_would_throttle_it_and_others() -> None:
    """The shards prevent that."""
    outcomes = simulate(TARGET_RATE, "from SQS", shards=1, shared=16, others=30)
    assert outcomes["acme"].failed > 0.2
    assert outcomes["others"].throttled > 0.02
    sharded = simulate(TARGET_RATE, "from SQS", shards=TENANT_SHARDS, shared=16, others=30)
    assert sharded["others"].throttled == 0


def test_the_units_of_a_message_are_those_of_the_guide() -> None:
    """Shards cost no units: docs/deploy.md counts eight for a message from SQS."""
    assert units_of("from SQS") == 8


def test_the_item_of_an_account_is_not_a_bottleneck() -> None:
    """There is one booking per batch; a partition takes a thousand writes."""
    assert bookings(TARGET_RATE, 100, 10) < UNITS / 40
    assert bookings(TARGET_RATE, 10, 10) < UNITS / 5
