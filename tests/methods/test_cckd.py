from __future__ import annotations

import math

import pytest
import torch

from ccl_cli.methods.cckd import CCKDOptions, bilinear_kernel, congruence, neighbour, taylor_kernel
from tests.helpers.golden import TAGS, assert_reference, load, pair
from tests.methods.distilling import Example, build, everyone, rows, run


def value(student, teacher, kernel=taylor_kernel):
    return congruence(kernel(rows(student)), kernel(rows(teacher)), everyone(student)).mean()


def successive(student, teacher):
    return neighbour(student, teacher, everyone(student)).mean()


@pytest.mark.parametrize("tag", TAGS)
def test_taylor_equals_the_reference(shared, tag):
    golden = load(shared, "distillers")
    student, teacher = pair(golden, tag)
    assert_reference(value(student, teacher), student, golden, f"cckd_zoo_g0.4_P2_{tag}")


@pytest.mark.parametrize("tag", TAGS)
def test_bilinear_equals_the_reference_but_for_its_square(shared, tag):
    """The reference divides the norm, not its square, by the number of pairs."""
    golden = load(shared, "distillers")
    student, teacher = pair(golden, tag)
    loss = value(student, teacher, bilinear_kernel).sqrt() / len(student)
    assert_reference(loss, student, golden, f"cckd_torchdistill_bilinear_{tag}")


def test_neighbour_equals_the_reference(shared):
    golden = load(shared, "distillers")
    student, teacher = pair(golden, "same")
    assert_reference(successive(student, teacher), student, golden, "cc_repdistiller_same")


def test_closed_forms():
    expected = (1.12 * math.exp(-0.8)) ** 2 / 2
    assert value(torch.eye(2).double(), torch.ones(2, 3).double()).item() == pytest.approx(
        expected, rel=1e-12
    )
    assert successive(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)).item() == 11


def test_neighbour_maps_the_student_only_where_widths_differ():
    method = build("cckd neighbour", Example(dims=(6, 9)))
    assert {name: tuple(p.shape) for name, p in method.named_parameters()} == {
        "heads.1.weight": (9, 6),
        "heads.1.bias": (9,),
    }


def test_default_weights_follow_the_variant():
    assert CCKDOptions().weight == 100
    assert CCKDOptions(variant="neighbour").weight == 0.02
    assert CCKDOptions(variant="neighbour", weight=3).weight == 3
    example = Example(dims=(6,), absent=())
    terms, _ = run(build("cckd neighbour", example), example)
    expected = 0.02 * successive(example.feature, example.teachers[0]).item()
    assert terms["cckd/t0"].item() == pytest.approx(expected, rel=1e-12)
