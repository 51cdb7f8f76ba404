"""A video in a shard: its record tells what the packets of a file tell; pictures and sound are read by place.

The record is JSON::

    {"format": "ccl-packed-1", "key": ..., "split": ..., "rows": [{"id", "class", "label", "start"?, "end"?}],
     "short_side": pixels that its frames were scaled down to, or null,
     "picture": {"width", "height", "time_base": [1, 25], "origin", "pts": [...], "end_pts",
                 "sizes": [...] (bytes of each JPEG), or "keys": [[pts, dts], ...] (of an mp4)},
     "sound": null (no track) or {"start", "end", "rate", "state"}, "sha256": ...}
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import av
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ccl_cli.data.video.container import MAX_SIDE, open_container
from ccl_cli.data.video.file_reader import ToImage, decode_frames
from ccl_cli.data.video.metadata import AudioTrack, VideoMetadata
from ccl_cli.data.video.storage import JPEGS, MP4, RECORD, SOUND, Packed
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

RECORD_FORMAT = "ccl-packed-1"
WAV_HEADER = 44  # bytes before the first sample
_BLOCK = 64  # JPEGs that are decoded at once
_GAP = 2**16  # bytes between two JPEGs that are read sooner than the second one is asked for by itself
_BUFFER = 2**20  # bytes of an mp4 that are read at once: most are smaller


# JSON has lists only.
Pair = Annotated[tuple[int, int], Field(strict=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Picture(_Strict):
    width: int
    height: int
    time_base: Pair
    origin: float
    pts: list[int]
    end_pts: int
    sizes: list[int] | None = None
    keys: list[Pair] | None = None


class _Sound(_Strict):
    start: float
    end: float
    rate: int | None = None
    state: str = "left out"


class _Row(_Strict):
    id: str


class Record(_Strict):
    """The record of a sample, as far as it is read."""

    format: str
    key: str
    rows: list[_Row]
    sha256: str
    short_side: int | None = None
    picture: _Picture
    sound: _Sound | None = None


class ShardReader:
    """A packed video; see :class:`ccl_cli.data.video.reader.VideoReader`.

    Attributes:
        scaled_to: The short side that packing scaled larger frames down to, pixels; None if none was larger.
    """

    def __init__(self, location: Packed) -> None:
        self.location = location
        try:
            record = Record.model_validate(json_text.parse(location.read(RECORD)))
            if (record.format, record.key) != (RECORD_FORMAT, location.key):
                raise ValueError("the record of another video")
            self.metadata, self._offsets = _metadata(location, record)
        except (ValueError, ArithmeticError) as error:  # a time base of zero, a number beyond 64 bits
            raise DataError(
                f"'{location}' is not where its index says: the shard has changed.",
                "Copy or pack the set again.",
            ) from error
        self.scaled_to = record.short_side

    def frames(self, numbers: Sequence[int], *, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """Frames as large as they were packed, or scaled down further; a DataError where one is damaged."""
        if self._offsets is None:
            frames = decode_frames(self._open_mp4, self.metadata, numbers, ToImage(MAX_SIDE))
        else:
            frames = self._jpegs(self._offsets, numbers)
        height, width = self.metadata.height, self.metadata.width
        scale = ToImage(short_side)
        for image in frames:
            image = image[:height, :width]  # H.264 has even sides only: an odd one was padded
            if min(height, width) > short_side:
                image = scale(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"))
            yield image

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Samples by their place; a DataError where the video was packed without its sound."""
        track = self.metadata.audio
        if track is None or track.rate is None:
            raise DataError(
                f"'{self.location}' was packed without its sound.", "Pack the set without --no-audio."
            )
        member = self.location.member(SOUND)
        available = (member.size - WAV_HEADER) // 2 if member else 0
        mono = np.zeros(math.ceil((stop - start) * track.rate), np.float32)
        begin = round((start - track.start) * track.rate)
        end = min(begin + len(mono), available)
        if begin < end:
            data = self.location.read(SOUND, WAV_HEADER + 2 * begin, WAV_HEADER + 2 * end)
            mono[: end - begin] = np.frombuffer(data, "<i2") / np.float32(2**15)
        return mono, track.rate

    def _jpegs(self, offsets: NDArray[np.int64], numbers: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        for block in _blocks(offsets, np.asarray(numbers)):
            first, last = int(block[0]), int(block[-1])
            data = bytearray(self.location.read(JPEGS, *offsets[[first, last + 1]].tolist()))
            sizes = np.diff(offsets[first : last + 2]).tolist()
            try:
                # All in one call: what stands around the decoding would take a tenth of the time.
                parts = torch.frombuffer(data, dtype=torch.uint8).split_with_sizes(sizes)
                images = decode_jpeg([parts[number - first] for number in block.tolist()], ImageReadMode.RGB)
            except RuntimeError as error:
                raise DataError(f"A frame of '{self.location}' from {first} to {last} is damaged.") from error
            for image in images:
                yield image.permute(1, 2, 0).numpy()

    def _open_mp4(self) -> AbstractContextManager[InputContainer]:
        member = self.location.member(MP4)
        if member is None:
            raise DataError(self.location.reason or f"'{self.location}' has no mp4.")
        raw = _MemberFile(self.location, member.size)
        buffered = io.BufferedReader(raw, max(1, min(member.size, _BUFFER)))
        return open_container(self.location, cast(BinaryIO, buffered))


def _metadata(location: Packed, record: Record) -> tuple[VideoMetadata, NDArray[np.int64] | None]:
    """Metadata, and [N + 1] int64 where each JPEG begins and the last one ends, if frames are packed so.

    Raises:
        ValueError, ArithmeticError: the record contradicts itself.
    """
    picture, sound = record.picture, record.sound
    if picture.sizes is not None and len(picture.sizes) != len(picture.pts):
        raise ValueError("not one JPEG for each frame")
    metadata = VideoMetadata(
        path=location,
        pts=np.array(picture.pts, np.int64),
        keys=np.array(picture.keys or [], np.int64).reshape(-1, 2),
        end_pts=picture.end_pts,
        time_base=Fraction(*picture.time_base),
        origin=picture.origin,
        width=picture.width,
        height=picture.height,
        seekable=True,
        audio=AudioTrack(sound.start, sound.end, sound.rate) if sound else None,
    )
    offsets = None if picture.sizes is None else np.cumsum([0, *picture.sizes], dtype=np.int64)
    return metadata, offsets


def _blocks(offsets: NDArray[np.int64], numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Frames that are read at once: without long gaps between them."""
    gaps = offsets[numbers[1:]] - offsets[numbers[:-1] + 1]
    cuts = [0, *(np.flatnonzero(gaps > _GAP) + 1).tolist(), len(numbers)]
    for begin, end in pairwise(cuts):
        for at in range(begin, end, _BLOCK):
            yield numbers[at : min(at + _BLOCK, end)]


class _MemberFile(io.RawIOBase):
    """A packed mp4 as a file that can be read and sought in."""

    def __init__(self, location: Packed, size: int) -> None:
        self.location, self.size, self.at = location, size, 0
        self.name = str(location)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        data = self.location.read(MP4, self.at, self.at + len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
