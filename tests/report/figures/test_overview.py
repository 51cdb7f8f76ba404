from __future__ import annotations

import math
from pathlib import Path

import pytest

from ccl_cli.report.figures.overview import overview, overview_legend, overview_panels
from ccl_cli.report.figures.panel import inline
from ccl_cli.report.figures.style import LIGHT, method_colour
from ccl_cli.report.records.results import load_results
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
    by_row = {}
    for line in axes_of(panel).lines:
        if set(line.get_ydata()) <= set(range(20)) and line.get_linestyle() != "--":
            shape = line.get_marker() if line.get_marker() != "None" else "interval"
            by_row.setdefault(int(line.get_ydata()[0]), {})[shape] = [*map(float, line.get_xdata())]
    return by_row


def test_each_seed_the_mean_and_its_interval():
    write("baseline", "", 40.0, 44.0)
    write("fitnet", "A", 41.0)
    write("ccl", "A", 51.0, 52.0, 56.0)
    results = load_results([RUNS])
    (panel,) = overview_panels(results)
    assert labels(panel) == ["baseline", "fitnet A", "ccl A"]
    _, one_seed, row = lines(panel).values()
    assert (row["o"], row["|"]) == ([51.0, 52.0, 56.0], [53.0])
    # Student's t for two degrees of freedom is 4.3027; the standard deviation is sqrt(7)
    half = 4.30265 * math.sqrt(7 / 3)
    assert row["interval"] == pytest.approx([53 - half, 53 + half], abs=1e-3)
    assert set(one_seed) == {"o", "|"}  # there is no interval
    assert {"53.0", "42.0", "Top-1 on ucf51-split1 (%)"} <= set(texts(inline(panel)))
    assert panel.text == "top-1 on ucf51-split1: baseline 42.0, fitnet A 41.0, ccl A 53.0"
    drawn = axes_of(panel).lines
    assert [line.get_xdata()[0] for line in drawn if line.get_linestyle() == "--"] == [42.0]
    colours = [line.get_color() for line in drawn if line.get_marker() == "|"]
    assert colours == [LIGHT["ink"], method_colour(results, "fitnet"), method_colour(results, "ccl")]


def test_an_interval_that_is_much_wider_than_the_seeds_ends_in_arrows():
    write("ccl", "A", 50.0, 56.0)
    write("ccl", "I", 30.0, 30.1)
    rows = lines(overview_panels(load_results([RUNS]))[0])
    low, high = rows[0]["interval"]
    assert low < 30.0
    assert set(rows[0]) == {"interval", "o", "|", "<", ">"}
    assert rows[0]["<"][0] > low
    assert rows[0][">"][0] < high
    assert set(rows[1]) == {"interval", "o", "|"}


def test_recognition_and_retrieval_side_by_side():
    root = write_bench(Path("runs/b"))
    results = load_results([root])
    recognition, retrieval = overview_panels(results)
    assert (recognition.heading[:6], retrieval.heading[:4]) == ("Top-1 ", "R@1 ")
    assert sum(panel.width for panel in overview(results)[0]) == 800
    assert overview_legend(results).endswith("dashed: baseline; A: audio; I: image")


def test_ablations_are_shown_where_they_are_few():
    write("baseline", "", 40.0)
    write("ccl", "A", 51.0)
    write("ccl w L_ct", "A", 50.0, table="ablation")
    assert labels(overview_panels(load_results([RUNS]))[0]) == ["baseline", "ccl A", "ccl w L_ct A"]
    for setup in ("I", "AI"):
        for label in ("ccl", "fitnet", "crd", "pkt"):
            write(label, setup, 50.0)
    rows = labels(overview_panels(load_results([RUNS]))[0])
    assert len(rows) == 10
    assert not [row for row in rows if "L_ct" in row]


def test_what_failed_is_there_and_says_so():
    write("baseline", "", 40.0)
    write_failed(RUNS, "ccl", "AI", 0)
    (panel,) = overview_panels(load_results([RUNS]))
    assert labels(panel) == ["baseline", "ccl AI"]
    assert texts(inline(panel)).count("failed") == 1


def test_of_many_rows_ablations_are_shown_where_nothing_else_succeeded():
    for setup in ("A", "I", "AI"):
        for label in ("fitnet", "crd", "pkt", "ccl"):
            write_failed(RUNS, label, setup, 0)
    write("ccl w L_ct", "A", 50.0, table="ablation")
    (panel,) = overview_panels(load_results([RUNS]))
    assert "ccl w L_ct A" in labels(panel)
