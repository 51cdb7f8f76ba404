"""Activation checkpointing changes memory, and neither gradients nor batch statistics."""

from __future__ import annotations

import copy

import pytest
import torch

from ccl_cli.errors import SystemSetupError
from ccl_cli.students import Student
from ccl_cli.students.hub import x3d_xs
from ccl_cli.students.r2plus1d import r2plus1d_tiny
from ccl_cli.training.compute.recompute import recompute_blocks
from ccl_cli.training.train import train
from tests.training.runs import recipe


def trained(student: Student, steps: int = 2) -> tuple[Student, int]:
    """After some steps; and how many bytes the first forward pass kept for its backward pass."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    kept: dict[int, int] = {}
    for step in range(steps):
        video = torch.randn(2, 3, 4, 32, 32)

        def pack(tensor: torch.Tensor, step: int = step) -> torch.Tensor:
            if step == 0:
                kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = student(video).logits.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student, sum(kept.values())


@pytest.mark.parametrize("build", [r2plus1d_tiny, lambda classes: x3d_xs(classes, dropout=0.0)])
def test_the_same_weights_and_statistics_with_less_memory(build):
    torch.manual_seed(0)
    student = build(3).train()
    again = copy.deepcopy(student)
    recompute_blocks(again)
    (plain, much), (recomputed, little) = trained(student), trained(again)
    expected = plain.state_dict()
    assert recomputed.state_dict().keys() == expected.keys()
    for name, value in recomputed.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert little < 0.5 * much


def test_evaluation_is_untouched():
    student = r2plus1d_tiny(3).eval()
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        before = student(video).logits
        recompute_blocks(student)
        assert torch.equal(student(video).logits, before)


def test_a_batch_that_does_not_fit_names_what_keeps_the_step(clips_folder, monkeypatch):
    def full(*_) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("ccl_cli.training.trainer.Trainer.fit", full)
    with pytest.raises(SystemSetupError, match="A batch of 4 clips does not fit") as caught:
        train(recipe(clips_folder, train={"batch_size": 4, "accumulation": 2}))
    assert "train.recompute=true" in caught.value.hint
    assert "train.accumulation=4" in caught.value.hint
