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


def good_but_for(**changes):
    """A good method but for attributes and methods of its class."""
    return type("Wrong", (Good,), changes)


def built(change):
    """A good method that is changed once it is built."""

    def init(self, options, setting):
        Good.__init__(self, options, setting)
        change(self)

    return good_but_for(__init__=init)


def mean(function):
    """A good method with another mean of values [B] over the rows present."""
    return good_but_for(mean=lambda self, values, present: function(values, present))


def over_all(values, present):
    """A deviation over rows, of which a batch of one has none."""
    everyone = torch.ones_like(present)
    deviation = masked_mean(values, everyone) * 0 / (len(values) - 1)
    return masked_mean(values, present) + deviation


def only_two(self, student, teachers, batch):
    if len(self.teachers) != 2:
        raise ValueError("two, please")
    return Good.forward(self, student, teachers, batch)


def detached(self, student, teachers, batch):
    return Good.forward(self, student._replace(feature=student.feature.detach()), teachers, batch)


def where_present(self, student, teachers, batch):
    """A layer runs only where somebody is present."""
    zero = 0 * student.feature.sum()
    terms = Good.forward(self, student, teachers, batch)
    return {name: term if teachers[name].present.any() else zero for name, term in terms.items()}


def counted(self, student, teachers, batch):
    """What it has seen lies in a number that is saved nowhere."""
    self.steps = getattr(self, "steps", 0) + 1
    return {name: self.steps * term for name, term in Good.forward(self, student, teachers, batch).items()}


def by_label(self, student, teachers, batch):
    weight = (1 + batch.labels.min()).sign()
    return {
        name: term * weight / weight for name, term in Good.forward(self, student, teachers, batch).items()
    }


def own_dice(self, predicted, value):
    return Good.distance(self, predicted, value) * torch.rand((), generator=FOREVER)


class AnyOption(BaseModel):
    weight: float = 1.0


FOREVER = torch.Generator()
WRONG = [
    ("options", good_but_for(Options=AnyOption)),
    ("options", good_but_for(tuned="scale")),
    ("terms", mean(lambda values, present: torch.where(present, values, 0.0))),
    ("terms", mean(lambda values, present: masked_mean(values, present) / 0)),
    ("teachers", good_but_for(forward=only_two)),
    ("absent rows", mean(lambda values, present: values.mean())),
    ("nobody present", mean(lambda values, present: (values * present).sum() / present.sum())),
    ("small batches", mean(over_all)),
    ("without labels", good_but_for(needs_labels=False, forward=by_label)),
    ("gradient", good_but_for(forward=detached)),
    ("parameters", built(lambda method: method.add_module("spare", nn.Linear(3, 3)))),
    ("parameters", good_but_for(forward=where_present)),
    ("seed", good_but_for(distance=own_dice)),
    ("resume", good_but_for(forward=counted)),
    ("device", built(lambda method: setattr(method, "table", {"labels": torch.zeros(3)}))),
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
    report = check_method(good_but_for(needs_labels=False))
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
