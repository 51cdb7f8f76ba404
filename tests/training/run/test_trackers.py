"""What each tracker that works without a service stores of a run that was interrupted, went on and was evaluated."""

from __future__ import annotations

import json
import logging
import struct
from types import SimpleNamespace

import pytest
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from ccl_cli.config.recipe import Recipe, TrackerName
from ccl_cli.errors import SystemSetupError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.run.trackers import Tracked
from ccl_cli.training.train import train
from tests.training.runs import lines, recipe

NAMES = ("mlflow", "tensorboard", "wandb")


@pytest.fixture(scope="module")
def tracked(clips_folder, tmp_path_factory):
    """A run that all installed trackers followed: killed after step 3, resumed from step 2 to 5, evaluated."""
    root = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in {
            "CCL_HOME": root / "cache",
            "WANDB_MODE": "offline",
            "MLFLOW_TRACKING_URI": root / "mlruns",
            "MLFLOW_ALLOW_FILE_STORE": "true",
        }.items():
            patch.setenv(name, str(value))
        settings = {"trackers": NAMES, "checkpoint_every": 2, "max_steps": 3}
        run = train(recipe(clips_folder, train=settings), output=root / "mine")
        (run / "state" / "step-000000003.pt").unlink()
        train(recipe(clips_folder, train={**settings, "max_steps": 5}), resume=run)
        yield run, evaluate(run, tasks=["recognition"], workers=0)["recognition"]["top1"]


def of_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "log")).Reload()
    (hparams,) = run.glob("log/*/hparams.yml")
    final = [events.Scalars(name)[-1].value for name in ("final/videos", "test/recognition.top1")]
    curve = [(event.step, event.value) for event in events.Scalars("loss")]
    return curve, yaml.safe_load(hparams.read_text()), len(events.Images("samples")), final


def of_mlflow(run):
    from mlflow import MlflowClient

    client = MlflowClient(str(run.parent / "mlruns"))
    (experiment,) = (each for each in client.search_experiments() if each.name == "test")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.info.run_name == "mine"
    assert {"ce", "ce.image:precomputed"} <= stored.data.metrics.keys()
    curve = [(each.step, each.value) for each in client.get_metric_history(stored.info.run_id, "loss")]
    final = [stored.data.metrics[name] for name in ("final.videos", "test.recognition.top1")]
    return curve, stored.data.params, len(client.list_artifacts(stored.info.run_id)), final


def of_wandb(run):
    paths = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    records = [record for path in paths for record in wandb_records(path.read_bytes()[7:])]
    about = [each.run for each in records if each.HasField("run")]
    assert {each.display_name for each in about} == {"mine"}
    assert len({each.run_id for each in about}) == 1
    history = [values(each.history.item) for each in records if each.HasField("history")]
    config, summary = {}, {}
    for each in records:
        config |= values(each.config.update) | values(each.run.config.update)
        summary |= values(each.summary.update)
    curve = [(entry["_step"], entry["loss"]) for entry in history if "loss" in entry]
    pictures = sum("samples._type" in entry for entry in history)
    return curve, config, pictures, [summary["final/videos"], summary["test/recognition.top1"]]


def values(items):
    return {each.key or ".".join(each.nested_key): json.loads(each.value_json) for each in items}


def wandb_records(data):
    """The records of wandb's own file, which is LevelDB's log after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, record = 0, b""
    while place + 7 <= len(data):
        if (left := 32768 - (place + 7) % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_is_one_curve_with_its_recipe_its_picture_and_its_figures(tracked, name):
    run, top1 = tracked
    curve, configuration, pictures, final = globals()[f"of_{name}"](run)
    assert curve == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in lines(run)]
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5]
    assert configuration["method"] == "ccl"
    assert float(configuration["optim.lr"]) == 0.01
    assert pictures == 1
    assert final == [12, pytest.approx(top1, rel=1e-6)]


def test_what_trackers_print_is_not_on_stdout(clips_folder, monkeypatch, capsys):
    def start(self):
        print("Hello from your tracker")
        self.writer = SimpleNamespace(close=lambda: print("Goodbye"))

    cls = LOGGER_TYPE_TO_CLASS["tensorboard"]
    monkeypatch.setattr(cls, "start", start)
    for name in ("store_init_configuration", "log", "log_images"):
        monkeypatch.setattr(cls, name, lambda *values, **options: print("Noted"))
    train(recipe(clips_folder, train={"trackers": "tensorboard", "max_steps": 1}))
    out, err = capsys.readouterr()
    assert out == ""
    assert {"Hello from your tracker", "Noted", "Goodbye"} <= set(err.splitlines())


def test_a_tracker_that_does_not_start_is_refused_and_no_step_taken(clips_folder, monkeypatch, tmp_path):
    def start(self):
        raise ValueError("No API key configured.\nUse `login`.")

    monkeypatch.setattr(LOGGER_TYPE_TO_CLASS["tensorboard"], "start", start)
    with pytest.raises(SystemSetupError, match="tensorboard does not start: No API key configured"):
        train(recipe(clips_folder, train={"trackers": "tensorboard"}), output=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_no_step_is_logged_twice_and_one_that_fails_is_left_alone(caplog):
    def log(values, step):
        calls.append(step)
        raise ConnectionError("server gone")

    calls, closed = [], []
    tracker = Tracked(SimpleNamespace(name="x", log=log, finish=lambda: closed.append(1)), logged=1, step=1)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            tracker.log({"loss": 1.0}, step=step)
        tracker.finish()
    assert (calls, closed) == ([2], [1])
    assert "The tracker x failed and is not used further: server gone" in caplog.text


def test_the_names_are_accelerates():
    assert set(TrackerName.__args__) == set(LOGGER_TYPE_TO_CLASS)


@pytest.mark.parametrize(("name", "package"), [("wandb", "'ccl-cli[trackers]'"), ("aim", "aim")])
def test_one_that_is_not_installed_is_named_with_what_installs_it(monkeypatch, name, package):
    monkeypatch.setattr("ccl_cli.training.run.trackers.get_available_trackers", list)
    with pytest.raises(SystemSetupError) as raised:
        train(Recipe.model_validate({"train": {"trackers": [name]}}))
    assert raised.value.hint == f"Install it with `pip install {package}`."
