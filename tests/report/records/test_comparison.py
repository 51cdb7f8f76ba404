from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ccl_cli.errors import UsageError
from ccl_cli.report.records.comparison import Comparison, against_baseline, compare
from ccl_cli.report.records.results import load_results, summarise
from ccl_cli.report.records.runs import read_runs
from ccl_cli.report.tables.csv_json import json_comparison
from ccl_cli.report.tables.markdown import markdown_comparison
from ccl_cli.report.tables.terminal import terminal_comparison
from tests.report.folders import write_cell, write_failed

RUNS = Path("runs")


def a_pair(*differences: float) -> Comparison:
    return Comparison("d", "AI", "top1", "ccl", "crd", dict(enumerate(differences)))


def compared(first: str, second: str, **rest):
    return compare(summarise(read_runs([RUNS]).of_two(first, second)), first, second, **rest)


def write(label: str, setup: str, values: dict[int, float], **rest):
    for seed, value in values.items():
        write_cell(RUNS / "x", label, setup, seed, method="ccl", top1=value, **rest)


def test_by_hand():
    pair, other = a_pair(1.0, 2.0, 6.0), a_pair(-1.0, -2.0, -6.0)  # mean 3, standard deviation sqrt(7)
    # for two degrees of freedom the quantile of p is (2 p - 1) / sqrt(2 p (1 - p)): 4.3027 for 0.975
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) * math.sqrt(7 / 3)
    assert pair.interval == pytest.approx((3 - half, 3 + half), rel=1e-12)
    # for two degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2)
    t = 3 / math.sqrt(7 / 3)
    assert pair.p == other.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-12)
    assert (pair.wins_ties_losses, other.wins_ties_losses) == ((3, 0, 0), (0, 0, 3))


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
        ((2.0, 2.0), "All 2 seeds give the same difference in AI, +2.0 points."),
    ],
)
def test_no_more_is_said_than_is_known(differences, sentence):
    pair = a_pair(*differences)
    assert pair.sentence == sentence
    assert (pair.interval is None) == (pair.p is None) == (len(set(differences)) < 2)


def test_runs_are_paired_by_seed_in_every_column_whatever_other_methods_are():
    write("ccl", "AI", {0: 61.0, 1: 62.0, 2: 66.0, 7: 99.0})
    write("ccl", "A", {0: 59.0})
    write("baseline", "", {2: 60.0, 1: 60.0, 0: 60.0, 8: 1.0})
    write("pkt", "A", {0: 51.0}, optim={"lr": 0.1})
    write("pkt", "A", {1: 51.0}, optim={"lr": 0.2})
    write_failed(RUNS / "x", "rkd", "A", 0)
    with pytest.raises(UsageError):
        load_results([RUNS])
    one, both = compared("ccl", "baseline")
    assert (both.differences, both.unpaired) == ({0: 1.0, 1: 2.0, 2: 6.0}, (7, 8))
    assert both.sentence.endswith("Seeds of one method only: 7, 8.")
    assert (one.setup, one.mean, both.setup) == ("A", -1.0, "AI")
    assert [pair.mean for pair in compared("baseline", "ccl")] == [1.0, -3.0]
    assert [pair.setup for pair in compared("ccl", "baseline", setups=["AI"])] == ["AI"]


@pytest.mark.parametrize(
    ("second", "rest", "message"),
    [
        ("cdr", {}, "Did you mean 'crd'?"),
        ("ccl", {}, "compared with itself"),
        ("crd", {"setups": ["AI"]}, "no setup 'AI'"),
        ("crd", {"metric": "top2"}, "Did you mean 'top"),
        ("crd", {"metric": "r1"}, "no R@1"),
    ],
)
def test_what_cannot_be_compared(second, rest, message):
    write("ccl", "A", {0: 51.0})
    write("crd", "A", {0: 53.0})
    with pytest.raises(UsageError) as caught:
        compared("ccl", second, **rest)
    assert message in str(caught.value)


def test_formats():
    write("ccl", "AI", {0: 61.0, 1: 62.0, 2: 66.0})
    write("crd", "AI", {0: 60.0, 1: 60.0, 2: 60.0})
    results = load_results([RUNS])
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
    assert against_baseline(results, ["ccl"], "crd", ["top1"]) == [
        ["method", "setup", "top-1", "95 % interval"],
        ["ccl", "AI", "+3.0", "-3.6 to +9.6"],
    ]
