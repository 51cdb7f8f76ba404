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
from ccl_cli.data.clips.evaluation_clips import EvaluationClips
from ccl_cli.data.clips.transforms import eval_view, normalize
from ccl_cli.data.video.reader import read_frames
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.data.video_paths import list_videos
from ccl_cli.deploy.predict import predict, predict_files
from ccl_cli.errors import DataError
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


def alone(artefact, path: Path):
    """Scores, feature and number of windows of one video, window by window."""
    clip, stride = artefact.recipe.clip, artefact.recipe.eval.stride
    views = [
        eval_view(w.frames, clip) for w in iter_windows(path, clip.frames, stride, short_side=clip.short_side)
    ]
    with torch.inference_mode():
        outputs = [artefact.student(normalize(view[None], clip.mean, clip.std)) for view in views]
    scores = torch.stack([each.logits.softmax(1)[0] for each in outputs]).mean(0)
    return scores, torch.stack([each.feature[0] for each in outputs]).mean(0), len(views)


@pytest.mark.parametrize(
    ("batch_size", "workers"),
    [(1, 0), (4, 0), (100, 0), pytest.param(3, 2, marks=pytest.mark.slow)],  # slow: two processes
)
def test_every_video_is_the_mean_over_its_windows_in_order(run, folder, batch_size, workers):
    model, raw = load_student(run), list_videos([folder])
    by_video = list(
        in_order(predict_files(model, raw.videos, title="t", batch_size=batch_size, workers=workers))
    )
    assert [prediction.row for prediction in by_video] == list(range(20))
    for prediction, video in zip(by_video, raw.videos, strict=True):
        if video.path.name in ("0x.mp4", "empty.mp4"):
            assert prediction.fault.startswith("it is ")
            assert prediction.windows == 0
            continue
        scores, feature, windows = alone(model.artefact, video.path)
        assert (prediction.fault, prediction.windows) == (None, windows)
        torch.testing.assert_close(prediction.scores, scores)
        torch.testing.assert_close(prediction.feature, feature)


def test_evaluation_has_the_same_digits(run, folder):
    model, raw = load_student(run), list_videos([folder])
    by_video = list(in_order(predict_files(model, raw.videos, title="t", workers=0)))
    predictions = predict_split(model.artefact, raw.videos, set_up("fp32"), batch_size=4, workers=0)
    assert torch.equal(
        torch.stack([prediction.scores for prediction in by_video]).nan_to_num(9),
        predictions.scores.nan_to_num(9),
    )
    assert torch.equal(
        torch.stack([prediction.feature for prediction in by_video]).nan_to_num(9),
        predictions.features.nan_to_num(9),
    )
    assert list(predictions.unreadable) == [prediction.row for prediction in by_video if prediction.fault]


@pytest.mark.parametrize(
    ("clip", "frames"),
    [
        ({"stride": 3}, [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]),
        ({"sampling": "segments"}, [[0, 5, 10, 15], [2, 7, 12, 17], [4, 9, 14, 19]]),
    ],
)
def test_clips_and_crops_are_averaged(run, tmp_path, clip, frames):
    """Of videos of 20 frames, wider than high; ``ccl predict`` and ``ccl eval`` have the same digits."""
    model = load_student(run)
    recipe = model.artefact.recipe
    path = tmp_path / "wide.mp4"
    write_clip(path, np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), np.uint8), 25)
    recipe = recipe.model_copy(
        update={
            "clip": recipe.clip.model_copy(update=clip),
            "eval": Evaluation(clips=3, crops=3, batch_size=4),
        }
    )
    artefact = replace(model.artefact, recipe=recipe)
    decoded = read_frames(path, 0, 20, short_side=recipe.clip.short_side).frames
    whole = tv.resize(decoded.permute(0, 3, 1, 2), [16], antialias=True)
    crops = [whole[..., at : at + 16] for at in (0, 4, 8)]
    views = torch.stack([crop[numbers].transpose(0, 1) for numbers in frames for crop in crops])
    with torch.inference_mode():
        output = artefact.student(normalize(views, recipe.clip.mean, recipe.clip.std))
    raw = list_videos([path])
    (prediction,) = predict_files(replace(model, artefact=artefact), raw.videos, title="t", workers=0)
    assert prediction.windows == 9
    torch.testing.assert_close(prediction.scores, output.logits.softmax(1).mean(0))
    torch.testing.assert_close(prediction.feature, output.feature.mean(0))
    evaluated = predict_split(artefact, raw.videos, set_up("fp32"), batch_size=4, workers=0)
    assert torch.equal(evaluated.scores[0], prediction.scores)
    assert torch.equal(evaluated.features[0], prediction.feature)


