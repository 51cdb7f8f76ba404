"""The confusion matrix of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccl_cli.report.collect import clean
from ccl_cli.report.plot import Panel, Plot, shortened, tips
from ccl_cli.report.study import Study
from ccl_cli.report.style import LIGHT
from ccl_cli.report.views import View, views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = 16  # letters at most of the names of classes
_NUMBERS = 12  # classes up to which counts are written into the cells
_CLASSES = 100  # of more, so many are shown


@dataclass(frozen=True)
class Counts:
    """Videos by true class and by the class with the highest score; only the pairs that there are.

    Shapes:
        true, predicted, videos: [M], in the order of the true class, then of the other.
        own: [K] videos of each class.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    videos: NDArray[np.int64]
    own: NDArray[np.int64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """[M] which pairs are mistakes."""
        return np.not_equal(self.true, self.predicted)

    def most_mistaken(self, limit: int) -> NDArray[np.int64]:
        """The classes with the most mistakes, on either side, in their own order."""
        count, wrong = len(self.own), self.wrong
        by_class = sum(
            np.bincount(each[wrong], self.videos[wrong], count) for each in (self.true, self.predicted)
        )
        return np.sort(np.argsort(-np.asarray(by_class), kind="stable")[:limit])


def figure(study: Study) -> Plot:
    """The only panel."""
    matrix = panel(study)
    return Plot(matrix.text, [[matrix]])


def panel(study: Study) -> Panel:
    """Rows: the true class; columns: the predicted class."""
    queries, _ = views(study)
    counted, names = counts(queries), [clean(name) for name in queries.classes]
    right = int(counted.videos[~counted.wrong].sum())
    text = f"Confusion matrix of {study.shown.label}: {right} of {int(counted.own.sum())} videos are right"
    shown = np.arange(len(names))
    if len(names) > _CLASSES:
        shown = counted.most_mistaken(_CLASSES)
        text += f"; the {_CLASSES} of {len(names):,} classes with the most mistakes"
    size = max(9.0, min(44.0, 340 / len(shown)))
    room = 40 + 7 * max(len(shortened(names[label], _NAMES)) for label in shown)
    cells = _cells(counted, shown, names)

    def draw(axes: Axes) -> None:
        _draw(axes, cells, [names[label] for label in shown], min(11.0, size * 0.9))

    return Panel(text, room + size * len(shown), room + size * len(shown), draw)


def counts(view: View) -> Counts:
    """Who is taken for whom: no more than there are videos, where a matrix would have 25 million cells."""
    classes = len(view.classes)
    pairs, videos = np.unique(view.labels * classes + view.scores.argmax(axis=1), return_counts=True)
    return Counts(pairs // classes, pairs % classes, videos, np.bincount(view.labels, minlength=classes))


def mistakes(study: Study, limit: int = 6) -> list[str]:
    """The most frequent mistakes, as sentences."""
    queries, _ = views(study)
    counted, names = counts(queries), queries.classes
    order = [place for place in np.argsort(-counted.videos, kind="stable") if counted.wrong[place]]
    return [
        f"{names[counted.true[place]]} is taken for {names[counted.predicted[place]]}: "
        f"{counted.videos[place]} of {counted.own[counted.true[place]]} videos."
        for place in order[:limit]
    ]


@dataclass(frozen=True)
class _Cell:
    """A pair of classes that occurs: their places, how many videos, which share of the true class."""

    row: int
    column: int
    videos: int
    share: float
    tip: str


def _cells(counted: Counts, shown: NDArray[np.int64], names: Sequence[str]) -> list[_Cell]:
    place_of = {int(label): place for place, label in enumerate(shown)}
    cells = []
    for each in zip(counted.true, counted.predicted, counted.videos, counted.own[counted.true], strict=True):
        true, predicted, videos, own = map(int, each)
        if true in place_of and predicted in place_of:
            tip = f"{names[true]} as {names[predicted]}: {videos} ({videos / own:.0%})"
            cells.append(_Cell(place_of[true], place_of[predicted], videos, videos / own, tip))
    return cells


def _draw(axes: Axes, cells: Sequence[_Cell], names: Sequence[str], size: float) -> None:
    from matplotlib.collections import PolyCollection

    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    squares = [corners + np.array((cell.column, cell.row)) for cell in cells]
    colours = [LIGHT["good" if cell.row == cell.column else "bad"] for cell in cells]
    alphas = [0.15 + 0.85 * cell.share for cell in cells]
    drawn = PolyCollection(squares, facecolors=list(zip(colours, alphas, strict=True)), linewidths=0)
    tips(drawn, [cell.tip for cell in cells])
    axes.add_collection(drawn)
    if len(names) <= _NUMBERS:
        for cell in cells:
            axes.text(cell.column, cell.row, str(cell.videos), ha="center", va="center_baseline")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    axes.grid(False)
    axes.spines[:].set(visible=True, color=LIGHT["muted"])
    axes.xaxis.set(label_position="top", ticks_position="top")
    axes.set(xlabel="predicted class", ylabel="true class")
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        short = [shortened(name, _NAMES) for name in names]
        axis.set_ticks(range(len(names)), short, rotation=rotation, fontsize=size, color=LIGHT["ink"])
        for label, name in zip(axis.get_ticklabels(), names, strict=True):
            tips(label, [name])
