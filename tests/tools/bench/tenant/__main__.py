"""Print the rate at which DynamoDB throttles one tenant's messages, with one partition per tenant and with 16; simulated."""

from mailer.adapters.dynamodb.messages_table import TENANT_SHARDS
from support.throttling import highest
from tools.bench.tenant.simulation import PATHS, bookings, simulate, units_of

STEP, MOST = 100, 8000
GOAL = 1000
PARTITIONS = 16
"""Partitions of a table that has grown to 16 000 write units a second, before DynamoDB has separated hot keys."""
OTHERS = 100
FUNCTIONS = 10


def main() -> None:
    print("| messages | units each | shards | throttled above | throttled at 1 000/s | failed | of 100 quiet tenants throttled |")
    print("|---|---|---|---|---|---|---|")
    for path in PATHS:
        for shards in (1, TENANT_SHARDS):
            most = highest(lambda rate: simulate(rate, path, shards=shards)["acme"].throttled < 0.001, MOST, STEP)  # noqa: B023  # called at once
            busy = simulate(GOAL, path, shards=shards)["acme"]
            crowd = simulate(GOAL, path, shards=shards, shared=PARTITIONS, others=OTHERS)["others"]
            shares = f"{busy.throttled:.1%} | {busy.failed:.1%} | {crowd.throttled:.1%}"
            print(f"| {path} | {units_of(path)} | {shards} | {most}/s | {shares} |")
    print()
    print(f"| an account at its rate of {GOAL}/s, {FUNCTIONS} functions | writes a second to its item |")
    print("|---|---|")
    for batch in (100, 10, 1):
        print(f"| batches of {batch} | {bookings(GOAL, batch, FUNCTIONS):.0f} |")


if __name__ == "__main__":
    main()
