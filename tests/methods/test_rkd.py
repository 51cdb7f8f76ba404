from __future__ import annotations

import pytest
import torch

from ccl_cli.methods.rkd import angle_loss, comparable, distance_loss, geometry
from tests.helpers.golden import TAGS, assert_close, assert_reference, load, pair
from tests.methods.distilling import Example, build, everyone, rows, run

LOSSES = {"dist": distance_loss, "angle": angle_loss}


def value(loss, student, teacher):
    everywhere = everyone(student)
    sides = geometry(rows(student), everywhere), geometry(rows(teacher), everywhere)
    return loss(*sides, comparable(*sides, everywhere)).mean()


@pytest.mark.parametrize("code", ["rkd", "rkd_author"])
@pytest.mark.parametrize("term", LOSSES)
@pytest.mark.parametrize("tag", TAGS)
def test_equals_the_reference(shared, tag, term, code):
    golden = load(shared, "distillers")
    student, teacher = pair(golden, tag)
    assert_reference(value(LOSSES[term], student, teacher), student, golden, f"{code}_{term}_{tag}")


@pytest.mark.parametrize("tag", TAGS)
def test_the_method_equals_the_reference_by_its_published_shares(shared, tag):
    golden = load(shared, "distillers")
    student, teacher = pair(golden, tag)
    example = Example(8, (teacher.shape[1],), ((),), student.shape[1])
    example.feature, example.teachers = student, [teacher]
    terms, (gradient, *_) = run(build("rkd", example), example)
    assert_close(sum(terms.values()), golden[f"rkd_total_{tag}_loss"], 1e-9)
    assert_close(gradient, golden[f"rkd_total_{tag}_grad"], 1e-9)


def test_closed_forms():
    line = torch.tensor([[0.0], [1.0], [3.0]])
    equilateral = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
    assert value(distance_loss, line, equilateral).item() == pytest.approx(1 / 18, rel=1e-12)
    assert value(angle_loss, line, equilateral).item() == pytest.approx(2.5 / 27, rel=1e-12)


@pytest.mark.parametrize("gap", [0, 1e-7])
@pytest.mark.parametrize("side", [0, 1], ids=["student", "teacher"])
def test_equal_rows_are_left_out_of_pairs_and_angles_on_both_sides(side, gap):
    both = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    both[side, 3] = both[side, 1] + gap
    both.requires_grad_()
    everywhere = everyone(both[0])
    sides = [geometry(rows(x), everywhere) for x in both]
    apart = comparable(*sides, everywhere)
    assert (~apart).nonzero().tolist() == sorted([[i, i] for i in range(5)] + [[1, 3], [3, 1]])
    phi = [side.distance / side.mean for side in sides]
    expected = torch.nn.functional.smooth_l1_loss(phi[0], phi[1], reduction="none")
    per_anchor = (expected * apart).sum(dim=1) / torch.tensor([5, 4, 5, 4, 5])
    assert_close(distance_loss(*sides, apart), per_anchor, 1e-12)
    assert torch.autograd.grad(angle_loss(*sides, apart).sum(), both)[0].abs().max() < 10


def test_close_rows_keep_their_angles_in_single_precision():
    """A copy of one point set shrunk to 1e-3, far from the origin, is still the same point set."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(8, 512, generator=generator)
    student = (1 + 1e-3 * teacher.double()).float()
    for loss in LOSSES.values():
        assert value(loss, student, teacher).item() < 1e-8
        assert value(loss, student, torch.randn(8, 512, generator=generator)).item() > 1e-4


def test_a_share_of_zero_drops_its_term():
    example = Example()
    terms, _ = run(build("rkd", example, angle=0), example)
    assert set(terms) == {"distance/t0", "distance/t1"}
