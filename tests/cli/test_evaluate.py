from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import table

RESULT = {
    "recognition": {
        "top1": 50.0,
        "top5": 100.0,
        "mean_class": 25.0,
        "per_class": {"a": {"top1": 50.0, "videos": 2}, "b": {"top1": 0.0, "videos": 1}},
    },
    "retrieval": {"r1": 10.0, "r5": 20.0, "r10": 30.123, "map": 5.0},
    "probe": {"knn": 40.0, "linear": 60.0, "chance": 20.0, "k": 10, "per_class": {}},
    "counts": {},
    "model": "runs/x/1/model.safetensors",
}
DEFAULTS = {
    "data": None,
    "split": "test",
    "weights": None,
    "batch_size": None,
    "precision": "fp32",
    "workers": None,
}
GIVEN = {
    "data": "clips",
    "split": "val",
    "weights": "raw",
    "batch_size": 3,
    "precision": "bf16",
    "workers": 0,
}


@pytest.fixture
def evaluated(monkeypatch):
    """What `ccl eval` hands to the evaluation."""
    calls = []

    def evaluate(run, *, tasks, **rest):
        calls.append((run, tasks, rest))
        return RESULT

    monkeypatch.setattr("ccl_cli.evaluation.evaluate.evaluate", evaluate)
    return calls


@pytest.mark.parametrize(
    ("flags", "tasks"),
    [
        ("", None),
        ("--per-class", None),
        ("--retrieval --per-class", {"recognition", "retrieval"}),
        ("--retrieval --recognition --probe", {"recognition", "retrieval", "probe"}),
    ],
)
def test_options_of_eval(ccl, evaluated, flags, tasks):
    more = "runs/a/b --data clips --split val --weights raw --batch-size 3 --precision bf16 --workers 0"
    ccl("eval", *flags.split())
    ccl("eval", *flags.split(), *more.split())
    assert evaluated == [(None, tasks, DEFAULTS), (Path("runs/a/b"), tasks, GIVEN)]


def test_the_table_and_json(ccl, evaluated):
    lines = table(ccl("eval").out)
    for row in ("top-1 50.00", "mean of classes 25.00", "R@10 30.12", "mAP 5.00", "linear 60.00"):
        assert row.split() in lines
    assert ["a", "50.00", "2"] not in lines
    assert ["a", "50.00", "2"] in table(ccl("eval", "--per-class").out)
    assert json.loads(ccl("eval", "--json").out) == RESULT
