"""Metadata of a media file, from its packets."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np

from ccl_cli.data.video.container import (
    MAX_PIXELS,
    MAX_SIDE,
    best_stream,
    decoded,
    open_container,
    packets_of,
)
from ccl_cli.data.video.metadata import AudioTrack, VideoMetadata
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    discard: bool


def read_metadata(path: Path) -> VideoMetadata:
    """Read the metadata of a file in one pass over its packets. The file may contain only sound.

    Raises:
        DataError: the file is not a media file, or its header claims frames that are too large to decode.
    """
    with open_container(path) as container:
        # Sound without a decoder is an error only when it is read.
        video, audio = best_stream(container, "video"), container.streams.best("audio")
        streams: list[Any] = [stream for stream in (video, audio) if stream]
        if not streams:
            raise DataError(f"'{path}' holds neither picture nor sound.")
        starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
        origin = min(starts, default=0.0)
        packets: dict[int, list[_Packet]] = {stream.index: [] for stream in streams}
        for p in packets_of(container, *streams):
            packets[p.stream_index].append(
                _Packet(p.pts, p.dts, p.duration or 0, p.is_keyframe, p.is_discard)
            )
        track = _audio_track(audio, packets[audio.index], origin) if audio else None
        if video is None:
            none = np.zeros((0, 2), np.int64)
            return VideoMetadata(
                path, none[:, 0], none, 0, Fraction(1), origin, width=0, height=0, seekable=False, audio=track
            )
        metadata = _video_metadata(path, container.format.name, video, packets[video.index])
        seconds = _header_seconds(container, streams)
        return replace(metadata, origin=origin, audio=track, header_seconds=seconds)


def _video_metadata(path: Path, container: str, video: Any, packets: list[_Packet]) -> VideoMetadata:
    width, height = video.codec_context.width, video.codec_context.height
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(f"'{path}' claims frames of {width}x{height} pixels, more than can be decoded.")
    shown = [packet for packet in packets if not packet.discard]
    seekable = _trustworthy(container, video, [packet.pts for packet in shown])
    period = (max(shown, key=_stamp).duration if shown else 0) or _period(video)
    pts = np.array(sorted(map(_stamp, shown)), np.int64) if seekable else _decoded_pts(path, period)
    keys = sorted((_stamp(p), _stamp(p) if p.dts is None else p.dts) for p in packets if p.key)
    return VideoMetadata(
        path=path,
        pts=pts,
        keys=np.array(keys, np.int64).reshape(-1, 2),
        end_pts=int(pts[-1]) + period if len(pts) else 0,
        time_base=video.time_base,
        origin=0.0,
        width=width,
        height=height,
        seekable=seekable,
        audio=None,
    )


def _header_seconds(container: InputContainer, streams: list[Any]) -> float:
    """Duration of the longest stream in the header, seconds, or 0."""
    durations = [float(s.duration * s.time_base) for s in streams if s.duration is not None]
    if container.format.name == "avi":  # FFmpeg invents the duration of a truncated one
        durations += [
            float(s.frames / s.average_rate) for s in streams if s.type == "video" and s.average_rate
        ]
    return max(durations, default=(container.duration or 0) / av.time_base)


def _trustworthy(container: str, video: Any, pts: list[int | None]) -> bool:
    """Whether the sorted timestamps of packets are those of the displayed frames, also after a seek.

    AVI has no timestamps: those derived for B-frames, often two in a packet, belong to other frames. A bare
    MPEG stream has timestamps for some frames only, and a seek changes those derived for the others.
    """
    stamps = [stamp for stamp in pts if stamp is not None]
    if len(set(stamps)) < len(pts) or container == "mpeg":
        return False
    return container != "avi" or (stamps == sorted(stamps) and not video.codec_context.has_b_frames)


def _decoded_pts(path: Path, period: int) -> NDArray[np.int64]:
    """Timestamps of a file without trustworthy ones in its packets, by decoding all frames."""
    with open_container(path) as container:
        video = best_stream(container, "video")
        start = video.start_time or 0
        stamps = [frame.pts for frame in decoded(video, packets_of(container, video))]
        ordered = sorted({stamp for stamp in stamps if stamp is not None})
        # The frame rate of an AVI is constant. Its decoded frames have the timestamps of the packets after
        # which they came out of the decoder.
        if len(ordered) < len(stamps) or container.format.name == "avi":
            return start + period * np.arange(len(stamps), dtype=np.int64)
        return np.array(ordered, np.int64)


def _period(video: Any) -> int:
    rate: Fraction = video.average_rate or video.guessed_rate or Fraction(25)
    return max(1, int(1 / (rate * video.time_base) + Fraction(1, 2)))


def _stamp(packet: _Packet) -> int:
    return 0 if packet.pts is None else packet.pts


def _audio_track(audio: Any, packets: list[_Packet], origin: float) -> AudioTrack | None:
    spans = [(p.pts, p.pts + p.duration) for p in packets if p.pts is not None and not p.discard]
    if not spans:
        return None
    # Sound before 0 only initialises the decoder and is not part of the track.
    start = max(0.0, float(min(begin for begin, _ in spans) * audio.time_base) - origin)
    end = float(max(end for _, end in spans) * audio.time_base) - origin
    return AudioTrack(start, end)
