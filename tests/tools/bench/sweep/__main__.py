"""Measure how many requests one invocation of the sweeper requeues, and calculate the rate of all of them."""

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mailer.adapters.dynamodb.messages_table import SWEEP_SHARDS
from support.aws.tables import template
from tools.bench.send.seed import seed
from tools.bench.send.stage import staged
from tools.bench.send.workload import EVERYONE

AT_ONCE = int(template()["Parameters"]["SweepConcurrency"]["Default"])
ROUNDS = 5
RECORDS = 4000
SHARD_UNITS = 1000
"""Write units per second of one partition of a DynamoDB index."""


def main() -> None:
    with TemporaryDirectory() as folder, staged(Path(folder)) as stage:
        os.environ.update(stage.environment)
        seed(EVERYONE)
        shards = SWEEP_SHARDS // AT_ONCE
        rounds = [
            stage.run("sweep.measure", "part", package="tools.bench", ends="deferred", shards=shards, records=RECORDS, turn=turn)
            for turn in range(ROUNDS)
        ]
    cpu, wall = (median(figures[name] for figures in rounds) for name in ("cpu", "wall"))
    print(f"one invocation, {RECORDS} due requests in {shards} shards: {1000 * cpu:.2f} ms CPU each, {1 / wall:.0f} a second here")
    print(f"{AT_ONCE} invocations with a processor each, worked out: {AT_ONCE / max(cpu, wall):.0f} a second")
    print(f"the index's {SWEEP_SHARDS} partitions, worked out: {SWEEP_SHARDS * SHARD_UNITS // 2} put back a second, two units each")


if __name__ == "__main__":
    main()
