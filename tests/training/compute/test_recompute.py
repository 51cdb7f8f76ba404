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


def trained(student: Student) -> int:
    """Take two steps; return how many bytes the last forward pass kept for its backward pass."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    for _ in range(2):
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = student(torch.randn(2, 3, 4, 32, 32)).logits.square().mean()
        size = sum(kept.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return size


@pytest.mark.parametrize("build", [r2plus1d_tiny, lambda classes: x3d_xs(classes, dropout=0.0)])
def test_the_same_weights_and_statistics_with_less_memory(build):
    torch.manual_seed(0)
    student = build(3).train()
    recomputed = copy.deepcopy(student)
    recompute_blocks(recomputed)
    assert trained(recomputed) < 0.7 * trained(student)
    again = recomputed.state_dict()
    assert list(again) == list(student.state_dict())
    assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())


def test_a_batch_that_does_not_fit_names_what_keeps_the_step(clips_folder, monkeypatch):
    def full(*_) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("ccl_cli.training.trainer.Trainer.fit", full)
    with pytest.raises(SystemSetupError, match=r"A batch of 6 clips does not fit .* train\.recompute=true"):
        train(recipe(clips_folder))
