"""Every method at a glance: each seed, the mean and its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccl_cli.report import paper
from ccl_cli.report.collect import METRICS, clean
from ccl_cli.report.paired import t_interval
from ccl_cli.report.plot import Panel, Plot, beside, canvas, shortened
from ccl_cli.report.study import BASELINE, Study
from ccl_cli.report.style import LIGHT
from ccl_cli.report.table import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = ("top1", "r1")
_FEW = 10  # rows up to which ablations are among them
_WIDTH, _ROW = 320, 24


def figure(study: Study) -> Plot:
    """Recognition and retrieval side by side, and how to read them."""
    by_metric = panels(study)
    width = sum(panel.width for panel in by_metric)

    def draw(axes: Axes) -> None:
        canvas(axes, width, 18)
        axes.text(0, 12, legend(study), color=LIGHT["muted"], fontsize=10)

    text = "; ".join(panel.text for panel in by_metric)
    return Plot(text, [by_metric, [Panel(legend(study), width, 24, draw)]])


def legend(study: Study) -> str:
    """How to read it."""
    letters = sorted(study.summary.modalities.items())
    setups = [f"{short}: {name}" for short, name in letters if any(short in s for s in study.setups)]
    marks = ["Dots: seeds", "thick stroke: mean", "line: its 95 % interval", "dashed: baseline"]
    return clean("; ".join([*marks, *setups]))


def panels(study: Study) -> list[Panel]:
    """One panel for each of the two figures that the runs have."""
    metrics = _SHOWN if study.metric in _SHOWN else (study.metric,)
    drawn = []
    for metric in metrics:
        keys = [(study.data, cell.method, cell.setup, metric) for cell in _rows(study)]
        cells = [study.summary.cells[key] for key in keys if key in study.summary.cells]
        if any(cell.runs for cell in cells):
            drawn.append(_panel(study, metric, cells))
    return drawn


def _rows(study: Study) -> list[Cell]:
    cells = study.cells()
    main = [cell for cell in cells if cell.method not in study.summary.ablations]
    return main if len(cells) > _FEW and any(cell.runs for cell in main) else cells


def _name(cell: Cell) -> str:
    return f"{shortened(paper.printed(cell.method), 20)} {cell.setup}".rstrip()


def _panel(study: Study, metric: str, cells: Sequence[Cell]) -> Panel:
    baseline = study.summary.find(study.data, BASELINE, "", metric)

    def draw(axes: Axes) -> None:
        values = [value for cell in cells for value in cell.values.values()]
        room = max(2.0, max(values) - min(values)) / 3
        axes.set_xlim(max(0, min(values) - room), min(100, max(values) + room))
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_yticks(range(len(cells)), map(_name, cells), color=LIGHT["ink"])
        axes.tick_params(axis="y", pad=9)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if baseline and baseline.mean is not None:
            axes.axvline(baseline.mean, color=LIGHT["muted"], linewidth=1, linestyle="--")
        for place, cell in enumerate(cells):
            _row(axes, place, cell, study.colour(cell.method))

    means = ", ".join(f"{_name(cell)} {cell.mean:.1f}" for cell in cells if cell.mean is not None)
    name = METRICS[metric][1]
    heading = f"{name[0].upper()}{name[1:]} on {shortened(study.data, 24)} (%)"
    return Panel(f"{name} on {study.data}: {means}", _WIDTH, 60 + _ROW * len(cells), draw, heading)


def _row(axes: Axes, place: int, cell: Cell, colour: str) -> None:
    if cell.mean is None:
        beside(axes, place, "failed", LIGHT["muted"])
        return
    values = list(cell.values.values())
    if span := t_interval(values):
        axes.plot(span, (place, place), color=colour, linewidth=1.2)
        left, right = axes.get_xlim()
        # With few seeds the whole interval would leave the dots no room.
        for edge, arrow, goes_on in ((left, "<", span[0] < left), (right, ">", span[1] > right)):
            if goes_on:
                axes.plot([edge], [place], arrow, color=colour, markersize=6, clip_on=False)
    axes.plot(values, [place] * cell.n, "o", color=colour, alpha=0.5, markersize=6.5, markeredgewidth=0)
    axes.plot([cell.mean], [place], "|", color=colour, markersize=15, markeredgewidth=3.5)
    beside(axes, place, f"{cell.mean:.1f}")
