from __future__ import annotations

from collections import Counter
from itertools import chain, combinations
from pathlib import Path

import av
import numpy as np
import pytest

from ccl_cli.data.sources import synthetic, world
from ccl_cli.data.video.reader import open_video
from ccl_cli.data.video.sound import read_audio
from tests.data.media import counts

FEW = {"motion_groups": 2, "clips": 2, "val_clips": 0, "test_clips": 1, "size": 24, "frames": 4}
LOUD = FEW | {"silent": 0, "trackless": 0}


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(int)


def settings(**changes) -> world.World:
    default = dict(labels="actions", object_groups=2, motion_groups=3, clips=10, val_clips=0, test_clips=10)
    default |= dict(correspondence=0.5, silent=0.05, trackless=0.05, noise=1.0, distractors=1, jitter=0.02)
    return world.World(**default | dict(size=40, frames=16, seed=0) | changes)


def drawn(motion, seed=0, **changes):
    """A clip of an 8 without noise, 12 frames of 64 pixels."""
    chosen = settings(**dict(size=64, noise=0.0, distractors=0, jitter=0.0) | changes)
    times, rng = np.linspace(-0.5, 0.5, 12), np.random.default_rng(seed)
    return world.render(chosen, 8, motion, world.digits("train"), times, rng)


def ink(clip) -> np.ndarray:
    """[T, S, S]: where the digit is."""
    bright = clip.max(axis=3).astype(float)
    return (bright - bright.min()) > 60


def centres(clip) -> np.ndarray:
    """[T, 2] columns and rows of the digit's centre, in shares of the frame."""
    rows, columns = np.mgrid[:64, :64]
    return np.array(
        [[(plane * frame).sum() / frame.sum() / 64 for plane in (columns, rows)] for frame in ink(clip)]
    )


def played(monkeypatch, **changes) -> dict[int, Counter]:
    """The events that clips of each action play."""
    monkeypatch.setattr(world, "play", lambda chosen, event, rng: event or "silence")
    chosen = settings(**changes)
    tally: dict[int, Counter] = {}
    for label in range(len(chosen.names())):
        names = [world.ClipName("train", label, number) for number in range(400)]
        sounds = [synthetic._sound(chosen, name, synthetic._generator(chosen, name, 1)) for name in names]
        tally[label] = Counter("no track" if sound is None else sound for sound in sounds)
    return tally


# ---- the world


def test_no_digit_is_in_two_parts():
    parts = {part: np.concatenate(world.digits(part)) for part in world.PARTS}
    assert sum(map(len, parts.values())) == 1797
    seen = {part: {image.tobytes() for image in images} for part, images in parts.items()}
    assert all(one.isdisjoint(other) for one, other in combinations(seen.values(), 2))
    assert min(len(images) for part in world.PARTS for images in world.digits(part)) >= 17


STRAIGHT = {
    "right": (1, 0),
    "left": (-1, 0),
    "down": (0, 1),
    "up": (0, -1),
    "down-right": (1, 1),
    "up-right": (1, -1),
}


def test_motions_are_what_their_names_say():
    for motion, direction in STRAIGHT.items():
        path = centres(drawn(motion))
        moved = path[-1] - path[0]
        assert tuple(np.sign(moved) * (abs(moved) > 0.05)) == direction
        assert 0.1 < np.abs(moved).max() < 0.3
    for motion, sign in ("clockwise", 1), ("counterclockwise", -1):
        around = (path := centres(drawn(motion))) - path[:-1].mean(axis=0)
        turns = around[:-1, 0] * around[1:, 1] - around[:-1, 1] * around[1:, 0]  # rows grow downwards
        assert (np.sign(turns) == sign).all()
    for motion, first, last in ("grow", 0, -1), ("shrink", -1, 0):
        sizes = ink(drawn(motion)).sum(axis=(1, 2))
        assert sizes[last] > 1.5 * sizes[first]
    for motion, axis in ("shake", 0), ("nod", 1):
        path = centres(drawn(motion))
        assert np.ptp(path[:, axis]) > 0.08 > 0.03 > np.ptp(path[:, 1 - axis])
        assert (np.diff(np.sign(np.diff(path[:, axis]))) != 0).sum() >= 3  # there and back, twice


def test_jitter_moves_the_digit_off_its_path_and_distractors_add_ink():
    straight, jittered = (centres(drawn("right", jitter=jitter))[:, 1] for jitter in (0.0, 0.05))
    assert straight.std() < 0.01 < 0.02 < jittered.std()
    alone, among = (drawn("right", 2, noise=1.0, distractors=number).mean() for number in (0, 8))
    assert among > alone + 2


