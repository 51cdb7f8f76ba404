"""Every check of a student, with students that are wrong in just that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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


class NoWidth(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(num_classes, **rest)
        self.feature_dim = None


class OwnClasses(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(400)


class Bare(Good):
    def forward(self, video):
        return super().forward(video).logits


class Infinite(Good):
    def forward(self, video):
        out = super().forward(video)
        return out._replace(logits=out.logits / 0)


class PooledStages(Good):
    def forward(self, video):
        out = super().forward(video)
        return out._replace(stages=(out.feature,))


class OneSize(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        self.pool = nn.Sequential(nn.AvgPool3d((1, 16, 16)))


class Dropping(Good):
    def forward(self, video):
        out = super().forward(video)
        return out._replace(logits=nn.functional.dropout(out.logits))


class Centred(Good):
    def forward(self, video):
        out = super().forward(video)
        return out._replace(logits=out.logits - out.logits.mean(dim=0))


class Spare(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        self.spare = nn.Linear(3, 3)


class OwnDice(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        nn.init.normal_(self.classifier.weight, generator=FOREVER)


FOREVER = torch.Generator()


class Hidden(Good):
    """A tensor that decides the scores and is saved nowhere."""

    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def forward(self, video):
        out = super().forward(video)
        return out._replace(logits=out.logits * self.scale)


class Tied(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        self.again = self.classifier


class LeftBehind(Good):
    def __init__(self, num_classes, **rest):
        super().__init__(num_classes)
        self.means = [torch.zeros(3)]


WRONG = [
    ("attributes", NoWidth),
    ("attributes", OwnClasses),
    ("output", Bare),
    ("output", Infinite),
    ("stages", PooledStages),
    ("clip sizes", OneSize),
    ("determinism", Dropping),
    ("batch", Centred),
    ("gradient", Spare),
    ("seed", OwnDice),
    ("published file", Hidden),
    ("published file", Tied),
    ("device", LeftBehind),
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
    class NoStages(Good):
        def forward(self, video):
            out = super().forward(video)
            return StudentOutput(out.feature, out.logits)

    found = {verdict.check: verdict for verdict in check_student(NoStages).verdicts}
    assert found["stages"].state == "skipped"
    assert "cannot train it" in found["stages"].message


def test_an_unknown_student():
    with pytest.raises(PluginError, match="Did you mean 'r2plus1d_18'"):
        check_student("r2plus1d_19")


# A transformer of one clip size takes a minute.
MARKS = {"r2plus1d_tiny": (), "mvit_base_16x4": (pytest.mark.slow, pytest.mark.long)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=MARKS.get(each, pytest.mark.slow))
        for each in [*names(STUDENTS), "timm:resnet18?shift=true", "timm:vit_tiny_patch16_224"]
    ],
)
def test_built_in_students_keep_it(name):
    assert check_student(name).failures == []
