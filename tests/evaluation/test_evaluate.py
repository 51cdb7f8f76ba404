"""Evaluation of whole runs: what counts, what is missing, and what is said of it."""

from __future__ import annotations

import json
import shutil

import pytest

from ccl_cli.errors import DataError, UsageError, WeightsError
from ccl_cli.evaluation.evaluate import evaluate
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


@pytest.mark.parametrize(("limit", "warned"), [(1, True), (0, False)])
def test_evaluation_of_a_run_that_was_stopped_says_that_it_does_not_count(
    clips_folder, caplog, limit, warned
):
    evaluate(train(recipe(clips_folder, train={"max_steps": limit})), tasks=["recognition"])
    assert ("The run is unfinished" in caplog.text) is warned


def test_other_data(run, clips_folder, tmp_path):
    """A test set alone can be recognised, or one class of it, but not one with other classes."""
    shutil.copytree(clips_folder / "set" / "test", tmp_path / "only" / "test")
    result = evaluate(run, tasks=["recognition"], data="folder:only", workers=0)
    assert result["counts"]["test"]["read"] == 6
    assert set(json.loads((run / "summary.json").read_text())["evaluation"]) == {"only-test"}
    shutil.move("only/test/down", "down")
    result = evaluate(run, tasks=["recognition"], data="folder:only", workers=0)
    assert result["recognition"]["per_class"].keys() == {"right"}
    shutil.move("down", "only/test/left")
    with pytest.raises(DataError, match=r"does not know 1 class.*'left'"):
        evaluate(run, tasks=["recognition"], data="folder:only", workers=0)


def test_evaluation_says_what_is_missing(run, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    for name, split, error, words in (
        (tmp_path / "nowhere", "test", DataError, "not a run folder"),
        (tmp_path / "model.safetensors", "test", WeightsError, "damaged"),
        (run, "train", UsageError, "'train' cannot be evaluated"),
        (run, "val", DataError, "no val split"),
    ):
        with pytest.raises(error, match=words):
            evaluate(name, split=split)
    shutil.rmtree(run)
    with pytest.raises(DataError, match="no finished run"):
        evaluate()
