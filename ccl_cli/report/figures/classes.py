"""Change of accuracy per class against the baseline (Figure 3 of the paper)."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccl_cli.errors import DataError
from ccl_cli.report.figures.panel import MAX_CLASSES, Panel, PanelGrid, bar_panel, bars, in_rows, outermost
from ccl_cli.report.figures.style import LIGHT
from ccl_cli.report.records.results import BASELINE, Cell, Results
from ccl_cli.training.run.folder import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EQUAL = 1e-9  # percentage points


@dataclass(frozen=True)
class ClassGain:
    """Gain of one method over the baseline in each class, in percentage points of top-1."""

    label: str
    points: dict[str, float]

    @property
    def sentence(self) -> str:
        """Number of classes that gained, lost and stayed equal."""
        signs = [(value > _EQUAL) - (value < -_EQUAL) for value in self.points.values()]
        better, equal, worse = (signs.count(sign) for sign in (1, 0, -1))
        return f"{self.label}: better in {better} classes, worse in {worse}, equal in {equal}."


def classes(results: Results) -> PanelGrid:
    """Gains in the best setup; raises the errors of :func:`class_gains`."""
    return in_rows(class_panels(class_gains(results, results.best.setup)), 2)


def class_gains(results: Results, setup: str) -> list[ClassGain]:
    """Gains of the best method of a setup and, with several methods, of the worst.

    Raises:
        DataError: the runs have no baseline, or no accuracies by class.
    """
    if results.baseline is None:
        raise DataError(
            "There is no baseline among these runs to compare with.",
            "Train one with `ccl train --method baseline`.",
        )
    before = _class_accuracies(results, results.baseline)
    cells = [c for c in results.ranked(setup) if c.mean is not None and c.method != BASELINE]
    cells = [cell for cell in cells if cell.method not in results.ablations] or cells
    ranked = sorted(cells, key=lambda cell: -(cell.mean or 0.0))
    gains = []
    for cell in ranked[:1] + ranked[1:][-1:]:
        after = _class_accuracies(results, cell)
        points = {name: after[name] - before[name] for name in before if name in after}
        if points:
            gains.append(ClassGain(cell.label, points))
    if not gains:
        raise DataError(
            "These runs have no accuracies by class.", "`ccl eval RUN --recognition` evaluates them."
        )
    return gains


def _class_accuracies(results: Results, cell: Cell) -> dict[str, float]:
    """Mean top-1 over seeds by class, in percent; classes without a value in a seed are left out."""
    name = f"eval-{results.data}-{results.split}.json"
    by_class: dict[str, list[float]] = defaultdict(list)
    seeds = 0
    for run in cell.runs:
        per_class = read_json(run.folder / name).get("recognition", {}).get("per_class", {})
        seeds += bool(per_class)
        for label, row in per_class.items():
            if "top1" in row:
                by_class[label].append(row["top1"])
    return {label: statistics.fmean(each) for label, each in by_class.items() if len(each) == seeds}


def class_panels(gains: Sequence[ClassGain]) -> list[Panel]:
    """One panel per method, with the same order of classes and the same scale."""
    order = sorted(gains[0].points, key=lambda name: -gains[0].points[name])
    values = [value for gain in gains for value in gain.points.values()]
    limits = min(0.0, *values), max(1.0, *values)
    return [_class_panel(gain, [name for name in order if name in gain.points], limits) for gain in gains]


def _class_panel(gain: ClassGain, order: Sequence[str], limits: tuple[float, float]) -> Panel:
    shown = outermost(order)
    values = [gain.points[name] for name in shown]

    def draw(axes: Axes) -> None:
        drawn = bars(axes, shown, values, [LIGHT["good" if value >= 0 else "bad"] for value in values])
        low, high = limits
        room = 0.2 * (high - low)  # for the numbers beside the bars
        axes.set_xlim(low - room * (low < 0), high + room)
        axes.axvline(0, color=LIGHT["muted"], linewidth=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0f}" if value else "0")
        if len(shown) < len(order):
            axes.set_xlabel(f"{MAX_CLASSES} of {len(order):,} classes, highest and lowest")
        numbers = [f"{value:+.1f}" if abs(value) > _EQUAL else "0" for value in values]
        axes.bar_label(drawn, numbers, padding=3, fontsize=10, color=LIGHT["muted"])

    text = f"{gain.sentence} Percentage points of top-1."
    return bar_panel(text, f"{gain.label} minus baseline", len(shown), draw)
