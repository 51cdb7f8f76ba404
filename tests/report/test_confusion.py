"""The confusion matrix, also of more classes than can be drawn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ccl_cli.report import confusion
from ccl_cli.report.views import View


@pytest.fixture
def view(monkeypatch):
    """Of 30 classes, of which 2 and 7 are taken for each other; the rest is right."""
    classes = tuple(f"class {number}" for number in range(30))
    labels = np.repeat(np.arange(30), 4)
    said = labels.copy()
    said[labels == 7] = 2
    said[np.flatnonzero(labels == 2)[:3]] = 7
    scores = np.eye(30, dtype=np.float32)[said]
    made = View(classes, (), scores, np.zeros((120, 3), np.float32), labels)
    monkeypatch.setattr(confusion, "views", lambda study: (made, made))
    return made


STUDY = SimpleNamespace(shown=SimpleNamespace(label="ccl A"))


def drawn(drawing):
    return [mark.tip for mark in drawing.marks if " as " in (getattr(mark, "tip", "") or "")]


def test_the_counts_are_those_of_the_matrix(view):
    matrix = np.zeros((30, 30), int)
    np.add.at(matrix, (view.labels, view.scores.argmax(axis=1)), 1)
    found = confusion.counts(view)
    assert matrix.nonzero()[0].tolist() == found.true.tolist()
    assert matrix.nonzero()[1].tolist() == found.said.tolist()
    assert matrix[found.true, found.said].tolist() == found.videos.tolist()
    assert found.own.tolist() == [4] * 30


def test_the_most_frequent_mistake_comes_first(view):
    assert confusion.mistakes(STUDY) == [
        "class 7 is taken for class 2: 4 of 4 videos.",
        "class 2 is taken for class 7: 3 of 4 videos.",
    ]
    assert len(confusion.mistakes(STUDY, limit=1)) == 1


def test_of_many_classes_those_with_mistakes_are_drawn(view, monkeypatch):
    whole = confusion.figure(STUDY)
    assert whole.title == "Confusion matrix of ccl A: 113 of 120 videos are right"
    assert len(drawn(whole)) == 31
    monkeypatch.setattr(confusion, "_CLASSES", 2)
    few = confusion.figure(STUDY)
    assert few.title == f"{whole.title}; the 2 of 30 classes with the most mistakes"
    assert drawn(few) == [
        "class 2 as class 2: 1 (25%)",
        "class 2 as class 7: 3 (75%)",
        "class 7 as class 2: 4 (100%)",
    ]
    assert few.width < whole.width
