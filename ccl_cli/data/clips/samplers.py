"""Which frames of a video make up a clip: a random place in training, else the centre or evenly spread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (frames available, frames of a clip, random numbers) -> (first frame, number of frames), all consecutive.
ClipSampler = Callable[[int, int, np.random.Generator], tuple[int, int]]


def random_clip(available: int, length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Consecutive frames from a random place on (CCL, section 4)."""
    return int(rng.integers(0, clip_places(available, length))), min(length, available)


def centre_clip(available: int, length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Consecutive frames around the centre."""
    count = min(length, available)
    return (available - count) // 2, count


def single_frame(part: int, parts: int) -> ClipSampler:
    """The frame in the centre of the ``part``-th of ``parts`` equal parts of a video."""
    return lambda available, length, rng: ((2 * part + 1) * available // (2 * parts), 1)


def spread_clip(part: int, parts: int) -> ClipSampler:
    """The ``part``-th of ``parts`` clips that are spread evenly from end to end; of one, the centre."""

    def sample(available: int, length: int, rng: np.random.Generator) -> tuple[int, int]:
        last = clip_places(available, length) - 1
        return last // 2 if parts == 1 else part * last // (parts - 1), min(length, available)

    return sample


def clip_places(available: int, length: int) -> int:
    """At how many frames a clip may begin; a video that is not longer than a clip has one."""
    return max(available - length, 0) + 1
