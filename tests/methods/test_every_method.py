"""What holds for every method."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ccl_cli.config.recipe import Clip
from ccl_cli.errors import PluginError
from ccl_cli.registry import METHODS, find, load, names
from ccl_cli.training.distiller import Distiller
from tests.helpers.golden import assert_close
from tests.methods.distilling import VARIANTS, WITH_BANKS, Example, build, run

each_variant = pytest.mark.parametrize("variant", VARIANTS)


def total(terms):
    return torch.stack(list(terms.values())).sum()


@each_variant
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), absent=st.sets(st.integers(0, 6), min_size=1, max_size=5))
def test_absent_rows_are_as_if_they_were_not_there(variant, seed, absent):
    example = Example(dims=(6,), absent=(absent,), seed=seed)
    kept = [row for row in range(7) if row not in absent]
    terms, gradients = run(build(variant, example), example)
    expected, smaller = run(build(variant, example), example.select(kept))
    assert terms == {
        name: pytest.approx(value.item(), rel=1e-9, abs=1e-9) for name, value in expected.items()
    }
    for gradient, other in zip(gradients, smaller, strict=True):
        assert gradient[list(absent)].abs().max() == 0
        torch.testing.assert_close(gradient[kept], other, rtol=1e-8, atol=1e-9)


@each_variant
def test_absent_rows_may_hold_anything(variant):
    example = Example()
    expected, gradients = run(build(variant, example), example)
    example.teachers[0][[2, 5]] = torch.nan
    terms, others = run(build(variant, example), example, zero_absent=False)
    assert total(terms).item() == total(expected).item()
    assert all(map(torch.equal, gradients, others))


@pytest.mark.parametrize("variant", [*VARIANTS, *WITH_BANKS])
def test_the_tuned_weight_scales_every_term_for_the_student(variant):
    example = Example()
    method = build(variant, example)
    name = method.tuned
    weight = 1.0 if name == "teacher_weight" else getattr(method.options, name)
    once, gradients = run(build(variant, example, **{name: weight}), example)
    twice, others = run(build(variant, example, **{name: 2 * weight}), example)
    heads = ("probe", "ce", "nce_head", "jsd_head", "nce_teacher")  # do not reach the student
    for term in once:
        factor = 1 if term.split("/")[0] in heads else 2
        assert twice[term].item() == pytest.approx(factor * once[term].item(), rel=1e-12)
    if variant != "ccl joint":  # there the compositions' cross-entropy trains the student
        for gradient, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(other, 2 * gradient, rtol=1e-12, atol=1e-15)


def degenerate(case: str, dtype: torch.dtype) -> Example:
    """A batch of 8 rows (fewer where the case says so) whose features are as long as real ones."""
    count = {"one row": 1, "two rows": 2}.get(case, 8)
    absent = {"nobody": range(8), "one present": range(1, 8), "two present": range(2, 8)}.get(case, ())
    example = Example(count, (64, 40), (absent, ()), 64)
    feature, (first, second) = 4 * example.feature, example.teachers
    noise = torch.randn(count, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if case == "one class":
        example.labels = torch.zeros_like(example.labels)
    elif case == "zero student":
        feature = torch.zeros_like(feature)
    elif case == "zero teacher rows":
        first[[1, 4]] = 0
        second[:] = 0
    elif case == "one student row repeated":
        feature[:] = feature[0].clone()
    elif case == "nearly equal student rows":
        feature[5] = feature[2] + 1e-5 * noise[5]
    elif case == "nearly one student row":
        feature = feature[0] + 1e-3 * noise
    elif case == "opposite rows":
        feature[5], first[5] = -feature[2], -first[2]
    example.feature, example.logits = feature.to(dtype), example.logits.to(dtype)
    example.stage, example.teachers = example.stage.to(dtype), [first.to(dtype), second.to(dtype)]
    return example


CASES = [
    "one row", "two rows", "nobody", "one present", "two present", "one class", "zero student", "zero teacher rows",
    "one student row repeated", "nearly equal student rows", "nearly one student row", "opposite rows",
]  # fmt: skip


@each_variant
def test_degenerate_batches_have_a_finite_value_and_a_gradient_of_ordinary_size(variant):
    example = degenerate("ordinary", torch.float64)
    ordinary = max(gradient.abs().max() for gradient in run(build(variant, example), example)[1])
    for case, dtype in product(CASES, (torch.float32, torch.float64)):
        # The gradient of an angle is of order 1 / distance: larger by what the rows are closer.
        limit = 5e4 if variant == "rkd" and case.startswith("nearly") else 500
        if variant == "mnf_csc" and "one student row" in case:
            limit = 1e7  # each of its two batch normalisations divides rows that are all alike by 0.003
        example = degenerate(case, dtype)
        terms, gradients = run(build(variant, example), example)
        assert torch.isfinite(total(terms)), case
        for gradient in gradients:
            assert torch.isfinite(gradient).all(), case
            assert gradient.abs().max() <= limit * ordinary, case


class Fixed(nn.Module):
    """A student that says the same whatever it sees."""

    def __init__(self, output):
        super().__init__()
        self.output, self.one = output, nn.Parameter(torch.ones(1))
        self.num_classes = output.logits.shape[1]

    def forward(self, video):
        return self.output


def distil(example, leaves, methods):
    batch = example.batch._replace(video=torch.zeros(7, 3, 1, 2, 2, dtype=torch.uint8))
    embeddings = {
        name: each._replace(value=each.value.float()) for name, each in example.embeddings().items()
    }
    return Distiller(Fixed(example.student(leaves)), methods, Clip())(batch, embeddings)


@each_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(variant, dtype):
    example = Example(dtype=dtype)
    leaves = example.leaves()
    loss = distil(example, leaves, {"m": build(variant, example)}).loss
    assert loss.dtype == torch.float32
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)


def test_a_term_may_not_take_the_name_of_another_figure(monkeypatch):
    example = Example(dtype=torch.float32)
    method = build("kd", example)
    monkeypatch.setattr(type(method), "forward", lambda *_: {"ce": torch.zeros(())})
    with pytest.raises(PluginError, match="'m' has a term 'ce'"):
        distil(example, example.leaves(), {"m": method})


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_cls_weight_is_equation_8s_and_weighs_the_students_cross_entropy_too(weight):
    example = Example(dtype=torch.float32)
    once, other = (
        distil(example, example.leaves(), {"ccl": build("ccl", example, cls_weight=each)}).parts
        for each in (1.0, weight)
    )
    assert set(once) == {f"{term}/t{k}" for term in ("ce", "nce", "jsd") for k in (0, 1)} | {"ce"}
    for name, value in once.items():
        factor = weight if name.startswith("ce") else 1.0
        assert other[name].item() == pytest.approx(factor * value.item(), rel=1e-6)


@each_variant
def test_single_precision_agrees_with_double(variant):
    """On rows that are nearly parallel, as an untrained student's are."""
    example = degenerate("ordinary", torch.float64)
    example.feature = 20 + example.feature
    expected, gradients = run(build(variant, example), example)
    narrow = degenerate("ordinary", torch.float32)
    narrow.feature = example.feature.float()
    terms, others = run(build(variant, narrow), narrow)
    assert total(terms).item() == pytest.approx(total(expected).item(), rel=2e-3)
    for gradient, other in zip(gradients, others, strict=True):
        if gradient.abs().max() > 0:
            assert_close(other.double(), gradient, 1e-2)


def test_every_method_is_tested_here_and_says_what_each_option_is():
    assert {name.split()[0] for name in VARIANTS | WITH_BANKS} | {"baseline"} == set(names(METHODS))
    for name in names(METHODS):
        fields = load(find(METHODS, name)).Options.model_fields
        assert all(field.description for field in fields.values())
