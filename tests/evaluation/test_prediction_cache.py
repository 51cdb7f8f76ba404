from __future__ import annotations

import os
import shutil

import pytest
import torch

from ccl_cli.errors import DataError
from ccl_cli.evaluation import prediction_cache as module
from ccl_cli.evaluation.prediction_cache import described
from ccl_cli.training.artefact import load_model, save_model
from tests.report.pages import write_study


@pytest.fixture
def run(clips_folder, tmp_path):
    clips = shutil.copytree(clips_folder, tmp_path / "clips")
    return next(write_study(tmp_path / "r", clips).glob("*ccl*"))


@pytest.fixture
def computed(monkeypatch):
    calls = []
    real = module.describe
    monkeypatch.setattr(module, "describe", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def test_computed_once(run, computed):
    first, again = described(run, "test"), described(run, "test")
    assert len(computed) == 1
    assert (run / "described-clips-test.safetensors").is_file()
    assert first.described.scores.shape == (6, 2)
    assert torch.isfinite(first.described.features).all()
    assert torch.equal(first.described.scores, again.described.scores)
    assert torch.equal(first.described.features, again.described.features)
    assert first.described.labels.tolist() == again.described.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert not [path for path in run.iterdir() if path.name.endswith(".tmp")]


def test_another_model_a_changed_file_or_a_damaged_cache_is_computed_anew(run, computed):
    described(run, "test")
    artefact = load_model(run / "model.safetensors")
    with torch.no_grad():
        next(artefact.student.parameters()).add_(1)
    save_model(run / "model.safetensors", artefact.student, artefact.recipe, artefact.classes)
    described(run, "test")
    assert len(computed) == 2
    clip = described(run, "test").videos[0].path
    with clip.open("ab") as file:
        file.write(b"\0" * 64)
    described(run, "test")
    assert len(computed) == 3
    (run / "described-clips-test.safetensors").write_bytes(b"half")
    described(run, "test")
    assert len(computed) == 4


def test_videos_that_are_gone_are_still_described(run, computed):
    before = described(run, "test")
    clip = before.videos[0].path
    os.rename(clip, clip.with_suffix(".aside"))
    assert torch.equal(described(run, "test").described.scores, before.described.scores)
    assert len(computed) == 1


def test_a_video_that_came_back_is_described_anew(run, computed):
    clip = module.Manifest.load(run / "manifest.jsonl").split("test")[0].path
    os.rename(clip, clip.with_suffix(".aside"))
    found = described(run, "test").described
    assert list(found.unreadable) == [0]
    assert described(run, "test").described.unreadable == found.unreadable
    assert torch.isnan(found.scores[0]).all()
    os.rename(clip.with_suffix(".aside"), clip)
    assert not described(run, "test").described.unreadable
    assert len(computed) == 2


def test_no_videos_and_no_such_split(run, tmp_path):
    with pytest.raises(DataError, match="has no val split"):
        described(run, "val")
    shutil.rmtree(tmp_path / "clips")
    with pytest.raises(DataError, match="test videos of 'clips' are gone"):
        described(run, "test")
    (run / "manifest.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no manifest\.jsonl"):
        described(run, "test")
