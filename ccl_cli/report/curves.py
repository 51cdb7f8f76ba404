"""Training curves: mean and standard deviation over seeds of what runs wrote while they trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.errors import DataError
from ccl_cli.report.plot import Panel, Plot, in_rows, legend, logarithmic
from ccl_cli.report.study import BASELINE, Study
from ccl_cli.training.runs import METRICS
from ccl_cli.utils import json_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each figure of metrics.jsonl: what it is called, and what it is multiplied by.
FIGURES = {
    "accuracy": ("Accuracy on training batches (%)", 100.0),
    "ce": ("Cross-entropy of the student", 1.0),
    "loss": ("Loss in total", 1.0),
}
_WIDTH, _HEIGHT = 360, 236
_WIDE = 20  # a positive figure whose ends differ by this factor is drawn on a logarithmic axis


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


def figure(study: Study) -> Plot:
    """All setups below each other; raises as :func:`panels`."""
    drawn = [panel for of_setup in panels(study).values() for panel in of_setup]
    colours = [(name, study.colour(name)) for name in methods(study)]
    width = _WIDTH * min(len(drawn), len(FIGURES))
    return Plot("Training curves", [[legend(colours, width, 6)], *in_rows(drawn, len(FIGURES))])


def methods(study: Study) -> list[str]:
    """The methods that are drawn."""
    return list(dict.fromkeys(cell.method for cell in study.cells() if cell.runs))


def panels(study: Study) -> dict[str, list[Panel]]:
    """By setup one panel for each figure that its runs have written.

    Raises:
        DataError: the runs have left no metrics.
    """
    by_setup = {setup: list(_panels(study, setup)) for setup in study.setups}
    if not any(by_setup.values()):
        raise DataError(f"None of these runs has a readable {METRICS}.", "Runs write it while they train.")
    return by_setup


def _panels(study: Study, setup: str) -> Iterator[Panel]:
    where = f"{setup}: " if setup else ""
    for name, (title, _) in FIGURES.items():
        if curves := list(_curves(study, setup, name)):
            yield _panel(f"{where}{title}", curves, log=name != "accuracy", best=study.best.method)


def _curves(study: Study, setup: str, name: str) -> Iterator[Curve]:
    for cell in study.cells(setup):
        lines = [line for line in (_read(run.folder / METRICS, name) for run in cell.runs) if line]
        common = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
        if common:
            values = np.array([[line[step] for step in common] for line in lines])
            sds = values.std(axis=0, ddof=1) if len(lines) > 1 else np.zeros(len(common))
            means = values.mean(axis=0)
            yield Curve(cell.method, study.colour(cell.method), tuple(common), *map(tuple, (means, sds)))


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


def _panel(title: str, curves: Sequence[Curve], *, log: bool, best: str) -> Panel:
    means = [mean for curve in curves for mean in curve.means]
    log = log and min(means) > 0 and max(means) / min(means) > _WIDE

    def draw(axes: Axes) -> None:
        for curve in sorted(curves, key=lambda curve: curve.method == best):
            _line(axes, curve, 2.5 if curve.method == best else 1.4)
        axes.set_xlabel("training step")
        axes.set_xlim(left=0)
        if log:  # the bands do not stretch it: one that reaches zero has no end there
            logarithmic(axes, min(means), max(means))
        else:
            axes.set_ylim(bottom=min(0, *means))

    ends = "; ".join(f"{curve.method} ends at {curve.means[-1]:.3g}" for curve in curves)
    heading = f"{title}, logarithmic" if log else title
    return Panel(f"{title}: {ends}", _WIDTH, _HEIGHT, draw, heading)


def _line(axes: Axes, curve: Curve, width: float) -> None:
    dashes = "--" if curve.method == BASELINE else "-"
    axes.plot(curve.steps, curve.means, dashes, color=curve.colour, linewidth=width)
    if any(curve.sds):
        pairs = list(zip(curve.means, curve.sds, strict=True))
        low, high = ([mean + sign * sd for mean, sd in pairs] for sign in (-1, 1))
        axes.fill_between(curve.steps, low, high, color=curve.colour, alpha=0.16, linewidth=0)
