"""The learning rate at every step, against formulas and torch's own schedules; and the optimisers."""

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


def rates(epochs: int, steps_per_epoch: int, **changes) -> list[float]:
    """The rate of every step of a run."""
    optim = Optim(**{"lr": 0.1, **changes})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], optim.lr)
    schedule, found = scheduler(optimizer, optim, epochs, steps_per_epoch), []
    for step in range(epochs * steps_per_epoch):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@given(
    lr=st.floats(1e-6, 10),
    gamma=st.floats(0.01, 2),
    milestones=st.lists(st.floats(0, 20), max_size=4),
    epochs=st.integers(1, 20),
    steps=st.integers(1, 4),
)
def test_the_step_schedule_to_the_last_bit(lr, gamma, milestones, epochs, steps):
    def at(epoch: int) -> float:
        return lr * float(gamma ** sum(epoch >= (m * epochs if m < 1 else m) for m in milestones))

    found = rates(epochs, steps, lr=lr, gamma=gamma, milestones=milestones)
    assert found == [at(step // steps) for step in range(epochs * steps)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_step_by_step_and_then_starts_at_the_rate(name, caplog):
    floor = {"min_lr": 0.02} if name in ("cosine", "linear") else {}
    found = rates(6, 4, schedule=name, warmup_epochs=1.25, milestones=[2, 0.5], **floor)
    assert found[:6] == pytest.approx([0.01, 0.028, 0.046, 0.064, 0.082, 0.1])
    rest = 19  # steps after the warm-up
    after = {
        "step": [0.1] * 3 + [0.01] * 4 + [0.001] * 12,  # milestones stay where they are in the run
        "cosine": [0.02 + 0.04 * (1 + math.cos(math.pi * step / rest)) for step in range(rest)],
        "linear": [0.1 - 0.08 * step / rest for step in range(rest)],
        "constant": [0.1] * rest,
    }
    assert found[5:] == pytest.approx(after[name])
    with caplog.at_level(logging.WARNING):  # timm has something to say about schedules of one step
        assert rates(1, 1, schedule=name, milestones=[]) == [0.1]
        assert rates(1, 2, schedule=name, milestones=[], warmup_epochs=0.9)[0] == pytest.approx(0.01)
    assert not caplog.records


class Network(nn.Module):
    """A student and a method's own layer, as the distiller holds them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student, self.methods = r2plus1d_6(3, width=4), nn.ModuleDict({"m": nn.Linear(4, 4)})
        self.methods["m"].lr_scale = 1.0


def trained(optimizer_of) -> list[torch.Tensor]:
    """Weights after some steps along fixed gradients."""
    network = Network()
    optimizer, generator = optimizer_of(network), torch.Generator().manual_seed(1)
    for _ in range(3):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return list(network.parameters())


SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
ADAMW = {"lr": 0.01, "weight_decay": 0.05}


@pytest.mark.parametrize(
    ("theirs", "options", "more"),
    [
        (torch.optim.SGD, SGD, {}),
        (torch.optim.SGD, SGD | {"nesterov": True}, {}),
        (torch.optim.AdamW, ADAMW | {"betas": (0.9, 0.98)}, {"name": "adamw", "options": {"betas": [0.9, 0.98]}}),
    ],
)  # fmt: skip
def test_optimisers_are_torchs_to_the_last_bit(theirs, options, more):
    optim = Optim(**{key: value for key, value in options.items() if key != "betas"}, **more)
    ours = trained(lambda network: make_optimizer(parameter_groups(network, optim), optim))
    assert all(map(torch.equal, ours, trained(lambda network: theirs(network.parameters(), **options))))


def test_weight_decay_can_leave_norms_and_biases_alone():
    optim, network, by_decay = Optim(norm_weight_decay=False), Network(), {}
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
        (Optim(options={"betas": [0.9, 0.9]}), "does not take betas"),
        (Optim(name="adamw", options={"betas": [2.0, 0.9]}), "does not take betas"),
    ],
)
def test_optimisers_that_cannot_be_used_are_refused(optim, match):
    def use():
        check_optimizer(optim)
        make_optimizer(parameter_groups(Network(), optim), optim)

    with pytest.raises(RecipeError, match=f"(?s){match}"):
        use()
