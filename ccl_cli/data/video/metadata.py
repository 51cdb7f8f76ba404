"""Metadata of a video, known without decoding: times of the frames and of the sound track."""

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
    """A sound track.

    Attributes:
        start: Start, seconds on the file's clock.
        end: End, seconds on the file's clock.
        rate: Sampling rate of packed sound, Hz; None for a file, or if the video was packed without sound.
    """

    start: float
    end: float
    rate: int | None = None

    def within(self, start: float | None, end: float | None) -> tuple[float, float]:
        """Start and end of the part of the track between two times; None: the track's own start or end."""
        return (
            self.start if start is None else max(self.start, start),
            self.end if end is None else min(self.end, end),
        )


@dataclass(frozen=True, eq=False, slots=True)
class VideoMetadata:
    """Metadata of a video, from the packets of a file or the record of a shard.

    Attributes:
        path: The file, or the place in a shard.
        pts: [N] int64 presentation timestamps of the displayed frames, ascending.
        keys: [K, 2] int64 presentation and decoding timestamps of the key frames, ascending.
        end_pts: Timestamp at which the last frame ends.
        time_base: Seconds per timestamp unit.
        origin: Timestamp of the first picture or sound, seconds; all times of the file's clock count from it.
        width: Width of a stored frame, pixels; 0 in a file without a picture.
        height: Height of a stored frame, pixels.
        seekable: Whether timestamps identify frames, so that a seek can be checked.
        audio: Sound track, or None.
        header_seconds: Duration in the file's header, seconds; 0 if there is none.
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
    header_seconds: float = 0.0

    @property
    def frames(self) -> int:
        """Number of displayed frames, N."""
        return len(self.pts)

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last one."""
        return self.time(self.frames) - self.time(0)

    def time(self, frame: int) -> float:
        """Presentation time of a frame, seconds; for frame N, the end of the last one."""
        pts = self.end_pts if frame >= self.frames else int(self.pts[frame])
        # Division of integers rounds like a Fraction, in a tenth of the time.
        return pts * self.time_base.numerator / self.time_base.denominator - self.origin

    def times(self, first: int, count: int) -> NDArray[np.float64]:
        """[count] presentation times of frames from ``first`` on, in seconds."""
        seconds = self.pts[first : first + count] * float(self.time_base) - self.origin
        return np.asarray(seconds, np.float64)

    def require_picture(self) -> None:
        """Raise a DataError if there is no frame."""
        if not self.width:
            raise DataError(f"'{self.path}' has no picture, only sound.")
        if not self.frames:
            raise DataError(f"'{self.path}' has no frame that can be decoded.")

    def frame_range(self, start: float | None = None, end: float | None = None) -> tuple[int, int]:
        """Frames shown between two times in seconds, as (first, count) with count >= 1.

        Raises:
            DataError: there is no picture, or the times lie outside the video.
        """
        self.require_picture()
        if start is None and end is None:
            return 0, self.frames
        times = self.times(0, self.frames)
        tolerance = 1e-4  # a time rounded to four decimals still selects its frame
        start_at = times[0] if start is None else start + tolerance
        end_at = np.inf if end is None else end - tolerance
        if start_at >= self.time(self.frames) or end_at <= times[0]:
            span = f"{times[0]:.2f} to {self.time(self.frames):.2f} s"
            raise DataError(f"The segment {start} to {end} s lies outside '{self.path}' ({span}).")
        first = max(0, int(np.searchsorted(times, start_at, side="right")) - 1)
        return first, max(1, int(np.searchsorted(times, end_at)) - first)
