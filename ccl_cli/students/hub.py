"""pytorchvideo's published convolutional networks as students, at any clip size.

The hub's networks end in a pooling layer of one fixed size and a softmax. Here the pooling adapts and the
softmax is gone; everything else, the initialisation included, is pytorchvideo's own. MViT, whose position
embeddings belong to one clip size, stands in ``transformers``.
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
    """Build one of pytorchvideo's hub networks as a student.

    Args:
        name: Function of ``pytorchvideo.models.hub``.
        num_classes: K.
        weights: The checkpoint that pytorchvideo publishes for this network, or a model that ccl wrote; None
            for random weights.
        dropout: Probability of dropping a feature before the classifier, in training.

    Raises:
        WeightsError: the file is absent, damaged, or of another network.
    """
    # X3D's own activation is the same function, written against an interface that torch has deprecated.
    options = {"inner_act": nn.SiLU} if name.startswith("x3d") else {}
    network = getattr(hub, name)(model_num_class=num_classes, **options)
    *trunk, head = network.blocks
    classifier = head.proj
    student = Student(
        nn.ModuleList(_stages(trunk)), classifier.in_features, num_classes, dropout, _any_size(head.pool)
    )
    student.classifier = classifier
    fill_student(student, network, weights, f"blocks.{len(network.blocks) - 1}.proj")
    return student


class SlowFast(Student):
    """Two pathways: one sees every fourth frame, the other all of them with an eighth of the channels.

    Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019. The stages are those of the
    slow pathway, with what the fast one has sent into them.
    """

    usual_clip = (32, 224)
    ratio = 4  # of the pathways' frame rates

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As of every student; the number of frames must be a multiple of four."""
        frames = video.shape[2]
        # As pytorchvideo picks them in PackPathway, so that published weights see what they were trained on.
        slow = torch.linspace(0, frames - 1, frames // self.ratio, device=video.device).long()
        pathways = [video.index_select(2, slow), video]
        stages = []
        for block in self.blocks:
            pathways = block(pathways)
            stages.append(pathways[0])
        pooled = [self.pool(pathway).flatten(1) for pathway in pathways]
        return torch.cat(pooled, dim=1), tuple(stages[1:])

    def check_clip(self, frames: int, size: int) -> None:
        """Any size, and a number of frames that both pathways can share."""
        if frames % self.ratio:
            raise RecipeError(
                f"SlowFast takes clips of a multiple of {self.ratio} frames, not of {frames}.",
                f"For example --set clip.frames={max(1, frames // self.ratio) * self.ratio}.",
            )


def slowfast_r50(num_classes: int, *, weights: str | None = None, dropout: float = 0.5) -> Student:
    """SlowFast 8x8: 34.6 M parameters, 2,304 dimensions, 50 GMAC per clip of 32x224x224."""
    network = hub.slowfast_r50(model_num_class=num_classes)
    *trunk, _, head = network.blocks
    student = SlowFast(nn.ModuleList(trunk), head.proj.in_features, num_classes, dropout)
    student.classifier = head.proj
    fill_student(student, network, weights, f"blocks.{len(network.blocks) - 1}.proj")
    return student


def _stages(trunk: Iterable[nn.Module]) -> list[nn.Module]:
    """The stem and the residual stages; a pooling layer between two stages joins the one before it."""
    stages: list[nn.Module] = []
    for block in trunk:
        if isinstance(block, nn.MaxPool3d):
            stages.append(nn.Sequential(stages.pop(), block))
        else:
            stages.append(block)
    return stages


def _any_size(pool: nn.Module) -> nn.Module:
    """X3D's pooling, with its layers before and after, or just the average; either over the whole clip."""
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
