"""The confusion matrix of one run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import Drawing, Mark, Text, frame, rectangle, shortened, text_width
from ccl_cli.report.study import Study
from ccl_cli.report.views import View, views

_NAMES = 92.0  # pixels at most for the names of classes
_NUMBERS = 12  # classes up to which counts are written into the cells


def figure(study: Study) -> Drawing:
    """Rows: the true class; columns: what the student says."""
    queries, _ = views(study)
    return _matrix(counts(queries), [clean(name) for name in queries.classes], study.shown.label)


def counts(view: View) -> NDArray[np.int64]:
    """[K, K] videos by true class and by the class with the highest score."""
    matrix = np.zeros((len(view.classes), len(view.classes)), np.int64)
    np.add.at(matrix, (view.labels, view.scores.argmax(axis=1)), 1)
    return matrix


def mistakes(study: Study, limit: int = 6) -> list[str]:
    """The most frequent mistakes, as sentences."""
    queries, _ = views(study)
    matrix = counts(queries)
    own = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diag(matrix))
    order = [divmod(int(place), len(wrong)) for place in wrong.argsort(axis=None, kind="stable")[::-1]]
    names = queries.classes
    return [
        f"{names[true]} is taken for {names[said]}: {wrong[true, said]} of {own[true]} videos."
        for true, said in order[:limit]
        if wrong[true, said]
    ]


def _matrix(matrix: NDArray[np.int64], names: list[str], label: str) -> Drawing:
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
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for true, said in zip(*matrix.nonzero(), strict=True):
        count, share = int(matrix[true, said]), float(shares[true, said])
        colour, tip = (
            "good" if true == said else "bad",
            f"{names[true]} as {names[said]}: {count} ({share:.0%})",
        )
        x, y = left + size * said, top + size * true
        marks.append(rectangle(x, y, size, size, colour, 0.15 + 0.85 * share, tip))
        if len(names) <= _NUMBERS:
            marks.append(Text(x + size / 2, y + size / 2 + 4, str(count), 11, "ink", "middle"))
    marks.append(frame(left, top, side, side, "muted"))
    right = int(np.trace(matrix))
    title = f"Confusion matrix of {label}: {right} of {int(matrix.sum())} videos are right"
    return Drawing(left + side + 2, top + side + 2, title, marks)