@pytest.mark.parametrize("event", world.EVENTS)
def test_events_sound_and_vary(event):
    chosen = settings(frames=4, noise=0.5)
    one, other = (world.play(chosen, event, np.random.default_rng(seed)) for seed in (1, 2))
    for sound in one, other:
        assert (sound.dtype, len(sound)) == (np.float32, world.RATE // 2)
        assert 0.09 < np.abs(sound).max() <= 1
    assert np.abs(one - other).max() > 0.05
    assert not world.play(chosen, None, np.random.default_rng(0)).any()


# ---- correspondence


@pytest.mark.parametrize(
    ("correspondence", "thirds"),
    [(0.0, (0, 0, 0)), (0.25, (0.5, 0.25, 0)), (0.5, (1, 0.5, 0)), (0.75, (1, 0.75, 0.5)), (1.0, (1, 1, 1))],
)
def test_thirds_of_the_actions_go_with_their_sound_as_documented(correspondence, thirds):
    chosen = settings(correspondence=correspondence)
    assert [chosen.own_event_probability(action) for action in range(3)] == list(thirds)
    assert np.mean(thirds) == pytest.approx(correspondence)
    chosen = settings(object_groups=3, correspondence=correspondence)
    shares = np.array([chosen.own_event_probability(action) for action in range(9)]).reshape(3, 3)
    assert [sorted(column) for column in shares.T] == [sorted(thirds)] * 3  # of each group of motions


def test_actions_play_the_events_of_their_motions_as_often_as_said(monkeypatch):
    chosen, motions = settings(), list(world.MOTIONS)
    for label, tally in played(monkeypatch, silent=0.0, trackless=0.0).items():
        events = [list(world.EVENTS)[motions.index(motion)] for motion in chosen.groups[1][label % 3]]
        share = chosen.own_event_probability(label)
        expected = share / 4 + (1 - share) / 12  # of a clip, for each of the group's four motions
        assert [tally[event] / 400 for event in events] == pytest.approx([expected] * 4, abs=0.06)
        assert sum(tally.values()) == 400
        assert len(tally) == (4 if share == 1 else 12)

    total = sum(played(monkeypatch, silent=0.1, trackless=0.2).values(), Counter())
    shares = {"no track": 0.2, "silence": 0.1}
    assert {name: total[name] / total.total() for name in shares} == pytest.approx(shares, abs=0.02)


def test_correspondence_changes_sounds_and_no_pictures(tmp_path):
    sets = [synthetic.load(str(tmp_path / str(c)), **LOUD, correspondence=c).videos for c in (0.0, 1.0)]
    assert [video.id for video in sets[0]] == [video.id for video in sets[1]]
    assert [pictures(video.path).tolist() for video in sets[0]] == [
        pictures(v.path).tolist() for v in sets[1]
    ]
    heard = [
        [read_audio(v.path, centre=0, seconds=1, rate=world.RATE).samples for v in each] for each in sets
    ]
    assert max(float((one - other).abs().max()) for one, other in zip(*heard, strict=True)) > 0.05


# ---- the files


def test_an_action_shows_each_pair_of_its_digits_and_motions_equally_often():
    chosen = settings()
    digits, motions = chosen.groups
    assert sorted(chain(*digits)) == list(range(10))
    assert sorted(chain(*motions)) == sorted(world.MOTIONS)
    for label in range(6):
        shown = Counter(chosen.subject(world.ClipName("train", label, number)) for number in range(40))
        expected = {(digit, motion) for digit in digits[label // 3] for motion in motions[label % 3]}
        assert shown == dict.fromkeys(expected, 2)


def test_actions_are_a_group_of_digits_and_one_of_motions_in_three_splits(tmp_path):
    manifest = synthetic.load(str(tmp_path / "x"), **FEW | {"val_clips": 1, "silent": 0.5, "trackless": 0.5})
    manifest.validate(["train", "val", "test"])
    assert manifest.name == "synthetic"
    assert manifest.classes == tuple(
        f"{kind}-motion{number}" for kind in ("03479", "12568") for number in (1, 2)
    )
    assert {(split, count) for (split, _), count in counts(manifest).items()} == {
        ("train", 2),
        ("val", 1),
        ("test", 1),
    }
    states = {read_audio(v.path, centre=0, seconds=1, rate=16000).state for v in manifest.videos}
    assert states == {"silent", "no track"}


def test_every_option_changes_every_clip(tmp_path):
    seen: set[bytes] = set()
    options = [
        {},
        {"noise": 4.0},
        {"size": 40},
        {"frames": 20},
        {"distractors": 8},
        {"jitter": 0.2},
        {"seed": 1},
    ]
    for changes in options:
        videos = synthetic.load(str(tmp_path / str(changes)), **LOUD | changes).videos
        seen |= {video.path.read_bytes() for video in videos}
        size, frames = changes.get("size", 24), changes.get("frames", 4)
        assert pictures(videos[0].path).shape == (frames, size, size, 3)
    assert len(seen) == len(options) * len(videos)


def test_label_spaces_of_the_teachers(tmp_path):
    few = {"clips": 1, "val_clips": 1, "test_clips": 1, "size": 24, "frames": 3}
    objects = synthetic.load(str(tmp_path / "o"), labels="objects", **few)
    sounds = synthetic.load(str(tmp_path / "s"), labels="sounds", **few)
    assert objects.classes == tuple("0123456789")
    assert set(sounds.classes) == set(world.EVENTS)
    assert open_video(objects.videos[0].path).metadata.audio is None
    states = {read_audio(v.path, centre=0, seconds=1, rate=16000).state for v in sounds.videos}
    assert states == {"present"}
    slides = pictures(objects.videos[0].path)
    assert np.abs(slides[0] - slides[1]).mean() > 5  # a slide show: nothing goes on from frame to frame


def test_a_larger_set_holds_the_clips_of_a_smaller_one(tmp_path):
    few = synthetic.load(str(tmp_path / "few"), **FEW)
    synthetic.load(str(tmp_path / "more"), **FEW | {"clips": 3, "test_clips": 2})
    for video in few.videos:
        more = tmp_path / "more" / video.path.relative_to(tmp_path / "few")
        assert more.read_bytes() == video.path.read_bytes()
