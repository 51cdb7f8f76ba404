from __future__ import annotations

import math

import pytest
import torch

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods.components.losses import cross_entropy
from ccl_cli.methods.kd import soft_targets
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from tests.helpers.golden import assert_reference, load
from tests.methods.distilling import Example, build, run


@pytest.mark.parametrize("temperature", [1, 4])
def test_equals_the_reference(shared, temperature):
    golden = load(shared, "distillers")
    logits = golden["kd_logits_s"].requires_grad_()
    target = (golden["kd_logits_t"] / temperature).softmax(dim=1)
    assert_reference(soft_targets(logits, target, temperature).mean(), logits, golden, f"kd_T{temperature}")


def test_closed_form():
    value = soft_targets(torch.zeros(1, 2).double(), torch.tensor([[0.75, 0.25]]).double(), 1).item()
    assert value == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-12)


def test_certain_targets_are_finite():
    logits = torch.tensor([[0.0, -200.0]], requires_grad=True)
    loss = soft_targets(logits, torch.tensor([[0.0, 1.0]]), 1).sum()
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad.tolist() == [[1, -1]]


def test_probes_learn_from_the_labels_of_the_rows_that_are_there():
    example = Example(7, (6,), ((2, 5),))
    method = build("kd", example, probe_weight=3)
    terms, _ = run(method, example)
    kept = example.present[0]
    scores = method.heads[0](example.teachers[0][kept])
    expected = 3 * cross_entropy(scores, example.labels[kept]).mean()
    assert terms["probe/t0"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_soft_targets_do_not_train_the_probes():
    example = Example()
    method = build("kd", example, probe_weight=0)
    present = torch.ones(7, dtype=torch.bool)
    embeddings = {f"t{k}": Embedding(value, present) for k, value in enumerate(example.teachers)}
    logits = example.logits.clone().requires_grad_()
    batch = Batch(torch.empty(0), example.labels, torch.arange(7), {}, 0)
    sum(method(StudentOutput(example.feature, logits), embeddings, batch).values()).backward()
    assert logits.grad.abs().max() > 0
    assert all(parameter.grad.abs().max() == 0 for parameter in method.parameters())


def test_the_term_is_the_published_weight_times_the_mean_over_rows():
    example = Example(absent=())
    method = build("kd", example)
    student = example.logits.clone().requires_grad_()
    target = (method.heads[1](example.teachers[1]) / 4).softmax(dim=1).detach()
    expected = 0.9 * soft_targets(student, target, 4).mean()
    assert run(method, example)[0]["kd/t1"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_average_takes_the_teachers_that_a_row_has():
    example = Example(4, (6, 9), ((1, 3), (2, 3)))
    method = build("kd average", example, weight=1)
    terms, (_, gradient, _) = run(method, example)
    first, second = (
        (probe(value) / 4).softmax(dim=1) for probe, value in zip(method.heads, example.teachers, strict=True)
    )
    target = torch.stack([(first[0] + second[0]) / 2, second[1], first[2]]).detach()
    expected = soft_targets(example.logits[:3], target, 4).mean().item()
    assert terms["kd/t0+t1"].item() == pytest.approx(expected, rel=1e-12)
    assert gradient[3].abs().max() == 0
