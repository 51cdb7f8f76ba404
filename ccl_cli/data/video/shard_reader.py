"""A video in a shard: metadata from its record, pictures and sound by their byte offsets.

The record is JSON::

    {"format": "ccl-packed-1", "key": ..., "split": ..., "rows": [{"id", "class", "label", "start"?, "end"?}],
     "short_side": pixels that its frames were scaled down to, or null,
     "picture": {"width", "height", "time_base": [1, 25], "origin", "pts": [...], "end_pts",
                 "sizes": [...] (bytes of each JPEG), or of an mp4 "keys": [[pts, dts], ...],
                 "header" (base64, the bytes before its first fragment), "fragments": [...] (where the
                 fragment of each key frame begins, and where the last one ends)},
     "sound": null (no track) or {"start", "end", "rate", "state"}, "sha256": ...}
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from typing import Annotated

import av
import numpy as np
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from ccl_cli.data.video.container import MAX_SIDE, best_stream, decoded, open_container, packets_of
from ccl_cli.data.video.file_reader import ToImage
from ccl_cli.data.video.metadata import AudioTrack, VideoMetadata
from ccl_cli.data.video.storage import JPEGS, MP4, RECORD, SOUND, Packed
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text

Numbers = NDArray[np.int64]
RECORD_FORMAT = "ccl-packed-1"
WAV_HEADER = 44  # bytes before the first sample
_BLOCK = 64  # JPEGs or fragments that are read at once
_GAP = 2**16  # bytes; a shorter gap between two of them is read along


Pair = Annotated[tuple[int, int], Field(strict=False)]  # JSON has only lists


class StrictModel(BaseModel):
    """A model that converts no types and accepts no infinite numbers."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Picture(StrictModel):
    width: int
    height: int
    time_base: Pair
    origin: float
    pts: list[int]
    end_pts: int
    sizes: list[int] = []
    keys: list[Pair] = []
    header: Annotated[Base64Bytes, Field(strict=False)] = b""
    fragments: list[int] = []


class _Sound(StrictModel):
    start: float
    end: float
    rate: int | None = None
    state: str = "left out"


class _Row(StrictModel):
    id: str


class Record(StrictModel):
    """The entries of a sample's record that are read."""

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
        scaled_to: Short side to which packing scaled the frames down, pixels; None if they were not larger.
    """

    def __init__(self, location: Packed) -> None:
        self.location = location
        try:
            record = Record.model_validate(json_text.parse(location.read(RECORD)))
            if (record.format, record.key) != (RECORD_FORMAT, location.key):
                raise ValueError("the record of another video")
            self.metadata, self._offsets = _metadata(location, record), _offsets(record.picture)
        except (ValueError, ArithmeticError) as error:  # a time base of zero, a number beyond 64 bits
            raise DataError(
                f"'{location}' is not where its index says: the shard has changed.",
                "Copy or pack the set again.",
            ) from error
        self.scaled_to = record.short_side
        self._header = record.picture.header

    def frames(self, numbers: Sequence[int], *, short_side: int) -> Iterator[NDArray[np.uint8]]:
        """Decode frames in their packed size or smaller. Raises a DataError if one is damaged."""
        frames = self._h264(numbers) if self._header else self._jpegs(numbers)
        height, width = self.metadata.height, self.metadata.width
        scale = ToImage(short_side)
        for image in frames:
            image = image[:height, :width]  # H.264 needs even sides: odd ones were padded
            if min(height, width) > short_side:
                image = scale(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"))
            yield image

    def audio(self, start: float, stop: float) -> tuple[NDArray[np.float32], int]:
        """Read sound by byte offset. Raises a DataError if the video was packed without sound."""
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

    def _h264(self, numbers: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Decode frames from an mp4 file made of its header and the fragments with these frames."""
        pts = self.metadata.pts[np.asarray(numbers)]
        wanted, last, to_image = set(pts.tolist()), int(pts[-1]), ToImage(MAX_SIDE)
        fragments = np.unique(np.searchsorted(self.metadata.keys[:, 0], pts, side="right") - 1)
        parts = chain.from_iterable(data for _, data in self._read(MP4, fragments))
        with open_container(self.location, io.BytesIO(b"".join([self._header, *parts]))) as container:
            video = best_stream(container, "video")
            for frame in decoded(video, packets_of(container, video)):
                if frame.pts in wanted:
                    yield to_image(frame)
                if frame.pts is not None and frame.pts >= last:
                    return

    def _jpegs(self, numbers: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        for block, parts in self._read(JPEGS, np.asarray(numbers)):
            first, last = int(block[0]), int(block[-1])
            try:
                # One call for all JPEGs saves a tenth of the time.
                tensors = [torch.frombuffer(part, dtype=torch.uint8) for part in parts]
                images = decode_jpeg(tensors, ImageReadMode.RGB)
            except RuntimeError as error:
                raise DataError(f"A frame of '{self.location}' from {first} to {last} is damaged.") from error
            for image in images:
                yield image.permute(1, 2, 0).numpy()

    def _read(self, suffix: str, numbers: Numbers) -> Iterator[tuple[Numbers, list[bytearray]]]:
        """Read the JPEGs or fragments of these numbers; yield blocks of neighbours, each read at once."""
        for block in _blocks(self._offsets, numbers):
            first, *_, last = places = self._offsets[block[0] : block[-1] + 2].tolist()
            data = bytearray(self.location.read(suffix, first, last))
            parts = [data[begin - first : end - first] for begin, end in pairwise(places)]
            yield block, [parts[at] for at in (block - block[0]).tolist()]


def _metadata(location: Packed, record: Record) -> VideoMetadata:
    picture, sound = record.picture, record.sound
    return VideoMetadata(
        path=location,
        pts=np.array(picture.pts, np.int64),
        keys=np.array(picture.keys, np.int64).reshape(-1, 2),
        end_pts=picture.end_pts,
        time_base=Fraction(*picture.time_base),
        origin=picture.origin,
        width=picture.width,
        height=picture.height,
        seekable=True,
        audio=AudioTrack(sound.start, sound.end, sound.rate) if sound else None,
    )


def _offsets(picture: _Picture) -> Numbers:
    """[N + 1] offsets of the JPEGs or of the fragments of an mp4, and of the end of the last one.

    Raises:
        ValueError: the record contradicts itself.
    """
    offsets = np.array(picture.fragments or np.cumsum([0, *picture.sizes]), np.int64)
    pieces = picture.keys if picture.header else picture.pts
    if len(offsets) != len(pieces) + 1 or (np.diff(offsets, prepend=0) < 0).any():
        raise ValueError("not one JPEG for each frame, or not one fragment for each key frame")
    if picture.header and not (picture.keys and picture.pts and picture.keys[0][0] <= picture.pts[0]):
        raise ValueError("the first frame has no key frame")
    return offsets


def _blocks(offsets: Numbers, numbers: Numbers) -> Iterator[Numbers]:
    """Divide JPEGs or fragments into blocks without long gaps."""
    gaps = offsets[numbers[1:]] - offsets[numbers[:-1] + 1]
    cuts = [0, *(np.flatnonzero(gaps > _GAP) + 1).tolist(), len(numbers)]
    for begin, end in pairwise(cuts):
        for at in range(begin, end, _BLOCK):
            yield numbers[at : min(at + _BLOCK, end)]
