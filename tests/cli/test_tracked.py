"""Figures of the report in a run's trackers."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ccl_cli.config.load import to_yaml
from ccl_cli.evaluation.prediction_cache import cached_predictions
from tests.training.runs import recipe


@pytest.mark.slow
def test_an_evaluation_gives_its_figures_to_the_runs_trackers(ccl, clips_folder, tmp_path, monkeypatch):
    tracked = recipe(clips_folder, train={"epochs": 1, "trackers": "tensorboard"})
    (tmp_path / "recipe.yaml").write_text(to_yaml(tracked))
    run = tmp_path / "run"
    assert ccl("train", "--recipe", str(tmp_path / "recipe.yaml"), "--output", str(run)).code == 0
    assert ccl("eval", str(run)).code == 0
    images = set()
    for events in run.rglob("events.out.*"):
        read = EventAccumulator(str(events), size_guidance={"images": 0})
        images |= set(read.Reload().Tags()["images"])
    assert images >= {"samples", "curves", "confusion", "gallery", "tsne"}
    # What was drawn is what was evaluated: no video was scored a second time.
    monkeypatch.setattr("ccl_cli.evaluation.predictor.predict_split", None)
    assert len(cached_predictions(run, "test").videos) == 6
