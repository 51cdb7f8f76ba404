"""Which frames clips are made of, counted by hand, and read from files and shards whose frames show their number."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.clips.evaluation_clips import EvaluationClips, read_evaluation_clips
from ccl_cli.data.clips.samplers import FrameRange, centre_clip, evaluation_clips, random_clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.video import file_reader
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.storage import Packed
from ccl_cli.data.video.video_writer import write_clip
from tests.data.media import packed

CLIPS = {
    "dense": Clip(frames=4, size=8),
    "stride": Clip(frames=4, stride=3, size=8),
    "fps": Clip(frames=4, fps=10, size=8),
    "slow": Clip(frames=5, fps=50, size=8),
    "segments": Clip(frames=4, sampling="segments", size=8),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def stretch(frames: int, first: int = 0, milliseconds: list[int] | None = None) -> FrameRange:
    """Of a video of 25 frames a second, or with frames at these times; 7 frames follow it."""
    times = milliseconds or [40 * k for k in range(first + frames + 7)]
    nothing, base = np.empty((0, 2), np.int64), Fraction(1, 1000)
    pts = np.array(times, np.int64)
    metadata = VideoMetadata(Path("v"), pts, nothing, times[-1] + 40, base, 0.0, 8, 8, True, None)
    return FrameRange(metadata, first, frames)


@pytest.mark.parametrize(
    ("name", "frames", "numbers"),
    [
        ("dense", 20, [8, 9, 10, 11]),
        ("dense", 3, [0, 1, 2]),
        ("stride", 20, [5, 8, 11, 14]),  # a span of 10 frames has 11 places
        ("stride", 10, [0, 3, 6, 9]),
        ("stride", 5, [0, 3]),
        ("fps", 25, [8, 10, 13, 15]),  # 2.5 frames apart: the earlier of two that are equally near
        ("fps", 8, [0, 2, 5, 7]),
        ("fps", 4, [0, 2]),
        ("slow", 3, [0, 0, 1, 1, 2]),
        ("segments", 10, [1, 3, 6, 8]),
        ("segments", 2, [0, 0, 1, 1]),
    ],
)
def test_the_centre_clip(name, frames, numbers):
    for first in (0, 6):
        clip = centre_clip(stretch(frames, first), CLIPS[name], rng())
        assert list(clip) == [first + number for number in numbers]


def test_at_a_rate_each_frame_is_the_nearest_by_its_timestamp():
    uneven = stretch(7, milliseconds=[0, 40, 50, 400, 410, 420, 1000])
    assert list(centre_clip(uneven, Clip(frames=11, fps=10), rng())) == [0, 2, 2, 3, 3, 5, 5, 5, 6, 6, 6]
    rounded = stretch(7, milliseconds=[0, 33, 67, 100, 133, 167, 200])  # 30 a second, as Matroska writes it
    assert list(centre_clip(rounded, Clip(frames=7, fps=30), rng())) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "evaluation", "clips"),
    [
        ("stride", {"clips": 3}, [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]),
        ("stride", {"stride": 6}, [[0, 3, 6, 9], [6, 9, 12, 15], [10, 13, 16, 19]]),
        ("dense", {"stride": 8}, [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]]),
        ("dense", {"clips": 1}, [[8, 9, 10, 11]]),
        ("fps", {"clips": 2}, [[0, 2, 5, 7], [12, 14, 17, 19]]),
        ("segments", {}, [[2, 7, 12, 17]]),
        ("segments", {"clips": 2}, [[1, 6, 11, 16], [3, 8, 13, 18]]),
    ],
)
def test_the_clips_at_test_time(name, evaluation, clips):
    made = evaluation_clips(stretch(20), CLIPS[name], Evaluation(**evaluation))
    assert [list(clip) for clip in made] == clips


@given(
    frames=st.integers(1, 120),
    first=st.integers(0, 9),
    length=st.integers(1, 12),
    distance=st.fixed_dictionaries({}, optional={"stride": st.integers(1, 9)})
    | st.fixed_dictionaries({"fps": st.floats(0.5, 80)})
    | st.just({"sampling": "segments"}),
    evaluation=st.builds(Evaluation, clips=st.integers(0, 5), stride=st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_every_clip_lies_in_its_stretch_and_ascends(frames, first, length, distance, evaluation, seed):
    clip, part = Clip(frames=length, **distance), stretch(frames, first)
    at_test_time = [list(each) for each in evaluation_clips(part, clip, evaluation)]
    for numbers in (list(random_clip(part, clip, rng(seed))), *at_test_time):
        assert 1 <= len(numbers) <= length
        assert numbers == sorted(numbers)
        assert first <= numbers[0] <= numbers[-1] < first + frames
        if clip.sampling == "segments":
            assert len(numbers) == length
        elif clip.fps is None:
            assert {b - a for a, b in pairwise(numbers)} <= {clip.stride}
            assert len(numbers) == min(length, -(-frames // clip.stride))
    for end in (0, -1):
        ends = [numbers[end] for numbers in at_test_time]
        assert ends == sorted(ends)


def test_every_place_and_every_frame_of_a_segment_is_drawn():
    firsts = {random_clip(stretch(20), CLIPS["stride"], rng(seed))[0] for seed in range(300)}
    assert firsts == set(range(11))
    drawn = np.array([random_clip(stretch(10), CLIPS["segments"], rng(seed)) for seed in range(100)])
    assert [set(column) for column in drawn.T.tolist()] == [{0, 1}, {2, 3, 4}, {5, 6}, {7, 8, 9}]


# ---- videos whose frames show their number


STEP, COUNT = 5, 40


def numbered(path: Path, count: int, height: int, width: int) -> Path:
    grey = (20 + STEP * np.arange(count, dtype=np.uint8))[:, None, None, None]
    write_clip(path, np.broadcast_to(grey, (count, height, width, 3)), 25)
    return path


def numbers_of(frames) -> list[int]:
    """[T, H, W, 3] to the numbers that the frames show."""
    return ((frames.double().mean(dim=(1, 2, 3)) - 20) / STEP).round().int().tolist()


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[Path | Packed]:
    """One video as a file, as packed JPEGs and as a packed mp4; too large to stay decoded."""
    path = numbered(tmp_path_factory.mktemp("numbered") / "v.mp4", COUNT, 64, 96)
    return [path, *(packed(path, Settings(format=form)) for form in ("jpeg", "mp4"))]


@pytest.mark.parametrize("gap", [0, 16])
@pytest.mark.parametrize("name", CLIPS)
def test_files_and_shards_give_the_frames_that_are_asked_for(places, name, gap, monkeypatch):
    monkeypatch.setattr(file_reader, "_SEEK", gap)
    monkeypatch.setattr("ccl_cli.data.video.shard_reader._GAP", gap)
    clip, evaluation = CLIPS[name], Evaluation(clips=3)
    for place in places:
        video, part = Video("v", place, 0, "test", 0.2, 1.4), FrameRange(open_video(place).metadata, 5, 30)
        whole = read_frames(place, 0, COUNT).frames
        for seed in range(4):
            window = Window(video, clip, random_clip, rng=rng(seed), training=True)
            numbers = random_clip(part, clip, rng(seed))
            assert torch.equal(window.frames, whole[list(numbers)])
            assert (window.start, window.end) == pytest.approx((numbers[0] / 25, (numbers[-1] + 1) / 25))
            assert Window(video, clip, random_clip, rng=rng(seed)).end == pytest.approx(window.end)
        decoded = read_evaluation_clips(video, clip, evaluation)
        for each, numbers in zip(decoded, evaluation_clips(part, clip, evaluation), strict=True):
            assert torch.equal(each.frames, whole[list(numbers)])


def end_early(monkeypatch, count):
    """Let files end after so many frames."""
    whole = file_reader.FileReader.frames
    monkeypatch.setattr(
        file_reader.FileReader,
        "frames",
        lambda self, numbers, **b: whole(self, [n for n in numbers if n < count], **b),
    )


@pytest.mark.parametrize(("count", "numbers"), [(3, [0, 1, 2, 0, 1]), (2, [0, 1, 0, 1, 0])])
def test_what_can_be_decoded_of_a_short_clip_is_repeated_once(tmp_path, monkeypatch, count, numbers):
    video = Video("v", numbered(tmp_path / "v.mp4", 3, 256, 256), 0, "train")
    clip = Clip(frames=5, size=8)
    end_early(monkeypatch, count)
    assert numbers_of(Window(video, clip, training=True).frames) == numbers
    for evaluation in Evaluation(), Evaluation(clips=1):
        (decoded,) = read_evaluation_clips(video, clip, evaluation)
        assert numbers_of(decoded.frames) == numbers


def test_a_video_that_ends_too_early_still_has_all_its_clips(places, monkeypatch):
    end_early(monkeypatch, 23)
    video = Video("v", places[0], 0, "test")
    decoded = list(read_evaluation_clips(video, CLIPS["stride"], Evaluation(clips=3)))
    # The first as of 40 frames, then as of the 22 up to the last one that is wanted and there.
    assert [numbers_of(each.frames) for each in decoded] == [[0, 3, 6, 9], [6, 9, 12, 15], [12, 15, 18, 21]]


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("name", ["stride", "segments"])
def test_several_processes_read_the_same_windows(places, name, crops):
    videos = [Video(str(row), place, 0, "test", row / 10) for row, place in enumerate(places)]

    def windows(processes: int) -> list[tuple[int, bytes]]:
        options = {"chunk": 4, "processes": processes}
        ranks = (
            EvaluationClips(videos, CLIPS[name], evaluation, rank=r, **options) for r in range(processes)
        )
        chunks = [chunk for dataset in ranks for chunk in dataset]
        assert sorted(row for chunk in chunks for row in chunk.finished) == list(range(len(videos)))
        rows = (zip(chunk.rows.tolist(), chunk.windows, strict=True) for chunk in chunks)
        return sorted((row, window.numpy().tobytes()) for each in rows for row, window in each)

    evaluation = Evaluation(clips=4, crops=crops)
    assert windows(2) == windows(1)
    assert len(windows(1)) == 3 * 4 * crops
