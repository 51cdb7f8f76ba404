"""Examination of one video file: its metadata and sound, all frames, or its bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av

from ccl_cli.data.video.container import SILENCE, best_stream, channels, decoded, open_container, packets_of
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.data.video.reader import open_video
from ccl_cli.errors import DataError

SoundState = Literal["present", "silent", "no track"]
_WHOLE = 0.9  # share of the duration in its header that a file must have, because headers round
_SHORTEST_CUT = 0.5  # seconds


class Subject(NamedTuple):
    """A file, or a segment of one: its start and end in seconds; None: those of the file."""

    path: str
    start: float | None = None
    end: float | None = None


class Inspection(NamedTuple):
    """Metadata and faults of a subject.

    Attributes:
        fault: Reason why it cannot be read, or None.
        damage: Reason why it is incomplete although it can be read, or None.
        frames: Number of frames.
        seconds: Duration.
        width: Width of a stored frame, pixels.
        height: Height of a stored frame, pixels.
        sound: "silent" if no sample of any channel reaches 1e-4.
    """

    fault: str | None = None
    damage: str | None = None
    frames: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    sound: SoundState = "no track"

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else 0.0


def inspect(subject: Subject) -> Inspection:
    """Read the metadata of a video, and decode its sound up to the first sample that is not silent.

    Raises:
        DataError: the disk cannot be read, which is not a fault of the file.
    """
    try:
        info = open_video(Path(subject.path)).metadata
        first, count = info.frame_range(subject.start, subject.end)
        sound = _sound(info, subject)
    except DataError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return Inspection(error.message.replace(f"'{subject.path}'", "it").rstrip("."))
    seconds = info.time(first + count) - info.time(first)
    return Inspection(None, _cut_off(info), count, round(seconds, 4), info.width, info.height, sound)


def decode(subject: Subject) -> str | None:
    """Decode all frames and all sound of a file; describe the damage, or return None.

    Raises:
        DataError: the file cannot be opened.
    """
    damaged: Counter[str] = Counter()
    with open_container(Path(subject.path)) as container:
        streams = [each for kind in ("video", "audio") if (each := best_stream(container, kind))]
        if not streams:
            return "it holds neither picture nor sound"
        try:
            for packet in container.demux(*streams):
                damaged[packet.stream.type] += _damaged(packet)
        except av.FFmpegError as error:
            return f"it ends early: {error.strerror}"
        except IndexError:  # see packets_of
            return "a further stream begins in its middle"
    return ", ".join(f"damaged {kind} packets: {count}" for kind, count in damaged.items() if count) or None


def digest(subject: Subject) -> str:
    """Hash of the bytes of a file; 32 hex digits."""
    with Path(subject.path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _damaged(packet: Any) -> bool:
    try:
        frames = packet.decode()
    except av.FFmpegError:
        return True
    return packet.is_corrupt or any(frame.is_corrupt for frame in frames)


def _cut_off(info: VideoMetadata) -> str | None:
    end = max(info.time(info.frames), info.audio.end if info.audio else 0.0)
    expected = info.header_seconds
    if end >= min(_WHOLE * expected, expected - _SHORTEST_CUT):
        return None
    return f"it ends after {end:.1f} of {expected:.1f} s"


def _sound(info: VideoMetadata, subject: Subject) -> SoundState:
    if info.audio is None:
        return "no track"
    start, end = info.audio.within(subject.start, subject.end)
    state: SoundState | None = None
    with open_container(info.path) as container:
        audio = best_stream(container, "audio")
        for frame in decoded(audio, packets_of(container, audio)):
            state = "silent"
            at = start if frame.pts is None else frame.time - info.origin
            if at >= end:
                break
            if at + frame.samples / frame.sample_rate > start and abs(channels(frame)).max() >= SILENCE:
                return "present"
    if state is None:
        raise DataError(f"The sound track of '{info.path}' cannot be decoded.")
    return state
