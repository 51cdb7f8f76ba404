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


def test_each_seed_the_mean_and_its_interval_whose_cut_ends_are_arrows():
    write("baseline", "", 40.0, 44.0)
    write("fitnet", "A", 41.0)
    write("ccl", "A", 51.0, 52.0, 56.0)
    results = load_results([RUNS])
    (panel,) = overview_panels(results)
    assert labels(panel) == ["baseline", "fitnet A", "ccl A"]
    wide, one_seed, row = lines(panel).values()
    assert (row["o"], row["|"]) == ([51.0, 52.0, 56.0], [53.0])
    # Student's t for two degrees of freedom is 4.3027; the standard deviation is sqrt(7)
    half = 4.30265 * math.sqrt(7 / 3)
    assert row["interval"] == pytest.approx([53 - half, 53 + half], abs=1e-3)
    assert set(one_seed) == {"o", "|"}  # there is no interval
    assert wide["<"][0] > wide["interval"][0]
    assert wide[">"][0] < wide["interval"][1]
    assert {"53.0", "42.0", "Top-1 on ucf51-split1 (%)"} <= set(texts(inline(panel)))
    assert panel.text == "top-1 on ucf51-split1: baseline 42.0, fitnet A 41.0, ccl A 53.0"
    drawn = axes_of(panel).lines
    assert [line.get_xdata()[0] for line in drawn if line.get_linestyle() == "--"] == [42.0]
    colours = [line.get_color() for line in drawn if line.get_marker() == "|"]
    assert colours == [LIGHT["ink"], method_colour(results, "fitnet"), method_colour(results, "ccl")]


def test_recognition_and_retrieval_side_by_side():
    results = load_results([write_bench(Path("runs/b"))])
    recognition, retrieval = overview_panels(results)
    assert (recognition.heading[:6], retrieval.heading[:4]) == ("Top-1 ", "R@1 ")
    assert sum(panel.width for panel in overview(results)[0]) == 800
    assert overview_legend(results).endswith("dashed: baseline; A: audio; I: image")


def test_ablations_are_shown_where_rows_are_few_or_nothing_else_succeeded():
    write("ccl w L_ct", "A", 50.0, table="ablation")
    others = [(label, setup) for label in ("fitnet", "crd", "pkt", "ccl") for setup in ("A", "I", "AI")]
    for label, setup in others:
        write_failed(RUNS, label, setup, 0)
    (panel,) = overview_panels(load_results([RUNS]))
    assert len(labels(panel)) == 13
    assert texts(inline(panel)).count("failed") == 12
    for label, setup in others:
        write(label, setup, 50.0)
    assert "ccl w L_ct A" not in labels(overview_panels(load_results([RUNS]))[0])
