from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import clips, load_source
from ccl_cli.data.video.reader import open_video
from ccl_cli.data.video.sound import read_audio
from ccl_cli.errors import RecipeError

SMALL = {"per_class": 6, "size": 48, "seconds": 0.5}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Manifest:
    return clips.load(str(tmp_path_factory.mktemp("set") / "clips"), **SMALL)


def sound_of(video: Video):
    return read_audio(video.path, centre=0.25, seconds=1.0, rate=clips.RATE)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_lists_training_and_test_videos_of_every_class(written):
    written.validate(["train", "test"])
    assert written.name == "clips"
    assert set(written.classes) == {"across", "climb", "orbit", "grow"}
    counts = written.counts()
    assert set(counts["train"].values()) == {6}
    assert set(counts["test"].values()) == {3}
    assert not written.missing("train")
    assert not written.missing("test")


def test_pictures_decode_and_move(written):
    for video in written.videos:
        info = open_video(video.path).metadata
        assert (info.frames, info.height, info.width) == (12, 48, 64)
        with av.open(str(video.path)) as file:
            frames = [frame.to_ndarray(format="gray").astype(int) for frame in file.decode(video=0)]
        assert np.abs(frames[0] - frames[4]).max() > 10


def test_every_class_has_sound_silence_and_no_track_alike(written):
    states = Counter((video.label, sound_of(video).state) for video in written.split("train"))
    for label in range(4):
        assert states[label, "present"] == 4
        assert states[label, "silent"] == 1
        assert states[label, "no track"] == 1


def test_classes_differ_in_their_tone(written):
    pitches: dict[int, list[float]] = {}
    for video in written.videos:
        sound = sound_of(video)
        if sound.state == "present":
            samples = sound.samples.numpy()
            peak = np.argmax(np.abs(np.fft.rfft(samples))) * clips.RATE / len(samples)
            pitches.setdefault(video.label, []).append(float(peak))
    ranges = sorted((min(values), max(values)) for values in pitches.values())
    assert len(ranges) == 4
    assert all(below[1] < above[0] for below, above in pairwise(ranges))


@pytest.mark.parametrize(
    "options", [{"classes": 1}, {"classes": 99}, {"size": 50}, {"per_class": "many"}, {"colour": 3}]
)
def test_impossible_options_are_sentences(tmp_path, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        load_source("clips", clips.load, str(tmp_path / "x"), options)
    assert not (tmp_path / "x").exists()
