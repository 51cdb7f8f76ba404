from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from ccl_cli.__main__ import main
from ccl_cli.config.recipe import Evaluation
from ccl_cli.data.clips.transforms import eval_view, normalize
from ccl_cli.data.video.reader import read_frames
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.data.video_paths import list_videos
from ccl_cli.deploy.predict import embed, predict, predict_files
from ccl_cli.errors import DataError
from ccl_cli.evaluation import predictor
from ccl_cli.evaluation.model import load_student
from ccl_cli.evaluation.predictor import VideoPrediction, in_order, predict_split
from ccl_cli.library.store import open_library
from ccl_cli.training.compute.device import set_up
from tests.data.media import iter_windows
from tests.reliability.processes import in_two_processes


@pytest.fixture
def folder(clips_folder, tmp_path):
    """Eighteen videos, and two that cannot be read."""
    folder = shutil.copytree(clips_folder / "set", tmp_path / "videos")
    (folder / "train" / "down" / "0x.mp4").write_text("not a video")
    (folder / "empty.mp4").touch()
    return folder


def forward(artefact, views):
    """Mean scores and feature of clips."""
    with torch.inference_mode():
        output = artefact.student(normalize(views, artefact.recipe.clip.mean, artefact.recipe.clip.std))
    return output.logits.softmax(1).mean(0), output.feature.mean(0)


def check_evaluation(artefact, videos, predictions):
    """`ccl eval` and `ccl predict` have the same digits."""
    split = predict_split(artefact, videos, set_up("fp32"), batch_size=4, workers=0)
    for name, ours in (("scores", split.scores), ("feature", split.features)):
        theirs = torch.stack([getattr(prediction, name) for prediction in predictions])
        assert torch.equal(ours.nan_to_num(9), theirs.nan_to_num(9))
    assert list(split.unreadable) == [prediction.row for prediction in predictions if prediction.fault]


@pytest.mark.parametrize(
    ("batch_size", "workers"),
    [(1, 0), (4, 0), (100, 0), pytest.param(3, 2, marks=pytest.mark.slow)],  # slow: two processes
)
def test_every_video_is_the_mean_over_its_windows_in_order(run, folder, batch_size, workers):
    model, raw = load_student(run), list_videos([folder])
    clip, stride = model.artefact.recipe.clip, model.artefact.recipe.eval.stride
    settings = {"title": "t", "batch_size": batch_size, "workers": workers}
    predictions = list(in_order(predict_files(model, raw.videos, **settings)))
    assert [prediction.row for prediction in predictions] == list(range(20))
    for prediction, video in zip(predictions, raw.videos, strict=True):
        if video.path.name in ("0x.mp4", "empty.mp4"):
            assert prediction.fault.startswith("it is ")
            assert prediction.windows == 0
            continue
        windows = iter_windows(video.path, clip.frames, stride, short_side=clip.short_side)
        views = torch.stack([eval_view(window.frames, clip) for window in windows])
        scores, feature = forward(model.artefact, views)
        assert (prediction.fault, prediction.windows) == (None, len(views))
        torch.testing.assert_close(prediction.scores, scores)
        torch.testing.assert_close(prediction.feature, feature)
    if batch_size == 4:
        check_evaluation(model.artefact, raw.videos, predictions)


@pytest.mark.parametrize(
    ("clip", "frames"),
    [
        ({"stride": 3}, [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]),
        ({"sampling": "segments"}, [[0, 5, 10, 15], [2, 7, 12, 17], [4, 9, 14, 19]]),
    ],
)
def test_clips_and_crops_are_averaged(run, tmp_path, clip, frames):
    """Of a video of 20 frames, wider than high."""
    model, path = load_student(run), tmp_path / "wide.mp4"
    recipe = model.artefact.recipe
    write_clip(path, np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), np.uint8), 25)
    changed = {
        "clip": recipe.clip.model_copy(update=clip),
        "eval": Evaluation(clips=3, crops=3, batch_size=4),
    }
    artefact = replace(model.artefact, recipe=recipe.model_copy(update=changed))
    decoded = read_frames(path, 0, 20, short_side=recipe.clip.short_side).frames
    whole = tv.resize(decoded.permute(0, 3, 1, 2), [16], antialias=True)
    crops = [whole[..., at : at + 16] for at in (0, 4, 8)]
    views = torch.stack([crop[numbers].transpose(0, 1) for numbers in frames for crop in crops])
    videos = list_videos([path]).videos
    (prediction,) = predict_files(replace(model, artefact=artefact), videos, title="t", workers=0)
    assert prediction.windows == 9
    scores, feature = forward(artefact, views)
    torch.testing.assert_close(prediction.scores, scores)
    torch.testing.assert_close(prediction.feature, feature)
    check_evaluation(artefact, videos, [prediction])


