"""What holds for every method that compares a student with teachers row by row or row to row."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import PluginError
from ccl_cli.registry import METHODS, find, load
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.distiller import Distiller
from tests.helpers.golden import assert_close
from tests.methods.distilling import VARIANTS, Example, Fixed, build, run

each_variant = pytest.mark.parametrize("variant", VARIANTS)


def total(terms):
    return torch.stack(list(terms.values())).sum()


@each_variant
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), absent=st.sets(st.integers(0, 6), min_size=1, max_size=5))
def test_absent_rows_are_as_if_they_were_not_there(variant, seed, absent):
    example = Example(dims=(6,), absent=(absent,), seed=seed)
    kept = [row for row in range(7) if row not in absent]
    terms, gradients = run(build(variant, example), example)
    expected, smaller = run(build(variant, example), example.select(kept))
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-9, abs=1e-9)
    for gradient, other in zip(gradients, smaller, strict=True):
        assert gradient[list(absent)].abs().max() == 0
        torch.testing.assert_close(gradient[kept], other, rtol=1e-8, atol=1e-9)


@each_variant
@pytest.mark.parametrize("junk", [1e6, torch.nan])
def test_absent_rows_may_hold_anything(variant, junk):
    example = Example()
    expected, gradients = run(build(variant, example), example)
    example.teachers[0][[2, 5]] = junk
    terms, others = run(build(variant, example), example, zero_absent=False)
    assert total(terms).item() == total(expected).item()
    for gradient, other in zip(gradients, others, strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize("variant", ["pkt", "cckd", "rkd", "ifd"])
def test_each_of_two_teachers_adds_what_it_adds_alone(variant):
    example = Example(absent=())
    terms, _ = run(build(variant, example), example)
    for number in (0, 1):
        alone = Example(absent=())
        alone.teachers, alone.present = [example.teachers[number]], alone.present[:1]
        for name, value in run(build(variant, alone), alone)[0].items():
            assert value.item() == terms.pop(name.replace("t0", f"t{number}")).item()
    assert not terms


@each_variant
def test_the_batch_may_come_in_any_order(variant):
    example = Example()
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    value = total(run(build(variant, example), example)[0]).item()
    moved = total(run(build(variant, example), example.select(order))[0]).item()
    if variant in ("cckd neighbour", "unic"):  # unic draws by place
        assert moved != pytest.approx(value, rel=1e-3)
    else:
        assert moved == pytest.approx(value, rel=1e-12)


@each_variant
def test_the_weight_scales_every_term_for_the_student(variant):
    example = Example()
    cls, _ = VARIANTS[variant]
    weight = build(variant, example).options.weight
    assert cls.tuned == "weight"
    once, gradients = run(build(variant, example), example)
    twice, others = run(build(variant, example, weight=2 * weight), example)
    for name in once:
        factor = 1 if name.startswith("probe/") else 2
        assert twice[name].item() == pytest.approx(factor * once[name].item(), rel=1e-12)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, 2 * gradient, rtol=1e-12, atol=0)


def degenerate(case: str, dtype: torch.dtype) -> Example:
    """A batch of 8 rows (fewer where the case says so) whose features are as long as real ones."""
    count = {"one row": 1, "two rows": 2}.get(case, 8)
    absent = {"nobody": range(8), "one present": range(1, 8), "two present": range(2, 8)}.get(case, ())
    example = Example(count, (64, 40), (absent, ()), 64, torch.float64)
    feature, (first, second) = 4 * example.feature, example.teachers
    noise = torch.randn(count, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if case == "one class":
        example.labels = torch.zeros_like(example.labels)
    elif case == "zero student row":
        feature[3] = 0
    elif case == "zero student":
        feature = torch.zeros_like(feature)
    elif case == "zero teacher rows":
        first[[1, 4]] = 0
        second[:] = 0
    elif case == "equal student rows":
        feature[5] = feature[2]
    elif case == "one student row repeated":
        feature[:] = feature[0].clone()
    elif case == "nearly equal student rows":
        feature[5] = feature[2] + 1e-5 * noise[5]
    elif case == "nearly one student row":
        feature = feature[0] + 1e-3 * noise
    elif case == "opposite student rows":
        feature[5] = -feature[2]
    elif case == "opposite teacher rows":
        first[5] = -first[2]
    example.feature, example.logits = feature.to(dtype), example.logits.to(dtype)
    example.stage, example.teachers = example.stage.to(dtype), [first.to(dtype), second.to(dtype)]
    return example


CASES = [
    "one row", "two rows", "nobody", "one present", "two present", "one class", "zero student row", "zero student",
    "zero teacher rows", "equal student rows", "one student row repeated", "nearly equal student rows",
    "nearly one student row", "opposite student rows", "opposite teacher rows",
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


@each_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(variant, dtype):
    example = Example(dtype=dtype)
    leaves = feature, logits, stage = example.leaves()
    student = Fixed(StudentOutput(feature, logits, (stage, feature[:, :, None, None, None])))
    teachers = {
        f"t{k}": Embedding(value.float(), there)
        for k, (value, there) in enumerate(zip(example.teachers, example.present, strict=True))
    }
    video = torch.zeros(7, 3, 1, 2, 2, dtype=torch.uint8)
    batch = Batch(video, example.labels, torch.arange(7), {}, 0)
    output = Distiller(student, {"m": build(variant, example)}, Clip())(batch, teachers)
    assert output.loss.dtype == torch.float32
    for gradient in torch.autograd.grad(output.loss, leaves, allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


def test_a_term_may_not_take_the_name_of_another_figure(monkeypatch):
    example = Example(dtype=torch.float32)
    method = build("kd", example)
    monkeypatch.setattr(type(method), "forward", lambda *_: {"ce": torch.zeros(())})
    student = Fixed(StudentOutput(example.feature, example.logits))
    batch = Batch(torch.zeros(7, 3, 1, 2, 2, dtype=torch.uint8), example.labels, torch.arange(7), {}, 0)
    with pytest.raises(PluginError, match="'m' has a term 'ce'"):
        Distiller(student, {"m": method}, Clip())(batch, {})


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


@pytest.mark.parametrize("name", ["fitnet", "pkt", "cckd", "rkd", "ifd", "kd", "queue_kl", "unic", "mnf_csc"])
def test_methods_are_installed_and_say_what_each_option_is(name):
    cls = load(find(METHODS, name))
    assert cls in {variant for variant, _ in VARIANTS.values()}
    assert all(field.description for field in cls.Options.model_fields.values())
