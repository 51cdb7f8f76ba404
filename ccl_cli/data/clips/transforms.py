"""The student's views of decoded frames: a random crop in training, centre and side crops in evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from ccl_cli.config.recipe import Augment, Clip

_ATTEMPTS = 10
_BLUR_KERNEL = 9  # pixels; four standard deviations of the strongest blur


def train_view(frames: Tensor, rng: np.random.Generator, clip: Clip) -> Tensor:
    """Random crop, resize and random flip, equal for all frames (CCL, section 4); then augmentations.

    Shapes:
        frames: [T, H, W, 3] uint8.
        returns: [3, T, S, S] uint8.
    """
    height, width = frames.shape[1:3]
    top, left, tall, wide = _random_crop(height, width, rng, clip)
    crop = frames[:, top : top + tall, left : left + wide].permute(0, 3, 1, 2)
    # torchvision's `resize` calls this; for small frames its checks take longer than the resizing.
    view = interpolate(crop, (clip.size, clip.size), mode="bilinear", antialias=True)
    if rng.random() < clip.flip:
        view = view.flip(-1)
    if augmentation := augmentations(clip.augment):
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator
            torch.manual_seed(int(rng.integers(2**63)))
            view = augmentation(view)
    return view.transpose(0, 1).contiguous()


@lru_cache
def augmentations(augment: Augment) -> nn.Module | None:
    """The recipe's augmentations as one transform of uint8 [T, 3, H, W]; None if there are none.

    torchvision draws once for all leading dimensions, so all frames of a clip are augmented equally.
    """
    steps: list[nn.Module] = []
    if augment.rand_augment:
        steps.append(v2.RandAugment(augment.rand_augment, augment.magnitude))
    if any(augment.color_jitter):
        steps.append(v2.RandomApply([v2.ColorJitter(*augment.color_jitter)], augment.color_jitter_p))
    if augment.grayscale:
        steps.append(v2.RandomGrayscale(augment.grayscale))
    if augment.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(_BLUR_KERNEL)], augment.blur))
    if augment.erase:
        steps.append(v2.RandomErasing(augment.erase))
    return v2.Compose(steps) if steps else None


def eval_view(frames: Tensor, clip: Clip) -> Tensor:
    """Resize the short side to S and crop the centre.

    Shapes:
        frames: [T, H, W, 3] uint8.
        returns: [3, T, S, S] uint8.
    """
    return eval_views(frames, clip, crops=1)[0]


def eval_views(frames: Tensor, clip: Clip, *, crops: int) -> list[Tensor]:
    """Resize the short side to S and crop the centre, and with ``crops=3`` both ends of the longer side.

    Shapes:
        frames: [T, H, W, 3] uint8.
        returns: each [3, T, S, S] uint8.
    """
    size = clip.size
    resized = tv.resize(frames.permute(0, 3, 1, 2), [size], antialias=True)
    views = [tv.center_crop(resized, [size, size])]
    if crops == 3:
        views = [resized[..., :size, :size], *views, resized[..., -size:, -size:]]
    return [view.transpose(0, 1).contiguous() for view in views]


def normalize(
    video: Tensor,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Scale bytes to [0, 1], subtract the mean and divide by the standard deviation, per channel.

    Shapes:
        video: [B, 3, T, H, W] uint8.
        returns: the same shape in ``dtype``; computed in float32 at least.
    """
    exact = torch.promote_types(dtype, torch.float32)
    shift, scale = (
        torch.as_tensor(values, dtype=exact, device=video.device).view(3, 1, 1, 1) * 255
        for values in (mean, std)
    )
    return video.to(exact, copy=True).sub_(shift).div_(scale).to(dtype)


def _random_crop(height: int, width: int, rng: np.random.Generator, clip: Clip) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop of random area and aspect ratio."""
    low, high = (math.log(ratio) for ratio in clip.ratio)
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*clip.scale)
        ratio = math.exp(rng.uniform(low, high))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    # The frame itself is too narrow or too flat: use the largest centre crop with an allowed ratio.
    wide = max(1, min(width, round(height * clip.ratio[1])))
    tall = max(1, min(height, round(width / clip.ratio[0])))
    return (height - tall) // 2, (width - wide) // 2, tall, wide
