from __future__ import annotations

from pathlib import Path

import pytest

from ccl_cli.report.records.conclusion import conclusion
from ccl_cli.report.records.results import load_results
from tests.report.folders import write_cell, write_failed

RUNS = Path("runs/x")
BASE = (40.0, 50.0, 45.0)
UNKNOWN = "The gain from the teachers is not known: the baseline, the student without them,"


def write(label, setup, *gains, **rest):
    """By seed, as many points over the baseline."""
    for seed, gain in enumerate(gains):
        write_cell(RUNS, label, setup, seed, top1=BASE[seed] + gain, **rest)


def sentences():
    return conclusion(load_results([RUNS]))


@pytest.mark.parametrize(
    ("gains", "sentence", "line"),
    [
        (
            (5.0, 5.5, 6.0),
            "gets 5.5 points more top-1 than without (95 % interval 4.3 to 6.7, 3 seeds).",
            "+5.5 (+4.3 to +6.7).",
        ),
        (
            (-5.0, -5.5, -6.0),
            "gets 5.5 points less top-1 than without (95 % interval -6.7 to -4.3, 3 seeds).",
            "-5.5 (-6.7 to -4.3).",
        ),
        (
            (1.0, -1.0, 0.6),
            "gets 0.2 points more top-1 than without, which is not clear of zero (95 % interval -2.4 to +2.8, 3 seeds).",
            "+0.2 (-2.4 to +2.8), not clear of zero.",
        ),
        (
            (0.0,),
            "gets the same top-1 as without. One seed shows no interval: use `--seeds 4`.",
            "+0.0 (one seed).",
        ),
        (
            (5.0, 5.0),
            "gets 5.0 points more top-1 than without, the same in all 2 seeds.",
            "+5.0 (the same in all 2 seeds).",
        ),
    ],
)
def test_both_teachers_and_one_line_for_each_alone(gains, sentence, line):
    write("baseline", "", *[0.0] * len(gains))
    for setup in ("AI", "I", "A"):
        write("ccl", setup, *gains)
    assert sentences() == [
        f"With both teachers the student {sentence}",
        f"The audio teacher alone: {line}",
        f"The image teacher alone: {line}",
    ]


def test_the_sentences_report_ccl_and_name_another_best_method_and_other_teachers():
    assert_first = lambda begin: sentences()[0].startswith(begin)  # noqa: E731
    write("baseline", "", 0.0)
    write("fitnet", "A", 9.0)
    assert assert_first("With the audio teacher alone (fitnet) the student gets 9.0 points more")
    write("ccl", "A", 1.0)
    assert assert_first("With the audio teacher alone (ccl) the student gets 1.0 points more")
    write_cell(RUNS, "ccl", "AIT", 0, top1=45.0, teachers=["audio:a", "image:a", "text:a"])
    assert assert_first("With all 3 teachers (ccl) the student")


def test_what_failed_is_said():
    write("baseline", "", 0.0)
    write("ccl", "A", 2.0)
    write("ccl", "I", 3.0)
    write_failed(RUNS, "ccl", "AI", 0)
    write_failed(RUNS, "ccl", "A", 1)
    assert sentences() == [
        "With both teachers the student could not be compared with the baseline: every run failed.",
        "The audio teacher alone: +2.0 (one seed).",
        "The image teacher alone: +3.0 (one seed).",
        "Failed and left out: ccl A, seed 1, ccl AI, seed 0.",
    ]


def test_without_a_baseline_or_its_seeds_or_teachers_nothing_is_claimed():
    write("ccl", "AI", 2.0)
    assert sentences() == [f"{UNKNOWN} is not among these runs."]
    write_failed(RUNS, "baseline", "", 0)
    assert sentences() == [f"{UNKNOWN} failed in every run.", "Failed and left out: baseline, seed 0."]
    write_cell(RUNS, "baseline", "", 7, top1=40.0)
    assert "no seed was trained with both" in sentences()[0]
    assert conclusion(load_results([RUNS / "final-baseline--s7"])) == []
