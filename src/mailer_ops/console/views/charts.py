"""Draw counts by time as SVG: stacked bars without inline styles or scripts, which the pages' Content-Security-Policy forbids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup, escape

WIDTH, HEIGHT = 960, 180
LEFT, BOTTOM, TOP = 44, 22, 10
TICKS = 3
GAP = 0.18
"""Share of a step that separates two bars."""


@dataclass(frozen=True, slots=True)
class _Scale:
    step: float
    height: float
    highest: int

    def y(self, value: float) -> float:
        return TOP + self.height * (1 - value / self.highest)


def bars(starts: Sequence[datetime], series: Mapping[str, Sequence[int]], title: str) -> Markup:
    """Draw one bar per step, stacked by name; the page has a table with the numbers."""
    totals = [sum(values) for values in zip(*series.values(), strict=True)] or [0]
    scale = _Scale((WIDTH - LEFT) / max(1, len(starts)), HEIGHT - TOP - BOTTOM, round_up(max(totals)))
    parts = [*_grid(scale), *_stacks(starts, series, scale), *_times(starts, scale)]
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def round_up(highest: int) -> int:
    """Return the top of an axis: a round, even number just above `highest`."""
    power = 1
    while True:
        for digits in (2, 4, 6, 8, 10, 12, 16):
            if digits * power >= highest:
                return digits * power
        power *= 10


def _grid(scale: _Scale) -> list[Markup]:
    lines = []
    for tick in {round(scale.highest * number / 2) for number in range(TICKS)}:
        y = scale.y(tick)
        lines.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH, y, y))
        lines.append(Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, f"{tick:,}"))
    return lines


def _stacks(starts: Sequence[datetime], series: Mapping[str, Sequence[int]], scale: _Scale) -> list[Markup]:
    stacks = []
    for number, start in enumerate(starts):
        base, shown = 0, []
        for name, values in series.items():
            if values[number]:
                top, bottom = scale.y(base + values[number]), scale.y(base)
                x, width = LEFT + scale.step * (number + GAP / 2), scale.step * (1 - GAP)
                height = max(bottom - top, 1.5)  # one among ten thousand stays visible
                shown.append(
                    Markup('<rect class="is-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                        name, x, bottom - height, width, height
                    )
                )
                base += values[number]
        if shown:
            tooltip = ", ".join(f"{values[number]} {name}" for name, values in series.items() if values[number])
            text = Markup("<title>{} {}</title>").format(f"{start:%d %b %H:%M}", escape(tooltip))
            stacks.append(Markup("<g>") + text + Markup("").join(shown) + Markup("</g>"))
    return stacks


def _times(starts: Sequence[datetime], scale: _Scale) -> list[Markup]:
    every = max(1, len(starts) // 6)
    labels = []
    for number in range(0, len(starts), every):
        x = LEFT + scale.step * number
        daily = len(starts) > 1 and (starts[1] - starts[0]).days >= 1
        text = f"{starts[number]:%d %b}" if daily else f"{starts[number]:%H:%M}"
        labels.append(Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>').format(x, HEIGHT - 6, text))
    return labels
