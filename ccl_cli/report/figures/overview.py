"""Overview: the result of every seed, with mean and 95 % interval of every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccl_cli.report.figures.panel import Panel, PanelGrid, beside, canvas, shortened
from ccl_cli.report.figures.style import LIGHT, method_colour
from ccl_cli.report.records.comparison import t_interval
from ccl_cli.report.records.results import BASELINE, Cell, Results
from ccl_cli.report.records.run import METRICS
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OVERVIEW_METRICS = ("top1", "r1")
_MAX_ROWS = 10  # with more rows, ablations are left out
_OVERVIEW_WIDTH, _OVERVIEW_ROW = 400, 26


def overview(results: Results) -> PanelGrid:
    """Recognition and retrieval side by side, with a legend."""
    panels, text = overview_panels(results), overview_legend(results)
    width = sum(panel.width for panel in panels)

    def draw(axes: Axes) -> None:
        canvas(axes, width, 18)
        axes.text(0, 12, text, color=LIGHT["muted"], fontsize=10)

    return [panels, [Panel(text, width, 24, draw)]]


def overview_legend(results: Results) -> str:
    """Legend of the overview, as text."""
    letters = sorted(results.modalities.items())
    setups = [f"{short}: {name}" for short, name in letters if any(short in s for s in results.setups)]
    marks = ["Dots: seeds", "bar: mean", "line: 95 % interval of the mean", "dashed: baseline"]
    return one_line("; ".join([*marks, *setups]))


def overview_panels(results: Results) -> list[Panel]:
    """One panel for top-1 and one for R@1, as far as the runs have these metrics."""
    rows = results.ranked()
    main = [cell for cell in rows if cell.method not in results.ablations]
    if len(rows) > _MAX_ROWS and any(cell.runs for cell in main):
        rows = main
    panels = []
    for metric in _OVERVIEW_METRICS if results.metric in _OVERVIEW_METRICS else (results.metric,):
        keys = [(results.data, cell.method, cell.setup, metric) for cell in rows]
        cells = [results.cells[key] for key in keys if key in results.cells]
        if any(cell.runs for cell in cells):
            panels.append(_overview_panel(results, metric, cells))
    return panels


def _overview_panel(results: Results, metric: str, cells: Sequence[Cell]) -> Panel:
    baseline = results.find(results.data, BASELINE, "", metric)
    names = [f"{shortened(cell.method, 20)} {cell.setup}".rstrip() for cell in cells]

    def draw(axes: Axes) -> None:
        values = [value for cell in cells for value in cell.values.values()]
        room = max(2.0, max(values) - min(values)) / 3
        axes.set_xlim(max(0, min(values) - room), min(100, max(values) + room))
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_yticks(range(len(cells)), names, color=LIGHT["ink"])
        axes.tick_params(axis="y", pad=9)
        axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if baseline and baseline.mean is not None:
            axes.axvline(baseline.mean, color=LIGHT["muted"], linewidth=1, linestyle="--")
        for place, cell in enumerate(cells):
            _overview_row(axes, place, cell, method_colour(results, cell.method))

    pairs = zip(names, cells, strict=True)
    means = ", ".join(f"{name} {cell.mean:.1f}" for name, cell in pairs if cell.mean is not None)
    title = METRICS[metric][1]
    heading = f"{title[0].upper()}{title[1:]} on {shortened(results.data, 24)} (%)"
    height = 60 + _OVERVIEW_ROW * len(cells)
    return Panel(f"{title} on {results.data}: {means}", _OVERVIEW_WIDTH, height, draw, heading)


def _overview_row(axes: Axes, place: int, cell: Cell, colour: str) -> None:
    if cell.mean is None:
        beside(axes, place, "failed", LIGHT["muted"])
        return
    values = list(cell.values.values())
    if interval := t_interval(values):
        axes.plot(interval, (place, place), color=colour, linewidth=1.2)
        left, right = axes.get_xlim()
        # Arrows mark intervals that exceed the axis: with few seeds they are far wider than the dots.
        for edge, arrow, cut in ((left, "<", interval[0] < left), (right, ">", interval[1] > right)):
            if cut:
                axes.plot([edge], [place], arrow, color=colour, markersize=6, clip_on=False)
    axes.plot(values, [place] * cell.n, "o", color=colour, alpha=0.5, markersize=6.5, markeredgewidth=0)
    axes.plot([cell.mean], [place], "|", color=colour, markersize=15, markeredgewidth=3.5)
    beside(axes, place, f"{cell.mean:.1f}")
