from __future__ import annotations

from ccl_cli.report.figures.classes import ClassGain, class_panels
from ccl_cli.report.figures.panel import inline
from tests.report.plots import axes_of, texts


def test_of_many_classes_those_at_either_end_are_drawn():
    points = {f"c{n}": n - 2500.0 for n in range(5000)}
    (panel,) = class_panels([ClassGain("ccl AI", points)])
    axes = axes_of(panel)
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(shown), shown[0], shown[29], shown[30], shown[-1]) == (60, "c4999", "c4970", "c29", "c0")
    assert axes.get_xlabel() == "60 of 5,000 classes, highest and lowest"
    assert panel.text.startswith("ccl AI: better in 2499 classes, worse in 2500, equal in 1.")


def test_changes_of_classes_are_bars_with_their_numbers():
    gains = [ClassGain("ccl A", {"a": -2.0, "b": 3.5, "c": 0.0})]
    (panel,) = class_panels(gains)
    axes = axes_of(panel)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    assert [bar.get_width() for bar in axes.patches] == [3.5, 0.0, -2.0]
    assert {"+3.5", "0", "-2.0", "ccl A minus baseline"} <= set(texts(inline(panel)))
