"""Training curves: logged metrics, with mean and standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.report.figures.panel import Panel, PanelGrid, in_rows, legend, logarithmic
from ccl_cli.report.figures.style import method_colour
from ccl_cli.report.records.results import BASELINE, Results
from ccl_cli.report.records.training_log import read_log
from ccl_cli.training.run.folder import METRICS as METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = dict[str, dict[int, float]]
# Title and factor of each metric in metrics.jsonl.
_LOGGED = {
    "accuracy": ("Accuracy on training batches (%)", 100.0),
    "ce": ("Cross-entropy of the student", 1.0),
    "loss": ("Total loss", 1.0),
    **{f"{split}_top1": (f"Top-1 on {split} videos (%)", 1.0) for split in ("val", "test")},
    **{f"{split}_r1": (f"R@1 on {split} videos (%)", 1.0) for split in ("val", "test")},
    **{f"{split}_loss": (f"Cross-entropy on {split} videos", 1.0) for split in ("val", "test")},
}
_CURVE_COLUMNS = 3
_CURVE_WIDTH, _CURVE_HEIGHT = 312, 216
_BAND_POINTS = 400  # points of a band's outline: matplotlib simplifies lines, but not areas
_LOG_RATIO = 20  # positive curves with a larger ratio of extremes get a logarithmic axis


class _Curve(NamedTuple):
    """Mean and standard deviation over seeds; [steps]."""

    steps: list[int]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


def curves(results: Results) -> PanelGrid:
    """Curves of all setups; raises the errors of :func:`curve_panels`."""
    by_setup = curve_panels(results).values()
    colours = [(name, method_colour(results, name)) for name in curve_methods(results)]
    width = _CURVE_WIDTH * min(max(map(len, by_setup)), _CURVE_COLUMNS)
    grid = [row for panels in by_setup for row in in_rows(panels, _CURVE_COLUMNS)]
    return [[legend(colours, width, 6)], *grid]


def curve_methods(results: Results) -> list[str]:
    """Methods that have curves."""
    return list(dict.fromkeys(cell.method for cell in results.ranked() if cell.runs))


def curve_panels(results: Results) -> dict[str, list[Panel]]:
    """Panels by setup, one for each logged metric.

    Raises:
        DataError: none of the runs has logged metrics.
    """
    logs = {run.folder: read_log(run.folder) for run in results.data_runs}
    by_setup = {setup: list(_curve_panels(results, setup, logs)) for setup in results.setups}
    if not any(by_setup.values()):
        raise DataError(
            f"None of these runs has a readable {METRICS_FILE}.", "Runs write it while they train."
        )
    return by_setup


def _curve_panels(results: Results, setup: str, logs: Mapping[Path, Log]) -> Iterator[Panel]:
    for name, (title, factor) in _LOGGED.items():
        by_method = {
            cell.method: _over_seeds([logs[run.folder].get(name, {}) for run in cell.runs], factor)
            for cell in results.ranked(setup)
        }
        by_method = {method: curve for method, curve in by_method.items() if len(curve.steps)}
        if by_method:
            yield _curve_panel(results, f"{setup}: {title}" if setup else title, by_method)


def _over_seeds(logs: Sequence[Mapping[int, float]], factor: float) -> _Curve:
    """Curve of a metric for the steps that all seeds with finite values have logged."""
    finite = [{step: value for step, value in log.items() if abs(value) < math.inf} for log in logs]
    by_seed = [log for log in finite if log]
    steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    values = factor * np.array([[log[step] for step in steps] for log in by_seed])
    if not steps:
        return _Curve([], np.empty(0), np.empty(0))
    sd = values.std(axis=0, ddof=1) if len(by_seed) > 1 else np.zeros(len(steps))
    return _Curve(steps, values.mean(axis=0), sd)


def _curve_panel(results: Results, title: str, by_method: Mapping[str, _Curve]) -> Panel:
    best = results.best.method
    low = min(float(curve.mean.min()) for curve in by_method.values())
    high = max(float(curve.mean.max()) for curve in by_method.values())
    log = "%" not in title and low > 0 and high / low > _LOG_RATIO

    def draw(axes: Axes) -> None:
        for method, (steps, mean, sd) in sorted(by_method.items(), key=lambda item: item[0] == best):
            colour, dashes = method_colour(results, method), "--" if method == BASELINE else "-"
            axes.plot(steps, mean, dashes, color=colour, linewidth=2.5 if method == best else 1.4)
            if sd.any():
                few = slice(None, None, -(-len(steps) // _BAND_POINTS))
                band = (mean - sd)[few], (mean + sd)[few]
                axes.fill_between(steps[few], *band, color=colour, alpha=0.16, linewidth=0)
        axes.set_xlabel("training step")
        axes.set_xlim(left=0)
        if log:  # limits from the means: a band that reaches zero has no logarithm
            logarithmic(axes, low, high)
        else:
            axes.set_ylim(bottom=min(0, low))

    ends = "; ".join(f"{method} ends at {curve.mean[-1]:.3g}" for method, curve in by_method.items())
    heading = f"{title}, log" if log else title
    return Panel(f"{title}: {ends}", _CURVE_WIDTH, _CURVE_HEIGHT, draw, heading)
