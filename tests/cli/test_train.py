from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe


@pytest.fixture
def trained(monkeypatch):
    """What `ccl train` hands to the trainer."""
    calls = []

    def train(recipe, **rest):
        calls.append((recipe, rest))
        return Path("runs/x/y")

    monkeypatch.setattr("ccl_cli.evaluation.while_training.train", train)
    monkeypatch.setattr("ccl_cli.data.clips.workers.start_server", lambda modules: None)
    return calls


def test_the_main_line(ccl, trained):
    result = ccl("train", "--teacher", "audio:cnn14", "--teacher", "image:resnet34", "--data", "ucf51")
    assert (result.code, result.out) == (0, "runs/x/y\n")
    assert json.loads(ccl("train", "--recipe", "smoke", "--json").out) == {"path": "runs/x/y"}
    (recipe, rest), _ = trained
    assert recipe == Recipe(data="ucf51", teachers=("audio:cnn14", "image:resnet34"))
    assert rest == {"resume": None, "output": None, "dry_run": False}


def test_the_server_of_the_workers_starts_before_torch_is_imported(ccl, trained, monkeypatch):
    started = []
    monkeypatch.setattr("ccl_cli.data.clips.workers.start_server", lambda modules: started.append([*modules]))
    assert (
        ccl("train", "--teacher", "audio:cnn14", "--teacher", "image:resnet34", "--data", "ucf51").code == 0
    )
    assert started == [["ccl_plugins.cnn14", "ccl_plugins.timm_image"]]
    for more in ["--dry-run"], ["--workers", "0"], ["--teacher", "audio:unknown"]:
        ccl("train", "--recipe", "smoke", *more)
    assert len(started) == 1
    code = "import sys, ccl_cli.cli.train, ccl_cli.data.clips.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_flag_reaches_its_place(ccl, trained):
    flags = (
        "--data clips --teacher audio:cnn14 --student r2plus1d_tiny --method baseline --epochs 2 --batch-size 3 "
        "--lr 0.5 --schedule cosine --optimizer lamb --precision bf16 --seed 4 --workers 0 --max-steps 6 --name n "
        "--tracker tensorboard --tracker wandb --output o --dry-run"
    )
    assert ccl("train", *flags.split()).out == ""
    train = "epochs: 2, batch_size: 3, precision: bf16, seed: 4, workers: 0, max_steps: 6"
    overrides = (
        "name=n|data=clips|teachers=audio:cnn14|student=r2plus1d_tiny|method=baseline|"
        f"optim={{lr: 0.5, schedule: cosine, name: lamb}}|train={{{train}, trackers: [tensorboard, wandb]}}"
    )
    rest = {"resume": None, "output": Path("o"), "dry_run": True}
    assert trained == [(load_recipe(overrides=overrides.split("|")), rest)]


@pytest.mark.parametrize("flag", ["--recipe", "--config"])
def test_set_overrides_options_and_these_the_recipe(ccl, trained, flag):
    words = [flag, "smoke", "--epochs", "9", "--set", "train.seed=5", "--set", "train.epochs=8"]
    assert ccl("train", *words).code == 0
    assert trained[0][0] == load_recipe("smoke", {"train.epochs": 8, "train.seed": 5})


def test_nothing_is_trained_when_something_is_not_installed(ccl, trained):
    result = ccl("train", "--data", "ucf5", "--teacher", "audio:cnn1", "--method", "cll")
    assert (result.code, result.err.count("Error: ")) == (5, 3)
    assert trained == []


def test_resume_takes_the_recipe_of_the_run_or_the_one_that_is_named(ccl, trained, tmp_path):
    run = tmp_path / "runs" / "before"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: before\ndata: clips\ntrain: {epochs: 2}\n")
    assert ccl("train", "--resume", str(run), "--workers", "0").code == 0
    assert ccl("train", "--recipe", "smoke", "--resume", "auto").code == 0
    (recipe, rest), (smoke, other) = trained
    assert (recipe.name, recipe.train.epochs, recipe.train.workers) == ("before", 2, 0)
    assert (smoke, rest["resume"], other["resume"]) == (load_recipe("smoke"), run, "auto")
    result = ccl("train", "--resume", "absent/run")
    assert (result.code, "'absent/run' is not a run folder." in result.err) == (4, True)
    assert len(trained) == 2


@pytest.mark.parametrize("command", [["train", "--recipe", "smoke"], ["eval"]])
def test_several_processes_are_launched_with_the_same_words(ccl, monkeypatch, trained, command):
    launched = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    launch = "ccl_cli.utils.processes.launch.launch"
    monkeypatch.setattr(launch, lambda count, words: launched.append((count, words)) or 7)
    words = [*command, "--num-processes", "3"]
    monkeypatch.setattr(sys, "argv", ["ccl", *words])
    assert ccl(*words).code == 7
    assert launched == [(3, words)]
    assert trained == []


@pytest.mark.parametrize(("rank", "out"), [("0", "runs/x/y\n"), ("1", "")])
def test_a_process_that_was_launched_trains_and_only_the_first_prints(ccl, monkeypatch, trained, rank, out):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("RANK", rank)
    assert ccl("train", "--recipe", "smoke", "--num-processes", "3").out == out
    assert len(trained) == 1
