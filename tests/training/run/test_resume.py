"""Ten steps are four, a stop and six more, bit for bit, whatever optimises."""

from __future__ import annotations

import pytest

from ccl_cli.config.load import to_yaml
from ccl_cli.training.train import train
from tests.training.runs import ended, lines, recipe, start

# Each optimiser with a schedule of its own, with and without a moving average and accumulation.
EXPERIMENTS = {
    "sgd": ({"lr": 0.01, "milestones": [0.3, 3]}, {}),
    "adamw": (
        {
            "lr": 1e-3,
            "norm_weight_decay": False,
            "layer_decay": 0.75,
            "schedule": "cosine",
            "warmup_epochs": 2.5,
        },
        {"ema": 0.9, "accumulation": 2},
    ),
    "lamb": ({"lr": 1e-3, "weight_decay": 0.02, "schedule": "linear", "min_lr": 1e-5}, {"ema": 0.9}),
    "lion": ({"lr": 1e-4, "schedule": "constant", "warmup_epochs": 1}, {"accumulation": 2}),
}


def models(run):
    """Bytes of what was published, of the average and of the weights themselves."""
    return {path.name: path.read_bytes() for path in run.glob("model*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_ten_steps_equal_four_and_six(clips_folder, tmp_path, name):
    optim, section = EXPERIMENTS[name]
    whole, first = (
        recipe(clips_folder, optim={"name": name, **optim}, train={**section, "max_steps": limit})
        for limit in (0, 4)
    )
    once, parts = train(whole, output=tmp_path / "once"), train(first, output=tmp_path / "parts")
    assert models(parts) != models(once)
    train(whole, resume=parts)
    assert models(parts) == models(once)
    assert len(models(once)) == (2 if "ema" in section else 1)
    assert lines(parts) == lines(once)


@pytest.mark.slow
def test_two_processes_with_sharded_memory_banks_go_on_bit_for_bit(clips_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    method = {"crd": {"shard_memory": True}}
    (tmp_path / "r.yaml").write_text(to_yaml(recipe(clips_folder, method=method, train={"epochs": 2})))
    once, parts, two = tmp_path / "once", tmp_path / "parts", ["--num-processes", "2"]
    ended(start(["--recipe", "r.yaml", "--output", once, *two]))
    ended(start(["--recipe", "r.yaml", "--output", parts, "--max-steps", "1", *two]))
    ended(start(["--resume", parts, "--max-steps", "0", *two]))
    assert models(parts) == models(once)
    assert lines(parts) == lines(once)
