"""pytorchvideo's published networks as students, at any clip length and size.

The hub's networks end in a pooling layer of one fixed size and a softmax. Here the pooling adapts and the
softmax is gone; everything else, the initialisation included, is pytorchvideo's own. Networks with two
pathways (SlowFast) or position embeddings of one fixed clip (MViT) cannot do this and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn

from ccl_cli.students import Student
from ccl_cli.students.blocks import hub
from ccl_cli.students.weights import load_weights, read_weights


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
    if weights is not None:
        state = read_weights(weights)
        if "classifier.weight" in state:  # one of our own files
            load_weights(student, state, weights)
        else:  # The hub's network is made of the student's layers: filling one fills the other.
            load_weights(network, state, weights, classifier=f"blocks.{len(trunk)}.proj")
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
