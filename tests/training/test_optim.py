"""The learning rate at every step, against formulas and torch's own schedules."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ccl_cli.config.recipe import Optim
from ccl_cli.errors import RecipeError
from ccl_cli.students.r2plus1d import r2plus1d_6
from ccl_cli.training.optim import check_optimizer, make_optimizer, parameter_groups, scheduler, set_lr

SCHEDULES = ("step", "cosine", "linear", "constant")


def sgd(rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], rate)


def rates(epochs: int, steps_per_epoch: int, steps=None, **changes) -> list[float]:
    """Of the steps in the order given, by default all."""
    optim = Optim(**{"lr": 0.1, **changes})
    optimizer = sgd(optim.lr)
    schedule = scheduler(optimizer, optim, epochs, steps_per_epoch)
    found = []
    for step in range(epochs * steps_per_epoch) if steps is None else steps:
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@given(
    lr=st.floats(1e-6, 10),
    gamma=st.floats(0.01, 2),
    milestones=st.lists(st.floats(0, 20), max_size=4),
    epochs=st.integers(1, 20),
    steps_per_epoch=st.integers(1, 4),
)
def test_steps_are_those_of_earlier_versions_to_the_last_bit(lr, gamma, milestones, epochs, steps_per_epoch):
    def before(epoch: int) -> float:
        passed = sum(epoch >= (m * epochs if m < 1 else m) for m in milestones)
        return lr * float(gamma**passed)

    found = rates(epochs, steps_per_epoch, lr=lr, gamma=gamma, milestones=milestones)
    assert found == [before(step // steps_per_epoch) for step in range(epochs * steps_per_epoch)]


@pytest.mark.parametrize("min_lr", [0.0, 0.01])
def test_cosine_and_linear_are_torchs_and_end_at_the_floor(min_lr):
    ours, theirs = sgd(), sgd()
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 12, min_lr)
    schedule = scheduler(ours, Optim(lr=0.1, schedule="cosine", min_lr=min_lr), 4, 3)
    for step in range(13):  # one further than a run of 12 steps goes
        schedule.step_update(step)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        theirs.step()
        annealing.step()
    falling = rates(4, 3, steps=range(13), schedule="linear", min_lr=min_lr)
    assert falling == pytest.approx([0.1 + (min_lr - 0.1) * step / 12 for step in range(13)])
    assert falling[-1] == min_lr


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_step_by_step_and_then_starts_at_the_rate(name):
    found = rates(6, 4, schedule=name, warmup_epochs=1.25, milestones=[2, 0.5])
    assert found[:6] == pytest.approx([0.01, 0.028, 0.046, 0.064, 0.082, 0.1])
    rest = 19  # steps after the warm-up
    after = {
        "step": [0.1] * 3 + [0.01] * 4 + [0.001] * 12,  # milestones stay where they are in the run
        "cosine": [0.05 * (1 + math.cos(math.pi * step / rest)) for step in range(rest)],
        "linear": [0.1 * (1 - step / rest) for step in range(rest)],
        "constant": [0.1] * rest,
    }
    assert found[5:] == pytest.approx(after[name])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_epochs", [0, 0.9])
def test_the_shortest_runs(name, warmup_epochs, caplog):
    """Of one step, and one that is over with its warm-up."""
    with caplog.at_level(logging.WARNING):
        assert rates(1, 1, schedule=name, milestones=[]) == [0.1]
        found = rates(1, 2, schedule=name, milestones=[], warmup_epochs=warmup_epochs)
    assert found[0] == pytest.approx(0.01 if warmup_epochs else 0.1)
    assert not caplog.records  # timm has something to say about schedules of one step


class Network(nn.Module):
    """A student and a method's own layer, as the distiller holds them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student, self.methods = r2plus1d_6(3, width=4), nn.ModuleDict({"m": nn.Linear(4, 4)})
        self.methods["m"].lr_scale = 1.0


def trained(optimizer_of, steps: int = 3) -> list[torch.Tensor]:
    """Weights after some steps along fixed gradients."""
    network = Network()
    optimizer = optimizer_of(network)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return list(network.parameters())


def ours(optim: Optim):
    return lambda network: make_optimizer(parameter_groups(network, optim), optim)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_default_is_torchs_sgd_to_the_last_bit(nesterov):
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": nesterov}
    theirs = trained(lambda network: torch.optim.SGD(network.parameters(), **options))
    assert all(map(torch.equal, trained(ours(Optim(**options))), theirs))


def test_adamw_is_torchs_with_its_options():
    theirs = trained(
        lambda network: torch.optim.AdamW(network.parameters(), 0.01, betas=(0.9, 0.98), weight_decay=0.05)
    )
    optim = Optim(name="adamw", lr=0.01, weight_decay=0.05, options={"betas": [0.9, 0.98]})
    assert all(map(torch.equal, trained(ours(optim)), theirs))


def test_weight_decay_can_leave_norms_and_biases_alone():
    optim = Optim(norm_weight_decay=False)
    network = Network()
    by_decay = {}
    for group in make_optimizer(parameter_groups(network, optim), optim).param_groups:
        by_decay.setdefault(group["weight_decay"], []).extend(group["params"])
    assert {parameter.dim() for parameter in by_decay[0.0]} == {1}
    assert all(parameter.dim() > 1 for parameter in by_decay[5e-4])
    assert sum(map(len, by_decay.values())) == len(list(network.parameters()))


def test_layer_decay_scales_the_rate_block_by_block_and_a_method_its_own_and_the_schedule_keeps_that():
    optim = Optim(lr=0.1, layer_decay=0.5, schedule="cosine", head_lr_decay=False)
    network = Network()
    network.methods["m"].lr_scale = 0.2
    optimizer = make_optimizer(parameter_groups(network, optim), optim)
    schedule = scheduler(optimizer, optim, 10, 1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for step, rate in ((0, 0.1), (5, 0.05)):
        set_lr(optimizer, schedule, step)
        rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert rates["student.classifier.weight"] == pytest.approx(rate)
        assert rates["student.blocks.2.res_blocks.0.branch2.conv_a.conv_t.weight"] == pytest.approx(rate / 2)
        assert rates["student.blocks.0.conv.conv_t.weight"] == pytest.approx(rate / 8)
        assert rates["methods.m.weight"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("optim", "match"),
    [
        (Optim(name="adamv"), r"no optimiser 'adamv'.*Did you mean 'adam"),
        (Optim(name="adahessian"), "second derivatives"),
    ],
)
def test_optimisers_that_cannot_be_used_are_refused(optim, match):
    with pytest.raises(RecipeError, match=f"(?s){match}"):
        check_optimizer(optim)


@pytest.mark.parametrize(
    "optim", [Optim(options={"betas": [0.9, 0.9]}), Optim(name="adamw", options={"betas": [2.0, 0.9]})]
)
def test_options_that_an_optimiser_does_not_take_are_sentences(optim):
    with pytest.raises(RecipeError, match=r"does not take betas"):
        make_optimizer(parameter_groups(Network(), optim), optim)


def test_nesterov_is_for_sgd():
    with pytest.raises(ValueError, match="nesterov requires sgd"):
        Optim(name="adamw", nesterov=True)
