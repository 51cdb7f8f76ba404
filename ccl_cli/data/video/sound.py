"""Mono sound from video and sound files, on the same clock as the frames."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ccl_cli.data.video.container import SILENCE
from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.reader import VideoReader, open_video
from ccl_cli.data.video.storage import Location

_FILTER = 2**20  # about the largest number of weights of a resampling filter
_SHORT = 1.5  # seconds; shorter tracks stay decoded, since opening a file takes longer than decoding them
_SHORT_TRACKS = 256


class Sound(NamedTuple):
    """A part of a sound track, mono.

    Attributes:
        samples: [n] float32 in [-1, 1], or None if there is no track.
        state: "silent" if no sample of any channel reaches 1e-4.
        whole: Whether this is the whole track, independent of the centre.
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
    """Read mono sound around a time, moved to lie within the track. A shorter track is returned whole.

    Channels are averaged. If they cancel each other, as in a stereo track in antiphase, the channel with the
    most energy is returned: if the mean has less than a hundredth of this energy, or is silent.

    The latest 256 results from tracks of at most 1.5 s are cached in each process, at most 49 MB at 32 kHz.

    Args:
        path: Video or sound file, or place in a shard.
        centre: Middle of the interval, seconds on the file's clock.
        seconds: Length of the interval.
        rate: Sampling rate of the result, Hz.
        start: Start of the video's segment, seconds; None: the track's start.
        end: End of the segment; None: the track's end.

    Raises:
        DataError: the file is unreadable, or its sound track cannot be decoded.
    """
    reader = open_video(path)
    track = reader.metadata.audio
    if track is None:
        return Sound(None, "no track")
    low, high = track.within(start, end)
    whole = high - low <= seconds
    if not whole:
        low = min(max(centre - seconds / 2, low), high - seconds)
        high = low + seconds
    if high <= low:
        return Sound(torch.zeros(0), "silent")
    with blaming_video(path):
        if track.end - track.start <= _SHORT:
            samples = _short(reader, low, high, rate).clone()
        else:
            samples = _resampled(reader, low, high, rate)
    return Sound(samples, "present" if bool((samples.abs() >= SILENCE).any()) else "silent", whole)


def _resampled(reader: VideoReader, low: float, high: float, rate: int) -> Tensor:
    mono, native = reader.audio(low, high)
    samples: Tensor = _resampler(native, rate)(torch.from_numpy(mono))
    return samples[: math.ceil((high - low) * rate - 1e-3)].nan_to_num_(0.0).clamp_(-1, 1)


_short = lru_cache(maxsize=_SHORT_TRACKS)(_resampled)


@lru_cache(maxsize=16)
def _resampler(native: int, rate: int) -> Any:
    from torchaudio.transforms import Resample

    # The filter has numerator x denominator weights, gigabytes for 8001 Hz. Usual rates have large common
    # factors and are exact; an odd rate is rounded, which changes pitch and length by less than a thousandth.
    ratio = Fraction(rate, native)
    ratio = ratio.limit_denominator(math.ceil(math.sqrt(_FILTER / ratio)))
    return Resample(ratio.denominator, ratio.numerator)
