"""t-SNE of the features of one run (Figure 5b of the paper)."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.evaluation.prediction_cache import Predictions
from ccl_cli.report.figures.panel import Panel, PanelGrid, in_rows, legend
from ccl_cli.report.figures.predictions import predictions, unit
from ccl_cli.report.figures.style import LIGHT
from ccl_cli.report.figures.svg import tips
from ccl_cli.report.figures.tsne_process import tsne_points
from ccl_cli.report.records.results import Results
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLANE = 420  # pixels
_MAX_VIDEOS = 1000  # of both splits; more overlap, and 1,500 take twice as long
_MAX_LEGEND = 60  # classes; with more there is no legend
_MIN_VIDEOS = 5
_LONG_NAME = 12  # characters that do not fit in a quarter of the width


def tsne(results: Results) -> PanelGrid:
    """Scatter plot and legend below each other; raises the errors of :func:`tsne_panels`."""
    return in_rows(tsne_panels(results), 1)


def tsne_panels(results: Results) -> list[Panel]:
    """Scatter plot (circles: training videos, diamonds: evaluated videos) and, for few classes, a legend.

    Raises:
        DataError: the videos are missing or too few.
    """
    split, queries = results.split, predictions(results, results.split)
    shown, trained = (_thinned(each, _MAX_VIDEOS // 2) for each in (queries, predictions(results, "train")))
    features, count = unit(np.concatenate([shown.features, trained.features])), len(shown.labels)
    if len(features) < _MIN_VIDEOS:
        raise DataError(f"{len(features)} videos are too few for a t-SNE.")
    points = tsne_points(features)

    def draw(axes: Axes) -> None:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        _scatter(axes, trained, points[count:], "train", marker="o", s=18, alpha=0.5)
        _scatter(axes, shown, points[:count], split, marker="D", s=32, alpha=0.95)
        marks = axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, labelcolor=LIGHT["muted"])
        for mark in filter(None, marks.legend_handles):
            mark.set(facecolor=LIGHT["muted"], sizes=[28])

    text = f"t-SNE of the features of {results.best_run.label}"
    text += f": {count} {split} and {len(points) - count} train videos"
    plane = Panel(text, _PLANE, _PLANE + 24, draw)
    colours = [
        (one_line(name), _class_colour(n, len(queries.classes))) for n, name in enumerate(queries.classes)
    ]
    columns = 4 if max(len(name) for name, _ in colours) < _LONG_NAME else 3
    return [plane, legend(colours, _PLANE, columns)] if len(colours) <= _MAX_LEGEND else [plane]


def _thinned(each: Predictions, most: int) -> Predictions:
    """Select at most ``most`` videos, evenly spread."""
    count = min(most, len(each.labels))
    return each.take(np.linspace(0, len(each.labels) - 1, count).round().astype(int))


def _scatter(axes: Axes, each: Predictions, points: NDArray[np.float64], split: str, **marker: Any) -> None:
    colours = [_class_colour(int(label), len(each.classes)) for label in each.labels]
    drawn = axes.scatter(
        points[:, 0], points[:, 1], c=colours, linewidths=0, label=f"{split} video", **marker
    )
    pairs = zip(each.labels, each.videos, strict=True)
    tips(drawn, [f"{each.classes[label]}: {video.id} ({split})" for label, video in pairs])


def _class_colour(label: int, classes: int) -> str:
    """Colour of a class: evenly spread hues with alternating lightness, readable on white and on black."""
    lightness = (0.42, 0.60)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label / max(classes, 1), lightness, 0.72)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
