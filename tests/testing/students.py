"""A good student, and students that are wrong in one thing each."""

from __future__ import annotations

import torch
from torch import nn

from ccl_cli.students import Student


class Good(Student):
    def __init__(self, num_classes, *, weights=None):
        blocks = nn.ModuleList([block(3, 4), block(4, 8)])
        super().__init__(blocks, 8, num_classes)


def block(inputs, outputs):
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, 2, 1), nn.BatchNorm3d(outputs), nn.ReLU())


def built(change):
    """A good student that is changed once it is built."""

    def factory(num_classes, **rest):
        student = Good(num_classes, **rest)
        change(student)
        return student

    return factory


def says(change):
    """A good student whose output is changed."""
    return type("Changed", (Good,), {"forward": lambda self, video: change(Good.forward(self, video))})


def logits(change):
    return says(lambda out: out._replace(logits=change(out.logits)))


class Hidden(Good):
    """A tensor that decides the scores and is saved nowhere."""

    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def forward(self, video):
        out = super().forward(video)
        return out._replace(logits=out.logits * self.scale)


FOREVER = torch.Generator()
WRONG = [
    ("attributes", built(lambda student: setattr(student, "feature_dim", None))),
    ("attributes", lambda num_classes, **rest: Good(400)),
    ("output", says(lambda out: out.logits)),
    ("output", logits(lambda scores: scores / 0)),
    ("stages", says(lambda out: out._replace(stages=(out.feature,)))),
    ("clip sizes", built(lambda student: setattr(student, "pool", nn.Sequential(nn.AvgPool3d((1, 16, 16)))))),
    ("determinism", logits(nn.functional.dropout)),
    ("batch", logits(lambda scores: scores - scores.mean(dim=0))),
    ("gradient", built(lambda student: student.add_module("spare", nn.Linear(3, 3)))),
    ("seed", built(lambda student: nn.init.normal_(student.classifier.weight, generator=FOREVER))),
    ("published file", Hidden),
    ("published file", built(lambda student: student.add_module("again", student.classifier))),
    ("device", built(lambda student: setattr(student, "means", [torch.zeros(3)]))),
]
