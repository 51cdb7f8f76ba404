"""Media files through PyAV: opening, indexing, packets and frames, and sentences for what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import av
import av.logging
import numpy as np
from av.stream import Disposition

from ccl_cli.data.video import packed
from ccl_cli.data.video.index_cache import KeptIndexes
from ccl_cli.data.video.metadata import AudioTrack, VideoInfo
from ccl_cli.data.video.storage import Location, Packed
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

# One loader worker per core decodes one video at a time: more threads would only compete.
THREADS = 1
# A damaged header can ask for any size: refuse before memory is reserved.
MAX_SIDE = 16_384
MAX_PIXELS = 2**26
MAX_PACKETS = 20_000_000
# Left to itself, scaling takes every core from PyAV 17 on, and only from there on has a choice.
SCALING: dict[str, Any] = {"threads": THREADS} if int(av.__version__.split(".")[0]) >= 17 else {}
SILENCE = 1e-4  # a track without a sample of this size holds no sound

av.logging.set_level(None)  # FFmpeg's own lines say nothing that the errors below do not


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    discard: bool


def index_video(path: Location) -> VideoInfo:
    """Index a video's frames; cached per process until the file changes.

    Raises:
        DataError: not found, empty, not a media file, or without a picture.
    """
    info = index_media(path)
    if not info.width:
        raise DataError(f"'{path}' has no picture, only sound.")
    if not info.frames:
        raise DataError(f"'{path}' has no frame that can be decoded.")
    return info


def index_media(path: Location) -> VideoInfo:
    """Index a file that may hold sound alone; cached like :func:`index_video`.

    Raises:
        DataError: not found, empty, or not a media file.
    """
    if isinstance(path, Packed):
        return packed.index(path)
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in it
        raise DataError(f"'{path}' cannot be read: {getattr(error, 'strerror', error)}.") from error
    if not path.is_file():
        raise DataError(f"'{path}' is not a file.")
    if stat.st_size == 0:
        raise DataError(f"'{path}' is empty (0 bytes).")
    return _index(path, stat.st_mtime_ns, stat.st_size)


def frame_range(info: VideoInfo, start: float | None = None, end: float | None = None) -> tuple[int, int]:
    """Frames shown between two times in seconds, as (first, count) with count >= 1.

    Raises:
        DataError: the stretch lies outside the video.
    """
    times = info.pts * float(info.time_base) - info.origin
    tolerance = 1e-4  # a time written with four decimals still names its frame
    start_at = times[0] if start is None else start + tolerance
    end_at = np.inf if end is None else end - tolerance
    if start_at >= info.time(info.frames) or end_at <= times[0]:
        span = f"{times[0]:.2f} to {info.time(info.frames):.2f} s"
        raise DataError(f"The stretch {start} to {end} s lies outside '{info.path}' ({span}).")
    first = max(0, int(np.searchsorted(times, start_at, side="right")) - 1)
    return first, max(1, int(np.searchsorted(times, end_at)) - first)


@contextmanager
def opened(path: Location) -> Iterator[InputContainer]:
    """Open a file, or a packed video's mp4, for reading.

    Raises:
        DataError: it is not a media file; also in place of any FFmpeg error inside the block.
    """
    try:
        # Only this file: a playlist that poses as a video must not make the machine open anything else.
        file: Any
        file, form, may_open = f"file:{path}", None, "file"
        if isinstance(path, Packed):
            file, form, may_open = packed.mp4(path), "mp4", "none"
        options = {
            "protocol_whitelist": may_open
        }  # of the container alone: PyAV 15 crashes on stream options
        container = av.open(file, format=form, container_options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"'{path}' is not a complete media file: {reason}.") from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise DataError(f"'{path}' cannot be decoded: {error.strerror}.") from error


def best_stream(container: InputContainer, kind: Literal["video", "audio"]) -> Any:
    """The stream a player would choose, or None; a cover picture is no video.

    Raises:
        DataError: there is no decoder for it.
    """
    stream: Any = container.streams.best(kind)
    if stream is None or (kind == "video" and stream.disposition & Disposition.attached_pic):
        return None
    if stream.codec_context is None:
        name = container.name.removeprefix("file:")
        raise DataError(f"The {kind} stream of '{name}' is in a format that cannot be decoded.")
    stream.codec_context.thread_count = THREADS
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def packets_of(container: InputContainer, *streams: Any) -> Iterator[Any]:
    """Packets that hold data; a file that is cut off simply ends."""
    # PyAV has no place for packets of a stream that a damaged MPEG file only announces in its middle.
    with suppress(av.FFmpegError, IndexError):
        for packet in islice(container.demux(*streams), MAX_PACKETS):
            if packet.size:  # an empty one would tell the decoder that the file ends
                yield packet


def decoded(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """Frames in presentation order; packets that cannot be decoded are passed over."""
    for packet in packets:
        with suppress(av.FFmpegError):
            yield from stream.decode(packet)
    with suppress(av.FFmpegError):
        yield from stream.decode(None)


def channels(frame: Any) -> NDArray[np.floating[Any]]:
    """[C, n] samples of a sound frame in [-1, 1]."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float32) / 128 - 1
    elif samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    scaled: NDArray[np.floating[Any]] = samples
    return scaled


