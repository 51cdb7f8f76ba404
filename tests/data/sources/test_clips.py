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
from ccl_cli.errors import DataError, EnvironmentError_, RecipeError

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


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path):
    few = {"per_class": 1, "classes": 2, "size": 48, "seconds": 0.2}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        clips.load(str(tmp_path / name), seed=seed, **few)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    a, c = content(tmp_path / "a"), content(tmp_path / "c")
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)
    assert len({*a.values()}) == len(a)  # no clip twice, not even between train and test


def test_interrupted_writing_is_completed_and_the_rest_left_alone(tmp_path, monkeypatch):
    few = {"per_class": 2, "classes": 2, "size": 48, "seconds": 0.2}
    whole = clips.load(str(tmp_path / "whole"), **few)
    real, calls = clips.write_clip, []

    def interrupted(path, *args):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, *args)

    monkeypatch.setattr(clips, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clips.load(str(tmp_path / "part"), **few)
    first = calls[0].stat().st_mtime_ns
    again = clips.load(str(tmp_path / "part"), **few)
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert again.hash == whole.hash
    assert calls[0].stat().st_mtime_ns == first
    done = len(calls)
    clips.load(str(tmp_path / "part"), **few)
    assert len(calls) == done


def test_without_a_location_the_cache_holds_one_folder_per_options(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_HOME", str(tmp_path))
    few = {"per_class": 1, "classes": 2, "size": 48, "seconds": 0.2}
    one, other = clips.load("", **few), clips.load("", **few, seed=1)
    assert one.hash != other.hash
    assert len(list((tmp_path / "clips").iterdir())) == 2


def test_folder_with_other_content_is_not_touched(tmp_path):
    (tmp_path / "mine.mp4").write_bytes(b"holiday")
    with pytest.raises(DataError, match="not empty"):
        clips.load(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.mp4"]


def test_folder_of_other_options_is_not_mixed(tmp_path):
    few = {"per_class": 1, "classes": 2, "size": 48, "seconds": 0.2}
    clips.load(str(tmp_path / "x"), **few)
    with pytest.raises(DataError, match="other options"):
        clips.load(str(tmp_path / "x"), **few, seed=1)


@pytest.mark.parametrize(
    "options", [{"classes": 1}, {"classes": 99}, {"size": 50}, {"per_class": "many"}, {"colour": 3}]
)
def test_impossible_options_are_sentences(tmp_path, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        load_source("clips", clips.load, str(tmp_path / "x"), options)
    assert not (tmp_path / "x").exists()


def test_unwritable_place_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_, match="Cannot write"):
        clips.load(str(tmp_path / "file" / "clips"))
