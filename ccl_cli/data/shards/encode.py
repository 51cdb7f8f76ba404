"""Encoding of one video for a shard: small frames and uncompressed sound, for fast reading of any clip."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import av
import numpy as np
from PIL import Image
from scipy.io import wavfile
from torch import Tensor

from ccl_cli.data.video.container import SCALING, SILENCE
from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.metadata import AudioTrack, VideoMetadata
from ccl_cli.data.video.reader import open_video
from ccl_cli.data.video.shard_reader import RECORD_FORMAT
from ccl_cli.data.video.sound import read_audio
from ccl_cli.data.video.storage import JPEGS, MP4, RECORD, SOUND, Location
from ccl_cli.errors import DataError, SystemSetupError

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUALITY = {"jpeg": 85, "mp4": 20}
_GOP = 8  # frames from one key frame to the next, which are decoded before the first frame of a clip
_FULL = 2**15  # a sample of 1.0
_LOUD = math.ceil(SILENCE * _FULL)  # the least 16-bit sample that is not silence


@dataclass(frozen=True)
class Settings:
    """Encoding options.

    Attributes:
        short_side: Larger frames are scaled down to this short side, pixels.
        fps: Largest number of frames per second; None: all frames.
        format: "jpeg": one JPEG per frame; "mp4": H.264 with a key frame every 8 frames.
        quality: JPEG quality, 1 to 95; or rate factor of H.264, 0 to 51, where lower is better.
        rate: Sampling rate of the sound, Hz; None: no sound.
    """

    short_side: int = 128
    fps: float | None = None
    format: Literal["jpeg", "mp4"] = "jpeg"
    quality: int = QUALITY["jpeg"]
    rate: int | None = 32_000


@dataclass(frozen=True)
class Source:
    """The source of one sample: a video, or the part of it that the rows of one split need.

    Attributes:
        key: Name of the sample.
        path: The video.
        split: Split of its rows.
        rows: Rows of the manifest as plain values, for readers of the shard without ccl.
        start: Start of the first row, seconds; None: the video's start.
        end: End of the last row, seconds; None: the video's end.
    """

    key: str
    path: Location
    split: str
    rows: tuple[dict[str, Any], ...]
    start: float | None
    end: float | None


class Encoded(NamedTuple):
    """An encoded sample: bytes of its members by suffix, the record first."""

    key: str
    split: str
    members: dict[str, bytes]


def encode(source: Source, settings: Settings) -> Encoded:
    """Encode one video. The same video and settings give the same bytes.

    Raises:
        DataError: the video cannot be read.
    """
    reader = open_video(source.path)
    info, side = reader.metadata, settings.short_side
    first, count = info.frame_range(source.start, source.end)
    numbers = first + np.flatnonzero(_selected(info, first, count, settings.fps))
    end = info.end_pts if first + count == info.frames else int(info.pts[first + count])
    write = _jpegs if settings.format == "jpeg" else _mp4
    with blaming_video(source.path):
        images = reader.frames(numbers.tolist(), short_side=side)
        suffix, picture, data = write(replace(info, end_pts=end), info.pts[numbers], images, settings.quality)
    sound, wav = _sound(source, info.audio, settings.rate)
    members = {suffix: data, **wav}
    record = {
        "format": RECORD_FORMAT,
        "key": source.key,
        "split": source.split,
        "rows": source.rows,
        "short_side": side if min(info.width, info.height) > side else None,
        "picture": picture,
        "sound": sound,
        "sha256": hashlib.sha256(b"".join(members.values())).hexdigest()[:16],
    }
    text = json.dumps(record, separators=(",", ":")).encode()
    return Encoded(source.key, source.split, {RECORD: text, **members})


def _selected(info: VideoMetadata, first: int, count: int, fps: float | None) -> NDArray[np.bool_]:
    """[count] mask of the frames to keep: the first one in each period of ``fps``."""
    if fps is None:
        return np.ones(count, bool)
    seconds = (info.pts[first : first + count] - info.pts[first]) * float(info.time_base)
    period = np.floor(seconds * fps + 1e-6)
    selected: NDArray[np.bool_] = np.diff(period, prepend=-1) > 0
    return selected


# -- pictures: their entry in the record, and their bytes


def _jpegs(
    info: VideoMetadata, pts: NDArray[np.int64], images: Iterator[NDArray[np.uint8]], quality: int
) -> tuple[str, dict[str, Any], bytes]:
    parts, shape = [], (0, 0)
    for image in images:
        file = io.BytesIO()
        picture = Image.fromarray(np.ascontiguousarray(image))
        picture.save(file, "JPEG", quality=quality, optimize=True)
        parts.append(file.getvalue())
        shape = image.shape[:2]
    stamps = pts[: len(parts)].tolist()
    entry = _picture(info, shape, stamps, info.end_pts, info.time_base, info.origin)
    return JPEGS, entry | {"sizes": [len(part) for part in parts]}, b"".join(parts)


def _mp4(
    info: VideoMetadata, pts: NDArray[np.int64], images: Iterator[NDArray[np.uint8]], quality: int
) -> tuple[str, dict[str, Any], bytes]:
    """Encode a fragmented mp4. Each key frame starts a fragment, which can be read and decoded by itself.

    Timestamps are converted to whole units from 0 on, so that they are equal in the file and in the record.
    """
    unit = Fraction(1, info.time_base.denominator)
    stamps = ((pts - pts[0]) * info.time_base.numerator).tolist()
    file, keys, shape, count = io.BytesIO(), [], (0, 0), 0
    options = {
        "fflags": "+bitexact",
        "movflags": "+frag_keyframe+empty_moov+default_base_moof",
        "video_track_timescale": str(unit.denominator),
    }
    with av.open(file, "w", format="mp4", options=options) as container:
        stream: Any = None
        for image, stamp in zip(images, stamps, strict=False):
            stream = stream or _h264(container, image.shape, unit, quality)
            shape, count = image.shape[:2], count + 1
            keys += _write(container, stream.encode(_even(image, stamp, unit)))
        if stream:
            keys += _write(container, stream.encode(None))
    begin = int(pts[0]) * info.time_base.numerator
    end = info.end_pts * info.time_base.numerator - begin
    picture = _picture(info, shape, stamps[:count], end, unit, info.origin - float(begin * unit))
    data = file.getvalue()
    return MP4, picture | {"keys": keys, **_fragments(data)}, data


def _write(container: Any, packets: Sequence[Any]) -> list[list[int]]:
    """Write packets; return the presentation and decoding timestamps of the key frames among them."""
    keys = [[packet.pts, packet.dts] for packet in packets if packet.is_keyframe]
    container.mux(packets)  # changes the packets' timestamps
    return keys


def _fragments(mp4: bytes) -> dict[str, Any]:
    """The bytes before the first fragment, and offsets of all fragments and of the end of the last one."""
    offsets, at, end = [], 0, len(mp4)
    while at < len(mp4):
        size, kind = int.from_bytes(mp4[at : at + 4]), mp4[at + 4 : at + 8]
        if kind == b"moof":
            offsets.append(at)
        elif kind == b"mfra":  # index of the fragments
            end = at
        at += size
    header = mp4[: offsets[0]] if offsets else b""
    return {"header": base64.b64encode(header).decode(), "fragments": [*offsets, end]}


def _h264(container: Any, shape: Sequence[int], unit: Fraction, quality: int) -> Any:
    if "libx264" not in av.codecs_available:
        raise SystemSetupError("This PyAV cannot encode H.264.", "Use --format jpeg.")
    # x264's AVX-512 code for mbtree does not give the same bytes in every run.
    options = {
        "crf": str(quality),
        "preset": "medium",
        "tune": "fastdecode",
        "x264-params": "scenecut=0:mbtree=0",
    }
    stream = container.add_stream("libx264", options=options)
    codec = stream.codec_context
    codec.height, codec.width = (side + side % 2 for side in shape[:2])
    codec.pix_fmt, codec.time_base = "yuv420p", unit
    codec.gop_size, codec.max_b_frames = _GOP, 0
    codec.thread_count = 1  # the bytes must not depend on the number of cores
    codec.flags |= av.codec.context.Flags.bitexact
    return stream


def _even(image: NDArray[np.uint8], stamp: int, unit: Fraction) -> av.VideoFrame:
    """The frame, with its last row or column repeated if a side is odd."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    whole = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgb24")
    frame = whole.reformat(format="yuv420p", **SCALING)  # the encoder would use all cores for it
    frame.pts, frame.time_base = stamp, unit
    return frame


