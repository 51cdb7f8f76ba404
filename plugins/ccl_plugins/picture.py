"""Preprocessing of image networks: one frame of a clip. Data loader workers import only this module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Picture:
    """One frame of the clip, with the resize and centre crop that the network's authors used for testing.

    The frame is random in training and the centre frame in evaluation.

    Attributes:
        size: Height and width in pixels.
        crop_pct: Side of the centre crop as a fraction of the resized frame's side.
        interpolation: Name of the interpolation, as in timm.
        squash: Resize without preserving the aspect ratio.
        mean: Mean of RGB in [0, 1], subtracted on the teacher's device.
        std: Standard deviation of RGB in [0, 1], applied on the teacher's device.
        source: "frames": the decoded frames; "student_clip": the student's augmented clip (official code).
        frame: "random": drawn for each sample; "shared": the same index for the whole batch (official code).
    """

    size: tuple[int, int]
    crop_pct: float
    interpolation: str
    squash: bool
    mean: Triple
    std: Triple
    source: Literal["frames", "student_clip"] = "frames"
    frame: Literal["random", "shared"] = "random"
    dtype: ClassVar[torch.dtype] = torch.uint8  # RGB, normalised later on the teacher's device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input, [3, height, width]."""
        return (3, *self.size)

    @property
    def views(self) -> Views | None:
        """A single frame; None if the input depends on the student's crop or the batch: it is not cached."""
        return "frame" if (self.source, self.frame) == ("frames", "random") else None

    def __call__(self, window: Window) -> Tensor:
        """Return an image ``[3, height, width]``."""
        if self.source == "student_clip":
            image = window.student_view[:, self._index(window, window.student_view.shape[1])]
            return self._resize(image, self.size).contiguous()
        image = window.frames[self._index(window, len(window.frames))].permute(2, 0, 1)
        resized = self._resize(image, self._size_before_crop(*image.shape[-2:]))
        cropped: Tensor = TF.center_crop(resized, list(self.size))
        return cropped.contiguous()

    def _index(self, window: Window, frames: int) -> int:
        if not window.training:
            return frames // 2
        rng = window.batch_rng if self.frame == "shared" else window.rng
        return int(rng.integers(frames))

    def _size_before_crop(self, old_height: int, old_width: int) -> tuple[int, int]:
        height, width = (math.floor(side / self.crop_pct) for side in self.size)
        if self.squash:
            return height, width
        # One of the two is the limiting side.
        return max(height, width * old_height // old_width), max(width, height * old_width // old_height)

    def _resize(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(image.shape[-2:]) == size:
            return image
        mode = InterpolationMode(self.interpolation)
        resized: Tensor = TF.resize(image, list(size), interpolation=mode, antialias=True)
        return resized
