"""Report the results: a Markdown page and its plots."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.bench.send.measure import TURNS, Results, Row, Turn, median
from tools.bench.send.workload import BATCH

Sweep = Mapping[int, Mapping[str, float]]

NAMES = {
    "loop": "boto3 loop",
    "powertools": "Powertools' batch",
    "node": "nodemailer, send alone",
    "send only": "ours, send alone",
    "ours": "ours",
    "floor": "floor",
}
"""Contenders, slowest first."""

OURS, FLOOR, OTHERS = "#1f6f8b", "#9aa5ab", "#d1603d"
COLOURS = {"ours": OURS, "send only": OURS, "floor": FLOOR}
VERDICTS = {True: "reached", False: "**not reached**", None: "–"}
SMALL = 0.015
"""Smaller shares of the profile are omitted."""


def page(results: Results, template: str) -> str:
    """Render the page's template."""
    return template.format(
        date=date.today().isoformat(),  # noqa: DTZ011  # the local date of the machine
        machine=_machine(),
        turns=TURNS,
        goals=goals(results.rows),
        contenders=_contenders(results.turns),
        threads=_sweep("threads", results.threads, BATCH),
        sizes=_sweep("messages", results.sizes, None),
        shares=_table(["package", "share"], [[name, f"{share:.0%}"] for name, share in results.shares.items() if share > SMALL]),
    )


def goals(rows: Sequence[Row]) -> str:
    """Return goals and results as a Markdown table."""
    return _table(["figure", "goal", "measured", ""], [[row.what, row.goal, row.figure, VERDICTS[row.is_reached]] for row in rows])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def _contenders(turns: Sequence[Turn]) -> str:
    rows = [[NAMES[name], f"{_of(turns, name, 'wall'):.0f} ms", f"{_of(turns, name, 'cpu'):.1f} ms"] for name in _present(turns)]
    return _table(["", "wall time of the batch", "CPU per message"], rows)


def _sweep(what: str, sweep: Sweep, size: int | None) -> str:
    rows = []
    for number, figures in sweep.items():
        wall, cpu = figures["wall"] * 1000, figures["cpu"] * 1000
        rows.append([str(number), f"{wall:.0f} ms", f"{wall / (size or number):.1f} ms", f"{cpu:.1f} ms"])
    return _table([what, "wall time per batch", "wall time per message", "CPU per message"], rows)


def _present(turns: Sequence[Turn]) -> Sequence[str]:
    return [name for name in NAMES if all(turn[name] for turn in turns)]


def _of(turns: Sequence[Turn], name: str, field: str) -> float:
    """Return a contender's figure in milliseconds."""
    return median(turns, lambda turn: turn[name][field]) * 1000


def _machine() -> str:
    source = Path("/proc/cpuinfo")
    lines = source.read_text(encoding="utf-8").splitlines() if source.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} × {names[0] if names else platform.machine()}, {platform.system()}, Python {platform.python_version()}"


# ── the plots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw(results: Results, path: Path) -> None:
    """Write the plots as a PNG file."""
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(9, 6.5), layout="constrained", dpi=110)
    (walls, cpus), (threads, sizes) = figure.subplots(2, 2)
    _bars(walls, results.turns, "wall", "a batch of 100: wall, ms")
    _bars(cpus, results.turns, "cpu", "CPU per message, ms")
    _curve(threads, results.threads, BATCH, "threads, with batches of 100")
    _curve(sizes, results.sizes, None, "messages in a batch, with 32 threads")
    figure.savefig(path, metadata={"Software": None})


def _bars(axes: Axes, turns: Sequence[Turn], field: str, title: str) -> None:
    names = _present(turns)
    values = [_of(turns, name, field) for name in names]
    bars = axes.barh([NAMES[name] for name in names], values, color=[COLOURS.get(name, OTHERS) for name in names])
    axes.bar_label(bars, fmt="%.0f" if field == "wall" else "%.1f", padding=3)
    axes.set(title=title, xlim=(0, max(values) * 1.15))


def _curve(axes: Axes, sweep: Sweep, size: int | None, what: str) -> None:
    walls = [figures["wall"] * 1000 / (size or number) for number, figures in sweep.items()]
    axes.plot([str(number) for number in sweep], walls, "o-", color=OURS)
    for at, wall in enumerate(walls):
        axes.annotate(f"{wall:.1f}", (at, wall), textcoords="offset points", xytext=(0, 6), ha="center")
    axes.set(title="wall time per message, ms", xlabel=what, ylim=(0, max(walls) * 1.2))
