"""Videos, wherever they lie: one protocol for their metadata, frames and sound, and clips of their frames."""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.file_reader import FileReader
from ccl_cli.data.video.metadata import Frame, VideoMetadata
from ccl_cli.data.video.shard_reader import ShardReader
from ccl_cli.data.video.storage import Location, Packed
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 34 MB of timestamps in each process: all of UCF101 (2.5 million frames), or two days of video. A number of
# videos would bound nothing: one may hold a hundred frames, or those of a day.
FRAMES = 2**22
_OVERHEAD = 128  # what a reader takes besides its frames' timestamps, in frames
_SMALL = 2**17  # bytes of a video that stays decoded: opening such a file again takes longer than reading it
_SMALL_VIDEOS = 256


class VideoReader(Protocol):
    """A video.

    Attributes:
        metadata: What is known of it before it is decoded.
    """

    metadata: VideoMetadata

    def __hash__(self) -> int: ...  # a reader is a key of caches

    def frames(self, first: int, count: int, *, short_side: int, seek: bool = True) -> Iterator[Frame]:
        """Timestamps and pictures of at most ``count`` frames, in order of presentation.

        Args:
            first: Index of the first frame.
            count: Number of frames.
            short_side: Larger frames are scaled down to this short side, pixels.
            seek: Whether to seek to the first frame where that can be checked.

        Raises:
            DataError: the video cannot be opened, or a packed frame is damaged.
        """
        ...

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Mono samples [n] of a stretch of the sound track in seconds, and their rate in Hz.

        Raises:
            DataError: there is no track, or it cannot be decoded.
        """
        ...


class DecodedClip(NamedTuple):
    """Consecutive frames.

    Attributes:
        frames: [T, H, W, 3] uint8 RGB, upright.
        start: Presentation time of the first frame, seconds on the file's clock.
        end: End of the last frame that is not a repetition, seconds.
    """

    frames: Tensor
    start: float
    end: float


def open_video(location: Location) -> VideoReader:
    """Read a video's metadata; its reader stays for the next epoch, in a bounded amount of memory.

    Raises:
        DataError: not found, empty or not a media file; or not packed, or not where its index says.
        EnvironmentError_: the machine does not give it away.
    """
    with blaming_video(location):
        if isinstance(location, Packed):
            return _readers.get((location,), lambda: ShardReader(location))
        status = location.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"'{location}' is not a file.")
        if status.st_size == 0:
            raise DataError(f"'{location}' is empty (0 bytes).")
        return _readers.get((location, status.st_mtime_ns, status.st_size), lambda: FileReader(location))


def read_frames(location: Location, first: int, count: int, *, short_side: int = 256) -> DecodedClip:
    """Read frames ``first`` to ``first + count``; where the video ends earlier they repeat from the first.

    Videos of at most 128 KiB of pixels stay decoded, the latest 256 in each process: at most 34 MB.

    Args:
        location: The video.
        first: Index of the first frame, in presentation order.
        count: Number of frames T.
        short_side: Larger frames are scaled down to this short side, pixels.

    Raises:
        DataError: unreadable, no such frame, or no frame of the clip can be decoded.
    """
    reader = open_video(location)
    metadata = reader.metadata
    metadata.require_picture()
    wanted = metadata.pts[first : first + count].tolist()
    if first < 0 or not wanted:
        raise DataError(f"'{location}' has {metadata.frames} frames, so there is no frame {first}.")
    frames = list(_frames(reader, first, len(wanted), short_side))
    if metadata.seekable and [pts for pts, _ in frames] != wanted:
        frames = list(reader.frames(first, len(wanted), short_side=short_side, seek=False))
    if not frames:
        raise DataError(f"No frame of '{location}' from {metadata.time(first):.2f} s on can be decoded.")
    return _clip(metadata, [image for _, image in frames], first, count)


def iter_windows(
    location: Location,
    length: int,
    stride: int,
    *,
    short_side: int = 256,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[DecodedClip]:
    """Slide windows over a video in one pass, holding one window in memory.

    Windows start every ``stride`` frames until all frames are covered. The last one slides back so that it
    ends with the video; only a video that is shorter than a window repeats its frames.

    Args:
        location: The video.
        length: Frames per window.
        stride: Frames between starts.
        short_side: As in :func:`read_frames`.
        start: Seconds where to begin; None: the file's start.
        end: Seconds where to stop; None: the file's end.

    Raises:
        DataError: unreadable, or no frame can be decoded.
    """
    reader = open_video(location)
    metadata = reader.metadata
    first, available = metadata.frame_range(start, end)
    images: deque[NDArray[np.uint8]] = deque(maxlen=length)
    begin = covered = count = 0  # frames counted from ``first``; the next window begins at ``begin``
    for count, (_, image) in enumerate(_frames(reader, first, available, short_side), 1):
        images.append(image)
        if count == begin + length:
            yield _clip(metadata, images, first + begin, length)
            begin, covered = begin + stride, count
    if not count:
        raise DataError(f"No frame of '{location}' can be decoded.")
    if count > max(begin, covered):
        yield _clip(metadata, images, first + max(count - length, 0), length)


def _frames(reader: VideoReader, first: int, count: int, short_side: int) -> Iterable[Frame]:
    metadata = reader.metadata
    if metadata.frames * metadata.height * metadata.width * 3 <= _SMALL:
        return _small_video(reader, short_side)[first : first + count]
    return reader.frames(first, count, short_side=short_side)


@lru_cache(maxsize=_SMALL_VIDEOS)
def _small_video(reader: VideoReader, short_side: int) -> list[Frame]:
    return list(reader.frames(0, reader.metadata.frames, short_side=short_side))


def _clip(
    metadata: VideoMetadata, images: Iterable[NDArray[np.uint8]], first: int, count: int
) -> DecodedClip:
    images = list(images)
    frames = torch.from_numpy(np.stack(images))
    if len(images) < count:
        frames = frames[torch.arange(count) % len(images)]
    return DecodedClip(frames, metadata.time(first), metadata.time(first + len(images)))


class _ReaderCache:
    """The readers used last, with at most ``FRAMES`` frames among them."""

    def __init__(self) -> None:
        self.readers: dict[tuple[object, ...], VideoReader] = {}  # the one used last at the end
        self.frames = 0
        self.lock = Lock()

    def get(self, key: tuple[object, ...], make: Callable[[], VideoReader]) -> VideoReader:
        """The reader of this key, made if it is not in the cache."""
        with self.lock:
            reader = self._remove(key)
        reader = reader or make()
        with self.lock:
            self._remove(key)  # another thread may have made it meanwhile
            self.readers[key] = reader
            self.frames += reader.metadata.frames + _OVERHEAD
            while self.frames > FRAMES and len(self.readers) > 1:
                self._remove(next(iter(self.readers)))
        return reader

    def clear(self) -> None:
        """Forget all readers."""
        with self.lock:
            self.readers, self.frames = {}, 0

    def _remove(self, key: tuple[object, ...]) -> VideoReader | None:
        reader = self.readers.pop(key, None)
        if reader is not None:
            self.frames -= reader.metadata.frames + _OVERHEAD
        return reader


_readers = _ReaderCache()