def test_a_video_comes_as_soon_as_it_has_ended(run, folder):
    """Of twenty videos the second is there when eight windows have been looked at, not at the end."""
    model, calls = load_student(run), []
    forward = model.artefact.student.forward
    model.artefact.student.forward = lambda video: calls.append(len(video)) or forward(video)
    predictions = predict_files(model, list_videos([folder]).videos, title="t", workers=0)
    assert next(predictions).fault is not None  # empty.mp4
    second = next(predictions)
    assert (second.row, second.windows, sum(calls)) == (1, 5, 8)
    predictions.close()


def test_numbers_that_are_not_finite_are_a_fault(run, clips_folder):
    model = load_student(run)
    with torch.no_grad():
        model.artefact.student.classifier.weight.fill_(torch.nan)
    videos = list_videos([clips_folder / "set/test/down/0.mp4"]).videos
    (prediction,) = predict_files(model, videos, title="t", workers=0)
    assert prediction.fault == "the model's output is not finite"


def test_in_order_waits_for_no_more_than_it_must():
    taken, nothing = [], torch.zeros(1)
    predictions = (taken.append(row) or VideoPrediction(row, nothing, nothing) for row in (1, 0, 3, 2, 4))
    ordered = in_order(predictions)
    assert next(ordered).row == 0
    assert taken == [1, 0]
    assert [prediction.row for prediction in ordered] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (["ccl_cli"], ["--num-processes", "2"], 4),
        pytest.param(
            ["torch.distributed.run", "--nproc_per_node", "2", "-m", "ccl_cli"], [], 1, marks=pytest.mark.long
        ),
    ],
    ids=["own", "torchrun"],
)
def test_several_processes_name_every_video_once_and_in_order(run, folder, before, after, code, capsys):
    words = ["predict", str(run), str(folder), "--json", "--workers", "0"]
    assert main(words) == 4
    command = [sys.executable, "-m", *before, *words, *after]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "2 of 20 files could not be read" in done.stderr, done.stderr
    assert done.returncode == code
    one, two = json.loads(capsys.readouterr().out), json.loads(done.stdout)
    assert [each["video"] for each in two] == [each["video"] for each in one]
    for a, b in zip(one, two, strict=True):
        assert (a.get("windows"), a.get("error")) == (b.get("windows"), b.get("error"))
        probabilities = [{c["class"]: c["probability"] for c in each.get("classes", ())} for each in (a, b)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-6)


@pytest.mark.slow
def test_several_processes_write_one_file_and_one_library(run, folder):
    for command, suffix in (("embed", ".npz"), ("index", "")):
        words = [command, run, folder, "--workers", "0", "--output"]
        assert main([*map(str, words), f"one{suffix}"]) == 4
        in_two_processes(Path.cwd(), *words, f"two{suffix}", code=4)
    one, two = (np.load(f"{name}.npz") for name in ("one", "two"))
    assert one["names"].tolist() == two["names"].tolist()
    np.testing.assert_allclose(one["embedding"], two["embedding"], rtol=1e-5, atol=1e-6)
    with open_library(Path("one")) as one_library, open_library(Path("two")) as two_library:
        known = one_library.known()
        assert known == two_library.known()
        assert len(known) == 18
        for path in known:  # to the last bit
            assert np.array_equal(one_library.find(path)[1], two_library.find(path)[1])


@pytest.mark.parametrize("function", [predict, embed])
def test_each_process_has_the_rows_of_all(run, folder, monkeypatch, function):
    model, raw = load_student(run), list_videos([folder])
    monkeypatch.setattr(predictor, "world_size", lambda: 2)
    with monkeypatch.context() as other:
        other.setattr(predictor, "rank", lambda: 1)
        own = predictor.predict_videos(model.artefact, raw.videos, set_up("fp32"), title="t", workers=0)
        theirs = list(own)
    exchanged = iter([theirs, []])
    monkeypatch.setattr(predictor, "gather_objects", lambda own: [own, next(exchanged)])
    rows = list(function(model, raw, workers=0))
    assert len(rows) == len(raw.videos) == 2 * len(theirs)


def test_processes_that_list_other_files_are_refused(run, folder, monkeypatch):
    monkeypatch.setattr("ccl_cli.deploy.predict.world_size", lambda: 2)
    monkeypatch.setattr("ccl_cli.deploy.predict.gather_objects", lambda own: [own, own + 1])
    with pytest.raises(DataError, match="list different video files"):
        next(predict(load_student(run), list_videos([folder]), workers=0))
