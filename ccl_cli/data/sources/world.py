"""Pictures and sounds of the synthetic data set: handwritten digits that move over clutter, and sound events.

Pictures and sounds have separate random numbers, so that the pictures do not depend on the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32 wherever it matters
Event = Callable[[Floats, Floats, np.random.Generator], Any]
Motion = Callable[[Floats, float], tuple[Any, Any, Any]]

Labels = Literal["actions", "objects", "sounds"]

FPS, RATE = 8, 16_000  # frames and samples per second
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


# Neighbours are in one group. In this order, groups of any size contain dissimilar digits and motions.
_DIGITS = (0, 4, 7, 3, 9, 1, 5, 8, 2, 6)
_MOTIONS = (
    *("right", "down", "clockwise", "nod"),
    *("left", "grow", "up-right", "shake"),
    *("up", "shrink", "counterclockwise", "down-right"),
)


@dataclass(frozen=True)
class World:
    """Everything that decides the clips; the fields are the options of the source ``synthetic``."""

    labels: Labels
    object_groups: int
    motion_groups: int
    clips: int
    val_clips: int
    test_clips: int
    correspondence: float
    silent: float
    trackless: float
    noise: float
    distractors: int
    jitter: float
    size: int
    frames: int
    seed: int

    @property
    def groups(self) -> tuple[list[list[int]], list[list[str]]]:
        """The digits of each group of objects, and the motions of each group of motions."""
        digits = np.array_split(_DIGITS, self.object_groups)
        motions = np.array_split(_MOTIONS, self.motion_groups)
        return [group.tolist() for group in digits], [group.tolist() for group in motions]

    def own_event_probability(self, action: int) -> float:
        """Probability that a clip of this action is assigned the event of its motion."""
        third = sum(divmod(action, self.motion_groups)) % 3  # each group of motions is in each third
        slack = min(self.correspondence, 1 - self.correspondence)
        return self.correspondence + (1 - third) * slack

    def names(self) -> tuple[str, ...]:
        """Class names, in the order of the labels in this module."""
        if self.labels == "actions":
            kinds = ("".join(map(str, sorted(digits))) for digits in self.groups[0])
            return tuple(
                f"{kind}-motion{number}" for kind in kinds for number in range(1, self.motion_groups + 1)
            )
        return tuple(str(digit) for digit in range(10)) if self.labels == "objects" else tuple(EVENTS)

    def subject(self, name: ClipName) -> tuple[int, str]:
        """Digit and motion of an action's clip; all pairs are equally frequent."""
        kind, group = divmod(name.label, self.motion_groups)
        digits, motions = self.groups[0][kind], self.groups[1][group]
        turn, digit = divmod(name.number, len(digits))
        return digits[digit], motions[turn % len(motions)]

    def clips_by_path(self) -> Iterator[tuple[str, ClipName]]:
        """All clips, each with the path of its file below the folder of the data set."""
        counts = {"train": self.clips, "val": self.val_clips, "test": self.test_clips}
        for split, count in counts.items():
            for label, name in enumerate(self.names()):
                for number in range(count):
                    yield f"{split}/{name}/{name}_{number:03}.mp4", ClipName(split, label, number)


class ClipName(NamedTuple):
    """A clip: its split, its class, and its number in both."""

    split: str
    label: int
    number: int


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
    world: World, digit: int, motion: str, images: Sequence[Floats], times: Floats, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw one clip: a digit that moves, fainter other digits, and clutter behind, seen by a shaky camera.

    Args:
        world: Its size S and noise, the number of fainter digits, and the jitter of the digit.
        digit: The digit that moves.
        motion: One of ``MOTIONS``.
        images: Images by digit, see :func:`digits`.
        times: [T] times to draw, from -0.5 (start of the motion) to 0.5 (end).
        rng: Source of all random choices.

    Returns:
        [T, S, S, 3] pixels.
    """
    noise, size = world.noise, world.size
    shake = (_SHAKE * noise * rng.standard_normal((2, len(times), 1))).astype(np.float32)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size + shake  # [2, T, S] rows and columns, in frames
    picture = _clutter(grid, noise, rng)
    others = [other for other in range(10) if other != digit]
    for _ in range(world.distractors):
        drawn = images[int(rng.choice(others))]
        path = _path(str(rng.choice(list(MOTIONS))), times, 0.0, rng)
        opacity = _DISTRACTOR * noise * rng.uniform(0.6, 1.0)
        _paint(picture, grid, drawn, path, min(opacity, 1.0), rng)
    path = _path(motion, times, world.jitter, rng)
    _paint(picture, grid, images[digit], path, rng.uniform(0.75, 1.0), rng)
    picture += _GRAIN * noise * rng.standard_normal(picture.shape, np.float32)
    pixels: NDArray[np.uint8] = (255 * picture.clip(0, 1)).round().astype(np.uint8)
    return pixels


def play(world: World, event: str | None, rng: np.random.Generator) -> Floats:
    """Mono sound at ``RATE``: one event of random pitch, time and loudness in a noisy room; None: silence."""
    seconds = world.frames / FPS
    time = np.arange(round(seconds * RATE), dtype=np.float32) / RATE
    if event is None:
        return np.zeros_like(time)
    begin, length = seconds * rng.uniform(0, 0.4), seconds * rng.uniform(0.4, 0.6)
    since = time - np.float32(begin)
    pitch = np.full_like(time, 300 * 4 ** rng.random())
    sound = EVENTS[event](since / np.float32(length), pitch, rng)
    audible = (since >= 0) & (since < length)
    loudness = rng.uniform(0.1, 0.4) / max(float(np.abs(sound[audible]).max()), 1e-6)
    room = world.noise * rng.uniform(0.01, 0.03) * rng.standard_normal(len(time), np.float32)
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
