"""Parameter groups, the optimiser and its schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ccl_cli.distiller import Distiller
from ccl_cli.recipe import Optim


def parameter_groups(distiller: Distiller, optim: Optim) -> list[dict[str, Any]]:
    """The student's parameters, and the methods' own, which may keep their learning rate."""
    groups = [
        {"params": _trainable(distiller.student), "decays": True},
        {"params": _trainable(distiller.methods), "decays": optim.head_lr_decay},
    ]
    return [group for group in groups if group["params"]]


def sgd(groups: list[dict[str, Any]], optim: Optim) -> torch.optim.Optimizer:
    """Stochastic gradient descent as the recipe says."""
    return torch.optim.SGD(
        groups,
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        nesterov=optim.nesterov,
    )


def lr_factor(epoch: int, epochs: int, optim: Optim) -> float:
    """Factor on the learning rate in an epoch (from 0): gamma for each milestone that has passed."""
    passed = sum(epoch >= (m * epochs if m < 1 else m) for m in optim.milestones)
    return float(optim.gamma**passed)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
