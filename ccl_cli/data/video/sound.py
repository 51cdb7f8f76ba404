"""Mono sound from video and sound files, on the same clock as the frames."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ccl_cli.data.video import packed
from ccl_cli.data.video.media import SILENCE, best_stream, channels, decoded, index_media, opened, packets_of
from ccl_cli.data.video.metadata import AudioTrack, VideoInfo
from ccl_cli.data.video.storage import Location, Packed
from ccl_cli.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

MAX_SAMPLES = 2**29  # three hours at 48 kHz; a damaged timestamp can claim any length
MAX_RATE = 768_000  # Hz; a damaged header can claim any rate
_FILTER = 2**20  # weights of a resampling filter, at most about so many
_PREROLL = 1.0  # seconds decoded before the stretch, so that overlapping packets have settled
_WORTH_SEEKING = 10.0  # seconds
_SHORT = 1.5  # seconds of a track that stays decoded: opening a file again takes longer than decoding these
_KEPT = 256
_CANCELLED = 0.01  # of the loudest channel's energy: a mean with less than that (-20 dB) has lost the sound
_CHANNELS = 64  # of a track, that may be the loudest one
_JITTER = 0.05  # seconds that a packet's timestamp may be off before it counts as a gap


class Sound(NamedTuple):
    """A stretch of mono sound.

    Attributes:
        samples: [n] float32 in [-1, 1], or None where there is no track.
        state: "silent" when no sample of any channel reaches 1e-4.
        whole: Whether it is all there is, wherever the centre was.
    """

    samples: Tensor | None
    state: Literal["present", "silent", "no track"]
    whole: bool = True


def read_audio(
    path: Location,
    *,
    centre: float,
    seconds: float,
    rate: int,
    start: float | None = None,
    end: float | None = None,
) -> Sound:
    """Read mono sound around a time, clamped to the track: a shorter track is returned whole.

    Channels are averaged. Where they cancel each other, as those of a stereo track in antiphase do, the one
    with the most energy is returned: where the mean has less than a hundredth of that, or would be silence.

    What is read of tracks of at most 1.5 s stays decoded, the latest 256 stretches in each process: at most
    49 MB at 32 kHz.

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
    info = index_media(path)
    if info.audio is None:
        return Sound(None, "no track")
    short = info.audio.end - info.audio.start <= _SHORT
    low = info.audio.start if start is None else max(info.audio.start, start)
    high = info.audio.end if end is None else min(info.audio.end, end)
    whole = high - low <= seconds
    if not whole:
        low = min(max(centre - seconds / 2, low), high - seconds)
        high = low + seconds
    if high <= low:
        return Sound(torch.zeros(0), "silent")
    samples = _short(info, low, high, rate).clone() if short else _resampled(info, low, high, rate)
    return Sound(samples, "present" if bool((samples.abs() >= SILENCE).any()) else "silent", whole)


@lru_cache(maxsize=_KEPT)
def _short(info: VideoInfo, low: float, high: float, rate: int) -> Tensor:
    return _resampled(info, low, high, rate)


def _resampled(info: VideoInfo, low: float, high: float, rate: int) -> Tensor:
    assert info.audio
    if isinstance(info.path, Packed):
        heard, native = packed.mono_between(info.path, info.audio, low, high)
    else:
        heard, native = _mono_between(info.path, info.audio, info.origin, low, high)
    samples: Tensor = _resampler(native, rate)(torch.from_numpy(heard))
    return samples[: math.ceil((high - low) * rate - 1e-3)].nan_to_num_(0.0).clamp_(-1, 1)


def _mono_between(
    path: Path, track: AudioTrack, origin: float, low: float, high: float
) -> tuple[NDArray[np.float32], int]:
    """Samples of [low, high) seconds at the track's own rate: the channels' mean, or the loudest channel."""
    mean, energies, native = _placed(path, track, origin, low, high, None)
    energy, each = energies[0], energies[1:]
    loudest = each.max()
    silence = max(mean.max(initial=0.0), -mean.min(initial=0.0)) < SILENCE and loudest >= SILENCE**2
    if silence or energy < _CANCELLED * loudest:
        mean, _, _ = _placed(path, track, origin, low, high, int(each.argmax()))
    return mean, native


def _placed(
    path: Path, track: AudioTrack, origin: float, low: float, high: float, channel: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float64], int]:
    """Samples of a channel (None: of their mean), each packet placed by its timestamp.

    Also the energy of what is returned and of each channel, [1 + 64], and the rate.
    """
    with opened(path) as container:
        audio = best_stream(container, "audio")
        if low - track.start > _WORTH_SEEKING and _seeks_exactly(container):
            container.seek(int((low - _PREROLL + origin) / audio.time_base), stream=audio)
        native, samples, cursor = 0, np.zeros(0, np.float32), None
        energies = np.zeros(1 + _CHANNELS)
        for frame in decoded(audio, packets_of(container, audio)):
            if not native:
                native = frame.sample_rate
                samples = _silence(path, high - low, native)
            at = _place(frame, native, origin + low, cursor)
            if at >= len(samples):
                break
            part, begin = channels(frame), max(at, 0)
            cursor = at + part.shape[1]
            part = part[:, begin - at : len(samples) - at]
            # A frame may have fewer channels than others of its track.
            mixed = part.mean(axis=0, dtype=np.float32)
            if channel is not None:
                mixed = part[min(channel, len(part) - 1)]
            every = np.vstack([mixed, part])[: len(energies)]
            energies[: len(every)] += np.square(every, dtype=np.float64).sum(axis=1)
            samples[begin : begin + len(mixed)] = mixed
    if not native:
        raise DataError(f"The sound track of '{path}' cannot be decoded.")
    return samples, energies, native


def _silence(path: Path, seconds: float, rate: int) -> NDArray[np.float32]:
    samples = seconds * rate
    if rate > MAX_RATE or samples > MAX_SAMPLES:
        raise DataError(
            f"'{path}' claims {samples:.0f} samples of sound at {rate} Hz, more than can be decoded."
        )
    return np.zeros(math.ceil(samples), np.float32)


def _place(frame: Any, rate: int, zero: float, cursor: int | None) -> int:
    """Index of a frame's first sample: where the one before it ended, unless the timestamps tell of a gap."""
    if frame.pts is None:
        return cursor or 0
    stamped = round((frame.time - zero) * rate)
    return cursor if cursor is not None and abs(stamped - cursor) < _JITTER * rate else stamped


def _seeks_exactly(container: InputContainer) -> bool:
    """Containers with an index; in a bare MP3 or MPEG stream a seek lands at an estimate."""
    return not {"mp4", "matroska", "wav", "ogg"}.isdisjoint(container.format.name.split(","))


@lru_cache(maxsize=16)
def _resampler(native: int, rate: int) -> Any:
    from torchaudio.transforms import Resample

    # The filter has numerator x denominator weights: gigabytes for 8001 Hz. What rates have in common makes
    # it exact for all usual ones; of the others pitch and length change by less than a thousandth.
    ratio = Fraction(rate, native)
    ratio = ratio.limit_denominator(math.ceil(math.sqrt(_FILTER / ratio)))
    return Resample(ratio.denominator, ratio.numerator)
