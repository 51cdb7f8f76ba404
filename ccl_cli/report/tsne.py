"""Features of test and training videos in the plane (Figure 5b of the paper)."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.report.collect import clean
from ccl_cli.report.plot import Panel, Plot, legend, tips
from ccl_cli.report.study import Study
from ccl_cli.report.style import LIGHT
from ccl_cli.report.views import View, views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = 420
_MOST = 1500  # videos of both splits: more take minutes and hide each other
_NAMED = 60  # classes up to which there is a legend
_FEWEST = 5
_LONG = 12  # letters of a name that does not fit in a quarter of the width


def figure(study: Study) -> Plot:
    """The plane, and which colour is which class where they are few.

    Raises:
        DataError: the videos are gone, or too few.
    """
    drawn = panels(study)
    return Plot(drawn[0].text, [[panel] for panel in drawn])


def panels(study: Study) -> list[Panel]:
    """Circles: training videos; diamonds: the others; one colour for each class."""
    queries, gallery = views(study)
    shown, trained = (_thinned(view, _MOST // 2) for view in (queries, gallery))
    points = _embed(np.concatenate([shown.features, trained.features]))
    split = len(shown.labels)

    def draw(axes: Axes) -> None:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        _scatter(axes, trained, points[split:], "train", marker="o", s=18, alpha=0.5)
        _scatter(axes, shown, points[:split], study.split, marker="D", s=32, alpha=0.95)
        marks = axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, labelcolor=LIGHT["muted"])
        for mark in filter(None, marks.legend_handles):
            mark.set(facecolor=LIGHT["muted"], sizes=[28])

    text = f"t-SNE of the features of {study.shown.label}"
    text += f": {split} {study.split} and {len(points) - split} train videos"
    plane = Panel(text, _SIDE, _SIDE + 24, draw)
    classes = [(clean(name), _colour(n, len(queries.classes))) for n, name in enumerate(queries.classes)]
    columns = 4 if max(len(name) for name, _ in classes) < _LONG else 3
    return [plane, legend(classes, _SIDE, columns)] if len(classes) <= _NAMED else [plane]


def _embed(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """[V, 2]."""
    from sklearn.manifold import TSNE

    if len(features) < _FEWEST:
        raise DataError(f"{len(features)} videos are too few for a t-SNE.")
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return np.asarray(points, np.float64)


def _thinned(view: View, most: int) -> View:
    """At most so many videos, evenly spread."""
    keep = np.unique(np.linspace(0, len(view.labels) - 1, min(most, len(view.labels))).round().astype(int))
    videos = tuple(view.videos[place] for place in keep)
    return View(view.classes, videos, view.scores[keep], view.features[keep], view.labels[keep])


def _scatter(axes: Axes, view: View, points: NDArray[np.float64], split: str, **looks: Any) -> None:
    colours = [_colour(int(label), len(view.classes)) for label in view.labels]
    drawn = axes.scatter(points[:, 0], points[:, 1], c=colours, linewidths=0, label=f"{split} video", **looks)
    pairs = zip(view.labels, view.videos, strict=True)
    tips(drawn, [f"{view.classes[label]}: {video.id} ({split})" for label, video in pairs])


def _colour(label: int, classes: int) -> str:
    """Hues around the wheel, neighbours told apart by lightness; readable on white and on black."""
    lightness = (0.42, 0.60)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label / max(classes, 1), lightness, 0.72)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
