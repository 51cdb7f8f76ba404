from __future__ import annotations

import json

import pytest

from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from tests.cli.conftest import table

RESULT = {
    "data": {"name": "set", "videos": 12},
    "worker": {"clips_per_s": 20.04},
    "workers": {"number": 2, "clips_per_s": 39.5},
    "step": {"clips_per_s": 158.0, "measured": True, "seconds": 0.1, "device": "cuda", "precision": "bf16"},
    "data_wait": 0.75,
    "cores": 16,
    "advice": ["--workers 8"],
}


@pytest.fixture
def measured(monkeypatch):
    """What `ccl data bench` hands on, and a result."""
    calls, result = [], dict(RESULT)

    def bench_input(recipe, **rest):
        calls.append((recipe, rest))
        return result

    monkeypatch.setattr("ccl_cli.training.input_bench.bench_input", bench_input)
    return calls, result


def test_figures_and_what_to_do(ccl, measured):
    calls, result = measured
    assert table(ccl("data", "bench", "folder:x").out) == [
        ["clips/s"],
        ["one", "worker", "20.0"],
        ["2", "workers", "39.5"],
        ["training", "(cuda,", "bf16)", "158.0"],
        [],
        ["Training", "would", "wait", "for", "data", "75%", "of", "the", "time.", "To", "read", "faster:"],
        ["--workers", "8"],
    ]
    assert json.loads(ccl("data", "bench", "folder:x", "--json").out) == result
    result |= {"data_wait": 0.0, "advice": [], "worker": {"clips_per_s": 2.0}}
    assert ccl("data", "bench", "folder:x").out.endswith("\nReading is fast enough for training.\n")
    assert [recipe for recipe, _ in calls] == [Recipe(data="folder:x", method={"baseline": {}})] * 3


def test_every_flag_reaches_its_place(ccl, measured, monkeypatch):
    flags = "--recipe smoke --workers 5 --seconds 3 --clips-per-second 70 --set train.seed=4"
    assert ccl("data", "bench", "folder:x", *flags.split()).code == 0
    ccl("data", "bench", "folder:x", "--teacher", "audio:cnn14")
    monkeypatch.setenv("CCL_RECIPE", "smoke")
    ccl("data", "bench")
    (recipe, rest), (with_teacher, _), (usual, _) = measured[0]
    assert recipe == load_recipe("smoke", {"data": "folder:x", "train.workers": 5}, ["train.seed=4"])
    assert rest == {"seconds": 3.0, "clips_per_second": 70.0}
    assert (with_teacher.teachers, with_teacher.method) == (("audio:cnn14",), {"ccl": {}})
    assert usual == load_recipe("smoke")
