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


@pytest.fixture
def evaluated(monkeypatch):
    """What `ccl eval` hands to the evaluation."""
    calls = []

    def evaluate(run, *, tasks, **rest):
        calls.append((run, tasks, rest))
        return {
            key: value for key, value in RESULT.items() if not tasks or key in {*tasks, "counts", "model"}
        }

    monkeypatch.setattr("ccl_cli.evaluation.evaluate.evaluate", evaluate)
    return calls


@pytest.mark.parametrize(
    ("flags", "tasks"),
    [
        ([], None),
        (["--retrieval"], {"retrieval"}),
        (["--recognition"], {"recognition"}),
        (["--per-class"], None),
        (["--retrieval", "--per-class"], {"recognition", "retrieval"}),
        (["--retrieval", "--recognition", "--probe"], {"recognition", "retrieval", "probe"}),
    ],
)
def test_tasks_are_those_that_are_named(ccl, evaluated, flags, tasks):
    assert ccl("eval", *flags).code == 0
    ((run, asked, rest),) = evaluated
    assert (run, asked) == (None, tasks)
    assert rest == {
        "data": None,
        "split": "test",
        "weights": None,
        "batch_size": None,
        "precision": "fp32",
        "workers": None,
    }


def test_flags_of_eval(ccl, evaluated):
    flags = "runs/a/b --data clips --split val --weights raw --batch-size 3 --precision bf16 --workers 0"
    ccl("eval", *flags.split())
    ((run, _, rest),) = evaluated
    assert run == Path("runs/a/b")
    assert rest == {
        "data": "clips",
        "split": "val",
        "weights": "raw",
        "batch_size": 3,
        "precision": "bf16",
        "workers": 0,
    }


def test_json_is_one_object_and_nothing_else(ccl, evaluated):
    result = ccl("eval", "--json")
    assert result.out.count("\n") == 1
    assert json.loads(result.out) == RESULT


def test_the_table(ccl, evaluated):
    lines = table(ccl("eval").out)
    assert ["top-1", "50.00"] in lines
    assert ["mean", "of", "classes", "25.00"] in lines
    assert ["R@10", "30.12"] in lines
    assert ["mAP", "5.00"] in lines
    assert ["linear", "60.00"] in lines
    assert ["a", "50.00", "2"] not in lines
    assert ["a", "50.00", "2"] in table(ccl("eval", "--per-class").out)
