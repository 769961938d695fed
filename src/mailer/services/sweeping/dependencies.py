"""What a run of the sweeper works with."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from mailer.ports import (
    AccountRates,
    Clock,
    EventSource,
    MessagesTable,
    ParkedBodies,
    ProvidersTable,
    Releases,
    SendQueue,
    SweepInvocations,
    SweepLeases,
    Telemetry,
)

PAGE = 100
"""Records read at once from one shard of the index, or of one tenant whose mail is released."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepDependencies:
    """What the sweeper depends on."""

    releases: Releases
    providers: ProvidersTable
    account_rates: AccountRates
    messages: MessagesTable
    queue: SendQueue
    event_source: EventSource
    parked: ParkedBodies
    telemetry: Telemetry
    clock: Clock
    workers: Executor
    invocations: SweepInvocations
    leases: SweepLeases
    new_owner: Callable[[], str]
    shards: int
    """Partitions of the sweep index."""
    concurrency: int
    """How many invocations may sweep at the same time."""
