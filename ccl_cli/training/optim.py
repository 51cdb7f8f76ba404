"""Parameter groups, the optimiser and the schedule of its learning rate."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ccl_cli.config.recipe import Optim
from ccl_cli.errors import RecipeError
from ccl_cli.students import Student

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

    from ccl_cli.methods import Method
    from ccl_cli.training.distiller import Distiller

Group = dict[str, Any]

_WARM_UP_FROM = 0.1  # of the rate, as in the recipes of PySlowFast (github.com/facebookresearch/SlowFast)


def parameter_groups(distiller: Distiller, optim: Optim) -> list[Group]:
    """The student's parameters by weight decay and layer, and the methods' own, which may keep their rate.

    A group's ``lr_scale`` is its factor on the learning rate: of the student, ``layer_decay`` for each layer
    that follows; of a method, its own.
    """
    scales = _layer_scales(distiller.student, optim.layer_decay)
    student = _grouped(distiller.student, optim, scales, follows_schedule=True)
    scales = {
        f"{name}.{parameter}": cast("Method", method).lr_scale
        for name, method in distiller.methods.items()
        for parameter, _ in method.named_parameters()
    }
    return student + _grouped(distiller.methods, optim, scales, follows_schedule=optim.head_lr_decay)


def check_optimizer(optim: Optim) -> None:
    """See that the recipe names an optimiser that can be used.

    Raises:
        RecipeError: timm knows none of that name, or it needs more than one backward pass a step.
    """
    from timm.optim import get_optimizer_info, list_optimizers

    names = list_optimizers()
    if optim.name.removeprefix("lookahead_") not in names:
        near = difflib.get_close_matches(optim.name, names, n=1)
        suggestion = f"Did you mean '{near[0]}'? " if near else ""
        raise RecipeError(
            f"optim.name: there is no optimiser '{optim.name}'.",
            f"{suggestion}timm has sgd, adamw, lamb, lion, muon and {len(names) - 5} more.",
        )
    if get_optimizer_info(optim.name.removeprefix("lookahead_")).second_order:
        raise RecipeError(f"optim.name: '{optim.name}' needs second derivatives.", "Name another optimiser.")


def make_optimizer(groups: list[Group], optim: Optim) -> torch.optim.Optimizer:
    """The recipe's optimiser, as timm makes it.

    Raises:
        RecipeError: it does not take the recipe's ``optim.options``.
    """
    from timm.optim import create_optimizer_v2

    options = {"nesterov": optim.nesterov} | optim.options if optim.name == "sgd" else optim.options
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            groups, optim.name, optim.lr, optim.weight_decay, optim.momentum, **options
        )
    except (TypeError, ValueError, AssertionError) as error:
        given = ", ".join(f"{key}={value}" for key, value in optim.options.items()) or "these settings"
        raise RecipeError(f"optim: '{optim.name}' does not take {given}: {error}.") from error
    if ignored := sorted(optim.options.keys() - optimizer.defaults.keys()):  # timm drops betas and eps
        raise RecipeError(
            f"optim.options: '{optim.name}' does not take {ignored[0]}.",
            f"It takes {', '.join(optimizer.defaults)}.",
        )
    return optimizer


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
        if not group["follows_schedule"]:
            group["lr"] = rate * group.get("lr_scale", 1.0)


def _drops(optim: Optim, epochs: int, steps_per_epoch: int) -> list[int]:
    """Steps at which the rate drops, counted from 1: of epoch 2 with 10 steps an epoch, step 21."""
    at = sorted(m * epochs if m < 1 else m for m in optim.milestones)
    return [math.ceil(epoch) * steps_per_epoch + 1 for epoch in at if epoch < epochs]


def _grouped(
    module: nn.Module, optim: Optim, scales: Mapping[str, float], *, follows_schedule: bool
) -> list[Group]:
    """Trainable parameters, one group for each weight decay and factor on the rate."""
    groups: dict[tuple[bool, float], Group] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays, scale = optim.norm_weight_decay or parameter.dim() > 1, scales.get(name, 1.0)
        group = groups.setdefault((decays, scale), {"params": [], "follows_schedule": follows_schedule})
        group["params"].append(parameter)
        if not decays:
            group["weight_decay"] = 0.0
        if scale != 1:
            group["lr_scale"] = scale
    return list(groups.values())


def _layer_scales(student: Student, decay: float | None) -> dict[str, float]:
    """Each parameter's factor on the rate: 1 for the classifier, ``decay`` times less a block before it."""
    if decay is None:
        return {}
    depths = {f"blocks.{number}.": number for number in range(len(student.blocks))}
    scales: dict[str, float] = {}
    for name, _ in student.named_parameters():
        depth = next((depth for prefix, depth in depths.items() if name.startswith(prefix)), len(depths))
        scales[name] = decay ** (len(depths) - depth)
    return scales
