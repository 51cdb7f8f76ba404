"""One clip of one video, as it is decoded in a worker and passed to the teachers' preprocessing."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.samplers import ClipSampler, FrameRange, Frames, centre_clip
from ccl_cli.data.clips.transforms import eval_view, train_view
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.reader import DecodedClip, VideoReader, open_video, read_clip
from ccl_cli.data.video.sound import read_audio

_fixed_rng = partial(np.random.default_rng, 0)  # for windows without a draw


@dataclass(eq=False, repr=False)
class Window:
    """A clip of a video, by default the centre clip, and the sound around it.

    Files are read only when a property needs them: a teacher that looks up embeddings by the video's id needs
    no file, and a teacher of sound needs no picture.

    Attributes:
        video: Row of the manifest.
        clip: Length of the clip, distance and size of its frames, and the student's view.
        sampler: Selects the frames.
        rng: Random numbers of this draw, a function of (seed, epoch, row) and not of the worker.
        batch_rng: Random numbers that are equal for all samples of a step, on all processes.
        training: Whether crop and preprocessing may be random.
        states: State of each modality that was read: :meth:`audio` sets "audio" to "present", "silent" or
            "no track".
        whole: False if :meth:`audio` has returned a part of the track; other clips may get another part.
    """

    video: Video
    clip: Clip
    sampler: ClipSampler = centre_clip
    _: KW_ONLY
    rng: np.random.Generator = field(default_factory=_fixed_rng)
    batch_rng: np.random.Generator = field(default_factory=_fixed_rng)
    training: bool = False
    states: dict[str, str] = field(default_factory=dict, init=False)
    whole: bool = field(default=True, init=False)

    @cached_property
    def frames(self) -> Tensor:
        """[T, H, W, 3] uint8 RGB, upright, not cropped, short side bounded; a short video repeats."""
        return self._decoded.frames

    @cached_property
    def student_view(self) -> Tensor:
        """[3, T, S, S] uint8, not normalised: a random crop in training, else the centre crop."""
        if self.training:
            return train_view(self.frames, self.rng, self.clip)
        return eval_view(self.frames, self.clip)

    @cached_property
    def start(self) -> float:
        """Presentation time of the first frame, seconds from the start of the file."""
        return self._reader.metadata.time(self._numbers[0])

    @cached_property
    def end(self) -> float:
        """Time at which the last frame ends, seconds."""
        # Training decodes the frames anyway; those of a damaged video may end before its metadata say.
        return self._decoded.end if self.training else self._reader.metadata.time(self._numbers[-1] + 1)

    @cached_property
    def frame_range(self) -> FrameRange:
        """All frames of the video, or of its segment."""
        metadata = self._reader.metadata
        return FrameRange(metadata, *metadata.frame_range(self.video.start, self.video.end))

    def audio(self, rate: int, seconds: float) -> Tensor | None:
        """Mono sound around the clip's centre.

        The interval is moved to lie within the track. A track of at most ``seconds`` is returned whole: its
        embedding does not depend on the draw.

        Args:
            rate: Samples per second, Hz.
            seconds: Length of the interval.

        Returns:
            [n] float32 in [-1, 1] with n <= rate * seconds, or None if there is no track or only silence.

        Raises:
            DataError: the file has a track that cannot be decoded.
        """
        video, centre = self.video, (self.start + self.end) / 2
        sound = read_audio(
            video.path, centre=centre, seconds=seconds, rate=rate, start=video.start, end=video.end
        )
        self.states["audio"], self.whole = sound.state, self.whole and sound.whole
        return sound.samples if sound.state == "present" else None

    @cached_property
    def _reader(self) -> VideoReader:
        return open_video(self.video.path)

    @cached_property
    def _decoded(self) -> DecodedClip:
        length, short_side = self.clip.frames, self.clip.short_side
        return read_clip(self._reader, self._numbers, length, short_side=short_side)

    @cached_property
    def _numbers(self) -> Frames:
        return self.sampler(self.frame_range, self.clip, self.rng)
