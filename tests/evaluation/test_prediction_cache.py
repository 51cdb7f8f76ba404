from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch

from ccl_cli.data.manifest import Manifest
from ccl_cli.errors import DataError
from ccl_cli.evaluation import prediction_cache
from ccl_cli.evaluation import predictor as module
from ccl_cli.evaluation.prediction_cache import cached_predictions
from ccl_cli.training.run.artefact import load_model, save_model
from tests.report.pages import write_study


@pytest.fixture
def run(clips_folder, tmp_path):
    clips = shutil.copytree(clips_folder, tmp_path / "clips")
    return next(write_study(tmp_path / "r", clips).glob("*ccl*"))


@pytest.fixture
def computed(monkeypatch):
    calls = []
    real = module.predict_split
    monkeypatch.setattr(module, "predict_split", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def test_computed_once_even_if_videos_are_gone(run, computed):
    first = cached_predictions(run, "test")
    features = first.features
    first.videos[0].path.rename(first.videos[0].path.with_suffix(".aside"))
    again = cached_predictions(run, "test")
    assert len(computed) == 1
    assert (run / "predictions-clips-test.safetensors").is_file()
    assert set(first.predicted.tolist()) <= {0, 1}
    assert np.isfinite(features).all()
    assert np.array_equal(first.predicted, again.predicted)
    assert np.array_equal(features, again.features)
    assert first.labels.tolist() == again.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_features_are_read_in_blocks(run, monkeypatch):
    every = cached_predictions(run, "test")
    features = every.features
    monkeypatch.setattr(prediction_cache, "_BLOCK", 4)
    assert [len(block) for block in every.feature_blocks()] == [4, 2]
    assert np.array_equal(np.concatenate([*every.feature_blocks()]), features)
    some = every.take(np.array([5, 0, 3]))
    assert np.array_equal(some.features, features[[5, 0, 3]])
    assert [video.id for video in some.videos] == [every.videos[place].id for place in (5, 0, 3)]


def test_another_model_a_changed_file_or_a_damaged_cache_is_computed_anew(run, computed):
    clip = cached_predictions(run, "test").videos[0].path
    artefact = load_model(run / "model.safetensors")
    with torch.no_grad():
        next(artefact.student.parameters()).add_(1)
    save_model(run / "model.safetensors", artefact.student, artefact.recipe, artefact.classes)
    cached_predictions(run, "test")
    assert len(computed) == 2
    with clip.open("ab") as file:
        file.write(b"\0" * 64)
    cached_predictions(run, "test")
    assert len(computed) == 3
    (run / "predictions-clips-test.safetensors").write_bytes(b"half")
    cached_predictions(run, "test")
    assert len(computed) == 4


def test_a_video_that_came_back_is_predicted_anew(run, computed):
    clip = Manifest.load(run / "manifest.jsonl").split("test")[0].path
    os.rename(clip, clip.with_suffix(".aside"))
    cached = cached_predictions(run, "test")
    assert cached.predicted.tolist()[:1] == [-1]
    assert np.isnan(cached.features).all(axis=1).tolist() == [True] + 5 * [False]
    assert np.isnan(cached_predictions(run, "test").features[0]).all()
    os.rename(clip.with_suffix(".aside"), clip)
    assert np.isfinite(cached_predictions(run, "test").features).all()
    assert len(computed) == 2


def test_no_videos_and_no_such_split(run, tmp_path):
    with pytest.raises(DataError, match="has no val split"):
        cached_predictions(run, "val")
    shutil.rmtree(tmp_path / "clips")
    with pytest.raises(DataError, match="test videos of 'clips' are not on disk"):
        cached_predictions(run, "test")
    (run / "manifest.jsonl").unlink()
    with pytest.raises(DataError, match=r"contains no manifest\.jsonl"):
        cached_predictions(run, "test")
