"""Six steps are three, a stop and three more, bit for bit, whatever optimises."""

from __future__ import annotations

import os
import signal
import time
from itertools import product

import pytest

from ccl_cli.config.load import to_yaml
from ccl_cli.training.train import train
from tests.reliability.processes import in_two_processes
from tests.training.runs import ended, lines, recipe, start

OPTIMISERS = {
    "sgd": {"lr": 0.01},
    "adamw": {"lr": 1e-3, "norm_weight_decay": False, "layer_decay": 0.75},
    "lamb": {"lr": 1e-3, "weight_decay": 0.02},
    "lion": {"lr": 1e-4},
}
SCHEDULES = {
    "step": {"milestones": [0.3, 2]},
    "cosine": {"warmup_epochs": 1.8},
    "linear": {"min_lr": 1e-5},
    "constant": {"warmup_epochs": 1},
}
GRID = list(product(OPTIMISERS, SCHEDULES, (0.0, 0.9), (1, 2)))
# Each optimiser with a schedule of its own, with and without a moving average and accumulation.
REST = product((0.0, 0.9), (1, 2))
DIAGONAL = [(*first, *rest) for *first, rest in zip(OPTIMISERS, SCHEDULES, REST, strict=True)]


def experiment(clips_folder, optimiser, schedule, ema, accumulation, **train_changes):
    optim = {"name": optimiser, "schedule": schedule} | OPTIMISERS[optimiser] | SCHEDULES[schedule]
    section = {"ema": ema, "accumulation": accumulation, **train_changes}
    return recipe(clips_folder, optim=optim, train=section)


def results(run):
    """What was published, of the average and of the weights themselves, and the metrics."""
    return {path.name: path.read_bytes() for path in run.glob("model*.safetensors")}, lines(run)


@pytest.mark.parametrize(
    "combination",
    [pytest.param(each, marks=pytest.mark.slow if each in DIAGONAL else pytest.mark.long) for each in GRID],
    ids=lambda each: "-".join(map(str, each)),
)
def test_six_steps_equal_three_and_three(clips_folder, tmp_path, combination):
    whole = experiment(clips_folder, *combination)
    once = train(whole, output=tmp_path / "once")
    parts = train(experiment(clips_folder, *combination, max_steps=3), output=tmp_path / "parts")
    train(whole, resume=parts)
    assert results(parts) == results(once)
    assert len(results(once)[0]) == (2 if combination[2] else 1)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(clips_folder, tmp_path):
    """SIGKILL after the fourth step's checkpoint; which steps are lost does not matter."""
    whole = experiment(clips_folder, "adamw", "cosine", 0.9, 2, epochs=5, checkpoint_every=1)
    once, parts = train(whole, output=tmp_path / "once"), tmp_path / "parts"
    (tmp_path / "recipe.yaml").write_text(to_yaml(whole))
    process = start(["--recipe", tmp_path / "recipe.yaml", "--output", parts])
    while not (parts / "state" / "step-000000004.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    ended(process, -signal.SIGKILL)
    train(whole, resume=parts)
    assert results(parts) == results(once)


@pytest.mark.slow
def test_two_processes_with_sharded_memory_banks_go_on_bit_for_bit(clips_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    method = {"crd": {"shard_memory": True}}
    (tmp_path / "r.yaml").write_text(to_yaml(recipe(clips_folder, method=method, train={"epochs": 2})))
    once, parts = tmp_path / "once", tmp_path / "parts"
    in_two_processes(tmp_path, "train", "--recipe", "r.yaml", "--output", once)
    in_two_processes(tmp_path, "train", "--recipe", "r.yaml", "--output", parts, "--max-steps", 1)
    in_two_processes(tmp_path, "train", "--resume", parts, "--max-steps", 0)
    assert results(parts) == results(once)
