from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccl_cli.errors import UsageError
from ccl_cli.report.records.comparison import Comparison, against_baseline, compare
from ccl_cli.report.records.results import load_results, summarise
from ccl_cli.report.records.runs import read_runs
from ccl_cli.report.tables.csv_json import json_comparison
from ccl_cli.report.tables.markdown import markdown_comparison
from ccl_cli.report.tables.terminal import terminal_comparison
from tests.report.folders import write_cell, write_failed

RUNS = Path("runs")


def a_pair(*differences: float, unpaired: tuple[int, ...] = ()) -> Comparison:
    return Comparison("d", "AI", "top1", "ccl", "crd", dict(enumerate(differences)), unpaired)


def compared(first: str, second: str, **rest):
    results = summarise(read_runs([RUNS]).of_two(first, second))
    return compare(results, first, second, **rest)


def write_figures(label: str, setup: str, figures: dict[int, float], **rest):
    for seed, value in figures.items():
        write_cell(RUNS / "x", label, setup, seed, method="ccl", top1=value, **rest)


def test_by_hand():
    pair = a_pair(1.0, 2.0, 6.0)  # mean 3, standard deviation sqrt(7)
    # for two degrees of freedom the quantile of p is (2 p - 1) / sqrt(2 p (1 - p)): 4.3027 for 0.975
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) * math.sqrt(7 / 3)
    assert pair.mean == 3.0
    assert pair.interval == pytest.approx((3 - half, 3 + half), rel=1e-12)
    # for two degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2)
    t = 3 / math.sqrt(7 / 3)
    assert pair.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-12)
    assert pair.wins_ties_losses == (3, 0, 0)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8))
def test_the_other_way_round(values):
    one, other = a_pair(*values), a_pair(*(-value for value in values))
    assert one.p == other.p
    assert one.wins_ties_losses == other.wins_ties_losses[::-1]
    if one.interval and other.interval:
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        ((), "ccl and crd share no seed in AI; an interval needs at least two."),
        ((1.0,), "ccl and crd share only one seed in AI; an interval needs at least two."),
        ((1.0, -1.0, 0.5), "These 3 seeds do not tell ccl and crd apart in AI."),
        ((5.0, 5.5, 6.0), "ccl is better than crd in AI, by 4.3 to 6.7 points (95 % confidence, 3 seeds)."),
        (
            (-5.0, -5.5, -6.0),
            "crd is better than ccl in AI, by 4.3 to 6.7 points (95 % confidence, 3 seeds).",
        ),
        (
            (2.0, 2.0),
            "All 2 seeds give the same difference in AI, +2.0 points.",
        ),
    ],
)
def test_no_more_is_said_than_is_known(differences, sentence):
    pair = a_pair(*differences)
    assert pair.sentence == sentence
    assert (pair.interval is None) == (pair.p is None) == (len(set(differences)) < 2)


def test_runs_are_paired_by_seed():
    write_figures("ccl", "AI", {0: 61.0, 1: 62.0, 2: 66.0, 7: 99.0})
    write_figures("crd", "AI", {2: 60.0, 1: 60.0, 0: 60.0, 8: 1.0})
    (pair,) = compared("ccl", "crd")
    assert pair.differences == {0: 1.0, 1: 2.0, 2: 6.0}
    assert pair.unpaired == (7, 8)
    assert pair.sentence.endswith("Seeds of one method only: 7, 8.")


def test_a_baseline_is_compared_in_every_column():
    write_cell(RUNS / "x", "baseline", "", 0, top1=50.0)
    write_figures("ccl", "A", {0: 51.0})
    write_figures("ccl", "AI", {0: 53.0})
    assert [(pair.setup, pair.mean) for pair in compared("ccl", "baseline")] == [("A", 1.0), ("AI", 3.0)]
    assert [(pair.setup, pair.mean) for pair in compared("baseline", "ccl")] == [("A", -1.0), ("AI", -3.0)]
    assert [pair.setup for pair in compared("ccl", "baseline", setups=["AI"])] == ["AI"]


def test_other_rows_cannot_spoil_a_comparison():
    write_figures("ccl", "A", {0: 51.0})
    write_figures("crd", "A", {0: 53.0})
    write_figures("pkt", "A", {0: 51.0}, optim={"lr": 0.1})
    write_figures("pkt", "A", {1: 51.0}, optim={"lr": 0.2})
    write_failed(RUNS / "x", "rkd", "A", 0)
    with pytest.raises(UsageError):
        load_results([RUNS])
    assert compared("ccl", "crd")[0].mean == -2.0


@pytest.mark.parametrize(
    ("first", "second", "rest", "message"),
    [
        ("ccl", "cdr", {}, "Did you mean 'crd'?"),
        ("ccl", "ccl", {}, "compared with itself"),
        ("ccl", "crd", {"setups": ["AI"]}, "no setup 'AI'"),
        ("ccl", "crd", {"metric": "top2"}, "Did you mean 'top"),
        ("ccl", "crd", {"metric": "r1"}, "no R@1"),
    ],
)
def test_what_cannot_be_compared(first, second, rest, message):
    write_figures("ccl", "A", {0: 51.0})
    write_figures("crd", "A", {0: 53.0})
    with pytest.raises(UsageError) as caught:
        compared(first, second, **rest)
    assert message in str(caught.value)


def test_formats():
    write_figures("ccl", "AI", {0: 61.0, 1: 62.0, 2: 66.0})
    write_figures("crd", "AI", {0: 60.0, 1: 60.0, 2: 60.0})
    results = summarise(read_runs([RUNS]).of_two("ccl", "crd"))
    pairs = compare(results, "ccl", "crd")
    assert terminal_comparison(pairs, results, plain=True).splitlines()[:5] == [
        "ccl minus crd on ucf51-split1, top-1 (percentage points)",
        "setup  difference  95 % interval   p      seeds  won/tied/lost",
        "AI     +3.00       -3.57 to +9.57  0.188  3      3/0/0",
        "",
        "These 3 seeds do not tell ccl and crd apart in AI.",
    ]
    assert "| AI | +3.00 | -3.57 to +9.57 | 0.188 | 3 | 3/0/0 |" in markdown_comparison(pairs, results)
    (record,) = json.loads(json_comparison(pairs, results))["comparisons"]
    assert (record["mean"], record["n"], record["wins"]) == (3.0, 3, 3)
    assert record["differences"] == {"0": 1.0, "1": 2.0, "2": 6.0}
    assert record["interval"] == list(pairs[0].interval)


def test_methods_and_metrics_side_by_side():
    for seed, value in enumerate((61.0, 62.0, 66.0)):
        write_cell(RUNS / "x", "baseline", "", seed, top1=60.0, retrieval=(50.0, 60.0, 70.0))
        write_cell(RUNS / "x", "ccl", "AI", seed, top1=value, retrieval=(50.0 + seed, 60.0, 70.0))
    write_figures("crd", "A", {0: 59.0})
    results = load_results([RUNS])
    assert against_baseline(results, ["crd", "ccl"], "baseline", ["top1", "r1"]) == [
        ["method", "setup", "top-1", "95 % interval", "R@1", "95 % interval"],
        ["crd", "A", "-1.0", "", "", ""],
        ["ccl", "AI", "+3.0", "-3.6 to +9.6", "+1.0", "-1.5 to +3.5"],
    ]
