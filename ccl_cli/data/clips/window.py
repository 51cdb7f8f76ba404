"""One clip of one video: what a worker decodes, and what a teacher's preprocess may look at."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.samplers import ClipSampler, Frames, Stretch, centre_clip, clip_places
from ccl_cli.data.clips.transforms import eval_view, train_view
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.data.video.reader import DecodedClip, VideoReader, open_video, read_clip
from ccl_cli.data.video.sound import read_audio


class Window:
    """A clip of a video, by default its centre, and the sound around it.

    Nothing is read before it is used: a teacher that only looks the video up needs no file, and one that
    listens needs no picture.

    Args:
        video: The manifest's row: id, path, label, start and end.
        clip: Length of the clip, distance and size of its frames, and the student's view.
        sampler: Which frames of the video.
        rng: Random numbers of this draw; they depend on (seed, epoch, row), never on the worker.
        batch_rng: Random numbers that are the same for every sample of one step, on all processes.
        training: False in evaluation: then nothing may be random.

    Attributes:
        states: State of each modality, as :meth:`audio` found it: "present", "silent" or "no track".
        whole: False once :meth:`audio` has left out a part of the track: another window may hear that.
    """

    def __init__(
        self,
        video: Video,
        clip: Clip,
        sampler: ClipSampler = centre_clip,
        *,
        rng: np.random.Generator | None = None,
        batch_rng: np.random.Generator | None = None,
        training: bool = False,
    ) -> None:
        self.video, self.clip, self.sampler, self.training = video, clip, sampler, training
        self.rng = rng or np.random.default_rng(0)
        self.batch_rng = batch_rng or np.random.default_rng(0)
        self.states: dict[str, str] = {}
        self.whole = True

    @cached_property
    def frames(self) -> Tensor:
        """[T, H, W, 3] uint8 RGB, upright, as decoded (short side bounded, not cropped); short ones loop."""
        return self._decoded.frames

    @cached_property
    def student_view(self) -> Tensor:
        """[3, T, S, S] uint8 for the student, not normalised: a random crop in training, else the centre."""
        with blaming_video(self.video.path):
            if self.training:
                return train_view(self.frames, self.rng, self.clip)
            return eval_view(self.frames, self.clip)

    @cached_property
    def start(self) -> float:
        """Presentation time of the first frame, in seconds from the start of the file."""
        return self._metadata.time(self._numbers[0])

    @cached_property
    def end(self) -> float:
        """Presentation time of the end of the last frame, in seconds."""
        # Training decodes the frames anyway, and those of a damaged video may end before its metadata do.
        return self._decoded.end if self.training else self._metadata.time(self._numbers[-1] + 1)

    @property
    def available(self) -> int:
        """Frames of the video's stretch."""
        return self._stretch.frames

    @property
    def places(self) -> float:
        """At how many frames a clip may begin; infinite for segments, which spread clips never cover."""
        return math.inf if self.clip.sampling == "segments" else clip_places(self._stretch, self.clip)

    def audio(self, rate: int, seconds: float) -> Tensor | None:
        """Mono sound around the window's centre.

        The stretch is clamped to the track, so a track of at most ``seconds`` is returned whole whatever the
        window: its embedding does not depend on the draw.

        Args:
            rate: Samples per second, Hz.
            seconds: Length of the stretch.

        Returns:
            [n] float32 in [-1, 1] with n <= rate * seconds, or None where there is no track or only silence.

        Raises:
            DataError: the file has a track that cannot be decoded.
        """
        video, centre = self.video, (self.start + self.end) / 2
        with blaming_video(video.path):
            sound = read_audio(
                video.path, centre=centre, seconds=seconds, rate=rate, start=video.start, end=video.end
            )
        self.states["audio"], self.whole = sound.state, self.whole and sound.whole
        return sound.samples if sound.state == "present" else None

    @cached_property
    def _reader(self) -> VideoReader:
        return open_video(self.video.path)

    @property
    def _metadata(self) -> VideoMetadata:
        return self._reader.metadata

    @cached_property
    def _decoded(self) -> DecodedClip:
        clip = self.clip
        with blaming_video(self.video.path):
            return read_clip(
                self.video.path,
                self._numbers,
                clip.frames,
                short_side=clip.short_side,
                reader=self._reader,
            )

    @cached_property
    def _stretch(self) -> Stretch:
        return Stretch(self._metadata, *self._metadata.frame_range(self.video.start, self.video.end))

    @cached_property
    def _numbers(self) -> Frames:
        return self.sampler(self._stretch, self.clip, self.rng)
