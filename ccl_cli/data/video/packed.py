"""Packed videos: a record that tells all that an index would, pictures and sound by their place in the shard.

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
from collections.abc import Iterator
from fractions import Fraction
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from ccl_cli.data.video.index_cache import KeptIndexes
from ccl_cli.data.video.metadata import AudioTrack, VideoInfo
from ccl_cli.data.video.storage import JPEGS, MP4, RECORD, SOUND, Packed
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.json_text import Shape, fits

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ccl-packed-1"
WAV_HEADER = 44  # bytes before the first sample
_BLOCK = 64  # JPEGs that are read at once
_SHAPE: Shape = {
    "format": str,
    "key": str,
    "short_side": (int, NoneType),
    "picture": {
        "width": int,
        "height": int,
        "time_base": [int, int],
        "origin": float,
        "pts": [int],
        "end_pts": int,
        "sizes": ([int], NoneType),
        "keys": ([[int, int]], NoneType),
    },
    "sound": ({"start": float, "end": float, "rate": (int, NoneType)}, NoneType),
}
_BUFFER = 2**20  # bytes of an mp4 that are read at once: most are smaller


@KeptIndexes
def index(location: Packed) -> VideoInfo:
    """A packed video's index, read from its record; cached per process.

    Raises:
        DataError: it was not packed, its shard is gone, or holds something else at its place.
    """
    record = _record(location)
    picture, sound = record["picture"], record.get("sound")
    sizes = picture.get("sizes")
    keys = np.array(picture.get("keys") or [], np.int64).reshape(-1, 2)
    return VideoInfo(
        path=location,
        pts=np.array(picture["pts"], np.int64),
        keys=keys,
        end_pts=picture["end_pts"],
        time_base=Fraction(*picture["time_base"]),
        origin=picture["origin"],
        width=picture["width"],
        height=picture["height"],
        seekable=True,
        audio=sound and AudioTrack(sound["start"], sound["end"], sound.get("rate")),
        jpegs=None if sizes is None else np.cumsum([0, *sizes], dtype=np.int64),
    )


def scaled_to(location: Packed) -> int | None:
    """The short side that packing scaled a video's frames down to, pixels; None if they were not larger.

    Raises:
        DataError: as :func:`index`.
    """
    side: int | None = _record(location).get("short_side")
    return side


def _record(location: Packed) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json_text.parse(location.read(RECORD))
        if fits(record, _SHAPE) and (record["format"], record["key"]) == (FORMAT, location.key):
            Fraction(*record["picture"]["time_base"])
            sizes = record["picture"].get("sizes")
            if sizes is None or len(sizes) == len(record["picture"]["pts"]):
                return record
    except (ValueError, TypeError, ZeroDivisionError):
        pass
    raise DataError(
        f"'{location}' is not where its index says: the shard has changed.", "Copy or pack the set again."
    )


def jpegs_from(
    info: VideoInfo, places: NDArray[np.int64], first: int, count: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Timestamps and pictures [H, W, 3] of ``count`` frames, each a JPEG of its own.

    Args:
        info: Of a video that is packed so.
        places: [N + 1] int64, where each JPEG begins.
        first: Index of the first frame.
        count: Number of frames.

    Raises:
        DataError: a frame is damaged.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    assert isinstance(info.path, Packed)
    last = min(first + count, info.frames)
    for begin in range(first, last, _BLOCK):
        end = min(begin + _BLOCK, last)
        block = bytearray(info.path.read(JPEGS, *places[[begin, end]].tolist()))
        sizes = np.diff(places[begin : end + 1]).tolist()
        try:
            # All in one call: what stands around the decoding would take a tenth of the time.
            parts = list(torch.frombuffer(block, dtype=torch.uint8).split_with_sizes(sizes))
            images = decode_jpeg(parts, ImageReadMode.RGB)
        except RuntimeError as error:
            raise DataError(f"A frame of '{info.path}' from {begin} to {end - 1} is damaged.") from error
        for pts, image in zip(info.pts[begin:end].tolist(), images, strict=True):
            yield pts, image.permute(1, 2, 0).numpy()


def mono_between(
    location: Packed, track: AudioTrack, low: float, high: float
) -> tuple[NDArray[np.float32], int]:
    """Samples of [low, high) seconds, as many as that takes, and their rate.

    Raises:
        DataError: the video was packed without its sound.
    """
    if track.rate is None:
        raise DataError(f"'{location}' was packed without its sound.", "Pack the set without --no-audio.")
    member = location.member(SOUND)
    there = (member.size - WAV_HEADER) // 2 if member else 0
    mono = np.zeros(math.ceil((high - low) * track.rate), np.float32)
    begin = round((low - track.start) * track.rate)
    end = min(begin + len(mono), there)
    if begin < end:
        data = location.read(SOUND, WAV_HEADER + 2 * begin, WAV_HEADER + 2 * end)
        mono[: end - begin] = np.frombuffer(data, "<i2") / np.float32(2**15)
    return mono, track.rate


def mp4(location: Packed) -> io.BufferedReader:
    """A packed mp4 as a file that can be read and sought in.

    Raises:
        DataError: it was not packed so.
    """
    member = location.member(MP4)
    if member is None:
        raise DataError(location.reason or f"'{location}' has no mp4.")
    return io.BufferedReader(_Bytes(location, member.size), max(1, min(member.size, _BUFFER)))


class _Bytes(io.RawIOBase):
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
