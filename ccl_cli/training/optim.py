"""Parameter groups, the optimiser and the schedule of its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ccl_cli.config.recipe import Optim
from ccl_cli.training.distiller import Distiller

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

_WARM_UP_FROM = 0.1  # of the rate, as in the recipes of PySlowFast (github.com/facebookresearch/SlowFast)


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


def scheduler(optimizer: torch.optim.Optimizer, optim: Optim, epochs: int, steps_per_epoch: int) -> Scheduler:
    """The learning rate as a function of the optimiser step alone, so that a run can be resumed.

    Args:
        optimizer: Its groups' rates are those without a schedule.
        optim: Which schedule.
        epochs: Length of the run.
        steps_per_epoch: Optimiser steps, not micro-batches.

    Returns:
        timm's scheduler: ``step_update(step)``, before the step, sets the rate of every group; steps count
        from 0 over the whole run. ``base_values`` are the groups' rates without a schedule.
    """
    # Not at the top: timm comes with all its networks, half a second for whoever only imports this module.
    from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler

    warm_up = round(optim.warmup_epochs * steps_per_epoch)
    given = {"t_in_epochs": False, "warmup_t": warm_up, "warmup_lr_init": _WARM_UP_FROM * optim.lr}
    if optim.schedule in ("step", "constant"):
        drops = _drops(optim, epochs, steps_per_epoch) if optim.schedule == "step" else []
        return MultiStepLRScheduler(optimizer, drops, optim.gamma, warmup_prefix=False, **given)
    # From the end of the warm-up to the end of the run. At least 2, because timm warns of 1, and the rate of
    # the first step, then the only one, is the same.
    length = max(epochs * steps_per_epoch - warm_up, 2)
    given |= {"t_initial": length, "lr_min": optim.min_lr, "warmup_prefix": True}
    if optim.schedule == "linear":
        return PolyLRScheduler(optimizer, power=1, **given)
    return CosineLRScheduler(optimizer, **given)


def set_lr(optimizer: torch.optim.Optimizer, scheduler: Scheduler, step: int) -> None:
    """Set every group's learning rate for a step, counted from 0; some groups keep theirs throughout."""
    scheduler.step_update(step)
    for group, rate in zip(optimizer.param_groups, scheduler.base_values, strict=True):
        if not group["decays"]:
            group["lr"] = rate


def _drops(optim: Optim, epochs: int, steps_per_epoch: int) -> list[int]:
    """Milestones as timm counts them, from 1: the first step of the first epoch that is not before one."""
    at = sorted(m * epochs if m < 1 else m for m in optim.milestones)
    return [math.ceil(epoch) * steps_per_epoch + 1 for epoch in at if epoch < epochs]


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
