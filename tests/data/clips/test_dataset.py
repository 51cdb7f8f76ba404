"""Training samples: what decides them, and what stands in for a video that cannot be read."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.clips.dataset import TeacherClips, TrainingClips
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.clips.evaluation_clips import EvaluationClips
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.file_reader import FileReader
from ccl_cli.data.video.reader import open_video
from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.training.batches import training_clips
from ccl_cli.training.build import Parts
from ccl_plugins.picture import Picture
from tests.training.runs import small_recipe

CLIP = Clip(frames=4, size=32, short_side=36)
SOUND = {"audio:a": Waveform(15_000, 0.5)}  # a rate at which no other test has heard the clips


class Start:
    """When the window begins."""

    shape: tuple[int, ...] = (1,)
    dtype = torch.float64

    def __call__(self, window):
        return torch.tensor([window.start], dtype=torch.float64)


@pytest.fixture
def videos(clips_folder, tmp_path):
    """The training videos, of which the second and the third cannot be read."""
    shutil.copytree(clips_folder / "set", tmp_path / "set")
    videos = load_data(f"folder:{tmp_path / 'set'}").split("train")
    for video in videos[1:3]:
        video.path.write_text("not a video")
    return videos


def test_draws_of_one_row_in_one_step_see_it_differently(videos):
    samples = TrainingClips(videos, CLIP, {"any:start": Start()}, seed=3)
    draws = [
        Draw(1, 5, row, repeat) for row, repeat in [(3, 0), (3, 1), (3, 2), (1, 0), (1, 1), (2, 0), (2, 1)]
    ]
    drawn = samples[draws]
    assert drawn.batch.rows.tolist() == [3] * 7
    assert sorted(drawn.unreadable) == [1, 2]
    assert len({view.numpy().tobytes() for view in drawn.batch.video}) == 7
    for number, draw in enumerate(draws):
        assert torch.equal(samples[[draw]].batch.video[0], drawn.batch.video[number])


def test_a_readable_video_is_drawn_by_seed_epoch_and_row(videos):
    samples = TrainingClips(videos, CLIP, {"any:start": Start()}, seed=3)
    info = open_video(videos[4].path).metadata
    for epoch in range(4):
        first = int(np.random.default_rng([3, epoch, 4, 1]).integers(0, info.frames - CLIP.frames + 1))
        batch = samples[[Draw(epoch, 0, 4)]].batch
        assert batch.inputs["any:start"].value.item() == info.time(first)
        assert (batch.epoch, batch.labels.tolist()) == (epoch, [videos[4].label])
    alone = TrainingClips([replace(video, id="x") for video in videos], CLIP, {}, seed=3)
    assert torch.equal(alone[[Draw(0, 7, 4)]].batch.video, samples[[Draw(0, 9, 4)]].batch.video)


def test_only_the_limit_decides_how_many_videos_in_a_row_may_be_unreadable(videos, tmp_path):
    (tmp_path / "bad.mp4").write_text("not a video")
    rows = [*(Video(f"bad/{number}", tmp_path / "bad.mp4", 0, "train") for number in range(20)), videos[0]]
    loaded = TrainingClips(rows, CLIP, {}, 0, max_unreadable=20)[[Draw(0, 0, 0)]]
    assert (loaded.batch.rows.tolist(), len(loaded.unreadable)) == ([20], 20)
    with pytest.raises(DataError, match=r"^20 videos in a row cannot be read, more than max_unreadable"):
        TrainingClips(rows, CLIP, {}, 0, max_unreadable=19)[[Draw(0, 0, 0)]]


def test_the_limit_is_the_recipes_without_the_videos_that_are_not_there(tmp_path):
    videos = tuple(Video(f"{number}", tmp_path / "x.mp4", 0, "train") for number in range(100))
    manifest = Manifest("x", ("a",), videos)
    parts = Parts(manifest, manifest.videos[3:], manifest.videos[:3], {}, None, {})
    assert training_clips(small_recipe("x", {"max_unreadable": 0.2}), parts, ()).max_unreadable == 17


def test_what_one_teacher_sees_says_nothing_of_another(videos):
    preprocess = {
        "image:i": Picture((32, 32), 1.0, "bilinear", False, (0.0,) * 3, (1.0,) * 3),
        "audio:a": Waveform(16_000, 2.0),
    }
    for order in (preprocess, dict(reversed(preprocess.items()))):
        batch = TeacherClips(videos[4:6], CLIP, order, views=2)[[0, 1]]
        assert batch.inexact == {"image:i": 2, "audio:a": 0}
        assert batch.frames == {"image:i": 20, "audio:a": 0}


# ---- errors that no decoder was expected to raise: all who read videos take them for the same fault


def train(source, folder):
    videos = load_data(source).split("train")
    loaded = TrainingClips(videos, CLIP, SOUND, 0)[[Draw(0, 0, row) for row in range(3, 6)]]
    assert loaded.batch.rows.tolist() == [4, 4, 5]  # the first stands in for it
    return {videos[row].id: reason for row, reason in loaded.unreadable.items()}


def cache(source, folder):
    videos = load_data(source).split("train")
    unreadable = TeacherClips(videos, CLIP, SOUND)[[2, 3, 4]].unreadable
    return {videos[row].id: why["audio:a"] for row, why in unreadable.items()}


def evaluate(source, folder):
    videos = load_data(source).split("train")
    chunks = EvaluationClips(videos, CLIP, Evaluation(), chunk=9)
    return {videos[row].id: reason for chunk in chunks for row, reason in chunk.unreadable.items()}


def shards(source, folder):
    return pack(source, folder, Settings(), workers=0, shard_size=10**9, max_unreadable=0.1)["unreadable"]


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("odd"), SystemSetupError("Gone."), MemoryError(), OSError(errno.EMFILE, "full")],
    ids=repr,
)
@pytest.mark.parametrize(
    ("read", "method"),
    [
        (train, "frames"),
        (train, "audio"),
        (cache, "audio"),
        (evaluate, "frames"),
        (shards, "frames"),
        (shards, "audio"),
    ],
)
def test_an_unforeseen_error_costs_its_video_and_one_of_the_machine_none(
    clips_folder, tmp_path, monkeypatch, read, method, error
):
    real = getattr(FileReader, method)

    def failing(self, *args, **options):
        if self.path == clips_folder / "set/train/down/3.mp4":
            raise error
        return real(self, *args, **options)

    monkeypatch.setattr(FileReader, method, failing)
    source = f"folder:{clips_folder / 'set'}"
    if isinstance(error, ZeroDivisionError):
        (reason,) = read(source, tmp_path / "p").items()
        assert reason[0] == "train/down/3"
        assert reason[1].endswith("3.mp4' cannot be read: ZeroDivisionError: odd.")
    else:
        with pytest.raises(SystemSetupError, match=r"^Gone|3\.mp4' cannot be read: (MemoryError|full)"):
            read(source, tmp_path / "p")
