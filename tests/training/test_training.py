"""Whole runs on small real files, in this process and in processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.errors import CclError, DataError, PluginError, RecipeError, SystemSetupError, UsageError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.train import train
from tests.training.runs import ended, lines, recipe, start


def test_a_run_leaves_what_it_promises(clips_folder):
    run = train(recipe(clips_folder))
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "manifest.jsonl",
        "metrics.jsonl",
        "model.safetensors",
        "samples.png",
        "summary.json",
        "state",
        ".lock",
    }
    summary = json.loads((run / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["steps"] == 6
    assert summary["data"]["train"] == 12
    assert summary["data"]["missing"] == [] == list(summary["data"]["unreadable"])
    assert summary["data"]["modalities"] == {
        "audio:precomputed": {"present": 8, "absent": 4},
        "image:precomputed": {"present": 12},
    }
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
    saved = json.loads((run / "eval-set-test.json").read_text())
    assert saved["recognition"] == result["recognition"]
    assert saved["counts"].keys() == {"test", "train"}
    alone = tmp_path / "elsewhere.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    again = evaluate(alone, data=f"folder:{clips_folder / 'set'}")
    assert again["recognition"] == result["recognition"]
    assert again["retrieval"] == result["retrieval"]


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
def test_six_steps_equal_three_and_three_with_every_method(clips_folder, tmp_path, method):
    changes = {"method": method, "optim": {"lr": 1e-4}}  # at more, fitnet's published weight makes it diverge
    whole = train(recipe(clips_folder, **changes), output=tmp_path / "whole")
    parts = train(recipe(clips_folder, **changes, train={"max_steps": 3}), output=tmp_path / "parts")
    train(recipe(clips_folder, **changes), resume=parts)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    a, b = (torch.load(run / "state" / "step-000000006.pt", weights_only=True) for run in (whole, parts))
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
@pytest.mark.parametrize(
    "launcher",
    [
        "torch.distributed.run --nproc_per_node 2",
        pytest.param("accelerate.commands.launch --num_processes 1 --cpu", marks=pytest.mark.long),
    ],
)
def test_other_launchers(recipe_file, tmp_path, launcher):
    path = recipe_file(train={"max_steps": 2, "batch_size": 4})
    words = f"{launcher} -m ccl_cli train --recipe {path} --output".split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", *words, tmp_path / "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


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
    with pytest.raises(DataError, match="2 videos in a row cannot be read") as raised:
        train(recipe(clips_folder, **changes, train={"epochs": 2}))
    assert raised.value.exit_code == 4
    train(recipe(clips_folder, **changes, max_unreadable=0.2, train={"epochs": 2}))


def test_resume_refuses_data_that_has_changed(clips_folder, damaged):
    changes = {"data": f"folder:{damaged}", "max_unreadable": 0.5}
    run = train(recipe(clips_folder, **changes, train={"max_steps": 1}))
    last = damaged / "train" / "down" / "5.mp4"
    last.write_bytes(last.read_bytes() + b"more")
    with pytest.raises(UsageError, match="The data set, or a file of it, has changed"):
        train(recipe(clips_folder, **changes), resume=run)
    last.rename(damaged / "train" / "right" / "9.mp4")
    with pytest.raises(UsageError, match="The data set, or a file of it, has changed"):
        train(recipe(clips_folder, **changes), resume=run)


def test_resume_auto_with_an_output_folder_starts_there_and_goes_on_there(clips_folder, tmp_path):
    where = tmp_path / "mine"
    for _ in range(2):
        assert train(recipe(clips_folder, train={"max_steps": 2}), resume="auto", output=where) == where
    assert [line["step"] for line in lines(where)] == [1, 2]
    assert train(recipe(clips_folder, train={"max_steps": 2, "seed": 7}), resume="auto") != where
    with pytest.raises(UsageError, match="own folder"):
        train(recipe(clips_folder), resume=where, output=tmp_path / "other")


def test_resume_refuses_another_recipe_and_a_finished_run(clips_folder):
    short = recipe(clips_folder, train={"max_steps": 2})
    run = train(short)
    with pytest.raises(RecipeError, match=r"differs.*optim"):
        train(recipe(clips_folder, optim={"lr": 0.5}), resume=run)
    train(recipe(clips_folder), resume=run)
    assert RunFolder(run).finished
    assert lines(run)[-1]["step"] == 6
    with pytest.raises(UsageError, match="has finished"):
        train(recipe(clips_folder), resume=run)


def test_dry_run_reads_a_batch_and_writes_nothing(clips_folder, tmp_path, capsys):
    train(recipe(clips_folder), dry_run=True)
    assert not (tmp_path / "runs").exists()
    out = capsys.readouterr().out
    assert "video (6, 3, 8, 16, 16)" in out
    assert "steps: 2 per epoch, 6 in all" in out


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
    with pytest.raises(SystemSetupError, match="fp16 needs a GPU"):
        train(recipe(clips_folder, train={"precision": "fp16"}))


def test_teachers_and_methods_must_fit_each_other(clips_folder, tmp_path, caplog):
    with pytest.raises(RecipeError, match="ccl needs at least one teacher"):
        train(recipe(clips_folder, teachers=[]))
    run = train(recipe(clips_folder, method="baseline", train={"max_steps": 1}))
    assert json.loads((run / "summary.json").read_text())["teachers"] == {}
    strange = tmp_path / "strange.npz"
    np.savez(strange, names=["nobody"], embedding=np.ones((1, 4), np.float32))
    with pytest.raises(DataError, match="no embedding for any of the 12"):
        train(recipe(clips_folder, teachers=[f"audio:precomputed@{strange}"]))


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        ({"stride": 3}, "A clip of 8 frames spans 22 frames, and none of the 12 training videos is as long."),
        ({"fps": 8}, "A clip of 8 frames spans 0.875 s, and none of the 12 training videos is as long."),
    ],
)
def test_a_clip_longer_than_every_video_is_refused(clips_folder, clip, sentence):
    with pytest.raises(RecipeError) as caught:
        train(recipe(clips_folder, clip=clip))
    assert caught.value.message == sentence
    assert not Path("runs").exists()


@pytest.mark.parametrize("clip", [{"fps": 10}, {"sampling": "segments"}])
def test_the_model_carries_its_clips(clips_folder, clip):
    run = train(recipe(clips_folder, clip=clip, eval={"clips": 2, "crops": 3}, train={"max_steps": 1}))
    carried = load_model(run / "model.safetensors").recipe
    assert carried.clip.model_dump().items() >= clip.items()
    assert (carried.eval.clips, carried.eval.crops) == (2, 3)
    assert evaluate(run, tasks=["recognition"])["counts"]["test"]["read"] == 6


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
        clips_folder, data="folder:nowhere", teachers=["image:resnet34", "audio:precomputed@nothing.npz"]
    )
    with pytest.raises(CclError) as raised:
        train(wrong)
    assert len(raised.value.errors) == 3
    text = " ".join(str(error) for error in raised.value.errors)
    assert "nowhere" in text
    assert "ccl teachers pull image:resnet34" in text
    assert "nothing.npz" in text
