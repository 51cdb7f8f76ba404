"""A good method, and methods that are wrong in one thing each."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from torch import nn

from ccl_cli.methods import Method, MethodOptions
from ccl_cli.utils.distributed import masked_mean


class Options(MethodOptions):
    weight: float = 1.0


class Good(Method):
    Options = Options
    needs_labels = False

    def head(self, setting, teacher):
        return nn.Linear(setting.student_dim, teacher.dim)

    def forward(self, student, teachers, batch):
        terms = {}
        for info, layer in zip(self.teachers, self.heads, strict=True):
            value, present, _ = teachers[info.name]
            terms[info.name] = self.mean(self.distance(layer(student.feature), value), present)
        return terms

    def distance(self, predicted, value):
        return (predicted - value).square().mean(dim=1)

    def mean(self, values, present):
        return masked_mean(values, present)


def good_but_for(**changes):
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


def terms(change):
    """A good method whose terms are changed, by the method, its student's output, teachers and batch."""

    def forward(self, student, teachers, batch):
        return change(self, Good.forward(self, student, teachers, batch), student, teachers, batch)

    return good_but_for(forward=forward)


def over_all(values, present):
    """A deviation over rows, of which a batch of one has none."""
    return masked_mean(values, present) + values.mean() * 0 / (len(values) - 1)


def counted(self, terms, *_):
    """The number of its steps is not part of its state, so a resumed run differs."""
    self.steps = getattr(self, "steps", 0) + 1
    return {name: self.steps * term for name, term in terms.items()}


def where_present(self, terms, student, teachers, batch):
    """A layer runs only where somebody is present."""
    zero = 0 * student.feature.sum()
    return {name: term if teachers[name].present.any() else zero for name, term in terms.items()}


def by_label(self, terms, student, teachers, batch):
    weight = (1 + batch.labels.min()).sign()
    return {name: term * weight / weight for name, term in terms.items()}


class AnyOption(BaseModel):
    weight: float = 1.0


FOREVER = torch.Generator()
WRONG = [
    ("options", good_but_for(Options=AnyOption)),
    ("options", good_but_for(tuned="scale")),
    ("terms", mean(lambda values, present: torch.where(present, values, 0.0))),
    ("terms", mean(lambda values, present: masked_mean(values, present) / 0)),
    ("hard batches", terms(lambda self, terms, *_: terms if len(terms) == 2 else 1 / 0)),
    ("absent rows", mean(lambda values, present: values.mean())),
    ("hard batches", mean(lambda values, present: (values * present).sum() / present.sum())),
    ("hard batches", mean(over_all)),
    ("without labels", terms(by_label)),
    ("gradient", good_but_for(distance=lambda self, predicted, value: 0 * predicted.sum(dim=1))),
    ("parameters", built(lambda method: method.add_module("spare", nn.Linear(3, 3)))),
    ("parameters", terms(where_present)),
    ("seed", mean(lambda values, present: masked_mean(values, present) * torch.rand((), generator=FOREVER))),
    ("resume", terms(counted)),
    ("device", built(lambda method: setattr(method, "table", {"labels": torch.zeros(3)}))),
]
