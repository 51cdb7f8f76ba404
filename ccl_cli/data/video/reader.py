"""Reading of videos, from files or shards: one protocol for metadata, frames and sound; clips of frames."""

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

# Frames of all cached readers: 34 MB of timestamps in each process, for two days of video or all of UCF101
# (2.5 million frames). A number of videos would not bound the memory, because their lengths differ.
CACHED_FRAMES = 2**22
_OVERHEAD = 128  # memory of a reader besides timestamps, in frames
_SMALL = 2**17  # bytes; smaller videos stay decoded, since opening a file takes longer than decoding them
_SMALL_VIDEOS = 256


class VideoReader(Protocol):
    """An open video, in a file or a shard.

    Attributes:
        metadata: Metadata, which are known without decoding.
    """

    metadata: VideoMetadata

    def __hash__(self) -> int: ...  # a reader is a key of caches

    def frames(self, numbers: Sequence[int], *, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """Decode frames [H, W, 3] uint8 RGB, upright. Fewer frames come from a damaged file.

        The numbers ascend and are distinct. Larger frames are scaled down to ``short_side`` pixels.

        Raises:
            DataError: the video cannot be opened, or a packed frame is damaged.
        """
        ...

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Decode the sound from ``start`` to ``stop`` (seconds): mono samples [n], and their rate in Hz.

        Raises:
            DataError: there is no track, or it cannot be decoded.
        """
        ...


class DecodedClip(NamedTuple):
    """Frames of a clip, in order of presentation.

    Attributes:
        frames: [T, H, W, 3] uint8 RGB, upright.
        end: Time at which the last frame ends, repeated frames not counted, seconds on the file's clock.
    """

    frames: Tensor
    end: float


def open_video(location: Location) -> VideoReader:
    """Open a video and read its metadata. Readers are cached for the next epoch, in bounded memory.

    Raises:
        DataError: the file is missing, empty or not a media file; or the video is not packed, or the shard
            does not contain it where the index says.
        SystemSetupError: the machine cannot read the file.
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
    """Open a video and read ``count`` consecutive frames from number ``first`` on, see :func:`read_clip`."""
    return read_clip(open_video(location), range(first, first + count), count, short_side=short_side)


def read_clip(reader: VideoReader, numbers: Sequence[int], length: int, *, short_side: int) -> DecodedClip:
    """Decode the frames of a clip. If there are fewer than ``length``, they repeat from the first one.

    The latest 256 videos with at most 128 KiB of pixels stay decoded in each process, in at most 34 MB.

    Args:
        reader: Open video.
        numbers: Frame numbers, ascending; a number may repeat.
        length: Number of frames T.
        short_side: Larger frames are scaled down to this short side, pixels.

    Raises:
        DataError: the video has no such frame, or no frame of the clip can be decoded.
    """
    metadata, first = reader.metadata, numbers[0]
    metadata.require_picture()
    wanted = [number for number in dict.fromkeys(numbers) if number < metadata.frames]
    if first < 0 or not wanted:
        raise DataError(f"'{metadata.path}' has {metadata.frames} frames, so there is no frame {first}.")
    with blaming_video(metadata.path):
        images = dict(zip(wanted, _images(reader, wanted, short_side), strict=False))
    if not images:
        raise DataError(f"No frame of '{metadata.path}' from {metadata.time(first):.2f} s on can be decoded.")
    return _clip(metadata, numbers, images, length)


def iter_clips(
    reader: VideoReader,
    plan: Callable[[int], Sequence[Sequence[int]]],
    end: int,
    length: int,
    *,
    short_side: int,
) -> Iterator[DecodedClip]:
    """Decode several clips in one pass, with the frames of few clips in memory; see :func:`read_clip`.

    ``plan(end)`` returns the clips of the frames before ``end``, in the order of their first and of their
    last frames. A damaged video may end earlier than its metadata say. The remaining clips are then planned
    again, for the frames that can be decoded.

    Raises:
        DataError: no frame can be decoded.
    """
    images: dict[int, NDArray[np.uint8]] = {}
    clips, done, last = plan(end), 0, -1
    wanted = sorted(set(chain.from_iterable(clips)))
    with blaming_video(reader.metadata.path):
        for last, image in zip(wanted, _images(reader, wanted, short_side), strict=False):
            images[last] = image
            while done < len(clips) and clips[done][-1] == last:
                yield _clip(reader.metadata, clips[done], images, length)
                done += 1
                needed = clips[done][0] if done < len(clips) else last
                images = {number: each for number, each in images.items() if number >= needed}
    if last < 0:
        raise DataError(f"No frame of '{reader.metadata.path}' can be decoded.")
    if done < len(clips):
        for numbers in plan(last + 1)[done:]:
            yield read_clip(reader, numbers, length, short_side=short_side)


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
    """Decoded frames of a clip, repeated up to its length."""
    import torch  # here, because thumbnails need no tensors

    decoded = [number for number in numbers if number in images]
    frames = torch.from_numpy(np.stack([images[number] for number in decoded]))
    if len(decoded) < length:
        frames = frames[torch.arange(length) % len(decoded)]
    return DecodedClip(frames, metadata.time(decoded[-1] + 1))


class _ReaderCache:
    """The most recently used readers, with at most ``CACHED_FRAMES`` frames in all."""

    def __init__(self) -> None:
        self.readers: dict[tuple[object, ...], VideoReader] = {}  # most recently used last
        self.frames = 0
        self.lock = Lock()

    def get(self, key: tuple[object, ...], make: Callable[[], VideoReader]) -> VideoReader:
        """Return the cached reader of this key, or create it."""
        with self.lock:
            self.readers[key] = reader = self._remove(key) or make()
            self.frames += reader.metadata.frames + _OVERHEAD
            while self.frames > CACHED_FRAMES and len(self.readers) > 1:
                self._remove(next(iter(self.readers)))
        return reader

    def _remove(self, key: tuple[object, ...]) -> VideoReader | None:
        reader = self.readers.pop(key, None)
        if reader is not None:
            self.frames -= reader.metadata.frames + _OVERHEAD
        return reader


_readers = _ReaderCache()
