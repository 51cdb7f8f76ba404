"""Features of test and training videos in the plane (Figure 5b of the paper)."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import Area, Dot, Drawing, Mark, Point, Text, frame, in_rows, legend
from ccl_cli.report.study import Study
from ccl_cli.report.views import View, views

_SIDE = 400.0
_MOST = 1500  # videos of both splits: more take minutes and hide each other
_NAMED = 60  # classes up to which there is a legend
_FEWEST = 5


def figure(study: Study) -> Drawing:
    """Circles: training videos; diamonds: the others; one colour for each class.

    Raises:
        DataError: the videos are gone, or too few.
    """
    queries, gallery = views(study)
    shown, trained = (_thinned(view, _MOST // 2) for view in (queries, gallery))
    points = _embed(np.concatenate([shown.features, trained.features])).tolist()
    marks = [*_key(study.split), frame(0, 24, _SIDE, _SIDE, "grid")]
    split = len(shown.labels)
    marks += [_mark(trained, n, points[split + n], "train") for n in range(len(trained.labels))]
    marks += [_mark(shown, n, points[n], study.split) for n in range(split)]
    title = f"t-SNE of the features of {study.shown.label}"
    plane = Drawing(
        _SIDE, _SIDE + 24, f"{title}: {split} {study.split} and {len(points) - split} train videos", marks
    )
    names = [(clean(name), _colour(n, len(queries.classes))) for n, name in enumerate(queries.classes)]
    return in_rows([plane, legend(names, _SIDE, 4)] if len(names) <= _NAMED else [plane], 1, plane.title)


def _embed(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """[V, 2] in pixels."""
    from sklearn.manifold import TSNE

    if len(features) < _FEWEST:
        raise DataError(f"{len(features)} videos are too few for a t-SNE.")
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.maximum(high - low, 1e-12)
    return np.asarray(scaled * (_SIDE - 24) + (12, 36), np.float64)


def _thinned(view: View, most: int) -> View:
    """At most so many videos, evenly spread."""
    keep = np.unique(np.linspace(0, len(view.labels) - 1, min(most, len(view.labels))).round().astype(int))
    videos = tuple(view.videos[place] for place in keep)
    return View(view.classes, videos, view.scores[keep], view.features[keep], view.labels[keep])


def _mark(view: View, place: int, at: Point, split: str) -> Mark:
    label = int(view.labels[place])
    colour = _colour(label, len(view.classes))
    tip = f"{view.classes[label]}: {view.videos[place].id} ({split})"
    return Dot(*at, 2.6, colour, 0.5, tip) if split == "train" else _diamond(*at, colour, tip)


def _diamond(x: float, y: float, colour: str, tip: str = "") -> Area:
    size = 4.6
    return Area([(x - size, y), (x, y - size), (x + size, y), (x, y + size)], colour, 0.95, tip)


def _key(split: str) -> list[Mark]:
    return [
        Dot(8, 10, 2.6, "muted", 0.7),
        Text(16, 14, "train video", 11, "muted"),
        _diamond(108, 10, "muted"),
        Text(118, 14, f"{split} video", 11, "muted"),
    ]


def _colour(label: int, classes: int) -> str:
    """Hues around the wheel, neighbours told apart by lightness; readable on white and on black."""
    lightness = (0.42, 0.60)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label / max(classes, 1), lightness, 0.72)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
