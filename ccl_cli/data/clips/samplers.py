"""Which frames of a video make up a clip: a random one in training, else the centre or evenly spread ones.

``clip.sampling``, ``clip.stride`` and ``clip.fps`` say what a clip is. A dense clip begins at any frame from
which its whole span lies within the video. In a video that is shorter than the span, it begins with the first
frame and takes every frame of the span that is there: reading repeats these from the first on, up to the
length of a clip.
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

_TOLERANCE = 1e-4  # seconds: between two frames, the one that is shown first


@dataclass(frozen=True, eq=False)
class Stretch:
    """A part of a video, of which clips are made.

    Attributes:
        metadata: Of the video.
        first: Number of the first frame.
        frames: How many there are.
    """

    metadata: VideoMetadata
    first: int
    frames: int

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """[N] seconds at which each frame is shown."""
        return self.metadata.times(self.first, self.frames)

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """[N] seconds up to which each frame is the nearest one; of the last, halfway to its end."""
        following: NDArray[np.float64] = np.append(
            self.times[1:], self.metadata.time(self.first + self.frames)
        )
        return (self.times + following) / 2


# Numbers of frames in the file: ascending, at most as many as a clip has, and repeated where the video has
# fewer frames in that time than the clip.
Frames = Sequence[int]
ClipSampler = Callable[[Stretch, Clip, np.random.Generator], Frames]


def random_clip(stretch: Stretch, clip: Clip, rng: np.random.Generator) -> Frames:
    """In training: a dense clip from a random frame on (CCL, section 4), or a random frame of each segment.

    Segments are as equal as whole frames allow (TSN, Wang et al. 2016); one without a frame takes the frame
    that it begins in.
    """
    if clip.sampling == "segments":
        edges = np.arange(clip.frames + 1) * stretch.frames // clip.frames
        low, high = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
        numbers: list[int] = (stretch.first + rng.integers(low, high)).tolist()
        return numbers
    return _dense(stretch, clip, int(rng.integers(0, clip_places(stretch, clip))))


def centre_clip(stretch: Stretch, clip: Clip, rng: np.random.Generator) -> Frames:
    """The clip around the centre, or the frame in the centre of each segment."""
    return spread_clip(0, 1)(stretch, clip, rng)


def single_frame(part: int, parts: int) -> ClipSampler:
    """The frame in the centre of the ``part``-th of ``parts`` equal parts of a video."""
    return lambda stretch, clip, rng: [_centre(stretch, part, parts)]


def spread_clip(part: int, parts: int) -> ClipSampler:
    """The ``part``-th of ``parts`` clips that are spread evenly from end to end; of one, the centre.

    Dense clips begin at equal distances, as in mmaction2's ``SampleFrames`` and SlowFast. Of segments, each
    takes the frame in the centre of the ``part``-th of ``parts`` equal parts of every segment.
    """

    def sample(stretch: Stretch, clip: Clip, rng: np.random.Generator) -> Frames:
        if clip.sampling == "segments":
            centres = range(part, clip.frames * parts, parts)
            return [_centre(stretch, centre, clip.frames * parts) for centre in centres]
        last = clip_places(stretch, clip) - 1
        return _dense(stretch, clip, last // 2 if parts == 1 else part * last // (parts - 1))

    return sample


def evaluation_clips(stretch: Stretch, clip: Clip, evaluation: Evaluation) -> list[Frames]:
    """All clips of a video at test time, in the order of their first and of their last frames.

    Sliding windows begin every ``stride`` frames until all frames are covered; the last one slides back so
    that it ends with the video.
    """
    if parts := clips_per_video(clip, evaluation):
        rng = np.random.default_rng(0)
        return [spread_clip(part, parts)(stretch, clip, rng) for part in range(parts)]
    last = clip_places(stretch, clip) - 1
    begins = list(range(0, last + 1, evaluation.stride))
    if begins[-1] < last and begins[-1] + evaluation.stride < stretch.frames:
        begins.append(last)
    return [_dense(stretch, clip, begin) for begin in begins]


def clips_per_video(clip: Clip, evaluation: Evaluation) -> int:
    """How many clips are spread over each video at test time; 0: windows slide over it."""
    return evaluation.clips or int(clip.sampling == "segments")


def clip_places(stretch: Stretch, clip: Clip) -> int:
    """At how many frames a dense clip may begin; a video that is not longer than its span has one."""
    if clip.fps is None:
        return max(stretch.frames - clip.span, 0) + 1
    latest = stretch.edges[-1] - (clip.frames - 1) / clip.fps + _TOLERANCE
    return max(1, int(np.searchsorted(stretch.times, latest, side="right")))


def _dense(stretch: Stretch, clip: Clip, start: int) -> Frames:
    """From the ``start``-th frame of the stretch on, as far as there are frames."""
    first = stretch.first + start
    if clip.fps is None:
        return range(first, min(first + clip.span, stretch.first + stretch.frames), clip.stride)
    wanted = stretch.times[start] + np.arange(clip.frames) / clip.fps - _TOLERANCE
    nearest = np.searchsorted(stretch.edges, wanted)
    numbers: list[int] = (stretch.first + nearest[nearest < stretch.frames]).tolist()
    return numbers


def _centre(stretch: Stretch, part: int, parts: int) -> int:
    return stretch.first + (2 * part + 1) * stretch.frames // (2 * parts)
