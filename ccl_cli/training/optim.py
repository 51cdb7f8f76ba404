"""Parameter groups, optimiser and learning rate schedule."""

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

_WARM_UP_FROM = 0.1  # share of the learning rate, as in the recipes of PySlowFast


def parameter_groups(distiller: Distiller, optim: Optim) -> list[Group]:
    """Groups of the student's parameters and of the methods' own, by weight decay and ``lr_scale``.

    ``lr_scale`` is a factor on the learning rate. For the student it is ``layer_decay`` to the power of the
    number of later blocks; for a method, its own ``lr_scale``.
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
    """Raise a RecipeError if timm has no such optimiser, or it needs second derivatives."""
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
    """Make the recipe's optimiser with timm. Raises a RecipeError if it does not accept ``optim.options``."""
    from timm.optim import create_optimizer_v2

    options = {"nesterov": optim.nesterov} | optim.options if optim.name == "sgd" else optim.options
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            groups, optim.name, optim.lr, optim.weight_decay, optim.momentum, **options
        )
    except (TypeError, ValueError, AssertionError) as error:
        given = ", ".join(f"{key}={value}" for key, value in optim.options.items()) or "these settings"
        raise RecipeError(f"optim: '{optim.name}' does not take {given}: {error}.") from error
    # timm silently drops betas and eps.
    if ignored := sorted(optim.options.keys() - optimizer.defaults.keys()):
        raise RecipeError(
            f"optim.options: '{optim.name}' does not take {ignored[0]}.",
            f"It takes {', '.join(optimizer.defaults)}.",
        )
    return optimizer


def scheduler(optimizer: torch.optim.Optimizer, optim: Optim, epochs: int, steps_per_epoch: int) -> Scheduler:
    """Timm's scheduler: the learning rate as a function of the optimiser step alone, so runs can be resumed.

    ``step_update(step)`` sets the rates of all groups before a step, counted from 0 over the whole run.
    ``base_values`` are the groups' initial rates, without a schedule. Steps are not micro-batches.
    """
    # Not at the top, because timm imports all its networks, which takes half a second.
    from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler

    warm_up = round(optim.warmup_epochs * steps_per_epoch)
    given = {"t_in_epochs": False, "warmup_t": warm_up, "warmup_lr_init": _WARM_UP_FROM * optim.lr}
    if optim.schedule in ("step", "constant"):
        milestones = sorted(m * epochs if m < 1 else m for m in optim.milestones)
        # Counted from 1: for epoch 2 with 10 steps per epoch, step 21.
        drops = [math.ceil(epoch) * steps_per_epoch + 1 for epoch in milestones if epoch < epochs]
        drops = drops if optim.schedule == "step" else []
        return MultiStepLRScheduler(optimizer, drops, optim.gamma, warmup_prefix=False, **given)
    # From the end of the warm-up to the end of the run. At least 2, because timm warns about 1; the rate of
    # the first and only step is then the same.
    length = max(epochs * steps_per_epoch - warm_up, 2)
    given |= {"t_initial": length, "lr_min": optim.min_lr, "warmup_prefix": True}
    if optim.schedule == "linear":
        return PolyLRScheduler(optimizer, power=1, **given)
    return CosineLRScheduler(optimizer, **given)


def set_lr(optimizer: torch.optim.Optimizer, scheduler: Scheduler, step: int) -> None:
    """Set the learning rates for a step, counted from 0. Groups without ``follows_schedule`` keep theirs."""
    scheduler.step_update(step)
    for group, rate in zip(optimizer.param_groups, scheduler.base_values, strict=True):
        if not group["follows_schedule"]:
            group["lr"] = rate * group.get("lr_scale", 1.0)


def _grouped(
    module: nn.Module, optim: Optim, scales: Mapping[str, float], *, follows_schedule: bool
) -> list[Group]:
    """Trainable parameters, one group for each weight decay and ``lr_scale``."""
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
    """``lr_scale`` of each parameter: 1 for the classifier, and ``decay`` times that of the next block."""
    if decay is None:
        return {}
    depths = {f"blocks.{number}.": number for number in range(len(student.blocks))}
    scales: dict[str, float] = {}
    for name, _ in student.named_parameters():
        depth = next((depth for prefix, depth in depths.items() if name.startswith(prefix)), len(depths))
        scales[name] = decay ** (len(depths) - depth)
    return scales
