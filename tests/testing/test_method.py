"""Every check of a method, with methods that are wrong in just that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from ccl_cli.errors import PluginError
from ccl_cli.methods import Method, MethodOptions
from ccl_cli.registry import METHODS, names
from ccl_cli.testing import check_method
from ccl_cli.testing import method as kit
from ccl_cli.utils.distributed import masked_mean


class Options(MethodOptions):
    weight: float = 1.0


class Good(Method):
    Options: Any = Options

    def __init__(self, options, setting):
        super().__init__(options, setting)
        self.weight, self.teachers = options.weight, setting.teachers
        self.maps = nn.ModuleList(nn.Linear(setting.student_dim, each.dim) for each in setting.teachers)

    def forward(self, student, teachers, batch):
        terms = {}
        for info, layer in zip(self.teachers, self.maps, strict=True):
            value, present, _ = teachers[info.name]
            terms[info.name] = self.weight * self.mean(self.distance(layer(student.feature), value), present)
        return terms

    def distance(self, predicted, value):
        return (predicted - value).square().mean(dim=1)

    def mean(self, values, present):
        return masked_mean(values, present)


class GoodWithoutLabels(Good):
    needs_labels = False


class AnyOption(Good):
    class Options(BaseModel):
        weight: float = 1.0


class NotTuned(Good):
    tuned = "scale"


class Rows(Good):
    def mean(self, values, present):
        return torch.where(present, values, 0.0)


class Infinite(Good):
    def mean(self, values, present):
        return super().mean(values, present) / 0


class OnlyTwo(Good):
    def forward(self, student, teachers, batch):
        if len(self.teachers) != 2:
            raise ValueError("two, please")
        return super().forward(student, teachers, batch)


class EveryRow(Good):
    def mean(self, values, present):
        return values.mean()


class NobodyIsNothing(Good):
    def mean(self, values, present):
        return (values * present).sum() / present.sum()


class Spread(Good):
    """A deviation over rows, of which a batch of one has none."""

    def mean(self, values, present):
        return super().mean(values, present) + values.std().nan_to_num() * 0 + self.over(values)

    def over(self, values):
        return super().mean(values, torch.ones_like(values, dtype=torch.bool)) * 0 / (len(values) - 1)


class Detached(Good):
    def forward(self, student, teachers, batch):
        return super().forward(student._replace(feature=student.feature.detach()), teachers, batch)


class Spare(Good):
    def __init__(self, options, setting):
        super().__init__(options, setting)
        self.spare = nn.Linear(3, 3)


class LeavesOut(Good):
    """A layer runs only where somebody is present."""

    def forward(self, student, teachers, batch):
        there = {name for name, each in teachers.items() if each.present.any()}
        zero = 0 * student.feature.sum()
        return {
            name: term if name in there else zero
            for name, term in super().forward(student, teachers, batch).items()
        }


class OwnDice(Good):
    def distance(self, predicted, value):
        return super().distance(predicted, value) * torch.rand((), generator=FOREVER)


FOREVER = torch.Generator()


class Remembers(Good):
    """What it has seen lies in a number that is saved nowhere."""

    def __init__(self, options, setting):
        super().__init__(options, setting)
        self.steps = 0

    def forward(self, student, teachers, batch):
        self.steps += 1
        return {name: self.steps * term for name, term in super().forward(student, teachers, batch).items()}


class LeftBehind(Good):
    def __init__(self, options, setting):
        super().__init__(options, setting)
        self.table = {"labels": setting.labels}


class WantsLabels(Good):
    """Says that it needs no labels, and weighs rows by theirs."""

    needs_labels = False

    def forward(self, student, teachers, batch):
        terms = super().forward(student, teachers, batch)
        return {
            name: term * (1 + batch.labels.min()).sign() / (1 + batch.labels.min()).sign()
            for name, term in terms.items()
        }


WRONG = [
    ("options", AnyOption),
    ("options", NotTuned),
    ("terms", Rows),
    ("terms", Infinite),
    ("teachers", OnlyTwo),
    ("absent rows", EveryRow),
    ("nobody present", NobodyIsNothing),
    ("small batches", Spread),
    ("without labels", WantsLabels),
    ("gradient", Detached),
    ("parameters", Spare),
    ("parameters", LeavesOut),
    ("seed", OwnDice),
    ("resume", Remembers),
    ("device", LeftBehind),
]


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_a_method_that_is_wrong_in_one_thing_fails_that_check_alone(check, wrong):
    (verdict,) = check_method(wrong).failures
    assert verdict.check == check
    assert len(verdict.message) > 20
    assert "\n" not in verdict.message


def test_every_check_has_a_method_that_fails_it():
    assert {check for check, _ in WRONG} == set(kit.check.names)


def test_a_good_method_passes_everything_and_leaves_the_random_state_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    report = check_method(GoodWithoutLabels)
    assert [verdict.state for verdict in report.verdicts] == ["ok"] * len(kit.check.names)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_method():
    with pytest.raises(PluginError, match="Did you mean 'fitnet'"):
        check_method("fitnets")


NEED_LABELS = {"baseline", "ccl", "kd", "mnf_csc"}


@pytest.mark.parametrize("name", names(METHODS))
def test_built_in_methods_keep_it(name):
    report = check_method(name)
    assert report.failures == []
    skipped = {verdict.check for verdict in report.verdicts if verdict.state == "skipped"}
    assert ("without labels" in skipped) == (name in NEED_LABELS)
    assert (len(skipped - {"without labels"}) > 0) == (name == "baseline")
