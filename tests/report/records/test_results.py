from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from ccl_cli.errors import UsageError
from ccl_cli.report.records.results import load_results
from tests.report.folders import write_cell

RUNS = Path("runs")


def summary(*paths: Path):
    return load_results(paths)


@pytest.fixture
def a_cell(monkeypatch, tmp_path):
    """A cell of runs with these values."""
    numbers = itertools.count()

    def made(*values):
        root = tmp_path / str(next(numbers))
        for seed, value in enumerate(values):
            write_cell(root, "ccl", "A", seed, top1=value, data="d")
        return load_results([root]).cells["d", "ccl", "A", "top1"]

    return made


def test_mean_and_sample_deviation_over_seeds(a_cell):
    cell = a_cell(61.0, 64.0, 70.0)  # mean 65; squares 16 + 1 + 25 = 42, over 2: 21
    assert (cell.mean, cell.sd, cell.n) == (65.0, pytest.approx(math.sqrt(21)), 3)
    assert (a_cell(3.0).mean, a_cell(3.0).sd) == (3.0, None)
    assert a_cell(57.1, 57.1, 57.1).sd == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("second", "differences"),
    [
        ({"optim": {"lr": 0.2}}, ("optim.lr=0.1", "optim.lr=0.2")),
        (
            {"optim": {"lr": 0.1}, "eval": {"batch_size": 8}},  # it hardly matters
            ("eval.batch_size=32", "eval.batch_size=8"),
        ),
    ],
)
def test_different_recipes_are_refused(second, differences):
    write_cell(RUNS / "x", "ccl", "AI", 0, top1=50.0, optim={"lr": 0.1})
    write_cell(RUNS / "x", "ccl", "AI", 1, top1=50.0, **second)
    with pytest.raises(UsageError) as caught:
        summary()
    assert caught.value.message == (
        "'ccl AI' on ucf51-split1 comes from 2 different recipes, which are not averaged: "
        f"{differences[0]} in runs/x/final-ccl-AI-s0; {differences[1]} in runs/x/final-ccl-AI-s1."
    )
    assert "Name the runs" in (caught.value.hint or "")
    assert summary(RUNS / "x" / "final-ccl-AI-s1").cells  # naming them helps


def test_notes_on_what_is_hard_to_compare():
    for seed in range(3):
        write_cell(RUNS / "x", "ccl", "A", seed, top1=50.0, manifest="a" * 16)
    for seed in range(2):
        write_cell(
            RUNS / "x", "crd", "A", seed, method="ccl", top1=40.0, manifest="b" * 16, train={"epochs": 5}
        )
    videos, settings = summary().notes
    assert videos.startswith(
        "The videos of ucf51-split1 were not the same in all runs: aaaaaaaa: runs/x/final-ccl"
    )
    assert "bbbbbbbb: runs/x/final-crd-A-s0, runs/x/final-crd-A-s1." in videos
    assert settings.startswith(
        "Rows of ucf51-split1 differ in more than their method: train.epochs=300 in runs/x"
    )
    assert "train.epochs=5 in runs/x/final-crd-A-s0" in settings
