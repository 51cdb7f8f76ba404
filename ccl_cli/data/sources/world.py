"""Pictures and sounds of the synthetic data set: handwritten digits that move over clutter, and sound events.

Pictures and sounds have separate random numbers, so that the pictures do not depend on the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32 wherever it matters
Event = Callable[[Floats, Floats, np.random.Generator], Any]
Motion = Callable[[Floats, float], tuple[Any, Any, Any]]

RATE = 16_000  # samples per second
# Strengths at noise 1 of camera shake (share of the frame), clutter, distractors and grain.
_SHAKE, _CLUTTER, _DISTRACTOR, _GRAIN = 0.003, 0.01, 0.0875, 0.00375
# Shares of the frame: side of a digit's square, extent of a motion, largest distance of a digit from the
# centre.
_SIDE, _REACH, _ROOM = 0.56, 0.17, 0.24
_SHUFFLE = 4  # seed of the partition of the digits, the same in all data sets so that parts are disjoint
# Parts of each digit's images, in tenths. They are disjoint.
PARTS = {"teacher-train": (0, 4), "teacher-test": (4, 5), "train": (5, 7), "val": (7, 8), "test": (8, 10)}
# Time from -0.5 to 0.5 and a phase in radians to rows and columns, in reaches, and to the digit's scale.
_TURN = 2 * np.pi
MOTIONS: Mapping[str, Motion] = {
    "right": lambda t, phase: (0 * t, t, 1.0),
    "left": lambda t, phase: (0 * t, -t, 1.0),
    "down": lambda t, phase: (t, 0 * t, 1.0),
    "up": lambda t, phase: (-t, 0 * t, 1.0),
    "down-right": lambda t, phase: (0.75 * t, 0.75 * t, 1.0),
    "up-right": lambda t, phase: (-0.75 * t, 0.75 * t, 1.0),
    "clockwise": lambda t, phase: (0.6 * np.sin(_TURN * t + phase), 0.6 * np.cos(_TURN * t + phase), 1.0),
    "counterclockwise": lambda t, phase: (
        -0.6 * np.sin(_TURN * t + phase),
        0.6 * np.cos(_TURN * t + phase),
        1.0,
    ),
    "grow": lambda t, phase: (0 * t, 0 * t, 1.025 + 0.55 * t),
    "shrink": lambda t, phase: (0 * t, 0 * t, 1.025 - 0.55 * t),
    "shake": lambda t, phase: (0 * t, 0.5 * np.sin(2 * _TURN * t + phase), 1.0),
    "nod": lambda t, phase: (0.5 * np.sin(2 * _TURN * t + phase), 0 * t, 1.0),
}


@cache
def digits(part: str) -> tuple[Floats, ...]:
    """Images of 0 to 9, [n, 8, 8] in [0, 1]: one of ``PARTS`` of scikit-learn's digits (UCI)."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    low, high = PARTS[part]
    images = (data.images / 16).astype(np.float32)
    order = np.random.default_rng(_SHUFFLE).permutation(len(images))
    of_digit = (order[data.target[order] == digit] for digit in range(10))
    return tuple(images[rows[len(rows) * low // 10 : len(rows) * high // 10]] for rows in of_digit)


def render(
    digit: int,
    motion: str,
    images: Sequence[Floats],
    *,
    times: Floats,
    size: int,
    noise: float,
    distractors: int,
    jitter: float,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Draw one clip: a digit that moves, fainter other digits, and clutter behind, seen by a shaky camera.

    Args:
        digit: The digit that moves.
        motion: One of ``MOTIONS``.
        images: Images by digit, see :func:`digits`.
        times: [T] times to draw, from -0.5 (start of the motion) to 0.5 (end).
        size: Height and width S, pixels.
        noise: Strength of distractors, clutter, camera shake and grain; 0: none of them.
        distractors: Number of fainter other digits, each with its own motion.
        jitter: Standard deviation of the digit's place around its path, as a share of the frame.
        rng: Source of all random choices.

    Returns:
        [T, S, S, 3] pixels.
    """
    shake = (_SHAKE * noise * rng.standard_normal((2, len(times), 1))).astype(np.float32)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size + shake  # [2, T, S] rows and columns, in frames
    picture = _clutter(grid, noise, rng)
    others = [other for other in range(10) if other != digit]
    for _ in range(distractors):
        drawn = images[int(rng.choice(others))]
        path = _path(str(rng.choice(list(MOTIONS))), times, 0.0, rng)
        opacity = _DISTRACTOR * noise * rng.uniform(0.6, 1.0)
        _paint(picture, grid, drawn, path, min(opacity, 1.0), rng)
    path = _path(motion, times, jitter, rng)
    _paint(picture, grid, images[digit], path, rng.uniform(0.75, 1.0), rng)
    picture += _GRAIN * noise * rng.standard_normal(picture.shape, np.float32)
    pixels: NDArray[np.uint8] = (255 * picture.clip(0, 1)).round().astype(np.uint8)
    return pixels


def play(event: str | None, *, seconds: float, noise: float, rng: np.random.Generator) -> Floats:
    """Mono sound at ``RATE``: one event of random pitch, time and loudness in a noisy room; None: silence.

    Args:
        event: One of ``EVENTS``, or None.
        seconds: Length.
        noise: Strength of the background; 0: none.
        rng: Source of all random choices.
    """
    time = np.arange(round(seconds * RATE), dtype=np.float32) / RATE
    if event is None:
        return np.zeros_like(time)
    begin, length = seconds * rng.uniform(0, 0.4), seconds * rng.uniform(0.4, 0.6)
    since = time - np.float32(begin)
    pitch = np.full_like(time, 300 * 4 ** rng.random())
    sound = EVENTS[event](since / np.float32(length), pitch, rng)
    audible = (since >= 0) & (since < length)
    loudness = rng.uniform(0.1, 0.4) / max(float(np.abs(sound[audible]).max()), 1e-6)
    room = noise * rng.uniform(0.01, 0.03) * rng.standard_normal(len(time), np.float32)
    samples: Floats = (loudness * sound * audible + room).clip(-1, 1).astype(np.float32)
    return samples


# -- pictures


def _clutter(grid: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """[T, S, S, 3]: coarse and fine random colours around a grey of random brightness."""
    colours = np.full((1, 1, 3), rng.uniform(0.25, 0.5), np.float32)
    picture = np.broadcast_to(colours, (grid.shape[1], grid.shape[2], grid.shape[2], 3)).copy()
    for cells in (5, 14):
        texture = rng.standard_normal((3, cells + 4, cells + 4), np.float32)
        drawn = _sample(texture, 2 + grid * cells)
        picture += noise * _CLUTTER * drawn.transpose(1, 2, 3, 0)
    return picture


def _path(motion: str, times: Floats, jitter: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """[2, T] rows and columns of a digit's centre, as shares of the frame; [T] factor on its side."""
    rows, columns, scale = MOTIONS[motion](times, rng.uniform(0, _TURN))
    offset = _REACH * rng.uniform(0.8, 1.3) * np.stack([rows, columns])
    offset += jitter * rng.standard_normal(offset.shape)
    slack = np.maximum(_ROOM - np.abs(offset).max(axis=1, keepdims=True), 0.02)
    centre = 0.5 + slack * rng.uniform(-1, 1, (2, 1)) + offset
    return centre.astype(np.float32), np.broadcast_to(np.float32(scale), times.shape)


def _paint(
    picture: Floats,
    grid: Floats,
    images: Floats,
    path: tuple[Floats, Floats],
    opacity: float,
    rng: np.random.Generator,
) -> None:
    """Paint one of a digit's images over the picture, in a random bright colour."""
    centre, scale = path
    image = images[rng.integers(len(images))]
    side = np.float32(_SIDE * rng.uniform(0.9, 1.1)) * scale[:, None]
    cells = 3.5 + (grid - centre[:, :, None]) * 8 / side
    ink = (opacity * _sample(image[None], cells))[0, ..., None].clip(0, 1)
    colour = rng.uniform(0.65, 1.0, 3).astype(np.float32)
    picture += ink * (colour - picture)


def _sample(texture: Floats, places: Floats) -> Floats:
    """Sample ``[C, h, w]`` bilinearly at rows and columns ``[2, T, S]`` to ``[C, T, S, S]``; zero outside."""
    rows, columns = (_weights(at, side) for at, side in zip(places, texture.shape[1:], strict=True))
    sampled: Floats = rows @ texture[:, None] @ columns.swapaxes(1, 2)
    return sampled


def _weights(places: Floats, cells: int) -> Floats:
    """[T, S, cells]: bilinear weight of each cell at each place."""
    weights: Floats = (1 - np.abs(places[..., None] - np.arange(cells, dtype=np.float32))).clip(0)
    return weights


# -- sounds: each takes the time since its beginning in shares of its length, [n] Hz, and random numbers


def _tone(hertz: Floats) -> Floats:
    phase = np.cumsum(hertz, dtype=np.float64) / RATE
    wave: Floats = np.sin(2 * np.pi * phase).astype(np.float32)
    return wave


def _buzz(hertz: Floats) -> Floats:
    phase = np.cumsum(hertz / 4, dtype=np.float64) / RATE
    wave: Floats = (2 * (phase % 1) - 1).astype(np.float32)
    return wave


def _hiss(time: Floats, rng: np.random.Generator) -> Floats:
    return rng.standard_normal(len(time), np.float32)


def _rumble(time: Floats, rng: np.random.Generator) -> Floats:
    sums = np.cumsum(rng.standard_normal(len(time), np.float32))
    wave: Floats = (sums[64:] - sums[:-64]).astype(np.float32)
    return np.pad(wave, (32, 32))


def _pulse(time: Floats, beats: float, duty: float) -> Floats:
    on: Floats = ((time * beats) % 1 < duty).astype(np.float32)
    return on


EVENTS: Mapping[str, Event] = {
    "tone": lambda time, hertz, rng: _tone(hertz),
    "rise": lambda time, hertz, rng: _tone(hertz * 3 ** time.clip(0, 1)),
    "fall": lambda time, hertz, rng: _tone(hertz * 3 ** (1 - time.clip(0, 1))),
    "siren": lambda time, hertz, rng: _tone(hertz * (1 + 0.4 * np.sin(2 * np.pi * 4 * time))),
    "trill": lambda time, hertz, rng: _tone(hertz * (1 + 0.5 * _pulse(time, 5, 0.5))),
    "beeps": lambda time, hertz, rng: _tone(hertz) * _pulse(time, 5, 0.5),
    "bell": lambda time, hertz, rng: (
        np.exp(-6 * time.clip(0)) * sum(_tone(hertz * ratio) for ratio in (1, 2.76, 5.4))
    ),
    "buzz": lambda time, hertz, rng: _buzz(hertz),
    "hiss": lambda time, hertz, rng: _hiss(time, rng),
    "bursts": lambda time, hertz, rng: _hiss(time, rng) * _pulse(time, 5, 0.4),
    "ticks": lambda time, hertz, rng: _hiss(time, rng) * _pulse(time, 12, 0.04),
    "rumble": lambda time, hertz, rng: _rumble(time, rng),
}
