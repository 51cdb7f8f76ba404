"""Mono sound from video and sound files, on the same clock as the frames."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ccl_cli.data.video.container import SILENCE
from ccl_cli.data.video.reader import VideoReader, open_video
from ccl_cli.data.video.storage import Location

_FILTER = 2**20  # weights of a resampling filter, at most about so many
_SHORT = 1.5  # seconds of a track that stays decoded: opening a file again takes longer than decoding these
_SHORT_TRACKS = 256


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
    reader = open_video(path)
    track = reader.metadata.audio
    if track is None:
        return Sound(None, "no track")
    low = track.start if start is None else max(track.start, start)
    high = track.end if end is None else min(track.end, end)
    whole = high - low <= seconds
    if not whole:
        low = min(max(centre - seconds / 2, low), high - seconds)
        high = low + seconds
    if high <= low:
        return Sound(torch.zeros(0), "silent")
    short = track.end - track.start <= _SHORT
    samples = _short(reader, low, high, rate).clone() if short else _resampled(reader, low, high, rate)
    return Sound(samples, "present" if bool((samples.abs() >= SILENCE).any()) else "silent", whole)


@lru_cache(maxsize=_SHORT_TRACKS)
def _short(reader: VideoReader, low: float, high: float, rate: int) -> Tensor:
    return _resampled(reader, low, high, rate)


def _resampled(reader: VideoReader, low: float, high: float, rate: int) -> Tensor:
    mono, native = reader.audio(low, high)
    samples: Tensor = _resampler(native, rate)(torch.from_numpy(mono))
    return samples[: math.ceil((high - low) * rate - 1e-3)].nan_to_num_(0.0).clamp_(-1, 1)


@lru_cache(maxsize=16)
def _resampler(native: int, rate: int) -> Any:
    from torchaudio.transforms import Resample

    # The filter has numerator x denominator weights, gigabytes for 8001 Hz. Usual rates have large factors in
    # common and are exact; an odd one is rounded: pitch and length change by less than a thousandth.
    ratio = Fraction(rate, native)
    ratio = ratio.limit_denominator(math.ceil(math.sqrt(_FILTER / ratio)))
    return Resample(ratio.denominator, ratio.numerator)
