"""Plot the simulation: tenant A's rate, and the waiting time of the other tenants' mail with and without A."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.bench.pacing.simulation import FLOODER, START, Scenario, Tally, percentile, quiet_tenants

Results = Mapping[tuple[bool, int], tuple[Scenario, Tally]]

BUCKET = 5
"""Seconds per point of a rate curve."""

COLOURS = {True: "#1f6f8b", False: "#d1603d"}
NAMES = {True: "rate known", False: "rate learned"}


def draw(results: Results, path: Path) -> None:
    """Write the plot as a PNG file."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pacing"})
    figure = Figure(figsize=(9, 8.5), layout="constrained", dpi=110)
    rate, wait, tenants = figure.subplots(3)
    _draw_rate(rate, results)
    _draw_waits(wait, results)
    _draw_tenants(tenants, results)
    figure.savefig(path, metadata={"Software": None})


def _draw_rate(axes: Axes, results: Results) -> None:
    for (known, flood), (scenario, tally) in results.items():
        if flood:
            sent = Counter(int(m.sent - START) // BUCKET * BUCKET for m in tally.of(FLOODER))
            times = range(int(scenario.flood_at), max(sent) + 1, BUCKET)
            axes.step(times, [sent[t] / BUCKET for t in times], where="post", color=COLOURS[known], label=f"A, {NAMES[known]}")
            throttles = [time - START for time in tally.throttles[FLOODER]]
            axes.plot(throttles, [scenario.quota + 1.5] * len(throttles), "v", color=COLOURS[known], markersize=5)
            axes.axhline(scenario.quota, color="grey", linewidth=0.8, linestyle="--")
    axes.plot([], [], "v", color="grey", label="throttled by SES")
    axes.set(title="Tenant A sends 5 000 messages at once; SES allows 14 recipients/s", ylabel="sent per second", ylim=(0, 18))
    axes.legend(loc="lower right", frameon=False)


def _draw_waits(axes: Axes, results: Results) -> None:
    for (known, flood), (_, tally) in results.items():
        waits: dict[int, list[float]] = {}
        for message in tally.messages:
            if message.tenant != FLOODER:
                waits.setdefault(int(message.born - START) // 10 * 10, []).append(message.sent - message.born)
        points = sorted((time, percentile(sorted(w), 0.99)) for time, w in waits.items())
        style = "-" if flood else ":"
        label = f"{NAMES[known]}, {'with' if flood else 'without'} A"
        axes.plot(*zip(*points, strict=True), style, color=COLOURS[known], label=label, linewidth=1.3)
    axes.set(
        title="99 quiet tenants at 1 message/s each: 99 % of their mail is with SES within",
        ylabel="seconds",
        xlabel="time [s]",
        ylim=(0, None),
    )
    axes.legend(loc="upper right", frameon=False, ncols=2)


def _draw_tenants(axes: Axes, results: Results) -> None:
    for (known, flood), (scenario, tally) in results.items():
        ordered = sorted(percentile(tally.waits([tenant]), 0.99) for tenant in quiet_tenants(scenario))
        axes.plot(range(1, len(ordered) + 1), ordered, "-" if flood else ":", color=COLOURS[known], linewidth=1.3)
    axes.set(
        title="The same for each quiet tenant, over the whole run", ylabel="seconds", xlabel="tenants, best served first", ylim=(0, None)
    )
