"""A training batch. Its shape never changes: a missing modality is a zero row that is marked as absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class TeacherInput(NamedTuple):
    """One teacher's inputs.

    Shapes:
        value: [B, *preprocess.shape].
        present: [B] bool.
    """

    value: Tensor
    present: Tensor


class Batch(NamedTuple):
    """One micro-batch of one process.

    Shapes:
        video: [B, 3, T, S, S] uint8, not normalised.
        labels: [B] int64; -1 for a row without a label.
        rows: [B] int64, places in the training split.

    Attributes:
        inputs: By teacher.
        epoch: From 0; logs count from 1.
    """

    video: Tensor
    labels: Tensor
    rows: Tensor
    inputs: dict[str, TeacherInput]
    epoch: int

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function applied to each of its tensors."""
        return Batch(
            function(self.video),
            function(self.labels),
            function(self.rows),
            {name: TeacherInput(*map(function, given)) for name, given in self.inputs.items()},
            self.epoch,
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; does not wait for the copy where the memory is pinned."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))
