"""Training curves: logged metrics, with mean and standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.errors import DataError
from ccl_cli.report.figures.panel import Panel, PanelGrid, in_rows, legend, logarithmic
from ccl_cli.report.figures.style import method_colour
from ccl_cli.report.records.results import BASELINE, Results
from ccl_cli.report.records.training_log import read_log
from ccl_cli.training.run.folder import METRICS as METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

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


def _curve_panels(results: Results, setup: str, logs: Mapping[Path, DataFrame]) -> Iterator[Panel]:
    for name, (title, _) in _LOGGED.items():
        by_method = {
            cell.method: _over_seeds([logs[run.folder] for run in cell.runs], name)
            for cell in results.ranked(setup)
        }
        by_method = {method: curve for method, curve in by_method.items() if len(curve)}
        if by_method:
            yield _curve_panel(results, f"{setup}: {title}" if setup else title, by_method, name)


def _over_seeds(logs: Sequence[DataFrame], name: str) -> DataFrame:
    """Mean and standard deviation of a metric over seeds, for the steps that all seeds have logged."""
    from pandas import DataFrame

    columns = [frame[name][abs(frame[name]) < math.inf] for frame in logs if name in frame]
    values = (
        _LOGGED[name][1]
        * DataFrame([each for each in columns if len(each)], dtype=float).T.dropna().sort_index()
    )
    return DataFrame({"mean": values.mean(axis=1), "sd": values.std(axis=1).fillna(0)})


def _curve_panel(results: Results, title: str, by_method: dict[str, DataFrame], name: str) -> Panel:
    best = results.best.method
    low = min(float(curve["mean"].min()) for curve in by_method.values())
    high = max(float(curve["mean"].max()) for curve in by_method.values())
    log = "%" not in _LOGGED[name][0] and low > 0 and high / low > _LOG_RATIO

    def draw(axes: Axes) -> None:
        for method, curve in sorted(by_method.items(), key=lambda item: item[0] == best):
            colour, dashes = method_colour(results, method), "--" if method == BASELINE else "-"
            width = 2.5 if method == best else 1.4
            axes.plot(curve.index, curve["mean"], dashes, color=colour, linewidth=width)
            if curve["sd"].any():
                few = curve.iloc[:: -(-len(curve) // _BAND_POINTS)]
                band = few["mean"] - few["sd"], few["mean"] + few["sd"]
                axes.fill_between(few.index, *band, color=colour, alpha=0.16, linewidth=0)
        axes.set_xlabel("training step")
        axes.set_xlim(left=0)
        if log:  # limits from the means: a band that reaches zero has no logarithm
            logarithmic(axes, low, high)
        else:
            axes.set_ylim(bottom=min(0, low))

    ends = "; ".join(f"{method} ends at {curve['mean'].iloc[-1]:.3g}" for method, curve in by_method.items())
    heading = f"{title}, log" if log else title
    return Panel(f"{title}: {ends}", _CURVE_WIDTH, _CURVE_HEIGHT, draw, heading)
