"""The cached correspondence of a run's teachers, and when it is measured anew."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import CclError, DataError
from ccl_cli.evaluation import correspondence as module
from ccl_cli.evaluation import correspondence_cache
from ccl_cli.evaluation.correspondence import measure
from ccl_cli.evaluation.correspondence_cache import Correspondence, cached_correspondence
from ccl_cli.evaluation.teacher_probe import probe_teachers
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


def forget(run):
    for file in run.glob("correspondence-*"):
        file.unlink()


def reason(run, teacher=IMAGE, split="test"):
    """Why nothing can be measured; nothing is written then."""
    forget(run)
    error = measure(run, [teacher], split)[teacher]
    assert isinstance(error, CclError)
    assert not list(run.glob("correspondence-*"))
    return error.message


def test_it_is_what_the_probe_measures(run, clips, tmp_path):
    measured = measure(run, [TABLE, IMAGE], "test")
    specs = [f"{TABLE}@{clips / 'audio.npz'}", f"{IMAGE}@{tmp_path / 'r' / 'image.safetensors'}"]
    rows = [
        f"set/{v.id}.mp4,{('right', 'down')[v.label]},{v.split}"
        for v in module.Manifest.load(run / "manifest.jsonl").videos
    ]
    (clips / "set.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    theirs = probe_teachers(f"csv:{clips / 'set.csv'}", specs[1:], workers=0)["probes"][0]
    ours = measured[IMAGE].probe
    assert (ours["knn"], ours["chance"], ours["test"]) == (theirs["knn"], theirs["chance"], theirs["test"])
    assert ours["per_class"] == theirs["per_class"]
    assert "linear" not in ours
    assert measured[TABLE].probe["train"] == {"present": 8, "videos": 12}


def test_the_samples_are_what_the_teacher_itself_says(run, tmp_path):
    measured = measure(run, [IMAGE], "test")[IMAGE]
    verdicts = measured.probe["verdicts"]
    assert {sample.label for sample in measured.samples} == {"right", "down"}
    assert all(sample.label in verdicts[sample.verdict] for sample in measured.samples)
    teacher = load_teacher(parse_model(f"{IMAGE}@{tmp_path / 'r' / 'image.safetensors'}"))
    videos = {video.id: video for video in module.Manifest.load(run / "manifest.jsonl").split("test")}
    for sample in measured.samples:
        window = module_window(videos[sample.video])
        probabilities = teacher.class_probabilities(teacher.preprocess(window)[None])[0]
        best = probabilities.argsort(descending=True)[:10].tolist()
        assert [name for name, _ in sample.top] == [OWN[place] for place in best]
        assert [share for _, share in sample.top] == pytest.approx(
            (100 * probabilities[best]).tolist(), abs=1e-3
        )


def module_window(video):
    from ccl_cli.config.recipe import Clip
    from ccl_cli.data.clips.window import Window

    return Window(video, Clip())


def test_it_is_cached_and_read_again_without_videos_and_teachers(run, clips, tmp_path):
    assert cached_correspondence(run, IMAGE, "test") is None
    measured = measure(run, [TABLE, IMAGE], "test")
    shutil.rmtree(clips)
    (tmp_path / "r" / "image.safetensors").unlink()
    for name in (TABLE, IMAGE):
        again = cached_correspondence(run, name, "test")
        assert isinstance(again, Correspondence)
        assert again.samples == measured[name].samples
        assert again.silent == measured[name].silent
        assert again.probe == json.loads(json.dumps(measured[name].probe))
    assert cached_correspondence(run, IMAGE, "train") is None
    assert measured[TABLE].silent == "has no classes of its own"
    assert measured[TABLE].samples == ()


@pytest.mark.parametrize("part", ["data", "teachers", "rule", "damage", "half"])
def test_what_is_stale_or_damaged_is_not_believed(run, monkeypatch, part):
    measure(run, [IMAGE], "test")
    assert cached_correspondence(run, IMAGE, "test") is not None
    summary = json.loads((run / "summary.json").read_text())
    (file,) = run.glob("correspondence-*")
    if part == "rule":
        monkeypatch.setattr(correspondence_cache, "RULE", "another one")
    elif part == "damage":
        file.write_text(file.read_text()[:-9])
    elif part == "half":
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "samples": [{"video": "x"}]}))
    elif part == "data":
        summary["data"]["manifest"] = "0" * 16
    else:
        summary["teachers"][IMAGE]["fingerprint"] = "another"
    (run / "summary.json").write_text(json.dumps(summary))
    assert cached_correspondence(run, IMAGE, "test") is None


def test_one_teacher_that_is_gone_does_not_cost_the_other(run, tmp_path):
    (tmp_path / "r" / "image.safetensors").unlink()
    measured = measure(run, [IMAGE, TABLE], "test")
    assert "image.safetensors" in measured[IMAGE].message
    assert isinstance(measured[TABLE], Correspondence)
    assert [file.name for file in run.glob("correspondence-*")] == [
        "correspondence-audio_precomputed-test.json"
    ]


def test_a_teacher_that_has_changed_is_refused(run, clips):
    table = dict(np.load(clips / "audio.npz"))
    np.savez(clips / "audio.npz", names=table["names"], embedding=table["embedding"] + 1)
    assert "have changed since" in reason(run, TABLE)


def test_videos_that_have_changed_or_are_gone(run, clips):
    clip = next((clips / "set" / "train").rglob("*.mp4"))
    with clip.open("ab") as file:
        file.write(b"\0" * 64)
    assert "are missing or have changed since" in reason(run)
    shutil.rmtree(clips)
    assert "are not on disk, for example" in reason(run)
    (run / "manifest.jsonl").unlink()
    assert "contains no manifest.jsonl" in reason(run)


def test_a_run_that_does_not_say_enough(run):
    assert "has no val split" in reason(run, split="val")
    summary = json.loads((run / "summary.json").read_text())
    del summary["teachers"][IMAGE]["fingerprint"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert "does not record its videos or its teacher image:small" in reason(run)


def test_random_weights_say_nothing_of_single_videos():
    assert module._why_silent(load_teacher(parse_model("image:small?weights=random"))).startswith(
        "has random"
    )


def test_samples_are_spread_over_each_verdict():
    names = [f"c{n}" for n in range(9)]
    videos = [
        module.Video(f"{name}/{n}", "/x", place, "test") for place, name in enumerate(names) for n in (0, 1)
    ]
    present = torch.tensor([n % 2 == 1 or n > 3 for n in range(18)])  # the first of c0 and of c1 is silent
    verdicts = {"highly": names[:6], "weakly": names[6:7], "not": []}
    chosen = module._sample(verdicts, names, videos, present)
    assert [(verdict, video.id) for verdict, video in chosen] == [
        ("highly", "c1/1"),
        ("highly", "c4/0"),
        ("weakly", "c6/0"),
    ]


def test_a_plugin_that_fails_is_named(run, monkeypatch):
    from ccl_plugins.small import SmallImage

    def fails(self, x):
        raise ZeroDivisionError("no classes today")

    monkeypatch.setattr(SmallImage, "class_probabilities", fails)
    assert "ZeroDivisionError: no classes today" in reason(run)
    with pytest.raises(DataError):
        raise measure(run, [TABLE], "val")[TABLE]
