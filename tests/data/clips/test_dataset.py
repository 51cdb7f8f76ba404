"""Training samples: what decides them, and what stands in for a video that cannot be read."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.dataset import TeacherClips, TrainingClips
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.reader import open_video
from ccl_cli.errors import DataError
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.training.batches import training_clips
from ccl_cli.training.build import Parts
from ccl_plugins.picture import Picture
from tests.training.runs import small_recipe

CLIP = Clip(frames=4, size=32, short_side=36)


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


def test_a_video_in_place_of_another_is_not_seen_as_in_its_own_draw(videos):
    samples = TrainingClips(videos, CLIP, {"any:start": Start()}, seed=3)
    same = []
    for epoch in range(8):
        drawn = [samples[Draw(epoch, 5 * epoch, row)] for row in (1, 2, 3)]
        assert [sample.row for sample in drawn] == [3, 3, 3]
        same += [
            torch.equal(one.view, two.view) for one, two in zip(drawn, drawn[1:] + drawn[:1], strict=True)
        ]
        again = samples[Draw(epoch, 5 * epoch, 1)]
        assert torch.equal(again.view, drawn[0].view)
    assert not any(same)


def test_a_readable_video_is_drawn_by_seed_epoch_and_row(videos):
    samples = TrainingClips(videos, CLIP, {"any:start": Start()}, seed=3)
    for epoch in range(4):
        info = open_video(videos[4].path).metadata
        first = int(np.random.default_rng([3, epoch, 4, 1]).integers(0, info.frames - CLIP.frames + 1))
        assert samples[Draw(epoch, 0, 4)].inputs["any:start"].item() == info.time(first)
    alone = TrainingClips([replace(video, id="x") for video in videos], CLIP, {}, seed=3)
    assert torch.equal(alone[Draw(0, 7, 4)].view, samples[Draw(0, 9, 4)].view)


def test_draws_of_one_row_in_one_step_see_it_differently(videos):
    samples = TrainingClips(videos, CLIP, {}, seed=3)
    drawn = [
        samples[Draw(0, 0, row, repeat)] for row, repeat in [(3, 0), (3, 1), (3, 2), (1, 0), (1, 1), (2, 1)]
    ]
    assert {sample.row for sample in drawn} == {3}
    assert len({sample.view.numpy().tobytes() for sample in drawn}) == 6


def test_only_the_limit_decides_how_many_videos_in_a_row_may_be_unreadable(videos, tmp_path):
    (tmp_path / "bad.mp4").write_text("not a video")
    stretch = [Video(f"bad/{number}", tmp_path / "bad.mp4", 0, "train") for number in range(20)]
    rows = [*stretch, videos[0]]
    sample = TrainingClips(rows, CLIP, {}, 0, max_unreadable=20)[Draw(0, 0, 0)]
    assert (sample.row, len(sample.unreadable)) == (20, 20)
    with pytest.raises(
        DataError, match=r"^20 videos in a row cannot be read, more than max_unreadable allows"
    ):
        TrainingClips(rows, CLIP, {}, 0, max_unreadable=19)[Draw(0, 0, 0)]


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
        samples = TeacherClips(videos[4:6], CLIP, order, views=2)
        batch = samples.collate([samples[0], samples[1]])
        assert batch.inexact == {"image:i": 2, "audio:a": 0}
        assert batch.frames == {"image:i": 20, "audio:a": 0}
