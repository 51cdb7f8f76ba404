"""The moving average of the weights: what it follows, and what is published."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.config.recipe import Train
from ccl_cli.deploy.card import card
from ccl_cli.errors import UsageError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training import trainer
from ccl_cli.training.build import make_student
from ccl_cli.training.ema import AveragedStudent
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.train import train
from tests.training.runs import lines, recipe

PUBLISHED, RAW = "model.safetensors", "model-raw.safetensors"


def test_weights_are_averaged_and_counters_copied():
    student = make_student("r2plus1d_tiny", 2)
    average = AveragedStudent(student, Train(ema=0.9, ema_warmup=False))
    for value in (1.0, 2.0, 3.0):
        for tensor in student.state_dict().values():
            tensor.fill_(value)
        average.update(student)
    for tensor in average.student.state_dict().values():
        expected = 0.9 * 1.1 + 0.1 * 3 if tensor.is_floating_point() else 3
        torch.testing.assert_close(tensor, torch.full_like(tensor, expected))


def test_the_average_is_published_and_changes_no_step(clips_folder, tmp_path):
    plain = train(recipe(clips_folder, train={"recompute": True}), output=tmp_path / "plain")
    once = train(recipe(clips_folder, train={"ema": 0.9, "recompute": True}), output=tmp_path / "once")
    assert lines(plain) == lines(once)
    average, raw, untouched = (load_file(file) for file in (once / PUBLISHED, once / RAW, plain / PUBLISHED))
    assert all(torch.equal(value, untouched[name]) for name, value in raw.items())
    state = torch.load(once / "state" / "step-000000006.pt", weights_only=True)["ema"]
    assert state["updates"] == 6
    assert all(torch.equal(value, average[name]) for name, value in state["student"].items())
    assert any(not torch.equal(value, average[name]) for name, value in raw.items())
    assert not (plain / RAW).exists()
    assert [load_model(once / name).header["weights"] for name in (PUBLISHED, RAW)] == ["ema", "raw"]
    results = {weights: evaluate(once, weights=weights) for weights in (None, "ema", "raw")}
    assert [result["weights"] for result in results.values()] == ["ema", "ema", "raw"]
    summary = json.loads((once / "summary.json").read_text())
    assert summary["model"] == {"step": 6, "selection": "last", "weights": "ema"}
    assert summary["evaluation"].keys() == {"set-test", "set-test-raw"}
    assert "weights: ema, selection: last" in card(once)[1]
    with pytest.raises(UsageError, match="contains one set of weights"):
        evaluate(once / PUBLISHED, weights="raw")
    with pytest.raises(UsageError, match="no moving average"):
        evaluate(plain, weights="ema")


def test_a_step_that_is_skipped_does_not_move_the_average(clips_folder, tmp_path, monkeypatch):
    real, answers = trainer.all_finite, iter([True, False, True])
    monkeypatch.setattr(trainer, "all_finite", lambda *given: real(*given) and next(answers))
    runs = [
        train(recipe(clips_folder, train={"ema": 0.5, "max_steps": limit}), output=tmp_path / str(limit))
        for limit in (2, 1)
    ]
    skipped, before = (load_file(run / PUBLISHED) for run in runs)
    assert all(torch.equal(value, before[name]) for name, value in skipped.items())
