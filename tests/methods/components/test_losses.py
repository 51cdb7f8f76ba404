from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from ccl_cli.methods.components import losses
from tests.helpers.golden import assert_close, load

LABELS = ["mixed", "distinct", "twoclass", "single"]


def nce(anchor, candidate, labels, temperature, present=None):
    present = torch.ones(len(labels), dtype=torch.bool) if present is None else present
    scores = losses.cosine_scores(anchor, candidate, temperature)
    rows = losses.multiclass_nce(scores, labels[:, None] == labels[None, :], present)
    return rows[present].mean()


@pytest.mark.parametrize("temperature", ["0.1", "0.5", "1.0"])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", ["gauss", "relu"])
def test_nce_equals_the_exact_reference(shared, kind, labels, temperature):
    inputs, exact = load(shared, "ccl_nce"), load(shared, "ccl_exact")
    first = inputs[f"f1_{kind}"].requires_grad_()
    second = inputs[f"f2_{kind}"].requires_grad_()
    loss = nce(first, second, inputs[f"labels_{labels}"], float(temperature))
    loss.backward()
    key = f"nce_{kind}_{labels}_tau{temperature}"
    assert_close(loss.detach(), exact[f"{key}_loss12"], 1e-10)
    assert_close(first.grad, exact[f"{key}_g12_f1"], 1e-10)
    assert_close(second.grad, exact[f"{key}_g12_f2"], 1e-10)


def test_nce_closed_forms():
    equal = torch.ones(4, 3, dtype=torch.float64)
    assert nce(equal, equal, torch.tensor([0, 0, 1, 2]), 0.5).item() == pytest.approx(
        math.log(4) + math.log(4 / 3), abs=1e-12
    )
    assert nce(equal, equal, torch.zeros(4, dtype=torch.long), 0.5).item() == pytest.approx(math.log(4))
    separated = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    floor = nce(separated, separated, torch.tensor([0, 0, 1]), 1e-3).item()
    assert floor == pytest.approx(2 / 3 * math.log(2), abs=1e-12)


def test_nce_is_exact_where_a_negative_saturates():
    """1 - p = exp(-40) would vanish in float32, and with it the gradient of the worst negative."""
    anchor = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # the own class points away, a negative coincides
    scores = losses.cosine_scores(anchor, candidates, 0.05).requires_grad_()
    loss = losses.multiclass_nce(scores, torch.tensor([[True, False]]), torch.tensor([True, True])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(80.0, rel=1e-6)
    assert scores.grad.tolist() == [[pytest.approx(-2.0), pytest.approx(2.0)]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", ["one class", "one row", "two rows", "nobody", "zero rows", "one present"])
def test_degenerate_batches_are_finite(case, dtype):
    torch.manual_seed(0)
    rows = {"one row": 1, "two rows": 2}.get(case, 5)
    first = torch.randn(rows, 8).to(dtype).requires_grad_()
    second = torch.randn(rows, 8).to(dtype).requires_grad_()
    if case == "zero rows":
        first, second = (torch.zeros(rows, 8, dtype=dtype).requires_grad_() for _ in range(2))
    labels = torch.zeros(rows, dtype=torch.long) if case == "one class" else torch.arange(rows)
    present = torch.full((rows,), case not in ("nobody", "one present"))
    present[0] |= case == "one present"
    scores = losses.cosine_scores(first, second, 0.07)
    for values in (
        losses.multiclass_nce(scores, labels[:, None] == labels, present),
        losses.info_nce(scores, torch.arange(rows), present),
    ):
        loss = torch.where(present, values, 0.0).sum()
        grads = torch.autograd.grad(loss, [first, second], retain_graph=True)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(grad).all() for grad in grads)


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 9), absent=st.integers(0, 3))
def test_absent_candidates_are_as_if_they_were_not_there(seed, rows, absent):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, rows + absent, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (rows + absent,), generator=generator)
    present = torch.randperm(rows + absent, generator=generator) < rows
    masked = nce(first, second, labels, 0.3, present)
    filtered = nce(first[present], second[present], labels[present], 0.3)
    assert masked.item() == pytest.approx(filtered.item(), rel=1e-12)


def test_half_jeffreys_and_js_equal_the_reference(shared):
    golden, exact = load(shared, "ccl_jsd"), load(shared, "ccl_exact")
    for function, name in ((losses.half_jeffreys, "half_jeffreys"), (losses.jensen_shannon, "true_js")):
        p, q = golden["logits_p"].clone().requires_grad_(), golden["logits_q"].clone().requires_grad_()
        loss = function(p, q).mean()
        loss.backward()
        assert_close(loss.detach(), exact[f"{name}_loss"], 1e-10)
        assert_close(p.grad, exact[f"{name}_g_p"], 1e-10)
        assert_close(q.grad, exact[f"{name}_g_q"], 1e-10)
    p, q = golden["logits_p"].requires_grad_(), golden["logits_q"].requires_grad_()
    loss = losses.half_jeffreys(p, q).mean()
    loss.backward()
    assert_close(loss.detach(), golden["loss_w0.5"], 1e-9)
    assert_close(p.grad, golden["g_p_w0.5"], 1e-9)
    assert_close(q.grad, golden["g_q_w0.5"], 1e-9)


def test_divergences_stay_finite_where_a_probability_underflows(shared):
    golden = load(shared, "ccl_jsd")
    assert not torch.isfinite(golden["sat_loss_official_f32"])
    p, q = golden["sat_logits_p_f32"].requires_grad_(), golden["sat_logits_q_f32"]
    for function in (losses.half_jeffreys, losses.jensen_shannon):
        value = function(p, q).sum()
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, p)[0]).all()


def test_half_jeffreys_closed_form():
    value = losses.half_jeffreys(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item()
    assert value == pytest.approx((1 / (1 + math.exp(-1)) - 0.5) / 2, rel=1e-6)


class NothingFromPython(TorchFunctionMode):
    """Refuse tensors made of Python numbers: on a GPU each is a copy that the host waits for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        return function(*args, **(kwargs or {}))


def test_no_loss_makes_a_gpu_wait_for_a_number():
    p, q = torch.randn(2, 5, 4, dtype=torch.float64).unbind()
    labels, present = torch.arange(5) % 2, torch.arange(5) != 3
    with NothingFromPython():
        nce(p, q, labels, 0.1, present)
        losses.info_nce(losses.cosine_scores(p, q, 0.1), torch.arange(5), present)
        for divergence in (losses.half_jeffreys, losses.jensen_shannon):
            divergence(p, q)
        losses.cross_entropy(p, labels)
    for dtype in (torch.float32, torch.float64):
        assert torch.log(torch.tensor(2.0, dtype=dtype)) == torch.zeros((), dtype=dtype) + math.log(2)
