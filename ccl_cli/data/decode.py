"""Video files to frames and sound, with PyAV: the only place that reads media.

Frame ``k`` of a file is the k-th frame that decoding it from the start yields. Reading any window gives
exactly those frames: by a seek where the file's timestamps prove right, else by decoding from the start.
Seconds are counted from the file's own start, on one clock for frames and sound.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import dropwhile, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import av
import av.logging
import numpy as np
import torch
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

# One loader worker per core decodes one video at a time: more threads would only compete.
THREADS = 1
# A damaged header can ask for any size; refuse before memory is reserved.
MAX_SIDE = 16_384
MAX_PIXELS = 2**26
MAX_PACKETS = 20_000_000
SILENCE = 1e-4
# Decoders that heed a change of skip_frame between packets; AV1's keeps the first value.
_SKIPPING = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}
_PREROLL = 1.0  # seconds decoded before a stretch of sound, so that a codec's overlap has settled
_JITTER = 0.05  # seconds a sound packet's timestamp may be off before it counts as a gap

av.logging.set_level(None)  # FFmpeg's own lines say nothing that the errors below do not
_log = logging.getLogger("ccl")


class Clip(NamedTuple):
    """Consecutive frames.

    Attributes:
        frames: [T, H, W, 3] uint8 RGB, upright.
        start: Presentation time of the first frame, seconds.
        end: End of the last frame that was not repeated, seconds.
    """

    frames: Tensor
    start: float
    end: float


class Sound(NamedTuple):
    """A stretch of mono sound.

    Attributes:
        samples: [n] float32 in [-1, 1], or None where there is no track.
        state: What was found; "silent" means no sample reaches 1e-4.
    """

    samples: Tensor | None
    state: Literal["present", "silent", "no track"]


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Where a file's sound lies, in seconds, and its sampling rate in Hz."""

    start: float
    end: float
    rate: int


@dataclass(frozen=True, eq=False, slots=True)
class VideoInfo:
    """What one pass over a file's packets tells, without decoding.

    Attributes:
        path: The file.
        pts: [N] int64 presentation timestamps of the displayed frames, ascending.
        keys: [K, 2] int64 presentation and decoding timestamps of the key frames, ascending.
        end_pts: Where the last frame ends.
        time_base: Seconds per timestamp unit.
        origin: Seconds on the file's clock that count as 0.
        width: Pixels, as stored.
        height: Pixels, as stored.
        seekable: Whether timestamps identify frames, so that a seek can be checked.
        audio: The sound track, if any.
    """

    path: Path
    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    end_pts: int
    time_base: Fraction
    origin: float
    width: int
    height: int
    seekable: bool
    audio: AudioTrack | None

    @property
    def frames(self) -> int:
        """Number of displayed frames, N."""
        return len(self.pts)

    @property
    def duration(self) -> float:
        """Seconds from the first frame's start to the last frame's end."""
        return self.time(self.frames) - self.time(0)

    def time(self, frame: int) -> float:
        """Presentation time of a frame in seconds; of frame N: the end of the last one."""
        pts = self.end_pts if frame >= self.frames else self.pts[frame]
        return float(pts * self.time_base) - self.origin


def index_video(path: Path) -> VideoInfo:
    """Index a video's frames; cached per process until the file changes.

    Raises:
        DataError: not found, empty, not a media file, or without a picture.
    """
    info = _index(path)
    if not info.frames:
        raise DataError(f"'{path}' has no picture, only sound." if info.audio else f"'{path}' has no frames.")
    return info


def frame_range(info: VideoInfo, start: float | None = None, end: float | None = None) -> tuple[int, int]:
    """Frames shown between two times in seconds, as (first, count) with count >= 1.

    Raises:
        DataError: the stretch lies outside the video.
    """
    times = info.pts * float(info.time_base) - info.origin
    tolerance = 1e-4  # times written with four decimals still name their frame
    first = 0 if start is None else int(np.searchsorted(times, start - tolerance))
    stop = info.frames if end is None else int(np.searchsorted(times, end - tolerance))
    if first >= info.frames or stop == 0:
        span = f"{times[0]:.2f} to {info.time(info.frames):.2f} s"
        raise DataError(f"The stretch {start} to {end} s lies outside '{info.path}' ({span}).")
    return first, max(1, stop - first)


