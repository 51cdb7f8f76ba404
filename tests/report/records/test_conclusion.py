from __future__ import annotations

from pathlib import Path

import pytest

from ccl_cli.report.records.conclusion import conclusion
from ccl_cli.report.records.results import load_results
from tests.report.folders import write_cell, write_failed

RUNS = Path("runs/x")
BASE = (40.0, 50.0, 45.0)


def write(label, setup, *gains, **rest):
    """By seed, as many points over the baseline."""
    for seed, gain in enumerate(gains):
        write_cell(RUNS, label, setup, seed, top1=BASE[seed] + gain, **rest)


def sentences():
    return conclusion(load_results([RUNS]))


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        ((5.0, 5.5, 6.0), "gets 5.5 points more top-1 than without (95 % interval 4.3 to 6.7, 3 seeds)."),
        (
            (-5.0, -5.5, -6.0),
            "gets 5.5 points less top-1 than without (95 % interval -6.7 to -4.3, 3 seeds).",
        ),
        (
            (1.0, -1.0, 0.6),
            "gets 0.2 points more top-1 than without, which is not clear of zero "
            "(95 % interval -2.4 to +2.8, 3 seeds).",
        ),
        ((5.0,), "gets 5.0 points more top-1 than without. One seed shows no interval: use `--seeds 4`."),
        ((5.0, 5.0), "gets 5.0 points more top-1 than without, the same in all 2 seeds."),
        ((0.0,), "gets the same top-1 as without. One seed shows no interval: use `--seeds 4`."),
    ],
)
def test_both_teachers_against_none(gains, sentence):
    write("baseline", "", *[0.0] * len(gains))
    write("ccl", "AI", *gains)
    assert sentences() == [f"With both teachers the student {sentence}"]


@pytest.mark.parametrize(
    ("gains", "line"),
    [
        ((5.0, 5.5, 6.0), "+5.5 (+4.3 to +6.7)."),
        ((1.0, -1.0, 0.6), "+0.2 (-2.4 to +2.8), not clear of zero."),
        ((-2.0,), "-2.0 (one seed)."),
    ],
)
def test_one_line_for_each_teacher_alone(gains, line):
    write("baseline", "", *[0.0] * len(gains))
    for setup in ("AI", "I", "A"):
        write("ccl", setup, *gains)
    first, *rest = sentences()
    assert first.startswith("With both teachers")
    assert rest == [f"The audio teacher alone: {line}", f"The image teacher alone: {line}"]


def test_the_sentences_report_ccl_and_name_another_best_method():
    write("baseline", "", 0.0)
    write("fitnet", "A", 9.0)
    assert sentences()[0].startswith("With the audio teacher alone (fitnet) the student gets 9.0 points more")
    write("ccl", "A", 1.0)
    assert sentences()[0].startswith("With the audio teacher alone (ccl) the student gets 1.0 points more")


def test_three_teachers_and_one_of_another_kind():
    write("baseline", "", 0.0)
    for setup, kinds in (("AIT", ("audio", "image", "text")), ("T", ("text",))):
        write_cell(RUNS, "ccl", setup, 0, top1=45.0, teachers=[f"{kind}:small" for kind in kinds])
    assert [line.partition(" the student")[0] for line in sentences()] == [
        "With all 3 teachers",
        "The text teacher alone: +5.0 (one seed).",
    ]


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


def test_without_a_baseline_nothing_is_claimed():
    write("ccl", "AI", 2.0)
    unknown = "The gain from the teachers is not known: the baseline, the student without them,"
    assert sentences() == [f"{unknown} is not among these runs."]
    write_failed(RUNS, "baseline", "", 0)
    assert sentences() == [f"{unknown} failed in every run.", "Failed and left out: baseline, seed 0."]


def test_seeds_that_only_one_has():
    write_cell(RUNS, "baseline", "", 7, top1=40.0)
    write("ccl", "AI", 2.0)
    assert sentences()[0].endswith("could not be compared with the baseline: no seed was trained with both.")


def test_no_teachers_no_finding():
    write("baseline", "", 0.0)
    assert sentences() == []