def test_a_video_comes_as_soon_as_it_has_ended(run, folder):
    """Of twenty videos the first is there when four windows have been looked at, not at the end."""
    model, raw = load_student(run), list_videos([folder])
    calls = []
    forward = model.artefact.student.forward
    model.artefact.student.forward = lambda video: calls.append(len(video)) or forward(video)
    by_video = predict_files(model, raw.videos, title="t", workers=0)
    first = next(by_video)
    assert first.fault is not None  # empty.mp4
    second = next(by_video)
    assert (second.row, second.windows) == (1, 5)
    assert sum(calls) == 8
    by_video.close()


def test_chunks_say_which_videos_end_and_why(run, folder):
    recipe, raw = load_student(run).artefact.recipe, list_videos([folder])
    chunks = list(EvaluationClips(raw.videos, recipe.clip, recipe.eval, chunk=7))
    assert [row for chunk in chunks for row in chunk.finished] == list(range(20))
    assert {row for chunk in chunks for row in chunk.unreadable} == {0, 8}
    assert all(row in chunk.finished for chunk in chunks for row in chunk.unreadable)
    assert max(len(chunk.rows) for chunk in chunks) == 7


def test_numbers_that_are_not_finite_are_a_fault(run, clips_folder):
    model = load_student(run)
    with torch.no_grad():
        model.artefact.student.classifier.weight.fill_(torch.nan)
    (prediction,) = predict_files(
        model, list_videos([clips_folder / "set/test/down/0.mp4"]).videos, title="t", workers=0
    )
    assert prediction.fault == "the model's output is not finite"


def test_in_order_waits_for_no_more_than_it_must():
    nothing = torch.zeros(1)
    rows = iter([1, 0, 3, 2, 4])
    taken = []

    def by_video():
        for row in rows:
            taken.append(row)
            yield VideoPrediction(row, nothing, nothing)

    ordered = in_order(by_video())
    assert next(ordered).row == 0
    assert taken == [1, 0]
    assert [prediction.row for prediction in ordered] == [1, 2, 3, 4]


LAUNCHERS = {
    "own": (["ccl_cli"], ["--num-processes", "2"]),
    "torchrun": (["torch.distributed.run", "--nproc_per_node", "2", "-m", "ccl_cli"], []),
}


def together(launcher, *words) -> str:
    """What two processes print; they end as one would that cannot read two of the videos."""
    before, after = LAUNCHERS[launcher]
    command = [sys.executable, "-m", *before, *map(str, words), "--workers", "0", *after]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "2 of 20 files could not be read" in done.stderr or "2 files could not be read" in done.stderr, (
        done.stderr
    )
    assert done.returncode == (4 if launcher == "own" else 1)
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["own", pytest.param("torchrun", marks=pytest.mark.long)])
def test_several_processes_name_every_video_once_and_in_order(run, folder, launcher, capsys):
    assert main(["predict", str(run), str(folder), "--json", "--workers", "0"]) == 4
    one, two = (json.loads(text) for text in (capsys.readouterr().out, together(launcher, "predict", run, folder, "--json")))  # fmt: skip
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
        vectors = [by_path(library) for library in (one_library, two_library)]
    assert all(np.array_equal(vectors[0][path], vectors[1][path]) for path in known)  # to the last bit


def by_path(library):
    """Vectors by path: they are put in the order in which videos end."""
    numbers, vectors = (np.concatenate(each) for each in zip(*library.blocks(), strict=True))
    paths = library.paths(numbers.tolist())
    return {paths[number]: vector for number, vector in zip(numbers.tolist(), vectors, strict=True)}


def test_processes_that_list_other_files_are_refused(run, folder, monkeypatch):
    monkeypatch.setattr("ccl_cli.deploy.predict.world_size", lambda: 2)
    monkeypatch.setattr("ccl_cli.deploy.predict.gather_objects", lambda own: [own, own + 1])
    with pytest.raises(DataError, match="list different video files"):
        next(predict(load_student(run), list_videos([folder]), workers=0))
