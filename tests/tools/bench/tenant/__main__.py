"""Show at which rate one tenant's messages stall in DynamoDB, with one partition a tenant and with as many as there are; simulated."""

from mailer.adapters.dynamodb.messages_table import TENANT_SHARDS
from support.throttling import highest
from tools.bench.tenant.simulation import PATHS, bookings, play, units_of

STEP, MOST = 100, 8000
GOAL = 1000
PARTITIONS = 16
"""Of a table that has grown to 16 000 write units a second, before DynamoDB has told hot keys apart."""
OTHERS = 100
FUNCTIONS = 10


def main() -> None:
    print("| messages | units each | shards | stalls above | throttled at 1 000/s | lost then | of 100 quiet tenants throttled |")
    print("|---|---|---|---|---|---|---|")
    for path in PATHS:
        for shards in (1, TENANT_SHARDS):
            most = highest(lambda rate: play(rate, path, shards=shards)["acme"].throttled < 0.001, MOST, STEP)  # noqa: B023  # called at once
            busy = play(GOAL, path, shards=shards)["acme"]
            crowd = play(GOAL, path, shards=shards, shared=PARTITIONS, others=OTHERS)["others"]
            shares = f"{busy.throttled:.1%} | {busy.failed:.1%} | {crowd.throttled:.1%}"
            print(f"| {path} | {units_of(path)} | {shards} | {most}/s | {shares} |")
    print()
    print(f"| an account at its rate of {GOAL}/s, {FUNCTIONS} functions | writes a second to its item |")
    print("|---|---|")
    for batch in (100, 10, 1):
        print(f"| batches of {batch} | {bookings(GOAL, batch, FUNCTIONS):.0f} |")


if __name__ == "__main__":
    main()
