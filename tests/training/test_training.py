"""Whole runs on small real files, in this process and in processes that are killed."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import (
    CclError,
    DataError,
    EnvironmentError_,
    PluginError,
    RecipeError,
    UsageError,
    WeightsError,
)
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training import trainer
from ccl_cli.training.artefact import load_model
from ccl_cli.training.runs import RunFolder, find_run
from ccl_cli.training.train import train
from ccl_cli.training.trainer import Trainer


def recipe(clips_folder, **changes) -> Recipe:
    values = {
        "name": "test",
        "data": f"folder:{clips_folder / 'set'}",
        "teachers": [
            f"audio:precomputed@{clips_folder / 'audio.npz'}",
            f"image:precomputed@{clips_folder / 'image.npz'}",
        ],
        "student": "r2plus1d_tiny",
        "clip": {"frames": 8, "size": 32},
        "optim": {"lr": 0.01},
        "train": {"epochs": 5, "batch_size": 6, "workers": 0, "log_every": 1},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
    return Recipe.model_validate(values)


def lines(run, drop=("clips_per_s", "data_wait")):
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in drop} for entry in entries]


def test_a_run_leaves_what_it_promises(clips_folder):
    run = train(recipe(clips_folder))
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "manifest.jsonl",
        "metrics.jsonl",
        "model.safetensors",
        "summary.json",
        "state",
        ".lock",
    }
    summary = json.loads((run / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["steps"] == 10
    assert summary["data"]["train"] == 12
    assert summary["data"]["missing"] == [] == list(summary["data"]["unreadable"])
    assert summary["teachers"]["audio:precomputed"]["random_weights"] is False
    first = lines(run)[0]
    assert {"loss", "ce", "accuracy", "nce/audio:precomputed", "jsd/image:precomputed"} <= first.keys()
    assert first["loss"] == pytest.approx(sum(v for k, v in first.items() if k == "ce" or "/" in k), rel=1e-6)
    artefact = load_model(run / "model.safetensors")
    assert artefact.classes == ("down", "right")
    assert artefact.header["preprocessing"]["frames"] == 8
    assert artefact.header["manifest"] == summary["data"]["manifest"]
    assert not any("methods" in name for name in load_file(run / "model.safetensors"))


def test_training_learns_and_evaluation_reads_only_the_model(clips_folder, tmp_path):
    run = train(recipe(clips_folder, train={"epochs": 20}, optim={"lr": 0.03}))
    losses = [line["ce"] for line in lines(run)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    result = evaluate(run)
    assert result["counts"]["test"] == {"videos": 6, "read": 6, "missing": 0, "corrupt": 0, "unreadable": {}}
    assert result["recognition"]["top1"] > 50
    assert json.loads((run / "eval-set-test.json").read_text()) == json.loads(json.dumps(result))
    evaluate(run, tasks=["retrieval"])
    kept = json.loads((run / "eval-set-test.json").read_text())
    assert kept["recognition"] == result["recognition"]
    assert kept["counts"].keys() == {"test", "train"}
    alone = tmp_path / "elsewhere.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    again = evaluate(alone, data=f"folder:{clips_folder / 'set'}")
    assert again["recognition"] == result["recognition"]
    assert again["retrieval"] == result["retrieval"]


@pytest.mark.slow
def test_memory_is_kept_once_the_first_step_is_over(clips_folder, monkeypatch):
    said = []
    monkeypatch.setattr("ccl_cli.training.trainer.separate_blocks", lambda: said.append("separate"))
    monkeypatch.setattr("ccl_cli.training.trainer.keep_blocks", lambda: said.append("keep"))
    step = Trainer._train_step

    def spy(self, micro_batches):
        said.append("step")
        step(self, micro_batches)

    monkeypatch.setattr(Trainer, "_train_step", spy)
    train(recipe(clips_folder, train={"max_steps": 1}))
    assert said == ["separate", "step", "keep"]


@pytest.mark.slow
@pytest.mark.long
def test_workers_do_not_change_the_result(clips_folder):
    models = [train(recipe(clips_folder, train={"workers": n, "max_steps": 4})) for n in (0, 2)]
    first, second = (load_file(run / "model.safetensors") for run in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert lines(models[0]) == lines(models[1])


def test_the_seed_changes_the_result(clips_folder):
    runs = [train(recipe(clips_folder, train={"seed": seed, "max_steps": 1})) for seed in (0, 0, 1)]
    first, same, other = (lines(run)[0]["loss"] for run in runs)
    assert first == same != other


def start(arguments, new_group=False):
    """A run in a process of its own; read it with ``ended``."""
    return subprocess.Popen(
        [sys.executable, "-m", "ccl_cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=new_group,
    )


def ended(process, code=0):
    out, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    assert code < 0 or "Traceback" not in error
    return out, error


@pytest.fixture
def recipe_file(clips_folder, tmp_path):
    from ccl_cli.config.load import to_yaml

    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(to_yaml(recipe(clips_folder, **changes)))
        return str(path)

    return write


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.002)


@pytest.mark.long
@pytest.mark.slow  # three whole processes; four and six steps without a kill are compared in the quick set
@pytest.mark.parametrize(
    ("optim", "accumulation"), [({}, 1), ({"schedule": "cosine", "warmup_epochs": 1.5, "min_lr": 1e-4}, 2)]
)
def test_ten_steps_equal_four_a_kill_and_six_more(recipe_file, tmp_path, optim, accumulation):
    train = {"checkpoint_every": 2, "workers": 1, "accumulation": accumulation}
    path = recipe_file(optim=optim, train=train)
    ended(start(["--recipe", path, "--output", str(tmp_path / "whole")]))
    killed = tmp_path / "killed"
    process = start(["--recipe", path, "--output", str(killed)])
    wait_for((killed / "state" / "step-000000004.pt").exists, process)
    process.kill()
    ended(process, -signal.SIGKILL)
    assert not (killed / "model.safetensors").exists()
    assert "from step" in ended(start(["--resume", str(killed)]))[1]
    assert (killed / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert lines(killed) == lines(tmp_path / "whole")
    states = [tmp_path / name / "state" / "step-000000010.pt" for name in ("whole", "killed")]
    a, b = (torch.load(state, weights_only=True) for state in states)
    momenta = [[s["momentum_buffer"] for s in state["optimizer"]["state"].values()] for state in (a, b)]
    assert momenta[0]
    assert all(torch.equal(x, y) for x, y in zip(*momenta, strict=True))


@pytest.mark.parametrize(
    "method",
    [
        "crd",
        "ccl+kd",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("cmc", "fitnet+pkt+cckd+rkd+ifd", "queue_kl+unic+mnf_csc")
        ),
    ],
)
def test_ten_steps_equal_four_and_six_with_every_method(clips_folder, tmp_path, method):
    changes = {"method": method, "optim": {"lr": 1e-4}}  # at more, fitnet's published weight makes it diverge
    whole = train(recipe(clips_folder, **changes), output=tmp_path / "whole")
    parts = train(recipe(clips_folder, **changes, train={"max_steps": 4}), output=tmp_path / "parts")
    train(recipe(clips_folder, **changes), resume=parts)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    a, b = (torch.load(run / "state" / "step-000000010.pt", weights_only=True) for run in (whole, parts))
    assert a["distiller"].keys() == b["distiller"].keys()
    for name, value in a["distiller"].items():
        assert (
            torch.equal(value, b["distiller"][name])
            if torch.is_tensor(value)
            else value == b["distiller"][name]
        )
    if method in ("crd", "cmc"):
        banks = {name for name in a["distiller"] if name.endswith("bank.entries") or ".banks." in name}
        assert banks
        assert any(name.endswith("_extra_state") for name in a["distiller"])


@pytest.mark.parametrize(
    ("schedule", "accumulation"),
    [
        ("cosine", 2),
        *(
            pytest.param(schedule, accumulation, marks=pytest.mark.slow)
            for schedule in ("step", "cosine", "linear", "constant")
            for accumulation in (1, 2)
            if (schedule, accumulation) != ("cosine", 2)
        ),
    ],
)
def test_ten_steps_equal_four_and_six_with_every_schedule(clips_folder, tmp_path, schedule, accumulation):
    """Step 4 is within the warm-up of 2.5 epochs, each of two steps."""
    optim = {"schedule": schedule, "warmup_epochs": 2.5, "milestones": [3, 4], "head_lr_decay": False}
    whole, first = (
        recipe(clips_folder, optim=optim, train={"accumulation": accumulation, "max_steps": limit})
        for limit in (0, 4)
    )
    once = train(whole, output=tmp_path / "once")
    parts = train(first, output=tmp_path / "parts")
    train(whole, resume=parts)
    assert (parts / "model.safetensors").read_bytes() == (once / "model.safetensors").read_bytes()
    assert lines(parts) == lines(once)
    rates = [line["lr"] for line in lines(once)]
    assert rates[:6] == pytest.approx([0.001, 0.0028, 0.0046, 0.0064, 0.0082, 0.01])
    assert rates[6:] == pytest.approx(
        {
            "step": [0.001, 0.001, 0.0001, 0.0001],
            "cosine": [0.005 * (1 + math.cos(math.pi * done / 5)) for done in (1, 2, 3, 4)],
            "linear": [0.008, 0.006, 0.004, 0.002],
            "constant": [0.01] * 4,
        }[schedule]
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_says_where_and_exits_130(recipe_file, tmp_path, number):
    """As a terminal or a scheduler sends it: to the run, the processes that read videos, and their server."""
    run = tmp_path / "run"
    path = recipe_file(train={"epochs": 500, "workers": 2})
    process = start(["--recipe", path, "--output", str(run)], new_group=True)
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size, process)
    os.killpg(process.pid, number)
    out, error = ended(process, 130)
    assert out == ""
    assert "--resume" in error
    saved = max((run / "state").glob("step-*.pt"))
    assert torch.load(saved, weights_only=True)["step"] == lines(run)[-1]["step"]


@pytest.mark.slow
def test_two_processes_train_and_see_the_same_batches(recipe_file, tmp_path):
    path = recipe_file(train={"max_steps": 4, "batch_size": 4})
    for name, arguments in (("one", []), ("two", ["--num-processes", "2"])):
        out, _ = ended(start(["--recipe", path, "--output", str(tmp_path / name), *arguments]))
        assert out.strip() == str(tmp_path / name)
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    # Batch statistics are per process, so only the size is comparable.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.2)
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert summary["data"]["seen"] == 12


@pytest.mark.slow
def test_torchrun_and_accelerate_launch(recipe_file, tmp_path):
    path = recipe_file(train={"max_steps": 2, "batch_size": 4})
    launchers = {
        "torchrun": ["torch.distributed.run", "--nproc_per_node", "2", "-m", "ccl_cli"],
        "accelerate": ["accelerate.commands.launch", "--num_processes", "1", "--cpu", "-m", "ccl_cli"],
    }
    for name, arguments in launchers.items():
        command = [
            sys.executable,
            "-m",
            *arguments,
            "train",
            "--recipe",
            path,
            "--output",
            str(tmp_path / name),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "model.safetensors").exists()


@pytest.fixture
def damaged(clips_folder, tmp_path):
    """The same set with one training video cut off, one gone, and one test video replaced by text."""
    import shutil

    root = tmp_path / "damaged"
    shutil.copytree(clips_folder / "set", root)
    cut = root / "train" / "right" / "2.mp4"
    cut.write_bytes(cut.read_bytes()[:200])
    (root / "test" / "down" / "0.mp4").write_text("not a video")
    return root


def test_unreadable_videos_are_counted_named_and_bounded(clips_folder, damaged):
    changes = {"data": f"folder:{damaged}", "teachers": [], "method": "baseline"}
    run = train(recipe(clips_folder, **changes, train={"epochs": 2}))
    data = json.loads((run / "summary.json").read_text())["data"]
    assert list(data["unreadable"]) == ["train/right/2"]
    assert data["seen"] == 11
    result = evaluate(run)
    assert result["counts"]["test"]["videos"] == 6
    assert result["counts"]["test"]["read"] == 5
    assert list(result["counts"]["test"]["unreadable"]) == ["test/down/0"]
    assert result["recognition"]["per_class"]["down"]["videos"] == 3
    (damaged / "train" / "right" / "3.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 12 videos of the train split") as caught:
        train(recipe(clips_folder, **changes, train={"epochs": 2}))
    assert caught.value.exit_code == 4
    train(recipe(clips_folder, **changes, max_unreadable=0.2, train={"epochs": 2}))


def test_a_video_that_vanishes_during_a_run_counts_as_missing_in_evaluation(clips_folder, damaged):
    changes = {"data": f"folder:{damaged}", "teachers": [], "method": "baseline", "max_unreadable": 0.4}
    run = train(recipe(clips_folder, **changes, train={"max_steps": 1}))
    (damaged / "test" / "right" / "1.mp4").unlink()
    counts = evaluate(run, tasks=["recognition"])["counts"]["test"]
    assert (counts["read"], counts["missing"], counts["corrupt"]) == (4, 1, 1)


def test_evaluation_of_a_run_that_was_stopped_says_that_it_does_not_count(clips_folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccl"), "propagate", True)
    for limit, said in ((1, True), (0, False)):
        evaluate(train(recipe(clips_folder, train={"max_steps": limit})), tasks=["recognition"])
        assert ("stopped before its end" in caplog.text) is said
        caplog.clear()


def test_a_test_set_alone_can_be_recognised(clips_folder, tmp_path):
    run = train(recipe(clips_folder, train={"max_steps": 1}))
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "test").symlink_to(clips_folder / "set" / "test")
    result = evaluate(run, tasks=["recognition"], data=f"folder:{tmp_path / 'only'}")
    assert result["counts"]["test"]["read"] == 6
    assert set(json.loads((run / "summary.json").read_text())["evaluation"]) == {"only-test"}
    with pytest.raises(UsageError, match="'train' cannot be evaluated"):
        evaluate(run, split="train")


def test_a_folder_is_held_by_one_training_at_a_time(clips_folder):
    from ccl_cli.training import run_lock

    run = RunFolder(train(recipe(clips_folder, train={"max_steps": 1})))
    run_lock._hold(run)
    try:
        with pytest.raises(UsageError, match="Another process is training"):
            train(recipe(clips_folder), resume=run.path)
    finally:
        run_lock.release(run)
    train(recipe(clips_folder), resume=run.path)


def test_resume_refuses_data_that_has_changed(clips_folder, damaged):
    changes = {"data": f"folder:{damaged}", "max_unreadable": 0.5}
    run = train(recipe(clips_folder, **changes, train={"max_steps": 1}))
    last = damaged / "train" / "down" / "5.mp4"
    last.write_bytes(last.read_bytes() + b"more")
    with pytest.raises(UsageError, match="Files of the data set have changed"):
        train(recipe(clips_folder, **changes), resume=run)
    last.rename(damaged / "train" / "right" / "9.mp4")
    with pytest.raises(UsageError, match="The data set has changed"):
        train(recipe(clips_folder, **changes), resume=run)


def test_resume_auto_with_an_output_folder_starts_there_and_goes_on_there(clips_folder, tmp_path):
    where = tmp_path / "mine"
    for _ in range(2):
        assert train(recipe(clips_folder, train={"max_steps": 2}), resume="auto", output=where) == where
    assert [line["step"] for line in lines(where)] == [1, 2]
    with pytest.raises(UsageError, match="own folder"):
        train(recipe(clips_folder), resume=where, output=tmp_path / "other")


def test_modalities_are_counted_whatever_the_teacher(clips_folder):
    run = train(recipe(clips_folder, train={"epochs": 1}))
    counted = json.loads((run / "summary.json").read_text())["data"]["modalities"]
    assert counted == {"audio:precomputed": {"present": 8, "absent": 4}, "image:precomputed": {"present": 12}}


def test_an_existing_folder_is_never_reused_silently(clips_folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(recipe(clips_folder), output=tmp_path / "full")


def test_resume_refuses_another_recipe_and_a_finished_run(clips_folder):
    short = recipe(clips_folder, train={"max_steps": 2})
    run = train(short)
    with pytest.raises(RecipeError, match=r"differs.*optim"):
        train(recipe(clips_folder, optim={"lr": 0.5}), resume=run)
    train(recipe(clips_folder), resume=run)
    assert RunFolder(run).finished
    assert lines(run)[-1]["step"] == 10
    with pytest.raises(UsageError, match="has finished"):
        train(recipe(clips_folder), resume=run)


def test_resume_auto_takes_the_unfinished_run_of_the_same_recipe(clips_folder):
    unfinished = train(recipe(clips_folder, train={"max_steps": 2}))
    assert train(recipe(clips_folder, train={"max_steps": 2}), resume="auto") == unfinished
    assert train(recipe(clips_folder, train={"max_steps": 2, "seed": 7}), resume="auto") != unfinished


def test_a_damaged_checkpoint_falls_back_to_the_one_before(clips_folder):
    run = train(recipe(clips_folder, train={"max_steps": 4, "checkpoint_every": 2}))
    newest = run / "state" / "step-000000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(recipe(clips_folder, train={"checkpoint_every": 2}), resume=run)
    assert [line["step"] for line in lines(run)] == list(range(1, 11))


def test_dry_run_reads_a_batch_and_writes_nothing(clips_folder, tmp_path, capsys):
    train(recipe(clips_folder), dry_run=True)
    assert not (tmp_path / "runs").exists()
    out = capsys.readouterr().out
    assert "video (6, 3, 8, 32, 32)" in out
    assert "steps: 2 per epoch, 10 in all" in out


def test_gradient_accumulation_takes_the_same_videos(clips_folder):
    runs = [
        train(recipe(clips_folder, train={"accumulation": n, "max_steps": 2}, method="baseline", teachers=[]))
        for n in (1, 3)
    ]
    one, three = (lines(run) for run in runs)
    assert [line["step"] for line in three] == [1, 2]
    assert three[0]["ce"] == pytest.approx(one[0]["ce"], rel=0.2)


def test_bf16_runs_and_stays_near_fp32(clips_folder):
    runs = [train(recipe(clips_folder, train={"precision": p, "max_steps": 2})) for p in ("fp32", "bf16")]
    full, half = (lines(run)[0]["loss"] for run in runs)
    assert half == pytest.approx(full, rel=0.05)
    assert half != full


def test_fp16_without_a_gpu_says_what_to_do(clips_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentError_, match="fp16 needs a GPU"):
        train(recipe(clips_folder, train={"precision": "fp16"}))


def test_a_loss_that_is_not_finite_stops_with_a_sentence(clips_folder):
    with pytest.raises(CclError, match="not finite"):
        train(recipe(clips_folder, optim={"lr": 1e30}))


def test_tensorboard_events_are_written(clips_folder):
    run = train(recipe(clips_folder, train={"tracker": "tensorboard", "max_steps": 1}))
    assert list(run.rglob("events.out.tfevents.*"))


def test_head_learning_rate_may_stay(clips_folder, monkeypatch):
    rates = []
    original = trainer.set_lr

    def spy(optimizer, *rest):
        original(optimizer, *rest)
        rates.append([group["lr"] for group in optimizer.param_groups])

    monkeypatch.setattr(trainer, "set_lr", spy)
    optim = {"head_lr_decay": False, "milestones": [1], "warmup_epochs": 0.5}
    train(recipe(clips_folder, optim=optim, train={"epochs": 2}))
    assert rates == [[pytest.approx(rate), 0.01] for rate in (0.001, 0.01, 0.001, 0.001)]


def test_evaluation_says_what_is_missing(clips_folder, tmp_path):
    with pytest.raises(DataError, match="no finished run"):
        find_run(None)
    with pytest.raises(DataError, match="not a run folder"):
        evaluate(tmp_path / "nowhere")
    wrong = tmp_path / "model.safetensors"
    wrong.write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="damaged"):
        evaluate(wrong)
    run = train(recipe(clips_folder, train={"max_steps": 1}))
    with pytest.raises(DataError, match="no val split"):
        evaluate(run, split="val")
    other = tmp_path / "other"
    for name in ("left", "up"):
        (other / "test" / name).mkdir(parents=True)
        (other / "train" / name).mkdir(parents=True)
        for split in ("train", "test"):
            source = clips_folder / "set" / "test" / "down" / "0.mp4"
            (other / split / name / "0.mp4").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="does not know 2 class"):
        evaluate(run, data=f"folder:{other}")


def test_teachers_and_methods_must_fit_each_other(clips_folder, tmp_path, caplog):
    with pytest.raises(RecipeError, match="ccl needs at least one teacher"):
        train(recipe(clips_folder, teachers=[]))
    run = train(recipe(clips_folder, method="baseline", train={"max_steps": 1}))
    assert json.loads((run / "summary.json").read_text())["teachers"] == {}
    strange = tmp_path / "strange.npz"
    np.savez(strange, names=["nobody"], embedding=np.ones((1, 4), np.float32))
    with pytest.raises(DataError, match="no embedding for any of the 12"):
        train(recipe(clips_folder, teachers=[f"audio:precomputed@{strange}"]))


def test_two_teachers_of_one_modality_and_one_of_a_new_one(clips_folder):
    table = clips_folder / "image.npz"
    names = [
        f"image:precomputed@{table}",
        f"image:precomputed@{table}?zero_is_missing=true",
        f"text:precomputed@{table}",
    ]
    run = train(recipe(clips_folder, teachers=names, train={"max_steps": 1}))
    terms = {name.split("/")[1] for name in lines(run)[0] if name.startswith("nce/")}
    assert terms == {"image:precomputed", "image:precomputed#2", "text:precomputed"}


@pytest.mark.parametrize("what", ["teacher", "student", "method", "dataset"])
def test_a_plugin_that_fails_is_blamed_by_name(clips_folder, monkeypatch, what):
    from ccl_cli import registry
    from ccl_cli.methods.ccl import CCL
    from ccl_cli.teachers import Teacher

    def fails(*given, **options):
        raise ZeroDivisionError("oops")

    class Unfinished(Teacher):  # lacks from_spec
        pass

    class Method(CCL):
        __init__ = fails

    broken = {"teacher": Unfinished, "student": fails, "method": Method, "dataset": fails}[what]
    real = registry.load
    monkeypatch.setattr(
        registry, "load", lambda plugin: broken if plugin.group == f"ccl.{what}s" else real(plugin)
    )
    with pytest.raises(PluginError, match=f"{what.capitalize()} .* of ccl-cli .* failed: .*(oops|from_spec)"):
        train(recipe(clips_folder, teachers=[f"image:precomputed@{clips_folder / 'image.npz'}"]))


def test_everything_missing_is_named_at_once(clips_folder):
    wrong = recipe(
        clips_folder,
        data="folder:nowhere",
        teachers=["image:resnet34", "audio:precomputed@nothing.npz"],
    )
    with pytest.raises(CclError) as caught:
        train(wrong)
    assert len(caught.value.errors) == 3
    text = " ".join(str(error) for error in caught.value.errors)
    assert "nowhere" in text
    assert "ccl teachers pull image:resnet34" in text
    assert "nothing.npz" in text
