"""One window of one video: what a worker decodes, and what a teacher's preprocess may look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ccl_cli.data.manifest import Video
from ccl_cli.data.video.sound import read_audio


@dataclass
class Window:
    """One decoded window and lazy access to its sound.

    Attributes:
        video: The manifest's row: id, path, label, start and end.
        frames: [T, H, W, 3] uint8 RGB, upright, as decoded (short side bounded, not cropped).
        student_view: [3, T, S, S] uint8, cropped and flipped for the student, not normalised.
        start: Presentation time of the first frame, in seconds from the start of the file.
        end: Presentation time of the end of the last frame, in seconds.
        rng: Random numbers of this draw; depends on (seed, epoch, index), never on the worker.
        batch_rng: Random numbers that are the same for every sample of one batch.
        training: False in evaluation: then nothing may be random.
        states: What :meth:`audio` found, for the data counts: "present", "silent" or "no track".
        whole: False once :meth:`audio` has left out a part of the track: another window may hear that.
    """

    video: Video
    frames: Tensor
    student_view: Tensor
    start: float
    end: float
    rng: np.random.Generator
    batch_rng: np.random.Generator
    training: bool = True
    states: dict[str, str] = field(default_factory=dict)
    whole: bool = True

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
        sound = read_audio(
            self.video.path,
            centre=(self.start + self.end) / 2,
            seconds=seconds,
            rate=rate,
            start=self.video.start,
            end=self.video.end,
        )
        self.states["audio"], self.whole = sound.state, self.whole and sound.whole
        return sound.samples if sound.state == "present" else None
