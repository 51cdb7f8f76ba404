"""Every check of a student, with students that are wrong in just that."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.video import mvit_v2_s

from ccl_cli.errors import PluginError
from ccl_cli.registry import STUDENTS, names
from ccl_cli.students import Student, StudentOutput
from ccl_cli.testing import check_student
from ccl_cli.testing import student as kit


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

    class Changed(Good):
        def forward(self, video):
            return change(super().forward(video))

    return Changed


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


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_a_student_that_is_wrong_in_one_thing_fails_that_check_alone(check, wrong):
    (verdict,) = check_student(wrong).failures
    assert verdict.check == check
    assert len(verdict.message) > 20
    assert "\n" not in verdict.message


def test_every_check_has_a_student_that_fails_it():
    assert {check for check, _ in WRONG} == set(kit.check.names)


def test_a_good_student_passes_everything_and_leaves_the_random_state_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    report = check_student(Good)
    assert [verdict.state for verdict in report.verdicts] == ["ok"] * len(kit.check.names)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_student_without_stages_is_one_that_some_methods_cannot_train():
    no_stages = says(lambda out: StudentOutput(out.feature, out.logits))
    found = {verdict.check: verdict for verdict in check_student(no_stages).verdicts}
    assert found["stages"].state == "skipped"
    assert "cannot train it" in found["stages"].message


def test_an_unknown_student():
    with pytest.raises(PluginError, match="Did you mean 'r2plus1d_18'"):
        check_student("r2plus1d_19")


# A transformer of one clip size takes a minute.
MARKS = {"r2plus1d_tiny": ()} | dict.fromkeys(("mvit_base_16x4", "mvit_v2_s"), pytest.mark.long)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=MARKS.get(each, pytest.mark.slow))
        for each in [*names(STUDENTS), "timm:resnet18?shift=true", "timm:vit_tiny_patch16_224"]
    ],
)
def test_built_in_students_keep_it(name):
    assert check_student(name).failures == []


@pytest.mark.slow
def test_a_shallow_transformer_of_one_clip_size_keeps_it(monkeypatch):
    def shallow(**options):
        network = mvit_v2_s(**options)
        del network.blocks[4:14]  # ten alike
        return network

    monkeypatch.setattr("torchvision.models.video.mvit_v2_s", shallow)
    assert check_student("mvit_v2_s").failures == []
