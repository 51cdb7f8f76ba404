"""A small generated data set of real mp4 files with sound, for a first run without any data.

A class is a motion of a striped shape, with random form, size and colour, and a tone. Some clips of every
class are silent, and some have no sound track.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources.about import described
from ccl_cli.data.sources.generated import generate
from ccl_cli.data.video.video_writer import write_clip

Floats = NDArray[np.floating[Any]]
Motion = Callable[[Floats], tuple[Any, Any, Any]]
FPS, RATE = 24, 32000  # frames and samples per second
_SOUNDS = ("tone", "tone", "tone", "tone", "silent", "no track")
_SHAPES: tuple[Callable[[Floats, Floats], Floats], ...] = (
    np.maximum,
    np.hypot,
    np.add,
)  # square, disc, diamond
# Position across, position down and size of the shape at phase p, which runs from 0 to 1 once a second.
# Each motion stays the same when it is mirrored, which training does at random.
_MOTIONS: dict[str, Motion] = {
    "across": lambda p: (p, 0.5, 1.0),
    "climb": lambda p: (0.5, 1 - p, 1.0),
    "orbit": lambda p: (0.5 + 0.3 * np.cos(2 * np.pi * p), 0.5 + 0.3 * np.sin(2 * np.pi * p), 1.0),
    "grow": lambda p: (0.5, 0.5, 0.3 + 1.7 * p),
    "fall": lambda p: (0.5, p, 1.0),
    "shrink": lambda p: (0.5, 0.5, 2 - 1.7 * p),
}


@described("A few clips that ccl draws itself, for a first run without any data.", "clips")
def load(
    location: str,
    *,
    classes: Annotated[int, Field(ge=2, le=len(_MOTIONS))] = 4,
    per_class: Annotated[int, Field(ge=1)] = 12,
    size: Annotated[int, Field(ge=36, le=1080, multiple_of=6)] = 96,
    seconds: Annotated[float, Field(ge=0.1, le=600)] = 1.5,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Manifest:
    """Write the missing clips, and list all clips.

    Args:
        location: Folder for the clips; "" for one in the cache, named after the options.
        classes: Number of classes.
        per_class: Training clips of each class; half as many are test clips.
        size: Height in pixels; the width is 4/3 of it.
        seconds: Length of a clip.
        seed: Seed of all random numbers.

    Raises:
        DataError: the folder contains other files.
    """
    settings = {"classes": classes, "per_class": per_class, "size": size, "seconds": seconds, "seed": seed}
    writers = {}
    for part, count in ("train", per_class), ("test", max(1, per_class // 2)):
        for label, index in product(range(classes), range(count)):
            name, kind = list(_MOTIONS)[label], _SOUNDS[(label + index) % len(_SOUNDS)]
            rng = np.random.default_rng([seed, label, index, part == "test"])
            writers[f"{part}/{name}/{name}_{index:03}.mp4"] = partial(_write, label, kind, size, seconds, rng)
    return generate(location, "clips", {"format": "ccl-clips-2", **settings}, writers)


def _write(label: int, kind: str, size: int, seconds: float, rng: np.random.Generator, path: Path) -> None:
    frames = _render(list(_MOTIONS.values())[label], round(seconds * FPS), size, rng)
    write_clip(path, frames, FPS, _sound(kind, label, len(frames) / FPS, rng), RATE)


def _sound(kind: str, label: int, seconds: float, rng: np.random.Generator) -> Floats | None:
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = 220 * 1.6**label * rng.uniform(0.95, 1.05)
    tone = np.sin(2 * np.pi * hertz * time) * (1 + 0.5 * np.sin(2 * np.pi * 4 * time))
    noisy = rng.uniform(0.1, 0.4) * tone + rng.normal(0, 0.03, len(time))
    return None if kind == "no track" else (noisy * (kind == "tone")).astype(np.float32)


def _render(motion: Motion, count: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """[T, H, W, 3]: a striped shape that moves over a shaded background, in random colours."""
    down, across = np.mgrid[:height, : height * 4 // 3].astype(np.float32) / height
    phase = (np.arange(count) / FPS + rng.uniform()) % 1
    x, y, scale = (at.reshape(-1, 1, 1).astype(np.float32) for at in np.broadcast_arrays(*motion(phase)))
    right = across - (4 / 3 * x + rng.uniform(-0.15, 0.15))  # from the shape's centre
    below = down - (y + rng.uniform(-0.15, 0.15))
    shape = _SHAPES[rng.integers(3)](abs(right), abs(below)) < scale * rng.uniform(0.15, 0.25)
    angle, stripes = rng.uniform(0, math.pi), rng.uniform(8, 16)
    ramp = (right * math.cos(angle) + below * math.sin(angle))[shape]
    top, bottom = rng.uniform(0, 90, (2, 3)).astype(np.float32)  # dark, so that few clips show motion
    colour, stripe = rng.uniform(120, 255, (2, 3)).astype(np.float32)
    image = 4 * rng.standard_normal((*shape.shape, 1), np.float32) + top + (bottom - top) * down[..., None]
    image[shape] = np.where(np.sin(2 * math.pi * stripes * ramp)[:, None] > 0, colour, stripe)
    pixels: NDArray[np.uint8] = image.clip(0, 255).astype(np.uint8)
    return pixels
