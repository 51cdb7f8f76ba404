"""The cached correspondence of a run's teachers, and when it is measured anew."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import parse_model
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import CclError
from ccl_cli.evaluation import correspondence_cache
from ccl_cli.evaluation.correspondence import _sample, measure
from ccl_cli.evaluation.correspondence_cache import Correspondence, cached_correspondence
from ccl_cli.evaluation.probe import ProbeSplits, probe_teachers
from ccl_cli.training.build import load_teacher
from tests.report.pages import write_study

TABLE, IMAGE = "audio:precomputed", "image:small"
OWN = tuple(f"thing {n}" for n in range(12))


@pytest.fixture
def clips(clips_folder, tmp_path):
    return shutil.copytree(clips_folder, tmp_path / "clips")


@pytest.fixture
def run(clips, tmp_path):
    return next(write_study(tmp_path / "r", clips, own=OWN).glob("*ccl*"))


def reason(run, teacher=IMAGE, split="test"):
    """Why nothing can be measured; nothing is written then."""
    error = measure(run, [teacher], split)[teacher]
    assert isinstance(error, CclError)
    assert not list(run.glob("correspondence-*"))
    return error.message


def change_summary(run, change):
    summary = json.loads((run / "summary.json").read_text())
    change(summary)
    (run / "summary.json").write_text(json.dumps(summary))


def test_it_is_what_the_probe_and_the_teacher_say(run, tmp_path):
    measured = measure(run, [TABLE, IMAGE], "test")
    assert measured[TABLE].probe["train"] == {"present": 8, "videos": 12}
    assert (measured[TABLE].silent, measured[TABLE].samples) == ("has no classes of its own", ())
    ours, spec = measured[IMAGE].probe, f"{IMAGE}@{tmp_path / 'r' / 'image.safetensors'}"
    (theirs,) = probe_teachers(f"manifest:{run / 'manifest.jsonl'}", [spec], workers=0)["probes"]
    assert ours == {key: value for key, value in theirs.items() if key not in ("linear", "penalty")}

    teacher = load_teacher(parse_model(spec))
    videos = {video.id: video for video in Manifest.load(run / "manifest.jsonl").split("test")}
    assert {sample.label for sample in measured[IMAGE].samples} == {"right", "down"}
    for sample in measured[IMAGE].samples:
        assert sample.label in ours["verdicts"][sample.verdict]
        window = Window(videos[sample.video], Clip())
        probabilities = teacher.class_probabilities(teacher.preprocess(window)[None])[0]
        best = probabilities.argsort(descending=True)[:10].tolist()
        assert [name for name, _ in sample.top] == [OWN[place] for place in best]
        shares = [share for _, share in sample.top]
        assert shares == pytest.approx((100 * probabilities[best]).tolist(), abs=1e-3)


def test_it_is_cached_and_read_again_without_videos_and_teachers(run, clips, tmp_path):
    assert cached_correspondence(run, IMAGE, "test") is None
    measured = measure(run, [TABLE, IMAGE], "test")
    shutil.rmtree(clips)
    (tmp_path / "r" / "image.safetensors").unlink()
    for name in (TABLE, IMAGE):
        assert cached_correspondence(run, name, "test") == measured[name]
    assert cached_correspondence(run, IMAGE, "train") is None


@pytest.mark.parametrize("part", ["data", "teachers", "rule", "damage", "half"])
def test_what_is_stale_or_damaged_is_not_believed(run, monkeypatch, part):
    measure(run, [IMAGE], "test")
    (file,) = run.glob("correspondence-*")
    if part == "rule":
        monkeypatch.setattr(correspondence_cache, "RULE", "another one")
    elif part == "damage":
        file.write_text(file.read_text()[:-9])
    elif part == "half":
        file.write_text(json.dumps({**json.loads(file.read_text()), "samples": [{"video": "x"}]}))
    elif part == "data":
        change_summary(run, lambda summary: summary["data"].update(manifest="0" * 16))
    else:
        change_summary(run, lambda summary: summary["teachers"][IMAGE].update(fingerprint="another"))
    assert cached_correspondence(run, IMAGE, "test") is None


def test_one_teacher_that_is_gone_does_not_cost_the_other(run, tmp_path):
    (tmp_path / "r" / "image.safetensors").unlink()
    measured = measure(run, [IMAGE, TABLE], "test")
    assert "image.safetensors" in measured[IMAGE].message
    assert isinstance(measured[TABLE], Correspondence)
    assert [each.name for each in run.glob("corr*")] == ["correspondence-audio_precomputed-test.json"]


def test_a_teacher_that_has_changed_is_refused(run, clips):
    table = dict(np.load(clips / "audio.npz"))
    np.savez(clips / "audio.npz", names=table["names"], embedding=table["embedding"] + 1)
    assert "have changed since" in reason(run, TABLE)
    assert "has no val split" in reason(run, split="val")
    change_summary(run, lambda summary: summary["teachers"][IMAGE].pop("fingerprint"))
    assert "does not record its videos or its teacher image:small" in reason(run)


def test_videos_that_have_changed_or_are_gone_are_refused(run, clips):
    with next((clips / "set" / "train").rglob("*.mp4")).open("ab") as file:
        file.write(b"\0" * 64)
    assert "are missing or have changed since" in reason(run)
    shutil.rmtree(clips)
    assert "are not on disk, for example" in reason(run)
    (run / "manifest.jsonl").unlink()
    assert "contains no manifest.jsonl" in reason(run)


def test_samples_are_spread_over_each_verdict():
    names = tuple(f"c{n}" for n in range(9))
    videos = [Video(f"{name}/{n}", "/x", label, "test") for label, name in enumerate(names) for n in (0, 1)]
    present = torch.tensor([n % 2 == 1 or n > 3 for n in range(18)])  # the first of c0 and of c1 is silent
    verdicts = {"highly": names[:6], "weakly": names[6:7], "not": []}
    chosen = _sample(verdicts, ProbeSplits(names, "test", (), videos, np.zeros((0, 0), bool)), present)
    assert [f"{verdict} {video.id}" for verdict, video in chosen] == [
        "highly c1/1",
        "highly c4/0",
        "weakly c6/0",
    ]


def test_a_plugin_that_fails_is_named(run, monkeypatch):
    from ccl_plugins.small import SmallImage

    def fails(self, x):
        raise ZeroDivisionError("no classes today")

    monkeypatch.setattr(SmallImage, "class_probabilities", fails)
    assert "ZeroDivisionError: no classes today" in reason(run)
