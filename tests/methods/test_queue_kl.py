from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.queue_kl import QueueHead, queue_size, relational_kl
from ccl_cli.teachers import Embedding
from tests.helpers.golden import assert_close, load
from tests.methods.distilling import Example, build, run

EVERYONE = torch.ones(6, dtype=torch.bool)


def head(golden, size=16, temperature=0.07):
    """With the reference's projector, and its first ``size`` rows of a full queue if it stores one."""
    made = QueueHead(10, 8, size, temperature).double()
    with torch.no_grad():
        made.project.weight.copy_(golden["param_proj.weight"])
        made.project.bias.copy_(golden["param_proj.bias"])
    return made


def fill(made, queue):
    made.queue.copy_(queue)
    made.filled[:] = True
    return made


def compare(made, feature, teacher, present):
    """Mean over the rows present, and its gradients at the feature and the projector."""
    feature = nn.Parameter(feature)
    values = made(
        feature, unit_rows(torch.where(present[:, None], teacher, 0.0)), present, torch.arange(len(present))
    )
    loss = torch.where(present, values, 0.0).sum() / present.sum()
    loss.backward()
    gradients = {
        "x": feature.grad,
        "proj.weight": made.project.weight.grad,
        "proj.bias": made.project.bias.grad,
    }
    made.zero_grad()
    return loss.detach(), gradients


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_four_steps_of_the_queue_equal_the_reference(shared, temperature):
    """The reference counts empty slots, so that its loss is ours only once the queue is full."""
    golden = load(shared, "queue_kl")
    made = head(golden, temperature=temperature)
    for number in range(1, 5):
        step = f"step{number}"
        loss, gradients = compare(made, golden[f"{step}_x"], golden[f"{step}_f"], EVERYONE)
        assert_close(made.queue, golden[f"{step}_queue"], 1e-9)
        assert made.filled.tolist() == [slot < 6 * number for slot in range(16)]
        if number > 2:
            assert_close(loss, golden[f"{step}_tau{temperature}_loss"], 1e-9)
            for name, gradient in gradients.items():
                assert_close(gradient, golden[f"{step}_tau{temperature}_grad_{name}"], 1e-9)
        elif temperature == 0.07:
            assert_close(loss, golden[f"{step}_filled_loss"], 1e-9)
            assert_close(gradients["x"], golden[f"{step}_filled_grad_x"], 1e-9)


@pytest.mark.parametrize(("case", "size"), [("small6", 6), ("small4", 4)])
def test_a_batch_larger_than_the_queue_equals_the_reference(shared, case, size):
    golden = load(shared, "queue_kl")
    made = head(golden, size)
    loss, gradients = compare(made, golden[f"{case}_x"], golden[f"{case}_f"], EVERYONE)
    assert_close(made.queue, golden[f"{case}_queue"], 1e-9)
    assert_close(loss, golden[f"{case}_loss"], 1e-9)
    assert_close(gradients["x"], golden[f"{case}_grad_x"], 1e-9)


@pytest.mark.parametrize("case", ["single", "masked"])
def test_one_row_and_absent_rows_equal_the_reference(shared, case):
    golden = load(shared, "queue_kl")
    made = fill(head(golden), golden[f"{case}_queue_before"])
    present = golden.get(f"{case}_present", EVERYONE[:1])
    loss, gradients = compare(made, golden[f"{case}_x"], golden[f"{case}_f"], present)
    assert_close(made.queue, golden[f"{case}_queue"], 1e-9)
    assert_close(loss, golden[f"{case}_loss"], 1e-9)
    for name, gradient in gradients.items():
        if f"{case}_grad_{name}" in golden:
            assert_close(gradient, golden[f"{case}_grad_{name}"], 1e-9)
    assert gradients["x"][~present].abs().sum() == 0


def test_closed_forms():
    queue, one, other = torch.eye(2).double(), torch.eye(2).double()[:1], torch.eye(2).double()[1:]
    everything = torch.ones(2, dtype=torch.bool)
    p = 1 / (1 + math.exp(-2))
    value = relational_kl(other, one, queue, everything, 0.5)
    assert value.item() == pytest.approx((2 * p - 1) * 2, rel=1e-12)
    assert relational_kl(one, one, queue, everything, 0.5).item() == 0
    only = torch.tensor([True, False])
    assert relational_kl(other, one, queue, only, 0.5).item() == 0  # all of both is on the one slot


def test_the_queue_takes_in_neither_absent_rows_nor_zero_embeddings_nor_anything_in_evaluation():
    example = Example(dims=(5,), absent=((2, 5),))
    example.teachers[0][3] = 0
    method = build("queue_kl", example)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    run(method.eval(), example)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    _, (gradient, *_) = run(method.train(), example)
    (made,) = method.heads
    assert_close(made.queue[:4], unit_rows(example.teachers[0][[0, 1, 4, 6]]), 1e-12)
    assert made.filled.tolist() == [True] * 4 + [False] * 8
    assert gradient[[2, 3, 5]].abs().sum() == 0


def test_a_sample_of_training_videos_stands_in_for_the_queue():
    """Of the rows that were drawn one lacks the teacher, and no row is compared with itself."""
    example = Example(dims=(5,), absent=((2,),))
    method = build("queue_kl", example, anchors="sample", size=6)
    (made,) = method.heads
    everything = Embedding(example.teachers[0], example.present[0])
    method.use_cached(lambda name, rows: Embedding(everything.value[rows], everything.present[rows]))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    terms, _ = run(method.train(), example)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    expected = []
    for row in [row for row in range(7) if example.present[0][row]]:
        others = [each for each in made.rows.tolist() if each not in (row, 2)]
        anchors = unit_rows(everything.value[others])
        student, teacher = unit_rows(made.project(example.feature[[row]])), unit_rows(everything.value[[row]])
        looked_at = torch.ones(len(others), dtype=torch.bool)
        expected.append(relational_kl(student, teacher, anchors, looked_at, 0.07))
    assert_close(terms["queue_kl/t0"], torch.cat(expected).mean().detach(), 1e-9)
    with pytest.raises(RecipeError, match=r"needs a cache of the embeddings of t0\..*cache.use=build"):
        method.use_cached(lambda name, rows: None)


@pytest.mark.parametrize(("videos", "size"), [(7, 16), (50, 32), (999, 256), (19_999, 4096), (20_000, 8192)])
def test_the_published_size_of_the_queue_follows_the_number_of_videos(videos, size):
    assert queue_size(videos) == size
