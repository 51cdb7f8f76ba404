"""Windows that hold what a test wants them to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video


class HeldWindow(Window):
    """A window whose sound is given instead of read."""

    sound: Tensor | None = None

    def audio(self, rate: int, seconds: float) -> Tensor | None:
        return None if self.sound is None else self.sound[: int(rate * seconds)]


def make_window(
    *,
    video="a/b",
    frames=None,
    sound=None,
    training=True,
    seed=0,
    batch_seed=0,
) -> HeldWindow:
    noise = np.random.default_rng(5)
    if frames is None:
        frames = torch.from_numpy(noise.integers(0, 256, (8, 60, 80, 3), dtype=np.uint8))
    student_view = torch.from_numpy(noise.integers(0, 256, (3, 8, 112, 112), dtype=np.uint8))
    window = HeldWindow(
        Video(video, Path("b.mp4"), 0, "train"),
        Clip(),
        rng=np.random.default_rng(seed),
        batch_rng=np.random.default_rng(batch_seed),
        training=training,
    )
    window.frames, window.student_view, window.sound = frames, student_view, sound
    window.start, window.end = 0.0, 1.0
    return window


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32))
