"""Frames of a clip: a random clip in training, otherwise the centre clip or evenly spaced clips.

``clip.sampling``, ``clip.stride`` and ``clip.fps`` define a clip. A dense clip starts at any frame from which
its whole span lies within the video. In a video that is shorter than the span, it starts at the first frame
and consists of the frames of the span that exist; ``video/reader`` repeats them up to the length of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.video.metadata import VideoMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE = 1e-4  # seconds; a time halfway between two frames selects the earlier one


@dataclass(frozen=True, eq=False)
class FrameRange:
    """Consecutive frames of a video, from which clips are sampled.

    Attributes:
        metadata: Metadata of the video.
        first: Number of the first frame.
        count: Number of frames, N.
    """

    metadata: VideoMetadata
    first: int
    count: int

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """[N] presentation times, seconds."""
        return self.metadata.times(self.first, self.count)

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """[N] seconds up to which each frame is the nearest one; of the last frame, halfway to its end."""
        following: NDArray[np.float64] = np.append(
            self.times[1:], self.metadata.time(self.first + self.count)
        )
        return (self.times + following) / 2


# Numbers of frames in the file, ascending, at most as many as a clip has. With ``clip.fps`` above the video's
# rate, a number may repeat.
Frames = Sequence[int]
ClipSampler = Callable[[FrameRange, Clip, np.random.Generator], Frames]


def random_clip(frames: FrameRange, clip: Clip, rng: np.random.Generator) -> Frames:
    """In training: a dense clip from a random frame on (CCL, section 4), or a random frame of each segment.

    Segments are as equal as whole frames allow (TSN, Wang et al. 2016); an empty segment takes the frame at
    which it starts.
    """
    if clip.sampling == "segments":
        edges = np.arange(clip.frames + 1) * frames.count // clip.frames
        low, high = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
        numbers: list[int] = (frames.first + rng.integers(low, high)).tolist()
        return numbers
    return _dense(frames, clip, int(rng.integers(0, count_starts(frames, clip))))


def centre_clip(frames: FrameRange, clip: Clip, rng: np.random.Generator) -> Frames:
    """The clip around the centre, or the frame in the centre of each segment."""
    return spread_clip(0, 1)(frames, clip, rng)


def single_frame(part: int, parts: int) -> ClipSampler:
    """The frame in the centre of the ``part``-th of ``parts`` equal parts of a video."""
    return lambda frames, clip, rng: [_centre(frames, part, parts)]


def spread_clip(part: int, parts: int) -> ClipSampler:
    """The ``part``-th of ``parts`` clips that are spread evenly from end to end; of 1, the centre clip.

    Dense clips start at equal distances, as in mmaction2's ``SampleFrames`` and SlowFast. With segments, each
    clip takes the frame in the centre of the ``part``-th of ``parts`` equal parts of every segment.
    """

    def sample(frames: FrameRange, clip: Clip, rng: np.random.Generator) -> Frames:
        if clip.sampling == "segments":
            centres = range(part, clip.frames * parts, parts)
            return [_centre(frames, centre, clip.frames * parts) for centre in centres]
        last = count_starts(frames, clip) - 1
        return _dense(frames, clip, last // 2 if parts == 1 else part * last // (parts - 1))

    return sample


def evaluation_clips(frames: FrameRange, clip: Clip, evaluation: Evaluation) -> list[Frames]:
    """All clips of a video at test time, in the order of their first and of their last frames.

    Sliding windows start every ``stride`` frames until all frames are covered; the last one moves back to end
    with the video.
    """
    if parts := clips_per_video(clip, evaluation):
        rng = np.random.default_rng(0)
        return [spread_clip(part, parts)(frames, clip, rng) for part in range(parts)]
    last = count_starts(frames, clip) - 1
    starts = list(range(0, last + 1, evaluation.stride))
    if starts[-1] < last and starts[-1] + evaluation.stride < frames.count:
        starts.append(last)
    return [_dense(frames, clip, start) for start in starts]


def clips_per_video(clip: Clip, evaluation: Evaluation) -> int:
    """Number of clips that are spread over each video at test time; 0 for sliding windows."""
    return evaluation.clips or int(clip.sampling == "segments")


def count_starts(frames: FrameRange, clip: Clip) -> int:
    """Number of frames at which a dense clip may start; 1 in a video that is not longer than its span."""
    if clip.fps is None:
        return max(frames.count - clip.span, 0) + 1
    latest = frames.edges[-1] - (clip.frames - 1) / clip.fps + _TOLERANCE
    return max(1, int(np.searchsorted(frames.times, latest, side="right")))


def _dense(frames: FrameRange, clip: Clip, start: int) -> Frames:
    """The clip from the ``start``-th frame on, without frames beyond the end."""
    first = frames.first + start
    if clip.fps is None:
        return range(first, min(first + clip.span, frames.first + frames.count), clip.stride)
    wanted = frames.times[start] + np.arange(clip.frames) / clip.fps - _TOLERANCE
    nearest = np.searchsorted(frames.edges, wanted)
    numbers: list[int] = (frames.first + nearest[nearest < frames.count]).tolist()
    return numbers


def _centre(frames: FrameRange, part: int, parts: int) -> int:
    return frames.first + (2 * part + 1) * frames.count // (2 * parts)
