"""Figures of the runs' records, each as the panels of one plot, and all figures by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report import correspondence, plot, video_figures
from ccl_cli.report.comparison import t_interval
from ccl_cli.report.plot import (
    SUFFIXES,
    Panel,
    PanelGrid,
    bar_panel,
    bars,
    beside,
    canvas,
    in_rows,
    legend,
    logarithmic,
    outermost,
    save,
    shortened,
)
from ccl_cli.report.results import BASELINE, Cell, Results, load_results
from ccl_cli.report.runs import METRICS, check_known, clean, logged
from ccl_cli.report.style import LIGHT
from ccl_cli.training.run.folder import METRICS as METRICS_FILE
from ccl_cli.training.run.folder import read_json
from ccl_cli.utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

# ---- overview: each seed, the mean and its 95 % interval

_OVERVIEW_METRICS = ("top1", "r1")
_MAX_ROWS = 10  # up to which ablations are among them
_OVERVIEW_WIDTH, _OVERVIEW_ROW = 400, 26


def overview(results: Results) -> PanelGrid:
    """Recognition and retrieval side by side, and how to read them."""
    panels, text = overview_panels(results), overview_legend(results)
    width = sum(panel.width for panel in panels)

    def draw(axes: Axes) -> None:
        canvas(axes, width, 18)
        axes.text(0, 12, text, color=LIGHT["muted"], fontsize=10)

    return [panels, [Panel(text, width, 24, draw)]]


def overview_legend(results: Results) -> str:
    """How to read the overview."""
    letters = sorted(results.modalities.items())
    setups = [f"{short}: {name}" for short, name in letters if any(short in s for s in results.setups)]
    marks = ["Dots: seeds", "thick stroke: mean", "line: its 95 % interval", "dashed: baseline"]
    return clean("; ".join([*marks, *setups]))


def overview_panels(results: Results) -> list[Panel]:
    """One panel for each of the two metrics that the runs have."""
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
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if baseline and baseline.mean is not None:
            axes.axvline(baseline.mean, color=LIGHT["muted"], linewidth=1, linestyle="--")
        for place, cell in enumerate(cells):
            _overview_row(axes, place, cell, results.colour(cell.method))

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
        # With few seeds the whole interval would leave the dots no room.
        for edge, arrow, cut in ((left, "<", interval[0] < left), (right, ">", interval[1] > right)):
            if cut:
                axes.plot([edge], [place], arrow, color=colour, markersize=6, clip_on=False)
    axes.plot(values, [place] * cell.n, "o", color=colour, alpha=0.5, markersize=6.5, markeredgewidth=0)
    axes.plot([cell.mean], [place], "|", color=colour, markersize=15, markeredgewidth=3.5)
    beside(axes, place, f"{cell.mean:.1f}")


# ---- training curves: mean and standard deviation over seeds of what runs logged

# By name in metrics.jsonl: title and factor.
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
_BAND_POINTS = 400  # that the outline of a band needs at this width: matplotlib thins out lines, not areas
_LOG_RATIO = 20  # a positive curve whose extremes differ by this factor gets a logarithmic axis


def curves(results: Results) -> PanelGrid:
    """All setups below each other; raises as :func:`curve_panels`."""
    by_setup = curve_panels(results).values()
    colours = [(name, results.colour(name)) for name in curve_methods(results)]
    width = _CURVE_WIDTH * min(max(map(len, by_setup)), _CURVE_COLUMNS)
    grid = [row for panels in by_setup for row in in_rows(panels, _CURVE_COLUMNS)]
    return [[legend(colours, width, 6)], *grid]


def curve_methods(results: Results) -> list[str]:
    """The methods that are drawn."""
    return list(dict.fromkeys(cell.method for cell in results.ranked() if cell.runs))


def curve_panels(results: Results) -> dict[str, list[Panel]]:
    """By setup one panel for each quantity that its runs have logged.

    Raises:
        DataError: the runs have logged nothing.
    """
    logs = {run.folder: logged(run.folder) for run in results.data_runs}
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
    """Mean and standard deviation over the seeds' logs, by step that all of them have logged."""
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
            colour, dashes = results.colour(method), "--" if method == BASELINE else "-"
            width = 2.5 if method == best else 1.4
            axes.plot(curve.index, curve["mean"], dashes, color=colour, linewidth=width)
            if curve["sd"].any():
                few = curve.iloc[:: -(-len(curve) // _BAND_POINTS)]
                band = few["mean"] - few["sd"], few["mean"] + few["sd"]
                axes.fill_between(few.index, *band, color=colour, alpha=0.16, linewidth=0)
        axes.set_xlabel("training step")
        axes.set_xlim(left=0)
        if log:  # the bands do not stretch it: one that reaches zero has no end there
            logarithmic(axes, low, high)
        else:
            axes.set_ylim(bottom=min(0, low))

    ends = "; ".join(f"{method} ends at {curve['mean'].iloc[-1]:.3g}" for method, curve in by_method.items())
    heading = f"{title}, log" if log else title
    return Panel(f"{title}: {ends}", _CURVE_WIDTH, _CURVE_HEIGHT, draw, heading)


# ---- accuracy of each class against the baseline's (Figure 3 of the paper)

_MAX_CLASSES = 60  # that are drawn; of more, those at either end
_EQUAL = 1e-9  # percentage points


@dataclass(frozen=True)
class ClassGain:
    """One method in one setup: by how many points each class is better than without teachers."""

    label: str
    points: dict[str, float]

    @property
    def sentence(self) -> str:
        """How many classes gained."""
        signs = [(value > _EQUAL) - (value < -_EQUAL) for value in self.points.values()]
        better, equal, worse = (signs.count(sign) for sign in (1, 0, -1))
        return f"{self.label}: better in {better} classes, worse in {worse}, equal in {equal}."


def class_gains(results: Results, setup: str) -> list[ClassGain]:
    """The best method of a setup and, where there are others, the worst.

    Raises:
        DataError: no baseline among the runs, or no evaluation by class.
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
    """Mean top-1 over seeds by class, in percent."""
    name = f"eval-{results.data}-{results.split}.json"
    by_seed = [read_json(run.folder / name).get("recognition", {}).get("per_class", {}) for run in cell.runs]
    by_seed = [each for each in by_seed if each]
    first = by_seed[0] if by_seed else {}
    names = [name for name in first if all("top1" in each.get(name, {}) for each in by_seed)]
    return {name: statistics.fmean(each[name]["top1"] for each in by_seed) for name in names}


def class_panels(gains: Sequence[ClassGain]) -> list[Panel]:
    """One panel for each, with the same order of classes and the same scale."""
    order = sorted(gains[0].points, key=lambda name: -gains[0].points[name])
    reach = max(1.0, *(abs(value) for gain in gains for value in gain.points.values()))
    return [_class_panel(gain, [name for name in order if name in gain.points], reach) for gain in gains]


def _class_panel(gain: ClassGain, order: Sequence[str], reach: float) -> Panel:
    shown = outermost(order, _MAX_CLASSES)
    values = [gain.points[name] for name in shown]

    def draw(axes: Axes) -> None:
        drawn = bars(axes, shown, values, [LIGHT["good" if value >= 0 else "bad"] for value in values])
        axes.set_xlim(-1.25 * reach, 1.25 * reach)
        axes.axvline(0, color=LIGHT["muted"], linewidth=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0f}" if value else "0")
        if len(shown) < len(order):
            axes.set_xlabel(f"{_MAX_CLASSES} of {len(order):,} classes, the best and the worst")
        numbers = [f"{value:+.1f}" if abs(value) > _EQUAL else "0" for value in values]
        axes.bar_label(drawn, numbers, padding=3, fontsize=10, color=LIGHT["muted"])

    text = f"{gain.sentence} Percentage points of top-1."
    return bar_panel(text, f"{gain.label} minus baseline", len(shown), draw)


# ---- all figures

FIGURES: dict[str, Callable[[Results], PanelGrid]] = {
    "overview": overview,
    "curves": curves,
    "classes": lambda results: in_rows(class_panels(class_gains(results, results.best.setup)), 2),
    "confusion": lambda results: [[video_figures.confusion_panel(results)]],
    "gallery": lambda results: [[video_figures.gallery_panel(results)]],
    "tsne": lambda results: in_rows(video_figures.tsne_panels(results), 1),
    "correspondence": correspondence.figure,
}


def check_suffix(path: Path) -> None:
    """Refuse a file name that is none of a plot, before anything is computed.

    Raises:
        UsageError: names the suffixes.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"'{path}' names no kind of picture.", "Let it end in .png, .svg or .pdf.")


def figure(name: str, *folders: Path | str, split: str = "test") -> Figure:
    """One figure of the report, as matplotlib's.

    Args:
        name: ``overview``, ``curves``, ``classes``, ``confusion``, ``gallery``, ``tsne`` or
            ``correspondence``.
        folders: Run folders, or folders of them; none for the newest that holds an evaluated run.
        split: Whose evaluation to show: "test" or "val".

    Raises:
        UsageError: there is no figure of that name.
        DataError: no such folder, or its runs lack what the figure shows.
    """
    check_known("figure", name, FIGURES)
    return plot.figure(FIGURES[name](load_results([Path(folder) for folder in folders], split)))


def write_figure(results: Results, name: str, path: Path) -> None:
    """Write one figure, light and with a white ground, in the format of the file's suffix.

    Raises:
        UsageError: neither PNG nor SVG nor PDF.
        DataError: the runs lack what the figure shows.
    """
    check_suffix(path)
    grid = FIGURES[name](results)
    with atomic_path(path) as temporary:
        save(grid, temporary, path.suffix.lower())
