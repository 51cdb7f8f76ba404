"""Videos, wherever they lie: one protocol for their metadata, frames and sound, and clips of their frames."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.file_reader import FileReader
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.data.video.shard_reader import ShardReader
from ccl_cli.data.video.storage import Location, Packed
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

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

    def frames(self, numbers: Sequence[int], *, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """Some frames [H, W, 3] uint8 RGB, upright, as far as the video can be decoded.

        Args:
            numbers: Of the frames, in order of presentation, each once; below ``metadata.frames``.
            short_side: Larger frames are scaled down to this short side, pixels.

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
    """Frames of a video, in order of presentation.

    Attributes:
        frames: [T, H, W, 3] uint8 RGB, upright.
        start: Presentation time of the first frame, seconds on the file's clock.
        end: End of the last frame, whatever is repeated after it, seconds.
    """

    frames: Tensor
    start: float
    end: float


def open_video(location: Location) -> VideoReader:
    """Read a video's metadata; its reader stays for the next epoch, in a bounded amount of memory.

    Raises:
        DataError: not found, empty or not a media file; or not packed, or not where its index says.
        SystemSetupError: the machine does not give it away.
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
    """Read consecutive frames; where the video ends earlier they repeat from the first.

    Args:
        location: The video.
        first: Number of the first frame, in presentation order.
        count: Number of frames T.
        short_side: As in :func:`read_clip`.

    Raises:
        DataError: as :func:`read_clip`.
    """
    return read_clip(location, range(first, first + count), count, short_side=short_side)


def read_clip(
    location: Location,
    numbers: Sequence[int],
    length: int,
    *,
    short_side: int = 256,
    reader: VideoReader | None = None,
) -> DecodedClip:
    """Read some frames; those that are there, and can be decoded, repeat from the first up to ``length``.

    Videos of at most 128 KiB of pixels stay decoded, the latest 256 in each process: at most 34 MB.

    Args:
        location: The video.
        numbers: Of the frames in presentation order, ascending; one may be named several times.
        length: Number of frames T.
        short_side: Larger frames are scaled down to this short side, pixels.
        reader: The video's, if it is open already.

    Raises:
        DataError: unreadable, no such frame, or no frame of the clip can be decoded.
    """
    reader = reader or open_video(location)
    metadata, first = reader.metadata, numbers[0]
    metadata.require_picture()
    wanted = [number for number in dict.fromkeys(numbers) if number < metadata.frames]
    if first < 0 or not wanted:
        raise DataError(f"'{location}' has {metadata.frames} frames, so there is no frame {first}.")
    images = dict(zip(wanted, _images(reader, wanted, short_side), strict=False))
    if not images:
        raise DataError(f"No frame of '{location}' from {metadata.time(first):.2f} s on can be decoded.")
    return _clip(metadata, numbers, images, length)


def iter_clips(
    location: Location,
    plan: Callable[[int], Sequence[Sequence[int]]],
    first: int,
    available: int,
    length: int,
    *,
    short_side: int = 256,
) -> Iterator[DecodedClip]:
    """Read clips of a stretch of a video in one pass, holding the frames of few clips in memory.

    A damaged video may end earlier than its metadata say. The clips that are still to come then are those of
    a stretch that ends there.

    Args:
        location: The video.
        plan: From the number of frames of the stretch to its clips, each the frame numbers that
            :func:`read_clip` takes, in the order of their first and of their last frames.
        first: Number of the stretch's first frame.
        available: Frames of the stretch.
        length: Frames of a clip T.
        short_side: As in :func:`read_clip`.

    Raises:
        DataError: unreadable, or no frame can be decoded.
    """
    reader = open_video(location)
    images: dict[int, NDArray[np.uint8]] = {}
    clips, done = plan(available), 0
    wanted = sorted(set(chain.from_iterable(clips)))
    for number, image in zip(wanted, _images(reader, wanted, short_side), strict=False):
        images[number] = image
        while done < len(clips) and clips[done][-1] == number:
            yield _clip(reader.metadata, clips[done], images, length)
            done += 1
            _forget(images, clips[done][0] if done < len(clips) else number, length)
    if not images:
        raise DataError(f"No frame of '{location}' can be decoded.")
    if done < len(clips):
        for numbers in plan(max(images) + 1 - first)[done:]:
            if all(number in images for number in numbers):
                yield _clip(reader.metadata, numbers, images, length)
            else:
                yield read_clip(location, numbers, length, short_side=short_side)


def _images(reader: VideoReader, numbers: Sequence[int], short_side: int) -> Iterable[NDArray[np.uint8]]:
    metadata = reader.metadata
    if metadata.frames * metadata.height * metadata.width * 3 <= _SMALL:
        images = _small_video(reader, short_side)
        return (images[number] for number in numbers if number < len(images))
    return reader.frames(numbers, short_side=short_side)


@lru_cache(maxsize=_SMALL_VIDEOS)
def _small_video(reader: VideoReader, short_side: int) -> list[NDArray[np.uint8]]:
    return list(reader.frames(range(reader.metadata.frames), short_side=short_side))


def _clip(
    metadata: VideoMetadata, numbers: Sequence[int], images: Mapping[int, NDArray[np.uint8]], length: int
) -> DecodedClip:
    """The frames that could be decoded, and these again up to the length of a clip."""
    import torch  # here, because thumbnails need no tensors

    decoded = [number for number in numbers if number in images]
    frames = torch.from_numpy(np.stack([images[number] for number in decoded]))
    if len(decoded) < length:
        frames = frames[torch.arange(length) % len(decoded)]
    return DecodedClip(frames, metadata.time(numbers[0]), metadata.time(decoded[-1] + 1))


def _forget(images: dict[int, NDArray[np.uint8]], before: int, least: int) -> None:
    """Drop frames that no further clip has; the last ones stay, for a video that ends too early."""
    past = [number for number in images if number < before]
    for number in past[: max(0, len(images) - least)]:
        del images[number]


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
