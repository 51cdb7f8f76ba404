"""Six steps are three, a kill and three more, bit for bit, with every method, optimiser and schedule."""

from __future__ import annotations

import errno
from itertools import product

import pytest
import torch

from ccl_cli.config.load import to_yaml
from ccl_cli.errors import SystemSetupError
from ccl_cli.training.run import checkpoint
from ccl_cli.training.train import train
from tests.reliability.processes import in_two_processes
from tests.training.runs import lines, recipe

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
# Each optimiser with a schedule of its own, with and without a moving average and accumulation.
REST = list(product((0.0, 0.9), (1, 2)))
DIAGONAL = [(*first, *rest) for *first, rest in zip(OPTIMISERS, SCHEDULES, REST, strict=True)]
QUICK = ("crd", "ccl+kd")
METHODS = (*QUICK, "cmc", "fitnet+pkt+cckd+rkd+ifd", "queue_kl+unic+mnf_csc")


def cases():
    low = {"optim": {"lr": 1e-4}}  # at more, fitnet's published weight makes it diverge
    for method in METHODS:
        yield pytest.param({"method": method, **low}, marks=() if method in QUICK else pytest.mark.slow)
    yield {"standardize": {"audio:precomputed": "zscore", "*": "center"}, **low}
    for each in product(OPTIMISERS, SCHEDULES, *map(set, zip(*REST, strict=True))):
        name, schedule, ema, accumulation = each
        optim = {"name": name, "schedule": schedule} | OPTIMISERS[name] | SCHEDULES[schedule]
        changes = {"optim": optim, "train": {"ema": ema, "accumulation": accumulation}}
        yield pytest.param(changes, marks=pytest.mark.slow if each in DIAGONAL else pytest.mark.long)


def results(run):
    """What was published, of the average and of the weights themselves; the metrics, and the last state."""
    state = torch.load(max(run.glob("state/*.pt")), weights_only=True)["distiller"]
    weights = {name: v.numpy().tobytes() if torch.is_tensor(v) else v for name, v in state.items()}
    return {path.name: path.read_bytes() for path in run.glob("model*.safetensors")}, lines(run), weights


@pytest.mark.parametrize("changes", list(cases()), ids=str)
def test_six_steps_equal_three_and_three(clips_folder, tmp_path, changes):
    steps = {**changes.pop("train", {}), "log_every": 2, "checkpoint_every": 1}
    whole = recipe(clips_folder, **changes, train=steps)
    once = train(whole, output=tmp_path / "once")
    parts = train(recipe(clips_folder, **changes, train={**steps, "max_steps": 4}), output=tmp_path / "parts")
    (parts / "state" / "step-000000004.pt").unlink()  # as if killed between two lines of the log
    train(whole, resume=parts)
    models, _, weights = results(once)
    assert results(parts) == results(once)
    assert len(models) == (2 if steps.get("ema") else 1)
    has_banks = any(name.endswith("bank.entries") or ".banks." in name for name in weights)
    assert has_banks == (changes.get("method") in ("crd", "cmc"))


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


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError("too large")])
def test_a_checkpoint_that_the_machine_cannot_read_is_kept(tmp_path, monkeypatch, error):
    for step in 1, 2:
        checkpoint.write_state(tmp_path, step, {"step": step})

    def refuse(path):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read_state", refuse)
        with pytest.raises(SystemSetupError, match=r"step-000000002\.pt' cannot be read"):
            checkpoint.newest_state(tmp_path)
    assert checkpoint.newest_state(tmp_path).name == "step-000000002.pt"
    (tmp_path / "step-000000002.pt").write_bytes(b"cut")
    assert checkpoint.newest_state(tmp_path).name == "step-000000001.pt"
