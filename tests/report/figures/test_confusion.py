from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ccl_cli.data.manifest import Videos
from ccl_cli.evaluation.prediction_cache import Predictions
from ccl_cli.report.figures import confusion as module
from ccl_cli.report.figures.confusion import confusion_counts, confusion_panel, frequent_mistakes
from ccl_cli.report.figures.panel import inline
from tests.report.plots import axes_of, texts, titles


@pytest.fixture
def predictions(monkeypatch):
    """Of 30 classes, of which 2 and 7 are taken for each other; the rest is right."""
    classes = tuple(f"class {number}" for number in range(30))
    labels = np.repeat(np.arange(30), 4)
    predicted = labels.copy()
    predicted[labels == 7] = 2
    predicted[np.flatnonzero(labels == 2)[:3]] = 7
    made = Predictions(classes, Videos.of(()), predicted, labels, np.arange(120), Path())
    monkeypatch.setattr(module, "predictions", lambda results, split: made)
    return made


RESULTS = SimpleNamespace(best_run=SimpleNamespace(label="ccl A"), split="test")


def drawn(panel):
    return [tip for tip in titles(inline(panel)) if " as " in tip]


def test_the_counts_are_those_of_the_matrix(predictions):
    matrix = np.zeros((30, 30), int)
    np.add.at(matrix, (predictions.labels, predictions.predicted), 1)
    counts = confusion_counts(predictions)
    assert matrix.nonzero()[0].tolist() == counts.true.tolist()
    assert matrix.nonzero()[1].tolist() == counts.predicted.tolist()
    assert matrix[counts.true, counts.predicted].tolist() == counts.videos.tolist()
    assert counts.class_sizes.tolist() == [4] * 30


def test_the_most_frequent_mistake_comes_first(predictions):
    assert frequent_mistakes(RESULTS) == [
        "class 7 is taken for class 2: 4 of 4 videos.",
        "class 2 is taken for class 7: 3 of 4 videos.",
    ]
    assert len(frequent_mistakes(RESULTS, limit=1)) == 1


def test_of_many_classes_those_with_mistakes_are_drawn(predictions, monkeypatch):
    whole = confusion_panel(RESULTS)
    assert whole.text == "Confusion matrix of ccl A: 113 of 120 videos are right"
    assert len(drawn(whole)) == 31
    monkeypatch.setattr(module, "_MAX_SHOWN", 2)
    few = confusion_panel(RESULTS)
    assert few.text == f"{whole.text}; the 2 of 30 classes with the most mistakes"
    assert drawn(few) == [
        "class 2 as class 2: 1 (25%)",
        "class 2 as class 7: 3 (75%)",
        "class 7 as class 2: 4 (100%)",
    ]
    assert few.width < whole.width


def test_counts_are_written_where_classes_are_few(predictions, monkeypatch):
    numbers = [text for text in texts(inline(confusion_panel(RESULTS))) if text.isdigit()]
    assert numbers == []
    monkeypatch.setattr(module, "_MAX_SHOWN", 2)
    written = texts(inline(confusion_panel(RESULTS)))
    assert [text for text in written if text.isdigit()] == ["1", "3", "4"]
    assert written.count("class 2") == written.count("class 7") == 2  # beside the rows and above the columns


def test_full_colour_is_all_videos_of_the_class(predictions):
    (squares,) = axes_of(confusion_panel(RESULTS)).collections
    by_tip = dict(zip(drawn(confusion_panel(RESULTS)), squares.get_facecolor().tolist(), strict=True))
    assert by_tip["class 7 as class 2: 4 (100%)"][3] == 1.0
    assert by_tip["class 2 as class 7: 3 (75%)"][3] == pytest.approx(0.15 + 0.85 * 0.75)
    assert by_tip["class 2 as class 7: 3 (75%)"][:3] == by_tip["class 7 as class 2: 4 (100%)"][:3]
    assert by_tip["class 2 as class 7: 3 (75%)"][:3] != by_tip["class 5 as class 5: 4 (100%)"][:3]
