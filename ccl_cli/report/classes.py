"""Accuracy of each class against the baseline's (Figure 3 of the paper)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ccl_cli.engine.runs import read_json
from ccl_cli.errors import DataError
from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import Anchor, Drawing, Line, Mark, Text, in_rows, rectangle, shortened
from ccl_cli.report.study import Study
from ccl_cli.report.table import Cell

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 380.0, 112.0, 12.0, 44.0, 16.0

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


def figure(study: Study) -> Drawing:
    """The best method's setup."""
    found = changes(study, study.best.setup)
    return in_rows(panels(found), 2, "Accuracy of each class against the baseline")


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


def panels(found: Sequence[Change]) -> list[Drawing]:
    """One panel for each, with the same order of classes and the same scale."""
    order = sorted(found[0].points, key=lambda name: -found[0].points[name])
    reach = max(1.0, *(abs(value) for change in found for value in change.points.values()))
    return [_panel(change, [name for name in order if name in change.points], reach) for change in found]


def _panel(change: Change, order: Sequence[str], reach: float) -> Drawing:
    bottom = _TOP + _ROW * len(order)
    half = (_WIDTH - _LEFT - _RIGHT) / 2
    zero = _LEFT + half
    marks: list[Mark] = [Text(0, 14, shortened(f"{change.label} minus baseline", _WIDTH, 13), 13)]
    for value in (-reach, 0.0, reach):
        x = zero + half * value / reach
        marks.append(Line([(x, _TOP - 6), (x, bottom)], "grid"))
        marks.append(Text(x, _TOP - 10, f"{value:+.0f}" if value else "0", 11, "muted", "middle"))
    for place, name in enumerate(order):
        marks += _bar(clean(name), change.points[name], _TOP + _ROW * place, half / reach)
    title = f"{change.sentence} Percentage points of top-1."
    return Drawing(_WIDTH, bottom + 4, title, marks)


def _bar(name: str, value: float, y: float, per_point: float) -> list[Mark]:
    zero = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    length = abs(value) * per_point
    begin = zero if value >= 0 else zero - length
    colour, tip = "good" if value >= 0 else "bad", f"{name}: {value:+.1f} points"
    marks: list[Mark] = [
        Text(_LEFT - 8, y + 11, shortened(name, _LEFT - 8, 11), 11, "ink", "end", tip=name),
    ]
    if abs(value) > _SAME:
        marks.append(rectangle(begin, y + 2, length, _ROW - 4, colour, tip=tip))
    # The number stands on the free side of the line.
    anchor: Anchor = "end" if value >= 0 else "start"
    x = zero - 5 if value >= 0 else zero + 5
    number = f"{value:+.1f}" if abs(value) > _SAME else "0"
    return [*marks, Text(x, y + 11, number, 10, "muted", anchor)]
