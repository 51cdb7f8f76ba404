"""What is known of a video before it is decoded: when each frame is shown, and where its sound lies."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ccl_cli.data.video.storage import Location


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Where a file's sound lies.

    Attributes:
        start: Seconds on the file's clock.
        end: Seconds on the file's clock.
        rate: Samples per second of packed sound, Hz; None in a file, or where packing left the sound out.
    """

    start: float
    end: float
    rate: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class VideoMetadata:
    """What a pass over a file's packets tells.

    Attributes:
        path: The file.
        pts: [N] int64 presentation timestamps of the displayed frames, ascending.
        keys: [K, 2] int64 presentation and decoding timestamps of the key frames, ascending.
        end_pts: Where the last frame ends.
        time_base: Seconds per timestamp unit.
        origin: Timestamp in seconds at which picture or sound starts; every other time counts from it.
        width: Pixels, as stored; 0 in a file without a picture.
        height: Pixels, as stored.
        seekable: Whether timestamps identify frames, so that a seek can be checked.
        audio: The sound track, if any.
        promised: Length in seconds by the file's header; 0 where it gives none.
    """

    path: Location
    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    end_pts: int
    time_base: Fraction
    origin: float
    width: int
    height: int
    seekable: bool
    audio: AudioTrack | None
    promised: float = 0.0

    @property
    def frames(self) -> int:
        """Number of displayed frames, N."""
        return len(self.pts)

    @property
    def duration(self) -> float:
        """Seconds from the first frame's start to the last frame's end."""
        return self.time(self.frames) - self.time(0)

    def time(self, frame: int) -> float:
        """Presentation time of a frame in seconds; of frame N: the end of the last one."""
        pts = self.end_pts if frame >= self.frames else int(self.pts[frame])
        # Division of integers rounds as a Fraction would, in a tenth of the time.
        return pts * self.time_base.numerator / self.time_base.denominator - self.origin

    def times(self, first: int, count: int) -> NDArray[np.float64]:
        """[count] presentation times of frames from ``first`` on, in seconds."""
        seconds = self.pts[first : first + count] * float(self.time_base) - self.origin
        return np.asarray(seconds, np.float64)

    def require_picture(self) -> None:
        """Raise a DataError where there is no frame."""
        if not self.width:
            raise DataError(f"'{self.path}' has no picture, only sound.")
        if not self.frames:
            raise DataError(f"'{self.path}' has no frame that can be decoded.")

    def frame_range(self, start: float | None = None, end: float | None = None) -> tuple[int, int]:
        """Frames shown between two times in seconds, as (first, count) with count >= 1.

        Raises:
            DataError: there is no picture, or the stretch lies outside the video.
        """
        self.require_picture()
        if start is None and end is None:
            return 0, self.frames
        times = self.times(0, self.frames)
        tolerance = 1e-4  # a time written with four decimals still names its frame
        start_at = times[0] if start is None else start + tolerance
        end_at = np.inf if end is None else end - tolerance
        if start_at >= self.time(self.frames) or end_at <= times[0]:
            span = f"{times[0]:.2f} to {self.time(self.frames):.2f} s"
            raise DataError(f"The segment {start} to {end} s lies outside '{self.path}' ({span}).")
        first = max(0, int(np.searchsorted(times, start_at, side="right")) - 1)
        return first, max(1, int(np.searchsorted(times, end_at)) - first)
