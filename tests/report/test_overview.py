from __future__ import annotations

import math
from pathlib import Path

import pytest

from ccl_cli.report import overview
from ccl_cli.report.figures import FIGURES
from ccl_cli.report.plot import inline
from ccl_cli.report.study import study
from ccl_cli.report.style import LIGHT
from tests.report.folders import write_bench, write_cell, write_failed
from tests.report.plots import axes_of, texts

RUNS = Path("runs/x")


def write(label, setup, *top1, **rest):
    for seed, value in enumerate(top1):
        write_cell(RUNS, label, setup, seed, method="ccl", top1=value, **rest)


def labels(panel):
    return [label.get_text() for label in axes_of(panel).get_yticklabels()]


def lines(panel):
    """What is drawn on each row, by its shape: x values."""
    found = {}
    for line in axes_of(panel).lines:
        if set(line.get_ydata()) <= set(range(20)) and line.get_linestyle() != "--":
            shape = line.get_marker() if line.get_marker() != "None" else "interval"
            found.setdefault(int(line.get_ydata()[0]), {})[shape] = [*map(float, line.get_xdata())]
    return found


def test_each_seed_the_mean_and_its_interval():
    write("baseline", "", 40.0, 44.0)
    write("ccl", "A", 51.0, 52.0, 56.0)
    (panel,) = overview.panels(study([RUNS]))
    assert labels(panel) == ["baseline", "CCL A"]
    row = lines(panel)[1]
    assert row["o"] == [51.0, 52.0, 56.0]
    assert row["|"] == [53.0]
    # Student's t for two degrees of freedom is 4.3027; the standard deviation is sqrt(7)
    half = 4.30265 * math.sqrt(7 / 3)
    assert row["interval"] == pytest.approx([53 - half, 53 + half], abs=1e-3)
    assert {"53.0", "42.0", "Top-1 on ucf51-split1 (%)"} <= set(texts(inline(panel)))
    assert panel.text == "top-1 on ucf51-split1: baseline 42.0, CCL A 53.0"


def test_the_baselines_mean_is_the_line_to_compare_with():
    write("baseline", "", 40.0, 44.0)
    write("ccl", "A", 51.0)
    (panel,) = overview.panels(study([RUNS]))
    dashed = [line for line in axes_of(panel).lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [42.0]
    assert set(lines(panel)[1]) == {"o", "|"}  # of one seed there is no interval


def test_methods_have_their_colours():
    write("baseline", "", 40.0)
    write("fitnet", "A", 41.0)
    write("ccl", "A", 51.0)
    there = study([RUNS])
    drawn = {
        int(line.get_ydata()[0]): line.get_color()
        for line in axes_of(overview.panels(there)[0]).lines
        if line.get_marker() == "|"
    }
    assert drawn == {0: LIGHT["ink"], 1: there.colour("fitnet"), 2: there.colour("ccl")}


def test_an_interval_that_is_much_wider_than_the_seeds_ends_in_arrows():
    write("ccl", "A", 50.0, 56.0)
    write("ccl", "I", 30.0, 30.1)
    rows = lines(overview.panels(study([RUNS]))[0])
    low, high = rows[0]["interval"]
    assert low < 30.0
    assert set(rows[0]) == {"interval", "o", "|", "<", ">"}
    assert rows[0]["<"][0] > low
    assert rows[0][">"][0] < high
    assert set(rows[1]) == {"interval", "o", "|"}


def test_recognition_and_retrieval_side_by_side():
    root = write_bench(Path("runs/b"))
    there = study([root])
    recognition, retrieval = overview.panels(there)
    assert (recognition.heading[:6], retrieval.heading[:4]) == ("Top-1 ", "R@1 ")
    figure = FIGURES["overview"](there)
    assert sum(panel.width for panel in figure.rows[0]) == 640
    assert overview.legend(there).endswith("dashed: baseline; A: audio; I: image")


def test_ablations_are_shown_where_they_are_few():
    write("baseline", "", 40.0)
    write("ccl", "A", 51.0)
    write("ccl w L_ct", "A", 50.0, table="ablation")
    assert labels(overview.panels(study([RUNS]))[0]) == ["baseline", "CCL A", "CCL w L_ct A"]
    for setup in ("I", "AI"):
        for label in ("ccl", "fitnet", "crd", "pkt"):
            write(label, setup, 50.0)
    rows = labels(overview.panels(study([RUNS]))[0])
    assert len(rows) == 10
    assert not [row for row in rows if "L_ct" in row]


def test_what_failed_is_there_and_says_so():
    write("baseline", "", 40.0)
    write_failed(RUNS, "ccl", "AI", 0)
    (panel,) = overview.panels(study([RUNS]))
    assert labels(panel) == ["baseline", "CCL AI"]
    assert texts(inline(panel)).count("failed") == 1


def test_retrieval_alone():
    write_cell(RUNS, "ccl", "A", 0, retrieval=(33.0, 50.0, 60.0))
    (panel,) = overview.panels(study([RUNS]))
    assert panel.text == "R@1 on ucf51-split1: CCL A 33.0"


def test_of_many_rows_ablations_are_shown_where_nothing_else_succeeded():
    for setup in ("A", "I", "AI"):
        for label in ("fitnet", "crd", "pkt", "ccl"):
            write_failed(RUNS, label, setup, 0)
    write("ccl w L_ct", "A", 50.0, table="ablation")
    (panel,) = overview.panels(study([RUNS]))
    assert "CCL w L_ct A" in labels(panel)
