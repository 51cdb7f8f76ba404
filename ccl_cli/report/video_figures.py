"""Figures of one run's videos: confusion matrix, nearest videos, features in the plane (Figure 5)."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import CclError, DataError
from ccl_cli.report.plot import Panel, canvas, legend, picture, shortened, tips
from ccl_cli.report.results import Results
from ccl_cli.report.runs import clean
from ccl_cli.report.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ccl_cli.data.manifest import Video
    from ccl_cli.data.video.storage import Location


@dataclass(frozen=True)
class Predictions:
    """The readable videos of one split, as a run's student sees them.

    Shapes:
        predicted: [V] class with the highest score; -1 if the student has no classes.
        features: [V, D] of length one.
        labels: [V].
    """

    classes: tuple[str, ...]
    videos: Sequence[Video]
    predicted: NDArray[np.int64]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]

    def take(self, places: NDArray[Any]) -> Predictions:
        """Some of the videos: [N] places or [V] bool."""
        videos = tuple(self.videos[place] for place in np.arange(len(self.videos))[places])
        return Predictions(
            self.classes, videos, self.predicted[places], self.features[places], self.labels[places]
        )


def predictions(results: Results, split: str) -> Predictions:
    """The best run's predictions of one split.

    Raises:
        DataError: the videos are gone, or the run was evaluated on other videos than its own.
    """
    results.best_run.check_own_videos(results.data)
    return _predictions(results.best_run.folder, split)


@lru_cache(maxsize=4)
def _predictions(folder: Path, split: str) -> Predictions:
    from sklearn.preprocessing import normalize

    from ccl_cli.evaluation.prediction_cache import cached_predictions

    cached = cached_predictions(folder, split)
    tensors = cached.predictions.predicted, cached.predictions.features, cached.predictions.labels
    every = Predictions(cached.classes, cached.videos, *(tensor.numpy() for tensor in tensors))
    readable = np.asarray(np.isfinite(every.features).all(axis=1))
    if not readable.any():
        raise DataError(f"None of the {split} videos of '{cached.name}' can be read.")
    read = every.take(readable)
    return replace(read, features=normalize(read.features))


# ---- confusion matrix

_MAX_LETTERS = 16  # of the names of classes
_MAX_COUNTED = 12  # classes up to which counts are written into the cells
_MAX_SHOWN = 100  # classes; of more, those with the most mistakes


@dataclass(frozen=True)
class ConfusionCounts:
    """Videos by true class and by the class with the highest score; only the pairs that occur.

    Shapes:
        true, predicted, videos: [M], in the order of the true class, then of the other.
        class_sizes: [K] videos of each class.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    videos: NDArray[np.int64]
    class_sizes: NDArray[np.int64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """[M] which pairs are mistakes."""
        return np.not_equal(self.true, self.predicted)

    def most_mistaken(self, limit: int) -> NDArray[np.int64]:
        """The classes with the most mistakes, on either side, in their own order."""
        sides = np.concatenate([self.true[self.wrong], self.predicted[self.wrong]])
        mistakes = np.bincount(sides, np.tile(self.videos[self.wrong], 2), len(self.class_sizes))
        return np.sort(np.argsort(-mistakes, kind="stable")[:limit])


def confusion_panel(results: Results) -> Panel:
    """Rows: the true class; columns: the predicted class."""
    queries = predictions(results, results.split)
    counts, names = confusion_counts(queries), [clean(name) for name in queries.classes]
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
    """Count the pairs that occur: a whole matrix of 5,000 classes would have 25 million cells.

    Raises:
        DataError: the run was trained without labels.
    """
    if (predictions.predicted < 0).any():
        raise DataError("The run was trained without labels: it takes no video for one of a class.")
    classes = len(predictions.classes)
    pairs, videos = np.unique(predictions.labels * classes + predictions.predicted, return_counts=True)
    sizes = np.bincount(predictions.labels, minlength=classes)
    return ConfusionCounts(pairs // classes, pairs % classes, videos, sizes)


def frequent_mistakes(results: Results, limit: int = 6) -> list[str]:
    """The most frequent mistakes, as sentences."""
    queries = predictions(results, results.split)
    counts, names = confusion_counts(queries), queries.classes
    order = [pair for pair in np.argsort(-counts.videos, kind="stable") if counts.wrong[pair]]
    return [
        f"{names[counts.true[pair]]} is taken for {names[counts.predicted[pair]]}: "
        f"{counts.videos[pair]} of {counts.class_sizes[counts.true[pair]]} videos."
        for pair in order[:limit]
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


# ---- nearest training videos (Figure 5a of the paper)

QUERIES, NEIGHBOURS = 8, 4
_SHORT_SIDE = 128  # pixels of a frame that a thumbnail is cut from
_TILE, _GAP, _ROW = 96, 14, 132  # pixels


@dataclass(frozen=True)
class Tile:
    """One video: its class, whether that is the query's, and its middle frame (None: it cannot be read)."""

    id: str
    label: str
    right: bool
    jpeg: bytes | None


@dataclass(frozen=True)
class Retrieval:
    """A query and its nearest neighbours, the nearest first."""

    query: Tile
    neighbours: tuple[Tile, ...]


def gallery_panel(results: Results) -> Panel:
    """One row for each query."""
    retrievals = nearest_videos(results)
    width, height = _tile_left(NEIGHBOURS), 20 + _ROW * len(retrievals)

    def draw(axes: Axes) -> None:
        canvas(axes, width, height)
        axes.text(0, 12, "Query", color=LIGHT["muted"])
        axes.text(_tile_left(0), 12, "Nearest first", color=LIGHT["muted"])
        for number, retrieval in enumerate(retrievals):
            y = 20 + _ROW * number
            _draw_tile(axes, retrieval.query, 0, y, LIGHT["muted"])
            for place, tile in enumerate(retrieval.neighbours):
                x = _tile_left(place)
                _draw_tile(axes, tile, x, y, LIGHT["good" if tile.right else "bad"])
                axes.text(x + _TILE, y + _TILE + 16, "✓" if tile.right else "✗", ha="right")

    return Panel(f"Videos that {results.best_run.label} finds", width, height, draw)


def nearest_videos(results: Results) -> list[Retrieval]:
    """Nearest neighbours of a few queries: one video of each of some classes, evenly spread over the list.

    Raises:
        DataError: the videos are gone.
    """
    queries, training = predictions(results, results.split), predictions(results, "train")
    firsts = np.unique(queries.labels, return_index=True)[1]
    chosen = firsts[np.linspace(0, len(firsts) - 1, min(QUERIES, len(firsts))).round().astype(int)]
    nearest = np.argsort(-(queries.features[chosen] @ training.features.T), axis=1, kind="stable")
    names = [*map(clean, queries.classes)]
    retrievals = []
    for query, order in zip(chosen.tolist(), nearest[:, :NEIGHBOURS].tolist(), strict=True):
        label = int(queries.labels[query])
        tiles = [
            _tile(training.videos[n], names[training.labels[n]], training.labels[n] == label) for n in order
        ]
        retrievals.append(Retrieval(_tile(queries.videos[query], names[label], True), tuple(tiles)))
    tiles = [tile for each in retrievals for tile in (each.query, *each.neighbours)]
    if all(tile.jpeg is None for tile in tiles):
        raise DataError(
            f"No pictures to show: the videos cannot be read any more, for example '{tiles[0].id}'.",
            "Put the videos back where they were when the run was trained.",
        )
    return retrievals


def thumbnail(path: Location, start: float | None = None, end: float | None = None) -> bytes | None:
    """The middle frame of a video, or of a stretch of it, as a square JPEG; None if it cannot be read."""
    from PIL import Image, ImageOps

    from ccl_cli.data.video.reader import open_video, read_frames

    try:
        first, count = open_video(path).metadata.frame_range(start, end)
        frames = read_frames(path, first + count // 2, 1, short_side=_SHORT_SIDE).frames
    except CclError:  # the file is gone or damaged since: the others can still be shown
        return None
    image = Image.fromarray(np.ascontiguousarray(frames[0].numpy()))
    file = io.BytesIO()
    ImageOps.fit(image, (min(image.size),) * 2).save(file, "JPEG", quality=82)
    return file.getvalue()


def _tile(video: Video, name: str, right: bool) -> Tile:
    return Tile(clean(video.id), name, bool(right), thumbnail(video.path, video.start, video.end))


def _tile_left(place: int) -> int:
    return (_TILE + _GAP) * (place + 1) + _GAP


def _draw_tile(axes: Axes, tile: Tile, x: float, y: float, colour: str) -> None:
    picture(axes, tile.jpeg, x, y, _TILE, colour, 3)
    axes.text(x, y + _TILE + 16, shortened(tile.label, 12))


# ---- features in the plane (Figure 5b of the paper)

_PLANE = 420  # pixels
_MAX_VIDEOS = 1500  # of both splits: more take minutes and hide each other
_MAX_LEGEND = 60  # classes up to which there is a legend
_MIN_VIDEOS = 5
_LONG_NAME = 12  # letters that do not fit in a quarter of the width


def tsne_panels(results: Results) -> list[Panel]:
    """The plane (circles: training videos; diamonds: the others) and, of few classes, their colours.

    Raises:
        DataError: the videos are gone, or too few.
    """
    split, queries = results.split, predictions(results, results.split)
    shown, trained = (_thinned(each, _MAX_VIDEOS // 2) for each in (queries, predictions(results, "train")))
    points = _tsne(np.concatenate([shown.features, trained.features]))
    count = len(shown.labels)

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
        (clean(name), _class_colour(n, len(queries.classes))) for n, name in enumerate(queries.classes)
    ]
    columns = 4 if max(len(name) for name, _ in colours) < _LONG_NAME else 3
    return [plane, legend(colours, _PLANE, columns)] if len(colours) <= _MAX_LEGEND else [plane]


def _tsne(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """[V, 2]."""
    from sklearn.manifold import TSNE

    if len(features) < _MIN_VIDEOS:
        raise DataError(f"{len(features)} videos are too few for a t-SNE.")
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return np.asarray(points, np.float64)


def _thinned(each: Predictions, most: int) -> Predictions:
    """At most so many videos, evenly spread."""
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
    """Hues around the wheel, neighbours of different lightness; readable on white and on black."""
    lightness = (0.42, 0.60)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label / max(classes, 1), lightness, 0.72)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