@KeptIndexes
def _index(path: Path, mtime: int, size: int) -> VideoInfo:
    with opened(path) as container:
        # Sound that cannot be decoded is the trouble of those who want to hear it.
        video, audio = best_stream(container, "video"), container.streams.best("audio")
        if video is None and audio is None:
            raise DataError(f"'{path}' holds neither picture nor sound.")
        streams: list[Any] = [stream for stream in (video, audio) if stream]
        starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
        origin = min(starts, default=0.0)
        rows: dict[int, list[_Packet]] = {stream.index: [] for stream in streams}
        for p in packets_of(container, *streams):
            rows[p.stream_index].append(_Packet(p.pts, p.dts, p.duration or 0, p.is_keyframe, p.is_discard))
        track = _audio_track(audio, rows[audio.index], origin) if audio else None
        if video is None:
            none = np.zeros((0, 2), np.int64)
            return VideoInfo(path, none[:, 0], none, 0, Fraction(1), origin, 0, 0, False, track)
        info = _video_info(path, container.format.name, video, rows[video.index], origin, track)
        return replace(info, promised=_promised(container, streams))


def _video_info(
    path: Path, container: str, video: Any, packets: list[_Packet], origin: float, audio: AudioTrack | None
) -> VideoInfo:
    width, height = video.codec_context.width, video.codec_context.height
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(f"'{path}' claims frames of {width}x{height} pixels, more than can be decoded.")
    shown = [packet for packet in packets if not packet.discard]
    seekable = _trustworthy(container, video, [packet.pts for packet in shown])
    period = (max(shown, key=_stamp).duration if shown else 0) or _period(video)
    pts = np.array(sorted(map(_stamp, shown)), np.int64) if seekable else _decoded_pts(path, period)
    keys = sorted((_stamp(p), _stamp(p) if p.dts is None else p.dts) for p in packets if p.key)
    return VideoInfo(
        path=path,
        pts=pts,
        keys=np.array(keys, np.int64).reshape(-1, 2),
        end_pts=int(pts[-1]) + period if len(pts) else 0,
        time_base=video.time_base,
        origin=origin,
        width=width,
        height=height,
        seekable=seekable,
        audio=audio,
    )


def _promised(container: InputContainer, streams: list[Any]) -> float:
    """Seconds that the header says the longest stream lasts, or 0."""
    said = [float(s.duration * s.time_base) for s in streams if s.duration is not None]
    if container.format.name == "avi":  # of one that is cut off, the duration is made up
        said += [float(s.frames / s.average_rate) for s in streams if s.type == "video" and s.average_rate]
    return max(said, default=(container.duration or 0) / av.time_base)


def _trustworthy(container: str, video: Any, pts: list[int | None]) -> bool:
    """Whether sorted packet timestamps are those of the displayed frames, also after a seek.

    AVI holds none: what is derived for its B-frames, often two packed into one packet, names the wrong frame.
    A bare MPEG stream stamps only some frames, and a seek changes what is derived for the others.
    """
    stamps = [stamp for stamp in pts if stamp is not None]
    if len(set(stamps)) < len(pts) or container == "mpeg":
        return False
    return container != "avi" or (stamps == sorted(stamps) and not video.codec_context.has_b_frames)


def _decoded_pts(path: Path, period: int) -> NDArray[np.int64]:
    """Timestamps of a file whose packets do not tell them: one full decode counts its frames."""
    with opened(path) as container:
        video = best_stream(container, "video")
        start = video.start_time or 0
        stamps = [frame.pts for frame in decoded(video, packets_of(container, video))]
        ordered = sorted({stamp for stamp in stamps if stamp is not None})
        # An AVI has one frame rate; its frames are stamped with the packet that set them free.
        if len(ordered) < len(stamps) or container.format.name == "avi":
            return start + period * np.arange(len(stamps), dtype=np.int64)
        return np.array(ordered, np.int64)


def _period(video: Any) -> int:
    rate: Fraction = video.average_rate or video.guessed_rate or Fraction(25)
    return max(1, int(1 / (rate * video.time_base) + Fraction(1, 2)))


def _stamp(packet: _Packet) -> int:
    return 0 if packet.pts is None else packet.pts


def _audio_track(audio: Any, packets: list[_Packet], origin: float) -> AudioTrack | None:
    heard = [(p.pts, p.pts + p.duration) for p in packets if p.pts is not None and not p.discard]
    if not heard:
        return None
    # What lies before 0 primes the decoder and is never heard.
    start = max(0.0, float(min(begin for begin, _ in heard) * audio.time_base) - origin)
    end = float(max(end for _, end in heard) * audio.time_base) - origin
    return AudioTrack(start, end)
