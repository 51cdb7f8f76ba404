"""Confusion matrix of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.evaluation.prediction_cache import Predictions
from ccl_cli.report.figures.panel import Panel, PanelGrid, shortened
from ccl_cli.report.figures.predictions import predictions
from ccl_cli.report.figures.style import LIGHT
from ccl_cli.report.figures.svg import tips
from ccl_cli.report.records.results import Results
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_LETTERS = 16  # of class names
_MAX_COUNTED = 12  # classes; with more, cells show no counts
_MAX_SHOWN = 100  # classes; with more, only those with the most mistakes are shown


@dataclass(frozen=True)
class ConfusionCounts:
    """Sparse confusion matrix: number of videos for each pair of classes that occurs.

    Shapes:
        true, predicted, videos: [M], sorted by true class, then by predicted class.
        class_sizes: [K] number of videos of each class.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    videos: NDArray[np.int64]
    class_sizes: NDArray[np.int64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """[M] mask of the mistakes."""
        return np.not_equal(self.true, self.predicted)

    def most_mistaken(self, limit: int) -> NDArray[np.int64]:
        """Classes with the most mistakes, as true or predicted class, in the order of the classes."""
        sides = np.concatenate([self.true[self.wrong], self.predicted[self.wrong]])
        mistakes = np.bincount(sides, np.tile(self.videos[self.wrong], 2), len(self.class_sizes))
        return np.sort(np.argsort(-mistakes, kind="stable")[:limit])


def confusion(results: Results) -> PanelGrid:
    """Confusion matrix of the best run; raises the errors of :func:`confusion_counts`."""
    return [[confusion_panel(results)]]


def confusion_panel(results: Results) -> Panel:
    """Draw the confusion matrix of the best run."""
    queries = predictions(results, results.split)
    counts, names = confusion_counts(queries), [one_line(name) for name in queries.classes]
    right = int(counts.videos[~counts.wrong].sum())
    text = f"Confusion matrix of {results.best_run.label}: {right} of {len(queries.labels)} videos are right"
    shown = np.arange(len(names))
    if len(names) > _MAX_SHOWN:
        shown = counts.most_mistaken(_MAX_SHOWN)
        text += f"; the {_MAX_SHOWN} of {len(names):,} classes with the most mistakes"
    size = max(9.0, min(44.0, 340 / len(shown)))
    side = 40 + 7 * max(len(shortened(names[label], _MAX_LETTERS)) for label in shown) + size * len(shown)

    def draw(axes: Axes) -> None:
        _draw_confusion(axes, counts, shown, names)
        _name_classes(axes, [names[label] for label in shown], min(11.0, size * 0.9))

    return Panel(text, side, side, draw)


def confusion_counts(predictions: Predictions) -> ConfusionCounts:
    """Count pairs of classes sparsely, because a dense matrix of 5,000 classes has 25 million cells.

    Raises:
        DataError: the run was trained without labels.
    """
    if (predictions.predicted < 0).any():
        raise DataError("The run was trained without labels: its student predicts no classes.")
    classes = len(predictions.classes)
    pairs, videos = np.unique(predictions.labels * classes + predictions.predicted, return_counts=True)
    sizes = np.bincount(predictions.labels, minlength=classes)
    return ConfusionCounts(pairs // classes, pairs % classes, videos, sizes)


def frequent_mistakes(results: Results) -> list[str]:
    """Describe the six most frequent mistakes."""
    queries = predictions(results, results.split)
    counts, names = confusion_counts(queries), queries.classes
    order = [pair for pair in np.argsort(-counts.videos, kind="stable") if counts.wrong[pair]]
    return [
        f"{names[counts.true[pair]]} is taken for {names[counts.predicted[pair]]}: "
        f"{counts.videos[pair]} of {counts.class_sizes[counts.true[pair]]} videos."
        for pair in order[:6]
    ]


def _draw_confusion(
    axes: Axes, counts: ConfusionCounts, shown: NDArray[np.int64], names: Sequence[str]
) -> None:
    from matplotlib.collections import PolyCollection

    inside = np.isin(counts.true, shown) & np.isin(counts.predicted, shown)
    true, predicted, videos = (each[inside] for each in (counts.true, counts.predicted, counts.videos))
    shares = videos / counts.class_sizes[true]
    rows, columns = np.searchsorted(shown, true), np.searchsorted(shown, predicted)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    colours = [LIGHT["good" if right else "bad"] for right in true == predicted]
    squares = PolyCollection(
        [corners + place for place in zip(columns, rows, strict=True)],
        facecolors=list(zip(colours, 0.15 + 0.85 * shares, strict=True)),
        linewidths=0,
    )
    pairs = zip(true, predicted, videos, shares, strict=True)
    tips(squares, [f"{names[t]} as {names[p]}: {count} ({share:.0%})" for t, p, count, share in pairs])
    axes.add_collection(squares)
    if len(shown) <= _MAX_COUNTED:
        for column, row, count in zip(columns, rows, videos, strict=True):
            axes.text(column, row, str(count), ha="center", va="center_baseline")


def _name_classes(axes: Axes, names: Sequence[str], size: float) -> None:
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    axes.grid(False)
    axes.spines[:].set(visible=True, color=LIGHT["muted"])
    axes.xaxis.set(label_position="top", ticks_position="top")
    axes.set(xlabel="predicted class", ylabel="true class")
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        short = [shortened(name, _MAX_LETTERS) for name in names]
        axis.set_ticks(range(len(names)), short, rotation=rotation, fontsize=size, color=LIGHT["ink"])
        for label, name in zip(axis.get_ticklabels(), names, strict=True):
            tips(label, [name])
