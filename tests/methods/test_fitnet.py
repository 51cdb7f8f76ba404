from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods.fitnet import FitNetOptions, hint, log_sum
from tests.helpers.golden import assert_close, assert_reference, load, pair
from tests.methods.distilling import Example, build, run


def test_equals_the_reference(shared):
    golden = load(shared, "distillers")
    student, teacher = pair(golden, "same")
    assert_reference(hint(student, teacher).mean(), student, golden, "fitnet_same")


def test_closed_form():
    assert hint(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)).tolist() == [2.5]


def test_the_term_is_the_published_weight_times_the_mean_over_rows_and_dimensions():
    example = Example(dims=(6,), absent=())
    terms, _ = run(build("fitnet", example), example)
    expected = 100 * (example.feature - example.teachers[0]).square().mean()
    assert terms["fitnet/t0"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_identity_cannot_bridge_widths():
    with pytest.raises(
        RecipeError, match="identity needs a teacher as wide as the student \\(6\\), but 't1' has 9"
    ):
        build("fitnet", Example(), regressor="identity")


@pytest.mark.parametrize(
    ("regressor", "trained"), [("auto", 9 * 6 + 9), ("linear", 6 * 6 + 6 + 9 * 6 + 9), ("identity", None)]
)
def test_a_regressor_is_learned_only_where_it_is_needed(regressor, trained):
    if trained is None:
        trained, example = 0, Example(dims=(6, 6))
    else:
        example = Example(dims=(6, 9))
    method = build("fitnet", example, regressor=regressor)
    assert sum(parameter.numel() for parameter in method.parameters()) == trained


@pytest.mark.parametrize("variant", ["fitnet norm", "fitnet logsum"])
def test_a_normalised_regressor_is_batch_norm_over_the_rows_present(variant):
    example = Example(dims=(9,), absent=((2, 5),))
    method = build(variant, example)
    (ours,) = method.heads
    norm = nn.BatchNorm1d(9, track_running_stats=False).double()
    present = example.present[0]
    expected = ours.output(norm(ours.linear(example.feature[present])).relu())
    actual = ours(example.feature, present)[present]
    assert_close(actual.detach(), expected.detach(), 1e-12)
    gradients = (torch.autograd.grad(y.square().sum(), ours.linear.weight)[0] for y in (actual, expected))
    assert_close(*gradients, 1e-12)
    assert isinstance(ours.output, nn.Linear) == (variant == "fitnet logsum")


def test_log_sum_is_the_logarithm_of_the_sum_of_fourth_powers():
    prediction, target = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    prediction.requires_grad_()
    value, difference = log_sum(prediction, target), prediction - target
    plain = (difference**4).sum(dim=1).log()
    assert_close(value.detach(), plain.detach(), 1e-5)
    gradients = (torch.autograd.grad(y.sum(), prediction)[0] for y in (value, plain))
    assert_close(*gradients, 1e-3)  # what the guard against an error of zero changes
    assert_close(log_sum(1e6 * difference, 0 * difference), plain + 4 * math.log(1e6), 1e-9)
    assert log_sum(torch.full((1, 2), 1e20), torch.zeros(1, 2)).isfinite().all()


def test_the_default_weight_follows_the_loss():
    assert FitNetOptions().weight == 100
    assert FitNetOptions(loss="logsum").weight == 1
    assert FitNetOptions(loss="logsum", weight=3).weight == 3
