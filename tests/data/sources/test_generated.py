"""The sources that write their own videos: what holds for both, and the clips; see also test_synthetic.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.sources import clips, generated, load_source, synthetic
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.sound import read_audio
from ccl_cli.errors import DataError, RecipeError, SystemSetupError
from tests.data.media import counts

FEW = {
    clips: {"classes": 2, "per_class": 2, "size": 48, "seconds": 0.2},
    synthetic: {"motion_groups": 2, "clips": 2, "val_clips": 0, "test_clips": 1, "size": 24, "frames": 4},
}


@pytest.fixture(params=list(FEW), ids=["clips", "synthetic"])
def source(request):
    """A module with a source that writes its own videos."""
    return request.param


@pytest.fixture
def load(source):
    """The source, of few videos."""
    return partial(source.load, **FEW[source])


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.mp4")}


def test_settings_alone_decide_the_bytes(tmp_path, monkeypatch, load):
    for name, threads, seed in ("a", 1, 0), ("b", 3, 0), ("c", 3, 1):
        monkeypatch.setattr(generated, "cores", lambda threads=threads: threads)
        load(str(tmp_path / name), seed=seed)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert len({*a.values(), *c.values()}) == 2 * len(a)  # no video twice, not even between train and test


def test_interrupted_writing_is_completed_and_the_rest_left_alone(tmp_path, monkeypatch, source, load):
    whole = load(str(tmp_path / "whole"))
    real, calls = source.write_clip, []

    def interrupted(path, *args):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, *args)

    monkeypatch.setattr(source, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(str(tmp_path / "part"))
    first = calls[0].stat().st_mtime_ns
    again = load(str(tmp_path / "part"))
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert (again.hash, calls[0].stat().st_mtime_ns) == (whole.hash, first)


def test_without_a_location_the_cache_holds_one_folder_per_settings(tmp_path, monkeypatch, load):
    monkeypatch.setenv("CCL_HOME", str(tmp_path))
    one, other = load(""), load("", seed=1)
    assert one.hash != other.hash
    assert len(list((tmp_path / one.name).iterdir())) == 2


def test_a_folder_of_something_else_is_not_touched(tmp_path, load):
    (tmp_path / "mine.mp4").write_bytes(b"holiday")
    with pytest.raises(DataError, match="not empty"):
        load(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.mp4"]
    load(str(tmp_path / "x"))
    with pytest.raises(DataError, match="other options"):
        load(str(tmp_path / "x"), seed=1)
    with pytest.raises(SystemSetupError, match="Cannot write"):
        load(str(tmp_path / "mine.mp4" / "clips"))


@pytest.mark.parametrize(
    ("source", "options"),
    [
        *((clips, each) for each in ({"classes": 99}, {"size": 50}, {"per_class": "many"}, {"colour": 3})),
        (synthetic, {"object_groups": 1, "motion_groups": 1}),
        (synthetic, {"motion_groups": 13}),
        (synthetic, {"correspondence": 1.5}),
        (synthetic, {"silent": 0.6, "trackless": 0.6}),
        (synthetic, {"labels": "smells"}),
    ],
)
def test_impossible_options_are_sentences(tmp_path, source, options):
    with pytest.raises(RecipeError):
        load_source("name", source.load, str(tmp_path / "x"), options)
    assert not (tmp_path / "x").exists()


def test_clips_move_and_their_classes_differ_in_tone(tmp_path):
    manifest = clips.load(str(tmp_path / "clips"), per_class=6, size=48, seconds=0.5)
    manifest.validate(["train", "test"])
    assert manifest.name == "clips"
    expected = {"train": 6, "test": 3}
    assert counts(manifest) == {
        (split, name): expected[split] for split in expected for name in manifest.classes
    }
    states: Counter = Counter()
    pitches = defaultdict(list)
    for video in manifest.split("train"):
        info = open_video(video.path).metadata
        assert (info.frames, info.height, info.width) == (12, 48, 64)
        frames = read_frames(video.path, 0, 5).frames.int()
        assert (frames[0] - frames[4]).abs().max() > 10
        sound = read_audio(video.path, centre=0.25, seconds=1.0, rate=clips.RATE)
        states[video.label, sound.state] += 1
        if sound.state == "present":
            spectrum = np.abs(np.fft.rfft(sound.samples.numpy()))
            pitches[video.label].append(np.argmax(spectrum) / len(sound.samples))
    kinds = {"present": 4, "silent": 1, "no track": 1}  # of every class alike
    assert states == {(label, state): count for label in range(4) for state, count in kinds.items()}
    ranges = sorted((min(values), max(values)) for values in pitches.values())
    assert all(below[1] < above[0] for below, above in pairwise(ranges))
