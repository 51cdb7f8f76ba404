"""Training curves: mean and standard deviation over seeds of what runs wrote while they trained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccl_cli import json_text
from ccl_cli.engine.runs import METRICS
from ccl_cli.errors import DataError
from ccl_cli.report.axes import Axis, grid
from ccl_cli.report.drawing import Area, Drawing, Line, Mark, Text, in_rows, legend
from ccl_cli.report.study import BASELINE, Study

# Each figure of metrics.jsonl: what it is called, and what it is multiplied by.
FIGURES = {
    "accuracy": ("Accuracy on training batches (%)", 100.0),
    "ce": ("Cross-entropy of the student", 1.0),
    "loss": ("Loss in total", 1.0),
}
_WIDTH, _HEIGHT = 360.0, 236.0
_OPACITY = 0.16


@dataclass(frozen=True)
class Curve:
    """One figure over the steps.

    Attributes:
        means: By step.
        sds: By step; zero for a single seed.
    """

    method: str
    colour: str
    steps: tuple[int, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]


def figure(study: Study) -> Drawing:
    """All setups below each other.

    Raises:
        DataError: the runs have left no metrics.
    """
    found = [panel for setup in study.setups for panel in panels(study, setup)]
    if not found:
        raise DataError(f"None of these runs has a readable {METRICS}.", "Runs write it while they train.")
    return in_rows([methods(study), in_rows(found, len(FIGURES), "Panels")], 1, "Training curves")


def methods(study: Study, setup: str | None = None) -> Drawing:
    """Which colour is which method."""
    names = dict.fromkeys(cell.method for cell in study.cells(setup) if cell.runs)
    return legend([(name, study.colour(name)) for name in names])


def panels(study: Study, setup: str) -> list[Drawing]:
    """One panel for each figure that the runs of a setup have written."""
    found = []
    for name, (title, _) in FIGURES.items():
        curves = list(_curves(study, setup, name))
        if curves:
            where = f"{setup}: " if setup else ""
            found.append(_panel(f"{where}{title}", curves, log=name != "accuracy", best=study.best.method))
    return found


def _curves(study: Study, setup: str, name: str) -> Iterator[Curve]:
    for cell in study.cells(setup):
        lines = [line for line in (_read(run.folder / METRICS, name) for run in cell.runs) if line]
        common = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
        if common:
            values = [[line[step] for line in lines] for step in common]
            sds = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
            means = tuple(map(statistics.fmean, values))
            yield Curve(cell.method, study.colour(cell.method), tuple(common), means, tuple(sds))


def _read(path: Path, name: str) -> dict[int, float]:
    """A figure by step; lines that a kill cut off or damaged, and values not finite, are left out."""
    found: dict[int, float] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            entry = json_text.parse(line)
            step, value = int(entry["step"]), FIGURES[name][1] * float(entry[name])
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if math.isfinite(value):
            found[step] = value
    return found


def _panel(title: str, curves: Sequence[Curve], *, log: bool, best: str) -> Drawing:
    across = Axis.over([step for curve in curves for step in curve.steps], 46, _WIDTH - 8, zero=True)
    # Bands do not stretch a logarithmic axis: one that reaches zero has no end there.
    reach = [mean for curve in curves for mean in curve.means]
    if not log:
        reach += [m + s for curve in curves for m, s in zip(curve.means, curve.sds, strict=True)]
    down = Axis.over(reach, _HEIGHT - 40, 28, log=log, zero=True)
    scale = ", logarithmic" if down.log else ""
    marks: list[Mark] = [Text(0, 14, f"{title}{scale}", 13), *grid(across, down, "training step")]
    for curve in curves:
        marks += _band(curve, across, down)
    for curve in sorted(curves, key=lambda curve: curve.method == best):
        points = [(across(step), down(mean)) for step, mean in zip(curve.steps, curve.means, strict=True)]
        width = 2.5 if curve.method == best else 1.4
        marks.append(Line(points, curve.colour, width, dashed=curve.method == BASELINE))
    ends = "; ".join(f"{curve.method} ends at {curve.means[-1]:.3g}" for curve in curves)
    return Drawing(_WIDTH, _HEIGHT, f"{title}: {ends}", marks)


def _band(curve: Curve, across: Axis, down: Axis) -> list[Area]:
    if not any(curve.sds):
        return []
    upper, lower = [], []
    for step, mean, sd in zip(curve.steps, curve.means, curve.sds, strict=True):
        upper.append((across(step), max(down(mean + sd), down.end)))
        lower.append((across(step), min(down(max(mean - sd, down.low)), down.start)))
    return [Area([*upper, *reversed(lower)], curve.colour, _OPACITY)]
