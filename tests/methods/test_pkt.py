from __future__ import annotations

import math

import pytest
import torch

from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.pkt import PKTOptions, pkt
from tests.helpers.golden import TAGS, assert_reference, load, pair
from tests.methods.distilling import Example, build, everyone, rows, run


def value(student, teacher):
    """The published mean over all pairs."""
    return pkt(rows(student), rows(teacher), everyone(student)).mean() / len(student)


@pytest.mark.parametrize("code", ["pkt", "pkt_author"])
@pytest.mark.parametrize("tag", TAGS)
def test_equals_the_reference(shared, tag, code):
    golden = load(shared, "distillers")
    student, teacher = pair(golden, tag)
    assert_reference(value(student, teacher), student, golden, f"{code}_{tag}")


def test_closed_form():
    student, teacher = torch.eye(2).double(), torch.ones(2, 3).double()
    assert value(student, teacher).item() == pytest.approx(math.log(9 / 8) / 4, abs=3e-8)


@pytest.mark.parametrize("count", [5, 64])
def test_the_weights_of_both_reductions_agree_at_64_rows(count):
    example = Example(count, (6,), ((),))
    mean, _ = run(build("pkt", example), example)
    batchmean, _ = run(build("pkt batchmean", example), example)
    assert (PKTOptions().weight, PKTOptions(reduction="batchmean").weight) == (30000, 468.75)
    assert PKTOptions(reduction="batchmean", weight=2).weight == 2
    ratio = mean["pkt/t0"].item() / batchmean["pkt/t0"].item()
    assert ratio == pytest.approx(64 / count, rel=1e-12)


def test_joined_teachers_have_the_average_cosine_and_the_rows_that_both_have():
    example = Example(7, (6, 9), ((2,), (5,)))
    terms, (gradient, *_) = run(build("pkt concat", example, weight=1), example)
    kept = example.present.all(dim=0)
    cosines = [(u := unit_rows(x[kept])) @ u.mT for x in example.teachers]
    kernel = (1 + sum(cosines) / 2) / 2
    p = kernel / kernel.sum(dim=1, keepdim=True)
    kernel = (1 + (u := unit_rows(example.feature[kept])) @ u.mT) / 2
    q = kernel / kernel.sum(dim=1, keepdim=True)
    expected = (p * (p / q).log()).mean().item()
    assert terms["pkt/t0+t1"].item() == pytest.approx(expected, rel=1e-5)
    assert gradient[~kept].abs().max() == 0
