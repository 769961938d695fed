"""A short run of the simulation of `make bench`, with limits that do not depend on the machine."""

from datetime import timedelta
from functools import cache

import pytest

from tools.bench.pacing import backlog
from tools.bench.pacing.simulation import FLOODER, Scenario, Simulation, Tally, percentile, quiet_tenants

SHORT = Scenario(flood=1_000, flood_at=20.0, ends_at=100.0)


@cache
def simulated(*, is_known: bool, flood: int) -> tuple[Scenario, Tally]:
    scenario = Scenario(is_known=is_known, flood=flood, flood_at=SHORT.flood_at, ends_at=SHORT.ends_at)
    return scenario, Simulation(scenario).run()


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "learned"])
def test_a_flood_does_not_delay_quiet_tenants(is_known: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Their p99 is at most twice that without the flood."""
    without, with_flood = (
        tally.waits(quiet_tenants(scenario), SHORT.flood_at)
        for scenario, tally in (simulated(is_known=is_known, flood=flood) for flood in (0, SHORT.flood))
    )
    assert len(without) == len(with_flood)
    assert percentile(with_flood, 0.99) <= 2 * percentile(without, 0.99)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "learned"])
def test_every_message_is_sent_and_few_are_throttled(is_known: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Less than one throttle per thousand sent messages; none if the rate is known."""
    _, tally = simulated(is_known=is_known, flood=SHORT.flood)
    assert len(tally.of(FLOODER)) == SHORT.flood
    assert tally.missed == 0  # this case is not modelled
    assert tally.throttled_share < (1e-9 if is_known else 1e-3)


def test_a_known_rate_is_fully_used() -> None:
    """At least 93 percent of the quota is used; the learned rate is measured in the full run."""
    scenario, tally = simulated(is_known=True, flood=SHORT.flood)
    assert tally.share_of_quota(FLOODER, scenario.quota) >= 0.93


def test_writes_are_few() -> None:
    """Pacing costs at most half a write per message, and about one requeue per message that had to wait."""
    _, tally = simulated(is_known=True, flood=SHORT.flood)
    assert tally.writes_a_message <= 2.5
    assert tally.generations[FLOODER] <= 1.1 * SHORT.flood


def test_a_backlog_is_released_within_minutes_and_delays_no_other_tenant() -> None:
    """The release is limited by one CPU; other tenants' mail, resumed or due, does not wait longer because of it."""
    tally = backlog.Simulation(backlog.Scenario(backlog=24_000)).run()
    assert tally.pointers == 24_000
    assert tally.a_back < timedelta(minutes=2)
    assert tally.c_back < timedelta(seconds=1)
    assert tally.b_late < timedelta(minutes=1)


def test_runs_with_the_same_seed_are_identical() -> None:
    """The simulation has no other source of randomness."""
    scenario = Scenario(flood=100, flood_at=2.0, quiet_tenants=5, ends_at=10.0)
    first, second = (Simulation(scenario).run() for _ in range(2))
    assert [(m.tenant, m.sent) for m in first.messages] == [(m.tenant, m.sent) for m in second.messages]
