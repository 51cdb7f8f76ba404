"""The confusion matrix of one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import Drawing, Mark, Text, frame, rectangle, shortened, text_width
from ccl_cli.report.study import Study
from ccl_cli.report.views import View, views

_NAMES = 92.0  # pixels at most for the names of classes
_NUMBERS = 12  # classes up to which counts are written into the cells
_CLASSES = 400  # of more, so many are shown


@dataclass(frozen=True)
class Counts:
    """Videos by true class and by the class with the highest score; only the pairs that there are.

    Shapes:
        true, said, videos: [M], in the order of the true class, then of the other.
        own: [K] videos of each class.
    """

    true: NDArray[np.int64]
    said: NDArray[np.int64]
    videos: NDArray[np.int64]
    own: NDArray[np.int64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """[M] which pairs are mistakes."""
        return np.not_equal(self.true, self.said)

    def most_mistaken(self, limit: int) -> NDArray[np.int64]:
        """The classes with the most mistakes, on either side, in their own order."""
        count, wrong = len(self.own), self.wrong
        by_class = sum(np.bincount(each[wrong], self.videos[wrong], count) for each in (self.true, self.said))
        return np.sort(np.argsort(-np.asarray(by_class), kind="stable")[:limit])


def figure(study: Study) -> Drawing:
    """Rows: the true class; columns: what the student says."""
    queries, _ = views(study)
    return _matrix(counts(queries), [clean(name) for name in queries.classes], study.shown.label)


def counts(view: View) -> Counts:
    """Who is taken for whom: no more than there are videos, where a matrix would have 25 million cells."""
    classes = len(view.classes)
    pairs, videos = np.unique(view.labels * classes + view.scores.argmax(axis=1), return_counts=True)
    return Counts(pairs // classes, pairs % classes, videos, np.bincount(view.labels, minlength=classes))


def mistakes(study: Study, limit: int = 6) -> list[str]:
    """The most frequent mistakes, as sentences."""
    queries, _ = views(study)
    found, names = counts(queries), queries.classes
    order = [place for place in np.argsort(-found.videos, kind="stable") if found.wrong[place]]
    return [
        f"{names[found.true[place]]} is taken for {names[found.said[place]]}: "
        f"{found.videos[place]} of {found.own[found.true[place]]} videos."
        for place in order[:limit]
    ]


def _matrix(found: Counts, names: list[str], label: str) -> Drawing:
    right = int(found.videos[~found.wrong].sum())
    title = f"Confusion matrix of {label}: {right} of {int(found.own.sum())} videos are right"
    shown = np.arange(len(names))
    if len(names) > _CLASSES:
        shown = found.most_mistaken(_CLASSES)
        title += f"; the {_CLASSES} of {len(names):,} classes with the most mistakes"
    place_of = {int(label): place for place, label in enumerate(shown)}
    names = [names[label] for label in shown]
    size = max(8.0, min(44.0, 300 / len(names)))
    side, text = size * len(names), min(11.0, size * 0.95)
    room = min(_NAMES, max(text_width(name, text) for name in names) + 10)
    marks: list[Mark] = [
        Text(room + side / 2, 12, "what the student says", 11, "muted", "middle"),
        Text(10, room + 20 + side / 2, "true class", 11, "muted", "middle", turned=True),
    ]
    top = room + 20
    left = room + 16
    for place, name in enumerate(names):
        short, at = shortened(name, room - 4, text), size * (place + 0.5) + text / 3
        marks.append(Text(left - 4, top + at, short, text, "ink", "end", tip=name))
        marks.append(Text(left + at, top - 4, short, text, "ink", turned=True, tip=name))
    for pair in zip(found.true, found.said, found.videos, found.own[found.true], strict=True):
        *both, count, own = map(int, pair)
        if not place_of.keys() >= set(both):
            continue
        (true, said), share = (place_of[each] for each in both), count / own
        colour, tip = (
            "good" if true == said else "bad",
            f"{names[true]} as {names[said]}: {count} ({share:.0%})",
        )
        x, y = left + size * said, top + size * true
        marks.append(rectangle(x, y, size, size, colour, 0.15 + 0.85 * share, tip))
        if len(names) <= _NUMBERS:
            marks.append(Text(x + size / 2, y + size / 2 + 4, str(count), 11, "ink", "middle"))
    marks.append(frame(left, top, side, side, "muted"))
    return Drawing(left + side + 2, top + side + 2, title, marks)
