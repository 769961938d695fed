"""Run the simulation with and without the flood, at a known and at a learned rate, and the release of a backlog; plot for the docs."""

from pathlib import Path

from tools.bench.pacing import backlog
from tools.bench.pacing.plot import draw
from tools.bench.pacing.simulation import FLOODER, Scenario, Simulation, Tally, percentile, quiet_tenants

PLOT = Path(__file__).resolve().parents[4] / "docs/pacing.png"


def main() -> None:
    tallies = {(known, flood): simulate(known=known, flood=flood) for known in (True, False) for flood in (0, Scenario().flood)}
    print(table(tallies))
    draw(tallies, PLOT)
    print(f"plotted in {PLOT.name}")
    print(released())


def released() -> str:
    """Return figures of the release of a backlog that its account could send within minutes."""
    scenario = backlog.Scenario()
    tally = backlog.Simulation(scenario).run()
    return (
        f"{scenario.backlog} parked requests of a resumed tenant are requeued within {tally.a_back.total_seconds():.0f} s"
        f" ({tally.runs} runs), ten of another one within {tally.c_back.total_seconds():.1f} s;"
        f" other due requests waited for {tally.b_late.total_seconds():.0f} s at most"
    )


def simulate(*, known: bool, flood: int) -> tuple[Scenario, Tally]:
    scenario = Scenario(is_known=known, flood=flood)
    return scenario, Simulation(scenario).run()


def table(tallies: dict[tuple[bool, int], tuple[Scenario, Tally]]) -> str:
    """Return the figures as a Markdown table."""
    head = (
        "| rate | tenant A | A of its quota | quiet p50 | quiet p99 | throttles per sent | writes per message | requeues per message of A |"
    )
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    for (known, flood), (scenario, tally) in tallies.items():
        waits = tally.waits(quiet_tenants(scenario), scenario.flood_at)
        cells = [
            "known" if known else "learned",
            f"sends {flood:,} at once".replace(",", "\u202f") if flood else "absent",
            f"{tally.share_of_quota(FLOODER, scenario.quota):.1%}" if flood else "–",
            f"{percentile(waits, 0.5):.2f} s",
            f"{percentile(waits, 0.99):.2f} s",
            f"{tally.throttled_share:.3%}",
            f"{tally.writes_a_message:.2f}",
            f"{tally.generations[FLOODER] / flood:.1f}" if flood else "–",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
