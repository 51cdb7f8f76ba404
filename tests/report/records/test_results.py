from __future__ import annotations

import math
from pathlib import Path

import pytest

from ccl_cli.errors import UsageError
from ccl_cli.report.records.results import load_results
from tests.report.folders import write_cell

RUNS = Path("runs/x")


def test_mean_and_sample_deviation_over_seeds():
    for seed, value in enumerate((61.0, 64.0, 70.0)):  # mean 65; squares 16 + 1 + 25 = 42, over 2: 21
        write_cell(RUNS, "ccl", "A", seed, top1=value, data="d")
    write_cell(RUNS, "ccl", "I", 0, top1=3.0, data="d")
    three, one = (load_results().cells["d", "ccl", setup, "top1"] for setup in ("A", "I"))
    assert (three.mean, three.sd, three.n) == (65.0, pytest.approx(math.sqrt(21)), 3)
    assert (one.mean, one.sd) == (3.0, None)


@pytest.mark.parametrize(
    ("second", "differences"),
    [
        ({"optim": {"lr": 0.2}}, ("optim.lr=0.1", "optim.lr=0.2")),
        ({"optim": {"lr": 0.1}, "eval": {"batch_size": 8}}, ("eval.batch_size=32", "eval.batch_size=8")),
    ],
)
def test_different_recipes_are_refused(second, differences):
    write_cell(RUNS, "ccl", "AI", 0, top1=50.0, optim={"lr": 0.1})
    write_cell(RUNS, "ccl", "AI", 1, top1=50.0, **second)
    with pytest.raises(UsageError) as caught:
        load_results()
    assert caught.value.message == (
        "'ccl AI' on ucf51-split1 comes from 2 different recipes, which are not averaged: "
        f"{differences[0]} in runs/x/final-ccl-AI-s0; {differences[1]} in runs/x/final-ccl-AI-s1."
    )
    assert load_results([RUNS / "final-ccl-AI-s1"]).cells  # naming them helps


def test_notes_on_what_is_hard_to_compare():
    write_cell(RUNS, "ccl", "A", 0, top1=50.0, manifest="a" * 16)
    write_cell(RUNS, "crd", "A", 0, method="ccl", top1=40.0, manifest="b" * 16, train={"epochs": 5})
    ccl, crd = "runs/x/final-ccl-A-s0", "runs/x/final-crd-A-s0"
    assert load_results().notes == (
        f"The videos of ucf51-split1 were not the same in all runs: aaaaaaaa: {ccl}; bbbbbbbb: {crd}.",
        f"Rows of ucf51-split1 differ in more than their method: train.epochs=300 in {ccl}; "
        f"train.epochs=5 in {crd}.",
    )
