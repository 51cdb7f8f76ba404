"""Evaluation of whole runs: what counts, what is missing, and what is said of it."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from ccl_cli.errors import DataError, UsageError, WeightsError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.run.folder import find_run
from ccl_cli.training.train import train
from tests.training.runs import recipe


def test_a_video_that_vanishes_during_a_run_counts_as_missing(clips_folder, tmp_path):
    data = shutil.copytree(clips_folder / "set", tmp_path / "set")
    (data / "test" / "down" / "0.mp4").write_text("not a video")
    changes = {"data": f"folder:{data}", "teachers": [], "method": "baseline", "max_unreadable": 0.4}
    run = train(recipe(clips_folder, **changes, train={"max_steps": 1}))
    (data / "test" / "right" / "1.mp4").unlink()
    counts = evaluate(run, tasks=["recognition"])["counts"]["test"]
    assert (counts["read"], counts["missing"], counts["corrupt"]) == (4, 1, 1)


def test_evaluation_of_a_run_that_was_stopped_says_that_it_does_not_count(clips_folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccl"), "propagate", True)
    for limit, warned in ((1, True), (0, False)):
        evaluate(train(recipe(clips_folder, train={"max_steps": limit})), tasks=["recognition"])
        assert ("The run is unfinished" in caplog.text) is warned
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
