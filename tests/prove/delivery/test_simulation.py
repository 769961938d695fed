"""The real services in a hundred thousand seeded scenarios."""

from tools.simulation.__main__ import compared, run_all

SCENARIOS = 100_000
WITH_FEEDBACK = 10_000
"""Scenarios, each run without and with SES events."""

AGAIN = "accepted again, as onUnknown: resend allows"


def test_no_scenario_loses_duplicates_or_misreports_a_request() -> None:
    """Other scenarios than in `make test`; `python -m tools.simulation SEED` replays a failing one."""
    total, bad = run_all(range(1_000_000, 1_000_000 + SCENARIOS))
    print("\n".join(f"{count:>10} {what}" for what, count in total.items()))
    assert bad == []


def test_a_request_with_an_event_ends_as_sent_and_is_not_sent_again() -> None:
    """Fewer mails are sent twice than in the same scenarios without events."""
    seeds = range(2_000_000, 2_000_000 + WITH_FEEDBACK)
    (without, bad), (with_feedback, worse) = run_all(seeds), run_all(seeds, has_feedback=True)
    print(compared(without, with_feedback))
    assert [*bad, *worse] == []
    assert 0 < with_feedback[AGAIN] < without[AGAIN] / 2
    assert with_feedback["ended as unknown"] < without["ended as unknown"]