def _picture(
    info: VideoMetadata, shape: Sequence[int], pts: list[int], end_pts: int, unit: Fraction, origin: float
) -> dict[str, Any]:
    if not pts:
        raise DataError(f"No frame of '{info.path}' can be decoded.")
    return {
        "width": shape[1],
        "height": shape[0],
        "time_base": [unit.numerator, unit.denominator],
        "origin": origin,
        "pts": pts,
        "end_pts": end_pts,
    }


# -- sound


def _sound(
    source: Source, track: AudioTrack | None, rate: int | None
) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """The sound's entry in the record, and its member, if there is a track and it is to be packed."""
    if track is None:
        return None, {}
    start, end = track.within(source.start, source.end)
    record: dict[str, Any] = {"start": start, "end": end, "rate": rate}
    if rate is None:
        return record, {}
    sound = read_audio(source.path, centre=start, seconds=math.inf, rate=rate, start=start, end=end)
    record["state"] = sound.state
    if sound.samples is None or not len(sound.samples):
        return record, {}
    file = io.BytesIO()
    wavfile.write(file, rate, _to_16_bits(sound.samples))
    return record, {SOUND: file.getvalue()}


def _to_16_bits(samples: Tensor) -> NDArray[np.int16]:
    """Round to 16 bits; a sample that is just not silent stays so."""
    exact = samples.numpy()
    steps = (exact * np.float32(_FULL)).round().clip(-_FULL, _FULL - 1)
    audible = (samples.abs() >= SILENCE).numpy() & (abs(steps) < _LOUD)
    return np.where(audible, np.copysign(_LOUD, exact), steps).astype(np.int16)
