"""One frame of a window as an image network's input; workers import this and no networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    """One frame of the window, resized and cropped as the network's authors did for testing.

    In training the frame is random; in evaluation it is the middle one.

    Attributes:
        size: Height and width, pixels.
        crop_pct: Share of the resized frame's side that the centre crop keeps.
        interpolation: As timm names it.
        squash: Resize without keeping the aspect ratio.
        mean: Subtracted from RGB in [0, 1], on the teacher's device.
        std: Divided by, on the teacher's device.
        source: "frames": the decoded frames; "student_clip": what the student sees, cropped and flipped alike
            (official code).
        frame: "random": drawn for each sample; "shared": one index for the whole batch (official code).
    """

    size: tuple[int, int]
    crop_pct: float
    interpolation: str
    squash: bool
    mean: Triple
    std: Triple
    source: Literal["frames", "student_clip"] = "frames"
    frame: Literal["random", "shared"] = "random"

    @property
    def shape(self) -> tuple[int, int, int]:
        """[3, height, width]."""
        return (3, *self.size)

    @property
    def dtype(self) -> torch.dtype:
        """uint8 RGB; it is normalised on the teacher's device."""
        return torch.uint8

    @property
    def views(self) -> Views | None:
        """A single frame; what depends on the student's crop or on the batch cannot be cached."""
        return "frame" if (self.source, self.frame) == ("frames", "random") else None

    def __call__(self, window: Window) -> Tensor:
        """A picture ``[3, height, width]``; a window always has one."""
        if self.source == "student_clip":
            picture = window.student_view[:, self._index(window, window.student_view.shape[1])]
            return self._resize(picture, self.size).contiguous()
        picture = window.frames[self._index(window, len(window.frames))].permute(2, 0, 1)
        resized = self._resize(picture, self._enlarged(picture))
        cropped: Tensor = TF.center_crop(resized, list(self.size))
        return cropped.contiguous()

    def _index(self, window: Window, frames: int) -> int:
        if not window.training:
            return frames // 2
        rng = window.batch_rng if self.frame == "shared" else window.rng
        return int(rng.integers(frames))

    def _enlarged(self, picture: Tensor) -> tuple[int, int]:
        """Size before the centre crop."""
        height, width = (math.floor(side / self.crop_pct) for side in self.size)
        tall, wide = picture.shape[-2:]
        if self.squash:
            return height, width
        if height * wide >= width * tall:  # the height decides
            return height, max(width, height * wide // tall)
        return max(height, width * tall // wide), width

    def _resize(self, picture: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(picture.shape[-2:]) == size:
            return picture
        mode = InterpolationMode(self.interpolation)
        resized: Tensor = TF.resize(picture, list(size), interpolation=mode, antialias=True)
        return resized