def read_frames(path: Path, first: int, count: int, *, short_side: int = 256) -> Clip:
    """Read frames ``first`` to ``first + count``; where the video ends earlier they repeat from the first.

    Args:
        path: The file.
        first: Index of the first frame, in presentation order.
        count: Number of frames T.
        short_side: Larger frames are scaled down to this short side, pixels.

    Raises:
        DataError: unreadable, no such frame, or no frame of the window can be decoded.
    """
    info = index_video(path)
    wanted = info.pts[first : first + count]
    if first < 0 or not len(wanted):
        raise DataError(f"'{path}' has {info.frames} frames, so there is no frame {first}.")
    decoded = list(islice(_frames_from(info, first, short_side), len(wanted)))
    if info.seekable and [pts for pts, _ in decoded] != wanted.tolist():
        decoded = list(islice(_frames_from(info, first, short_side, seek=False), len(wanted)))
    if not decoded:
        raise DataError(f"No frame of '{path}' from {info.time(first):.2f} s on can be decoded.")
    return _clip(info, [image for _, image in decoded], first, count)


def iter_windows(
    path: Path,
    length: int,
    stride: int,
    *,
    short_side: int = 256,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[Clip]:
    """Slide windows over a video in one pass, holding one window in memory.

    Windows start every ``stride`` frames until all frames are covered; the last is repeated to full length.

    Args:
        path: The file.
        length: Frames per window.
        stride: Frames between starts.
        short_side: As in :func:`read_frames`.
        start: Seconds where to begin; None: the file's start.
        end: Seconds where to stop; None: the file's end.

    Raises:
        DataError: unreadable, or no frame can be decoded.
    """
    info = index_video(path)
    first, count = frame_range(info, start, end)
    images: list[NDArray[np.uint8]] = []
    begin, fresh, seen = first, 0, 0
    for seen, (_, image) in enumerate(islice(_frames_from(info, first, short_side), count), 1):
        if first + seen <= begin:
            continue  # between two windows, when the stride is longer than a window
        images.append(image)
        fresh += 1
        if len(images) == length:
            yield _clip(info, images, begin, length)
            images, begin, fresh = images[stride:], begin + stride, 0
    if not seen:
        raise DataError(f"No frame of '{path}' can be decoded.")
    if fresh:
        yield _clip(info, images, begin, length)


def read_audio(
    path: Path,
    *,
    centre: float,
    seconds: float,
    rate: int,
    start: float | None = None,
    end: float | None = None,
) -> Sound:
    """Read mono sound around a time, clamped to the track: a shorter track is returned whole.

    Args:
        path: A video or sound file.
        centre: Middle of the stretch, seconds on the file's clock.
        seconds: Length of the stretch.
        rate: Samples per second of the result, Hz.
        start: Seconds where the track is taken to begin; None: its own start.
        end: Seconds where it is taken to end; None: its own end.

    Raises:
        DataError: unreadable, or there is a track that cannot be decoded.
    """
    info = _index(path)
    if info.audio is None:
        return Sound(None, "no track")
    low = max(info.audio.start, -np.inf if start is None else start)
    high = min(info.audio.end, np.inf if end is None else end)
    if high - low > seconds:
        low = min(max(centre - seconds / 2, low), high - seconds)
        high = low + seconds
    if high <= low:
        return Sound(torch.zeros(0), "silent")
    mono, native = _samples(info, low, high)
    samples = _resampler(native, rate)(torch.from_numpy(mono))[: round(seconds * rate)]
    return Sound(samples, "present" if float(samples.abs().max()) >= SILENCE else "silent")


def _index(path: Path) -> VideoInfo:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not path.is_file():
        raise DataError(f"'{path}' is not a file.")
    if stat.st_size == 0:
        raise DataError(f"'{path}' is empty (0 bytes).")
    return _index_cached(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _index_cached(path: Path, mtime: int, size: int) -> VideoInfo:
    with _opened(path) as container:
        video, audio = _best(container, "video"), _best(container, "audio")
        if video is None and audio is None:
            raise DataError(f"'{path}' holds neither picture nor sound.")
        starts = [float(s.start_time * s.time_base) for s in (video, audio) if s and s.start_time is not None]
        origin = min(starts, default=0.0)
        rows: dict[int, list[tuple[Any, ...]]] = {}
        for packet in _packets(container, *filter(None, (video, audio))):
            row = (packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.is_discard)
            rows.setdefault(packet.stream_index, []).append(row)
        track = _audio_track(audio, rows.get(audio.index, []), origin) if audio else None
        return _video_info(path, container, video, rows.get(video.index, []) if video else [], origin, track)


def _video_info(
    path: Path,
    container: InputContainer,
    video: Any,
    rows: list[tuple[Any, ...]],
    origin: float,
    audio: AudioTrack | None,
) -> VideoInfo:
    if video is None:
        empty = np.zeros(0, np.int64)
        return VideoInfo(path, empty, empty.reshape(0, 2), 0, Fraction(1), origin, 0, 0, False, audio)
    width, height = video.codec_context.width, video.codec_context.height
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(f"'{path}' claims frames of {width}x{height} pixels, more than can be decoded.")
    period = int(max((row[2] for row in rows), default=0)) or _period(video)
    shown = [row[0] for row in rows if not row[4]]
    seekable = _trustworthy(container, video, shown)
    pts = np.array(sorted(shown), np.int64) if seekable else _decoded_pts(path, period)
    keyed = sorted(
        (row[0], row[0] if row[1] is None else row[1]) for row in rows if row[3] and row[0] is not None
    )
    keys = np.array(keyed, np.int64).reshape(-1, 2)
    end = int(pts[-1]) + period if len(pts) else 0
    return VideoInfo(path, pts, keys, end, video.time_base, origin, width, height, seekable, audio)


def _trustworthy(container: InputContainer, video: Any, pts: list[int | None]) -> bool:
    """Whether sorted packet timestamps are those of the displayed frames, also after a seek.

    AVI holds none: what is derived for its B-frames, often two packed into one packet, names the wrong frame.
    A bare MPEG stream stamps only some frames, and a seek changes what is derived for the others.
    """
    if None in pts or len(set(pts)) < len(pts) or container.format.name == "mpeg":
        return False
    reordered = video.codec_context.has_b_frames or pts != sorted(pts)  # type: ignore[type-var]
    return container.format.name != "avi" or not reordered


def _period(video: Any) -> int:
    rate: Fraction = video.average_rate or video.guessed_rate or Fraction(25)
    return max(1, int(1 / (rate * video.time_base) + Fraction(1, 2)))


def _decoded_pts(path: Path, period: int) -> NDArray[np.int64]:
    """Timestamps of a file whose packets do not tell them: one full decode counts its frames."""
    with _opened(path) as container:
        video = _best(container, "video")
        pts = [frame.pts for frame in _decoded(video, _packets(container, video))]
    if None in pts or len(set(pts)) < len(pts):
        return np.arange(len(pts), dtype=np.int64) * period
    return np.array(sorted(pts), np.int64)


def _audio_track(audio: Any, rows: list[tuple[Any, ...]], origin: float) -> AudioTrack | None:
    stamped = [(row[0], row[0] + row[2]) for row in rows if row[0] is not None and not row[4]]
    if not stamped:
        return None
    start, end = min(low for low, _ in stamped), max(high for _, high in stamped)
    # What lies before 0 primes the decoder and is never heard.
    start_seconds = max(0.0, float(start * audio.time_base) - origin)
    return AudioTrack(start_seconds, float(end * audio.time_base) - origin, audio.codec_context.sample_rate)


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    try:
        # Only this file: a playlist that poses as a video must not make the machine open anything else.
        options = {"protocol_whitelist": "file"}
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"'{path}' is not a complete media file: {reason}.") from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise DataError(f"'{path}' cannot be decoded: {error.strerror}.") from error


def _best(container: InputContainer, kind: Literal["video", "audio"]) -> Any:
    """The stream a player would show; a cover picture is none."""
    stream = container.streams.best(kind)
    if stream is None or (kind == "video" and stream.disposition & Disposition.attached_pic):
        return None
    if stream.codec_context is None:
        raise DataError(f"The {kind} of '{container.name}' is in a format that cannot be decoded.")
    stream.codec_context.thread_count = THREADS
    return stream


def _packets(container: InputContainer, *streams: Any) -> Iterator[Any]:
    """Packets that hold data; a file that is cut off simply ends."""
    with suppress(av.FFmpegError):
        for packet in islice(container.demux(*streams), MAX_PACKETS):
            if packet.size:  # an empty one would tell the decoder that the file ends
                yield packet


def _decoded(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """Frames in presentation order; packets that cannot be decoded are passed over."""
    for packet in packets:
        with suppress(av.FFmpegError):
            yield from stream.decode(packet)
    with suppress(av.FFmpegError):
        yield from stream.decode(None)


def _frames_from(
    info: VideoInfo, first: int, short_side: int, *, seek: bool = True
) -> Iterator[tuple[int | None, NDArray[np.uint8]]]:
    """Timestamps and upright pictures of the frames from ``first`` on."""
    key = int(np.searchsorted(info.keys[:, 0], info.pts[first], side="right")) - 1
    to_image = _ToImage(short_side)
    if seek and info.seekable and key >= 0:
        with _opened(info.path) as container:
            frames = _sought(container, info, first, tuple(info.keys[key].tolist()))
            head = next(frames, None)
            if head is not None and head.pts == info.pts[first]:
                yield head.pts, to_image(head)
                yield from ((frame.pts, to_image(frame)) for frame in frames)
                return
    with _opened(info.path) as container:
        video = _best(container, "video")
        for frame in islice(_decoded(video, _packets(container, video)), first, None):
            yield frame.pts, to_image(frame)


def _sought(container: InputContainer, info: VideoInfo, first: int, key: tuple[int, int]) -> Iterator[Any]:
    """Frames from ``first`` on, decoded from one key frame; nothing if that frame is not found."""
    video = _best(container, "video")
    container.seek(key[1], stream=video)
    packets = dropwhile(lambda packet: packet.pts != key[0], _packets(container, video))
    for frame in _decoded(video, _skipping(video, packets, info.pts[first])):
        if frame.pts == key[0] and not frame.key_frame:
            return
        if frame.pts is not None and frame.pts >= info.pts[first]:
            yield frame


def _skipping(video: Any, packets: Iterator[Any], until: int) -> Iterator[Any]:
    """Tell the decoder to leave out frames before ``until`` that no other frame refers to."""
    codec = video.codec_context
    able = codec.name in _SKIPPING
    for packet in packets:
        if able:
            codec.skip_frame = "NONREF" if packet.pts < until else "DEFAULT"
        yield packet


class _ToImage:
    """Decoded frame to an upright [H, W, 3] uint8 array whose short side is at most ``short_side``."""

    def __init__(self, short_side: int) -> None:
        self.short_side = short_side
        self.reformatter = VideoReformatter()  # one for all frames: setting it up costs more than using it
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        if self.size is None:  # the first frame decides, should the size change within the file
            scale = min(1.0, self.short_side / min(frame.width, frame.height))
            self.size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        rgb = self.reformatter.reformat(frame, *self.size, format="rgb24", interpolation=Interpolation.AREA)
        return _upright(np.asarray(rgb.to_ndarray(), np.uint8), frame)


def _upright(image: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Turn and mirror as the display matrix says: x' = a x + c y, y' = b x + d y."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _clip(info: VideoInfo, images: list[NDArray[np.uint8]], first: int, count: int) -> Clip:
    frames = torch.from_numpy(np.stack(images))
    if len(images) < count:
        frames = frames[torch.arange(count) % len(images)]
    return Clip(frames, info.time(first), info.time(first + len(images)))


def _samples(info: VideoInfo, low: float, high: float) -> tuple[NDArray[np.float32], int]:
    """Mono samples of [low, high) seconds at the track's own rate, placed by their timestamps."""
    assert info.audio is not None
    with _opened(info.path) as container:
        audio = _best(container, "audio")
        if low - info.audio.start > 10 * _PREROLL and _seeks_exactly(container):
            container.seek(int((low - _PREROLL + info.origin) / audio.time_base), stream=audio)
        native, mono, cursor = 0, np.zeros(0, np.float32), 0
        for frame in _decoded(audio, _packets(container, audio)):
            if not native:
                native = frame.sample_rate
                mono = np.zeros(round((high - low) * native), np.float32)
            sound = _mono(frame)
            stamped = round((frame.time - info.origin - low) * native) if frame.pts is not None else cursor
            at = cursor if abs(stamped - cursor) < _JITTER * native and cursor else stamped
            if at >= len(mono):
                break
            begin, cursor = max(at, 0), at + len(sound)
            if cursor > begin:
                part = sound[begin - at : len(mono) - at]
                mono[begin : begin + len(part)] = part
    if not native:
        raise DataError(f"The audio track of '{info.path}' cannot be decoded.")
    return mono, native


def _seeks_exactly(container: InputContainer) -> bool:
    """Containers with an index; in a bare MP3 or MPEG stream a seek lands at an estimate."""
    return any(name in container.format.name.split(",") for name in ("mp4", "matroska", "wav", "ogg"))


def _mono(frame: Any) -> NDArray[np.float32]:
    """[n] float32, the mean of all channels."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float32) / 128 - 1
    elif samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.mean(axis=0, dtype=np.float32)  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def _resampler(native: int, rate: int) -> Any:
    from torchaudio.transforms import Resample

    return Resample(native, rate)
