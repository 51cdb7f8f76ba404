from __future__ import annotations

import math

import pytest
import torch
from torch.overrides import TorchFunctionMode

from ccl_cli.methods.components import losses
from tests.helpers.golden import assert_close, load


def nce(anchor, candidate, labels, temperature):
    scores = losses.cosine_scores(anchor, candidate, temperature)
    present = torch.ones(len(labels), dtype=torch.bool)
    return losses.multiclass_nce(scores, labels[:, None] == labels[None, :], present).mean()


@pytest.mark.parametrize("temperature", ["0.1", "0.5", "1.0"])
@pytest.mark.parametrize("labels", ["mixed", "distinct", "twoclass", "single"])
@pytest.mark.parametrize("kind", ["gauss", "relu"])
def test_nce_equals_the_exact_reference(shared, kind, labels, temperature):
    inputs, exact = load(shared, "ccl_nce"), load(shared, "ccl_exact")
    first, second = (inputs[f"f{number}_{kind}"].requires_grad_() for number in (1, 2))
    loss = nce(first, second, inputs[f"labels_{labels}"], float(temperature))
    loss.backward()
    key = f"nce_{kind}_{labels}_tau{temperature}"
    assert_close(loss.detach(), exact[f"{key}_loss12"], 1e-10)
    assert_close(first.grad, exact[f"{key}_g12_f1"], 1e-10)
    assert_close(second.grad, exact[f"{key}_g12_f2"], 1e-10)


def test_nce_is_exact_where_a_negative_saturates():
    """1 - p = exp(-40) would vanish in float32, and with it the gradient of the worst negative."""
    anchor = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # the own class points away, a negative coincides
    scores = losses.cosine_scores(anchor, candidates, 0.05).requires_grad_()
    loss = losses.multiclass_nce(scores, torch.tensor([[True, False]]), torch.tensor([True, True])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(80.0, rel=1e-6)
    assert scores.grad.tolist() == [[pytest.approx(-2.0), pytest.approx(2.0)]]


@pytest.mark.parametrize("name", ["half_jeffreys", "jensen_shannon"])
def test_divergences_equal_the_reference_and_stay_finite_where_a_probability_underflows(shared, name):
    golden, exact = load(shared, "ccl_jsd"), load(shared, "ccl_exact")
    function, key = getattr(losses, name), name.replace("jensen_shannon", "true_js")
    p, q = golden["logits_p"].requires_grad_(), golden["logits_q"].requires_grad_()
    loss = function(p, q).mean()
    loss.backward()
    assert_close(loss.detach(), exact[f"{key}_loss"], 1e-10)
    assert_close(p.grad, exact[f"{key}_g_p"], 1e-10)
    assert_close(q.grad, exact[f"{key}_g_q"], 1e-10)
    p, q = golden["sat_logits_p_f32"].requires_grad_(), golden["sat_logits_q_f32"]
    loss = function(p, q).sum()
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, p)[0]).all()


class NothingFromPython(TorchFunctionMode):
    """Refuse tensors made of Python numbers: on a GPU each is a copy that the host waits for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        return function(*args, **(kwargs or {}))


def test_no_loss_makes_a_gpu_wait_for_a_number():
    p, q = torch.randn(2, 5, 4, dtype=torch.float64).unbind()
    labels, present = torch.arange(5) % 2, torch.arange(5) != 3
    with NothingFromPython():
        nce(p, q, labels, 0.1)
        losses.info_nce(losses.cosine_scores(p, q, 0.1), torch.arange(5), present)
        for divergence in (losses.half_jeffreys, losses.jensen_shannon):
            divergence(p, q)
        losses.cross_entropy(p, labels)
    for dtype in (torch.float32, torch.float64):
        assert torch.log(torch.tensor(2.0, dtype=dtype)) == torch.zeros((), dtype=dtype) + math.log(2)
