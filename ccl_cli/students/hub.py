"""Convolutional networks of pytorchvideo as students, for any clip size.

The networks of the hub end in a pooling layer of fixed size and a softmax. Here the pooling is adaptive and
the softmax is removed; everything else, including the initialisation, is unchanged. For MViT, whose position
embeddings depend on the clip size, see ``transformers``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.students import Student
from ccl_cli.students.blocks import hub
from ccl_cli.students.weights import fill_student


def hub_student(name: str, num_classes: int, *, weights: str | None = None, dropout: float = 0.5) -> Student:
    """Build the network of ``pytorchvideo.models.hub`` with this name as a student."""
    # X3D's activation is the same function, but uses a deprecated interface of torch.
    options = {"inner_act": nn.SiLU} if name.startswith("x3d") else {}
    network = getattr(hub, name)(model_num_class=num_classes, **options)
    *trunk, head = network.blocks
    stages = nn.ModuleList(_stages(trunk))
    student = Student(stages, head.proj.in_features, num_classes, dropout, _any_size(head.pool))
    fill_student(student, network, weights, f"blocks.{len(network.blocks) - 1}.proj")
    return student


class SlowFast(Student):
    """SlowFast: a slow pathway on every fourth frame and a fast one with an eighth of the channels.

    Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019. The stages are those of the
    slow pathway, after fusion.
    """

    usual_clip = (32, 224)
    ratio = 4  # of the frame rates of the pathways

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`Student.embed`; the number of frames must be a multiple of four."""
        frames = video.shape[2]
        # Same frame selection as PackPathway of pytorchvideo, which the published weights were trained with.
        slow = torch.linspace(0, frames - 1, frames // self.ratio, device=video.device).long()
        pathways = [video.index_select(2, slow), video]
        stages = []
        for block in self.blocks:
            pathways = block(pathways)
            stages.append(pathways[0])
        pooled = [self.pool(pathway).flatten(1) for pathway in pathways]
        return torch.cat(pooled, dim=1), tuple(stages[1:])

    def check_clip(self, frames: int, size: int) -> None:
        """Accept any size, and numbers of frames that are multiples of four."""
        if frames % self.ratio:
            raise RecipeError(
                f"SlowFast requires a multiple of {self.ratio} frames per clip, not {frames}.",
                f"Add --set clip.frames={max(1, frames // self.ratio) * self.ratio}.",
            )


def slowfast_r50(num_classes: int, *, weights: str | None = None, dropout: float = 0.5) -> Student:
    """SlowFast 8x8: 34.6 M parameters, 2,304 dimensions, 50 GMAC per clip of 32x224x224."""
    network = hub.slowfast_r50(model_num_class=num_classes)
    *trunk, _, head = network.blocks
    student = SlowFast(nn.ModuleList(trunk), head.proj.in_features, num_classes, dropout)
    fill_student(student, network, weights, f"blocks.{len(network.blocks) - 1}.proj")
    return student


def _stages(trunk: Iterable[nn.Module]) -> list[nn.Module]:
    """Split into stem and residual stages; a pooling layer belongs to the stage before it."""
    stages: list[nn.Module] = []
    for block in trunk:
        pooled = isinstance(block, nn.MaxPool3d)
        stages.append(nn.Sequential(stages.pop(), block) if pooled else block)
    return stages


def _any_size(pool: nn.Module) -> nn.Module:
    """Global pooling: X3D's, with its layers before and after, or average pooling."""
    average = nn.AdaptiveAvgPool3d(1)
    if isinstance(pool, nn.AvgPool3d):
        return average
    pool.pool = average
    return pool


c2d_r50 = partial(hub_student, "c2d_r50")
csn_r101 = partial(hub_student, "csn_r101")
i3d_r50 = partial(hub_student, "i3d_r50")
r2plus1d_r50 = partial(hub_student, "r2plus1d_r50")
slow_r50 = partial(hub_student, "slow_r50")
x3d_xs = partial(hub_student, "x3d_xs")
x3d_s = partial(hub_student, "x3d_s")
x3d_m = partial(hub_student, "x3d_m")
x3d_l = partial(hub_student, "x3d_l")
