"""Decoding of the sound of media files. Each packet is placed by its timestamp."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccl_cli.data.video.container import SILENCE, best_stream, channels, decoded, open_container, packets_of
from ccl_cli.data.video.metadata import AudioTrack
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

MAX_SAMPLES = 2**29  # three hours at 48 kHz; a damaged timestamp can claim any length
MAX_RATE = 768_000  # Hz; a damaged header can claim any rate
_PREROLL = 1.0  # seconds decoded before the requested time, because packets overlap
_WORTH_SEEKING = 10.0  # seconds
_CANCELLED = 0.01  # share of the loudest channel's energy (-20 dB) below which the mean has lost the sound
_CHANNELS = 64  # channels of a track that are compared
_JITTER = 0.05  # seconds that a packet's timestamp may be off before it counts as a gap


def decode_audio(
    path: Path, track: AudioTrack, origin: float, low: float, high: float
) -> tuple[NDArray[np.float32], int]:
    """Decode a track from ``low`` to ``high`` (seconds): mono samples [n], and their rate in Hz.

    The result is the mean of the channels, or the loudest channel if the channels cancel each other.
    ``origin`` is the timestamp of second 0 of the file's clock, in seconds.

    Raises:
        DataError: the track cannot be decoded, or its header claims an impossible length or rate.
    """
    mean, energies, native = _placed(path, track, origin, low, high, None)
    loudest = energies[1:].max()
    inaudible = max(mean.max(initial=0.0), -mean.min(initial=0.0)) < SILENCE
    if (inaudible and loudest >= SILENCE**2) or energies[0] < _CANCELLED * loudest:  # the channels cancel
        mean, _, _ = _placed(path, track, origin, low, high, int(energies[1:].argmax()))
    return mean, native


def _placed(
    path: Path, track: AudioTrack, origin: float, low: float, high: float, channel: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float64], int]:
    """Samples [n] of a channel (None: the mean); energies [1 + 64] of the result and each channel; rate."""
    with open_container(path) as container:
        audio = best_stream(container, "audio")
        if low - track.start > _WORTH_SEEKING and _seeks_exactly(container):
            container.seek(int((low - _PREROLL + origin) / audio.time_base), stream=audio)
        native, samples, cursor = 0, np.zeros(0, np.float32), None
        energies = np.zeros(1 + _CHANNELS)
        for frame in decoded(audio, packets_of(container, audio)):
            if not native:
                native, count = frame.sample_rate, (high - low) * frame.sample_rate
                if native > MAX_RATE or count > MAX_SAMPLES:
                    raise DataError(f"'{path}' claims {count:.0f} samples of sound at {native} Hz: too many.")
                samples = np.zeros(math.ceil(count), np.float32)
            at = _place(frame, native, origin + low, cursor)
            if at >= len(samples):
                break
            part, begin = channels(frame), max(at, 0)
            cursor = at + part.shape[1]
            part = part[:, begin - at : len(samples) - at]
            if channel is None:
                mixed = part.mean(axis=0, dtype=np.float32)
            else:  # the number of channels may change within a track
                mixed = part[min(channel, len(part) - 1)]
            every = np.vstack([mixed, part])[: len(energies)]
            energies[: len(every)] += np.square(every, dtype=np.float64).sum(axis=1)
            samples[begin : begin + len(mixed)] = mixed
    if not native:
        raise DataError(f"The sound track of '{path}' cannot be decoded.")
    return samples, energies, native


def _place(frame: Any, rate: int, zero: float, cursor: int | None) -> int:
    """Index of a frame's first sample: the end of the previous frame, unless timestamps show a gap."""
    if frame.pts is None:
        return cursor or 0
    stamped = round((frame.time - zero) * rate)
    return cursor if cursor is not None and abs(stamped - cursor) < _JITTER * rate else stamped


def _seeks_exactly(container: InputContainer) -> bool:
    """Whether the container has an index. In a bare MP3 or MPEG stream, a seek is only an estimate."""
    return not {"mp4", "matroska", "wav", "ogg"}.isdisjoint(container.format.name.split(","))
