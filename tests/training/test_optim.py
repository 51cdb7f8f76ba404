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
from ccl_cli.training.optim import scheduler

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


def test_the_default_drops_at_half_and_three_quarters():
    at = rates(300, 1, steps=(0, 149, 150, 224, 225, 299))
    assert at == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


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
def test_the_rate_depends_on_the_step_alone(name):
    options = {"schedule": name, "warmup_epochs": 0.5}
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    whole = rates(10, 4, **options)
    assert rates(10, 4, steps=order, **options) == [whole[step] for step in order]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_epochs", [0, 0.9])
def test_the_shortest_runs(name, warmup_epochs, caplog):
    """Of one step, and one that is over with its warm-up."""
    with caplog.at_level(logging.WARNING):
        assert rates(1, 1, schedule=name, milestones=[]) == [0.1]
        found = rates(1, 2, schedule=name, milestones=[], warmup_epochs=warmup_epochs)
    assert found[0] == pytest.approx(0.01 if warmup_epochs else 0.1)
    assert not caplog.records  # timm has something to say about schedules of one step
