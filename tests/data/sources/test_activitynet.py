from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.dataset import TrainingClips
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.sources.activitynet import load
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import DataError
from tests.data.media import touch
from tests.data.sources.refusals import refusal

LIST = "activity_net.v1-3.min.json"


def entry(subset: str, *stretches: tuple[str, float, float]) -> dict:
    """In the published form, with the keys that are not used."""
    return {
        "duration": 82.75,
        "subset": subset,
        "resolution": "320x180",
        "url": "https://example.org/watch",
        "annotations": [{"segment": [start, end], "label": label} for label, start, end in stretches],
    }


DATABASE = {
    "ZNVhz7ctTq0": entry(
        "training", ("Surfing", 0.2, 0.5), ("Ironing clothes", 0.5, 1.0), ("Surfing", 1, 1.5)
    ),
    "-GSY1Qvo_90": entry("validation", ("Archery", 0.0, 0.8)),
    "sJEeRPhBhtU": entry("training", ("Archery", 0, 0), ("Archery", 0.01, 0.02), ("Archery", 0.1, 0.9)),
    "nobodyKnows": entry("testing"),
}


def write_list(folder: Path, database=DATABASE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LIST
    path.write_text(json.dumps({"version": "VERSION 1.3", "taxonomy": [], "database": database}))
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    write_list(tmp_path)
    for name in DATABASE:
        touch(tmp_path / f"v_{name}.mp4")
    return tmp_path


def test_whole_videos_have_the_label_shown_longest_and_validation_is_the_test_split(root):
    manifest = load(str(root))
    manifest.validate(["train", "test"])
    assert manifest.name == "activitynet"
    assert manifest.classes == ("Archery", "Ironing clothes", "Surfing")
    rows = [(v.id, v.label, v.split, v.start, v.end) for v in manifest.videos]
    assert rows == [
        ("v_ZNVhz7ctTq0", 2, "train", None, None),  # 0.8 s of surfing, 0.5 s of ironing
        ("v_-GSY1Qvo_90", 0, "test", None, None),
        ("v_sJEeRPhBhtU", 0, "train", None, None),
    ]


def test_trimmed_lists_every_stretch_that_has_a_length(root, caplog):
    with caplog.at_level("INFO", "ccl"):
        manifest = load(str(root), segments="trimmed")
    manifest.validate(["train", "test"])
    assert manifest.name == "activitynet-trimmed"
    rows = [(v.id, v.label, v.split, v.start, v.end) for v in manifest.videos]
    assert rows == [
        ("v_ZNVhz7ctTq0_0", 2, "train", 0.2, 0.5),
        ("v_ZNVhz7ctTq0_1", 1, "train", 0.5, 1.0),
        ("v_ZNVhz7ctTq0_2", 2, "train", 1.0, 1.5),
        ("v_-GSY1Qvo_90_0", 0, "test", 0.0, 0.8),
        ("v_sJEeRPhBhtU_2", 0, "train", 0.1, 0.9),
    ]
    assert "2 segments shorter than 0.1 s are left out" in caplog.text


def test_training_sees_nothing_outside_a_stretch(tmp_path):
    """Brightness is the time: 25 frames a second from black, 5 levels each."""
    levels = np.arange(40, dtype=np.uint8) * 5
    frames = np.broadcast_to(levels[:, None, None, None], (40, 36, 48, 3))
    write_clip(tmp_path / "v_ZNVhz7ctTq0.mp4", frames, 25)
    write_list(tmp_path, {"ZNVhz7ctTq0": entry("training", ("Surfing", 0.4, 0.8))})
    (video,) = load(str(tmp_path), segments="trimmed").videos
    samples = TrainingClips((video,), Clip(frames=6, size=32, short_side=36), {}, 0)
    read = [samples[[Draw(epoch, epoch, 0)]] for epoch in range(8)]
    seen = {
        round(float(frame.float().mean()) / 5) for loaded in read for frame in loaded.batch.video[0].unbind(1)
    }
    assert min(seen) >= 9  # frames 10 to 19, up to the codec's error
    assert max(seen) <= 20
    assert len(seen) > 6


@pytest.mark.parametrize(("prefix", "suffix", "folder"), [("v_", ".mp4", ""), ("", ".webm", "v1-2/val")])
def test_layouts_and_formats(tmp_path, prefix, suffix, folder):
    write_list(tmp_path)
    paths = [tmp_path / folder / f"{prefix}{name}{suffix}" for name in DATABASE]
    touch(*paths)
    assert [video.path for video in load(str(tmp_path)).videos] == paths[:3]


def test_what_is_absent_is_named(tmp_path):
    touch(tmp_path / "v_unlisted.mp4")
    assert refusal(load, str(tmp_path)).startswith("ActivityNet lacks its annotations")
    write_list(tmp_path)
    assert refusal(load, str(tmp_path)).startswith("ActivityNet lacks its videos")


def test_a_listed_video_that_is_not_there_counts_as_missing(tmp_path):
    write_list(tmp_path)
    touch(tmp_path / "v_ZNVhz7ctTq0.mp4", tmp_path / "v_unlisted.mp4")
    manifest = load(str(tmp_path))
    assert [video.id for video in manifest.missing("train")] == ["v_sJEeRPhBhtU"]
    assert [video.path for video in manifest.missing("test")] == [tmp_path / "v_-GSY1Qvo_90.mp4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"Invalid JSON"),
        ('{"videos": {}}', r"', database: Field required"),
        ('{"database": {"../x": {"subset": "training"}}}', r"', database\.\.\./x: String should match"),
        ('{"database": {"x": {"subset": "train"}}}', r"database\.x\.subset: Input should be 'training'"),
        (b"\xff\xfe", r"Invalid JSON|UTF-8"),
    ],
)
def test_what_is_not_the_published_file(tmp_path, text, said):
    (tmp_path / LIST).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said) as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / LIST) in str(caught.value)


@pytest.mark.parametrize(
    ("segment", "said"),
    [
        ([-1, 2], r"segment\.0: Input should be greater than or equal to 0"),
        ([0, float("inf")], r"segment\.1: Input should be a finite number"),
        ([1], r"segment\.1: Field required"),
    ],
)
def test_times_that_make_no_sense_are_named(tmp_path, segment, said):
    bad = {**entry("training"), "annotations": [{"label": "Surfing", "segment": segment}]}
    write_list(tmp_path, {"x": bad})
    touch(tmp_path / "v_x.mp4")
    with pytest.raises(DataError, match=rf"database\.x\.annotations\.0\.{said}"):
        load(str(tmp_path))
