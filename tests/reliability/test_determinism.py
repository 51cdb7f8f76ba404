"""The same seed, the same result: whatever the number of processes that read, and of those that train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.bench.matrix import final_cells
from ccl_cli.bench.run import folder_of, run_bench
from ccl_cli.config.load import to_yaml
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.train import train
from tests.bench.test_run import recipe as bench_recipe
from tests.reliability.processes import in_two_processes, seeds
from tests.reliability.test_numbers import METHODS
from tests.training.runs import lines, recipe

LIVE = ["audio:small?weights=random", "image:small?weights=random"]
SMALL = {"clip": {"frames": 4, "size": 32, "short_side": 48}, "optim": {"lr": 1e-3}}


def check_equal(one: Path, other: Path) -> None:
    """Fail unless two runs have the same weights and metrics to the bit."""
    assert lines(one) == lines(other)
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    "kind",
    ["files", pytest.param("packed", marks=pytest.mark.slow), pytest.param("cached", marks=pytest.mark.long)],
)
@seeds(1, 4)
def test_the_number_of_workers_changes_nothing(clips_folder, tmp_path, monkeypatch, kind, seed):
    changes = {**SMALL, "method": METHODS[seed], "teachers": LIVE}
    if kind == "packed":
        changes["data"] = f"shards:{tmp_path / 'packed'}"
        options = {"workers": 0, "shard_size": 300_000, "max_unreadable": 0.05}
        settings = Settings(format="mp4", quality=16)
        pack(f"folder:{clips_folder / 'set'}", tmp_path / "packed", settings, **options)
    changes["cache"] = {"use": "build" if kind == "cached" else "off"}
    runs = []
    for workers in (0, 2):
        monkeypatch.setenv("CCL_HOME", str(tmp_path / f"home{workers}"))  # so that a cache is built anew
        odd_batches = {"batch_size": 5, "epochs": 2, "workers": workers, "seed": seed}
        runs.append(train(recipe(clips_folder, **changes, train=odd_batches)))
    check_equal(*runs)


@seeds(1, 10)
def test_a_folder_is_one_data_set_in_whatever_order_it_was_written_and_a_table_is_not(clips_folder, tmp_path, seed):  # fmt: skip
    files = sorted((clips_folder / "set").rglob("*.mp4"))
    for number in np.random.default_rng(seed).permutation(len(files)):
        link = tmp_path / "set" / files[number].relative_to(clips_folder / "set")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(files[number])
    assert load_data(f"folder:{tmp_path / 'set'}").hash == load_data(f"folder:{clips_folder / 'set'}").hash
    rows, hashes = [f"{path},{path.parent.name},{path.parent.parent.name}" for path in files], set()
    for order in (rows, rows[1:] + rows[:1]):
        (tmp_path / "v.csv").write_text("\n".join(["path,label,split", *order]))
        hashes.add(load_data(f"csv:{tmp_path / 'v.csv'}").hash)
    assert len(hashes) == 2


def ccl(*words: object, **environment: str) -> str:
    """Run ``ccl`` in a Python of its own; return its output."""
    command = [sys.executable, "-m", "ccl_cli", *map(str, words)]
    return subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.long
@seeds(1, 3)
def test_another_process_another_hash_seed_and_a_resumed_run_with_other_workers(clips_folder, tmp_path, seed):
    steps = {"batch_size": 4, "epochs": 2, "checkpoint_every": 2, "seed": seed}
    path = tmp_path / "r.yaml"
    path.write_text(to_yaml(recipe(clips_folder, **SMALL, method=METHODS[seed], teachers=LIVE, train=steps)))
    for name in "12":
        ccl("train", "--recipe", path, "--output", tmp_path / name, PYTHONHASHSEED=name)
    ccl("train", "--recipe", path, "--output", tmp_path / "3", "--max-steps", 2, "--workers", 2)
    ccl("train", "--resume", tmp_path / "3", "--max-steps", 0, "--workers", 1)
    for name in "23":
        check_equal(tmp_path / "1", tmp_path / name)


@pytest.mark.slow
@seeds(1, 6)
def test_two_processes_train_what_one_does_to_rounding(clips_folder, tmp_path, monkeypatch, seed):
    """How far rounding alone leads in that many steps, the same run in the other memory format tells."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    changes = {"method": METHODS[seed], "teachers": LIVE, **SMALL, "optim": {"lr": 1e-4}}
    steps = {"batch_size": 8, "max_steps": 4, "seed": seed}
    experiment, other = (recipe(clips_folder, **changes, train={**steps, "channels_last": last}) for last in (False, True))  # fmt: skip
    (tmp_path / "r.yaml").write_text(to_yaml(experiment))
    one, turned, two = train(experiment), train(other), tmp_path / "two"
    in_two_processes(tmp_path, "train", "--recipe", "r.yaml", "--output", two)
    assert json.loads((two / "summary.json").read_text())["processes"] == 2
    assert lines(two)[0]["loss"] == pytest.approx(lines(one)[0]["loss"], rel=1e-5)
    assert apart(one, two) < max(1e-3, 10 * apart(one, turned))


def apart(one: Path, other: Path) -> float:
    """Largest relative difference of a loss."""
    pairs = zip(lines(one), lines(other), strict=True)
    return max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in pairs)


@pytest.mark.long
def test_two_processes_and_any_number_of_workers_evaluate_as_one_does(clips_folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    run = train(recipe(clips_folder, **SMALL, method="baseline", train={"max_steps": 6}))
    alone, together = (ccl("eval", run, "--json", "--num-processes", number) for number in (1, 2))
    assert json.loads(alone) == json.loads(together)
    assert evaluate(run, workers=0) == evaluate(run, workers=1) == evaluate(run, workers=2)


@pytest.mark.long
def test_a_benchmark_does_not_depend_on_how_many_cells_run_at_once(clips_folder):
    methods = {name: {"method": name, "optim": {"lr": 1e-3}} for name in METHODS[:3]}
    runs = []
    for jobs in (1, 2):
        changes = {"name": f"jobs{jobs}"}
        experiment = bench_recipe(clips_folder, jobs=jobs, methods=methods).model_copy(update=changes)
        assert run_bench(experiment).failed == []
        runs.append([folder_of(experiment) / cell.folder for cell in final_cells(experiment, {})])
    for one, other in zip(*runs, strict=True):
        check_equal(one, other)
