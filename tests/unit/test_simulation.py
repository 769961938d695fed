"""The real services in thousands of seeded scenarios of crashes, outages, duplicates and clock skew."""

import os
from collections import Counter

import pytest

from tools.simulation.__main__ import compared, run_some
from tools.simulation.check import figures, violations
from tools.simulation.scenario import Scenario

SCENARIOS = 3000
CHUNK = 250
WITH_FEEDBACK = 250
"""Number of scenarios that run without and with SES events."""

AGAIN = "accepted again, as onUnknown: resend allows"

SEED = os.environ.get("SEED")
"""Replays one scenario: `SEED=123 pytest tests/unit/test_simulation.py`, or `python -m tools.simulation 123`."""


@pytest.mark.parametrize("first", [int(SEED)] if SEED else range(0, SCENARIOS, CHUNK))
def test_no_scenario_loses_doubles_or_misreports_a_request(first: int) -> None:
    """With faults of any call there is at most one acceptance, one end with its reason, and nothing left over."""
    for seed in range(first, first + (1 if SEED else CHUNK)):
        if found := violations(Scenario(seed).run()):
            trace = Scenario(seed, traced=True).run().world.trace or []
            pytest.fail("\n".join([f"scenario {seed}:", *trace, *found]), pytrace=False)


@pytest.fixture(scope="module")
def both() -> tuple[Counter[str], Counter[str]]:
    """The counts of the same scenarios without feedback and with it."""
    (without, _), (with_feedback, bad) = (run_some(range(WITH_FEEDBACK), has_feedback=has_feedback) for has_feedback in (False, True))
    assert bad == [], f"replay one: python -m tools.simulation SEED --feedback\n{'\n'.join(bad)}"
    return without, with_feedback


def test_events_resolve_unknowns_and_prevent_duplicates(both: tuple[Counter[str], Counter[str]]) -> None:
    """This holds with faults of FeedbackFunction too; without events the same scenarios send more mails twice."""
    without, with_feedback = both
    print(compared(without, with_feedback))
    assert with_feedback["unknowns that an event settled"] > 0
    for what in (AGAIN, "ended as unknown"):
        assert with_feedback[what] < without[what], what


def test_scenarios_contain_the_cases_to_test() -> None:
    """They contain crashes, messages that wait for a slot, and messages without a slot."""
    counted = sum((figures(Scenario(seed).run()) for seed in range(50)), Counter[str]())
    for what in ("faults", "processes killed", "messages that carried a slot", "messages that found no slot"):
        assert counted[what] > 10, what


@pytest.mark.parametrize("has_feedback", [False, True])
def test_a_scenario_is_reproducible(has_feedback: bool) -> None:  # noqa: FBT001
    """Otherwise no seed could be replayed."""
    once, again = (Scenario(7, traced=True, has_feedback=has_feedback).run().world.trace for _ in range(2))
    assert once == again
