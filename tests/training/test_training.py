"""Whole runs on small real files, in this process and in processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli import registry
from ccl_cli.config.load import to_yaml
from ccl_cli.errors import CclError, DataError, PluginError, RecipeError, SystemSetupError, UsageError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.methods.ccl import CCL
from ccl_cli.teachers import Teacher
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.train import train
from tests.training.runs import lines, recipe, summary

FILES = "recipe.yaml manifest.jsonl metrics.jsonl model.safetensors samples.png summary.json state .lock"


def test_a_run_leaves_what_it_promises(clips_folder):
    run = train(recipe(clips_folder))
    assert {path.name for path in run.iterdir()} == set(FILES.split())
    record = summary(run)
    assert (record["finished"], record["steps"], record["data"]["train"]) == (True, 6, 12)
    assert (record["data"]["missing"], record["data"]["unreadable"]) == ([], {})
    assert record["data"]["modalities"] == {
        "audio:precomputed": {"present": 8, "absent": 4},
        "image:precomputed": {"present": 12},
    }
    assert record["teachers"]["audio:precomputed"]["random_weights"] is False
    first = lines(run)[0]
    assert {"loss", "ce", "accuracy", "nce/audio:precomputed", "jsd/image:precomputed"} <= first.keys()
    assert first["loss"] == pytest.approx(sum(v for k, v in first.items() if k == "ce" or "/" in k), rel=1e-6)
    artefact = load_model(run / "model.safetensors")
    assert artefact.classes == ("down", "right")
    assert artefact.header["preprocessing"]["frames"] == 8
    assert artefact.header["manifest"] == record["data"]["manifest"]
    assert not any("methods" in name for name in load_file(run / "model.safetensors"))


def test_training_learns_and_evaluation_reads_only_the_model(clips_folder, tmp_path):
    run = train(recipe(clips_folder, train={"epochs": 20}, optim={"lr": 0.03}))
    losses = [line["ce"] for line in lines(run)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    result = evaluate(run)
    assert result["recognition"]["top1"] > 50
    evaluate(run, tasks=["retrieval"])
    saved = json.loads((run / "eval-set-test.json").read_text())  # of both evaluations
    assert (saved["recognition"], saved["counts"].keys()) == (result["recognition"], {"test", "train"})
    alone = shutil.copy(run / "model.safetensors", tmp_path / "elsewhere.safetensors")
    again = evaluate(alone, data=f"folder:{clips_folder / 'set'}")
    assert again["recognition"] == result["recognition"]
    assert again["retrieval"] == result["retrieval"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "torch.distributed.run --nproc_per_node 2",
        pytest.param("accelerate.commands.launch --num_processes 1 --cpu", marks=pytest.mark.long),
    ],
)
def test_other_launchers(clips_folder, tmp_path, launcher):
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe(clips_folder, train={"max_steps": 2, "batch_size": 4})))
    words = f"{launcher} -m ccl_cli train --recipe {path} --output".split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", *words, tmp_path / "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture
def damaged(clips_folder, tmp_path):
    """The same set with one training video cut off, and one test video replaced by text."""
    root = shutil.copytree(clips_folder / "set", tmp_path / "damaged")
    cut = root / "train" / "right" / "2.mp4"
    cut.write_bytes(cut.read_bytes()[:200])
    (root / "test" / "down" / "0.mp4").write_text("not a video")
    return root


def test_unreadable_videos_are_counted_named_and_bounded(clips_folder, damaged):
    changes = {"data": f"folder:{damaged}", "teachers": [], "method": "baseline", "train": {"epochs": 2}}
    run = train(recipe(clips_folder, **changes))
    data = summary(run)["data"]
    assert (list(data["unreadable"]), data["seen"]) == (["train/right/2"], 11)
    result = evaluate(run)
    counts = result["counts"]["test"]
    assert (counts["videos"], counts["read"], list(counts["unreadable"])) == (6, 5, ["test/down/0"])
    assert result["recognition"]["per_class"]["down"]["videos"] == 3
    (damaged / "train" / "right" / "3.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="2 videos in a row cannot be read") as raised:
        train(recipe(clips_folder, **changes))
    assert raised.value.exit_code == 4
    train(recipe(clips_folder, **changes, max_unreadable=0.2))


def test_resume_refuses_what_has_changed_and_a_finished_run(clips_folder, damaged):
    changes = {"data": f"folder:{damaged}", "max_unreadable": 0.5}
    run = train(recipe(clips_folder, **changes, train={"max_steps": 1}))
    with pytest.raises(RecipeError, match=r"differs.*optim"):
        train(recipe(clips_folder, **changes, optim={"lr": 0.5}), resume=run)
    last = damaged / "train" / "down" / "5.mp4"
    content = last.read_bytes()
    last.write_bytes(content + b"more")
    with pytest.raises(UsageError, match="The data set, or a file of it, has changed"):
        train(recipe(clips_folder, **changes), resume=run)
    last.write_bytes(content)
    train(recipe(clips_folder, **changes), resume=run)
    assert RunFolder(run).finished
    assert lines(run)[-1]["step"] == 6
    with pytest.raises(UsageError, match="has finished"):
        train(recipe(clips_folder, **changes), resume=run)


def test_resume_auto_with_an_output_folder_starts_there_and_goes_on_there(clips_folder, tmp_path):
    where = tmp_path / "mine"
    for _ in range(2):
        assert train(recipe(clips_folder, train={"max_steps": 2}), resume="auto", output=where) == where
    assert [line["step"] for line in lines(where)] == [1, 2]
    assert train(recipe(clips_folder, train={"max_steps": 2, "seed": 7}), resume="auto") != where
    with pytest.raises(UsageError, match="own folder"):
        train(recipe(clips_folder), resume=where, output=tmp_path / "other")


def test_dry_run_reads_a_batch_and_writes_nothing(clips_folder, tmp_path, capsys):
    train(recipe(clips_folder), dry_run=True)
    assert not (tmp_path / "runs").exists()
    out = capsys.readouterr().out
    assert "video (6, 3, 8, 16, 16)" in out
    assert "steps: 2 per epoch, 6 in all" in out


@pytest.mark.parametrize(
    ("key", "values", "tolerance"), [("accumulation", (1, 3), 0.2), ("precision", ("fp32", "bf16"), 0.05)]
)
def test_accumulation_and_bf16_stay_near_the_plain_step(clips_folder, key, values, tolerance):
    changes = {"method": "baseline", "teachers": []}
    runs = [train(recipe(clips_folder, **changes, train={key: v, "max_steps": 2})) for v in values]
    (plain, _), (other, last) = map(lines, runs)
    assert last["step"] == 2
    assert other["ce"] == pytest.approx(plain["ce"], rel=tolerance)
    assert other["ce"] != plain["ce"]


def test_parts_must_fit_each_other_and_the_machine(clips_folder, tmp_path, monkeypatch):
    strange = tmp_path / "strange.npz"
    np.savez(strange, names=["nobody"], embedding=np.ones((1, 4), np.float32))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for changes, error, match in (
        ({"teachers": []}, RecipeError, "ccl needs at least one teacher"),
        ({"teachers": [f"audio:precomputed@{strange}"]}, DataError, "no embedding for any of the 12"),
        ({"train": {"precision": "fp16"}}, SystemSetupError, "fp16 needs a GPU"),
        ({"clip": {"stride": 3}}, RecipeError, "8 frames spans 22 frames, and none of the 12 training"),
        ({"clip": {"fps": 8}}, RecipeError, "8 frames spans 0.875 s, and none of the 12 training"),
    ):
        with pytest.raises(error, match=match):
            train(recipe(clips_folder, **changes))
    assert not (tmp_path / "runs").exists()
    assert summary(train(recipe(clips_folder, method="baseline", train={"max_steps": 1})))["teachers"] == {}


@pytest.mark.parametrize("clip", [{"fps": 10}, {"sampling": "segments"}])
def test_the_model_carries_its_clips(clips_folder, clip):
    run = train(recipe(clips_folder, clip=clip, eval={"clips": 2, "crops": 3}, train={"max_steps": 1}))
    carried = load_model(run / "model.safetensors").recipe
    assert carried.clip.model_dump().items() >= clip.items()
    assert (carried.eval.clips, carried.eval.crops) == (2, 3)
    assert evaluate(run, tasks=["recognition"])["counts"]["test"]["read"] == 6


def test_two_teachers_of_one_modality_and_one_of_a_new_one(clips_folder):
    table = f"precomputed@{clips_folder / 'image.npz'}"
    names = [f"image:{table}", f"image:{table}?zero_is_missing=true", f"text:{table}"]
    run = train(recipe(clips_folder, teachers=names, train={"max_steps": 1}))
    terms = {name.split("/")[1] for name in lines(run)[0] if name.startswith("nce/")}
    assert terms == {"image:precomputed", "image:precomputed#2", "text:precomputed"}


@pytest.mark.parametrize("what", ["teacher", "student", "method", "dataset"])
def test_a_plugin_that_fails_is_blamed_by_name(clips_folder, monkeypatch, what):
    def fails(*given, **options):
        raise ZeroDivisionError("oops")

    unfinished = type("Unfinished", (Teacher,), {})  # lacks from_spec
    method = type("Method", (CCL,), {"__init__": fails})
    broken = {"teacher": unfinished, "student": fails, "method": method, "dataset": fails}[what]
    real = registry.load
    monkeypatch.setattr(
        registry, "load", lambda plugin: broken if plugin.group == f"ccl.{what}s" else real(plugin)
    )
    with pytest.raises(PluginError, match=f"{what.capitalize()} .* of ccl-cli .* failed: .*(oops|from_spec)"):
        train(recipe(clips_folder, teachers=[f"image:precomputed@{clips_folder / 'image.npz'}"]))


def test_everything_missing_is_named_at_once(clips_folder):
    teachers = ["image:resnet34", "audio:precomputed@nothing.npz"]
    with pytest.raises(CclError) as raised:
        train(recipe(clips_folder, data="folder:nowhere", teachers=teachers))
    messages = sorted(map(str, raised.value.errors))
    wanted = ("nothing.npz", "nowhere", "ccl teachers pull image:resnet34")
    assert all(any(each in message for message in messages) for each in wanted)
    assert len(messages) == 3
