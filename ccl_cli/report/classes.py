"""Accuracy of each class against the baseline's (Figure 3 of the paper)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccl_cli.errors import DataError
from ccl_cli.report.plot import Panel, Plot, bar_panel, bars, in_rows, outermost
from ccl_cli.report.study import Study
from ccl_cli.report.style import LIGHT
from ccl_cli.report.table import Cell
from ccl_cli.training.runs import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 60  # classes that are drawn; of more, those at either end
_SAME = 1e-9  # percentage points


@dataclass(frozen=True)
class Change:
    """One method in one setup: by how many points each class is better than without teachers."""

    label: str
    points: dict[str, float]

    @property
    def sentence(self) -> str:
        """How many classes gained."""
        signs = [(value > _SAME) - (value < -_SAME) for value in self.points.values()]
        better, equal, worse = (signs.count(sign) for sign in (1, 0, -1))
        return f"{self.label}: better in {better} classes, worse in {worse}, equal in {equal}."


def figure(study: Study) -> Plot:
    """The best method's setup."""
    drawn = panels(changes(study, study.best.setup))
    return Plot("Accuracy of each class against the baseline", in_rows(drawn, 2))


def changes(study: Study, setup: str) -> list[Change]:
    """The best method of a setup and, where there are others, the worst.

    Raises:
        DataError: no baseline among the runs, or no evaluation by class.
    """
    if study.baseline is None:
        raise DataError(
            "There is no baseline among these runs to compare with.",
            "Train one with `ccl train --method baseline`.",
        )
    before = accuracies(study, study.baseline)
    cells = [c for c in study.cells(setup) if c.mean is not None and c.method != study.baseline.method]
    cells = [c for c in cells if c.method not in study.summary.ablations] or cells
    ranked = sorted(cells, key=lambda cell: -(cell.mean or 0.0))
    found = []
    for cell in ranked[:1] + ranked[1:][-1:]:
        after = accuracies(study, cell)
        points = {name: after[name] - before[name] for name in before if name in after}
        if points:
            found.append(Change(f"{cell.method} {cell.setup}".rstrip(), points))
    if not found:
        raise DataError(
            "These runs have no accuracies by class.", "`ccl eval RUN --recognition` evaluates them."
        )
    return found


def accuracies(study: Study, cell: Cell) -> dict[str, float]:
    """Mean top-1 over seeds by class, in percent."""
    name = f"eval-{study.data}-{study.split}.json"
    by_seed = [read_json(run.folder / name).get("recognition", {}).get("per_class", {}) for run in cell.runs]
    by_seed = [each for each in by_seed if each]
    first = by_seed[0] if by_seed else {}
    classes = [name for name in first if all("top1" in each.get(name, {}) for each in by_seed)]
    return {name: statistics.fmean(each[name]["top1"] for each in by_seed) for name in classes}


def panels(shown: Sequence[Change]) -> list[Panel]:
    """One panel for each, with the same order of classes and the same scale."""
    order = sorted(shown[0].points, key=lambda name: -shown[0].points[name])
    reach = max(1.0, *(abs(value) for change in shown for value in change.points.values()))
    return [_panel(change, [name for name in order if name in change.points], reach) for change in shown]


def _panel(change: Change, order: Sequence[str], reach: float) -> Panel:
    shown = outermost(order, _MOST)
    values = [change.points[name] for name in shown]

    def draw(axes: Axes) -> None:
        colours = [LIGHT["good" if value >= 0 else "bad"] for value in values]
        drawn = bars(axes, shown, values, colours)
        axes.set_xlim(-1.25 * reach, 1.25 * reach)
        axes.axvline(0, color=LIGHT["muted"], linewidth=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0f}" if value else "0")
        numbers = [f"{value:+.1f}" if abs(value) > _SAME else "0" for value in values]
        if len(shown) < len(order):
            axes.set_xlabel(f"{_MOST} of {len(order):,} classes, the best and the worst")
        axes.bar_label(drawn, numbers, padding=3, fontsize=10, color=LIGHT["muted"])

    text = f"{change.sentence} Percentage points of top-1."
    return bar_panel(text, f"{change.label} minus baseline", len(shown), draw)
