"""A training batch. Its shapes never change: a missing modality is a zero row that is marked as absent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TeacherInput(NamedTuple):
    """Inputs of one teacher.

    Shapes:
        value: [B, *preprocess.shape], zero for absent rows.
        present: [B] bool, False if the row has no such modality.
    """

    value: Tensor
    present: Tensor


class Batch(NamedTuple):
    """One micro-batch of one process.

    Shapes:
        video: [B, 3, T, S, S] uint8, not normalised.
        labels: [B] int64; -1 for a row without a label.
        rows: [B] int64, rows of the training split.

    Attributes:
        inputs: Inputs by teacher.
        epoch: Epoch, from 0 (from 1 in logs).
    """

    video: Tensor
    labels: Tensor
    rows: Tensor
    inputs: dict[str, TeacherInput]
    epoch: int

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device; from pinned memory, without waiting for the copy."""

        def copy(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        inputs = {name: TeacherInput(*map(copy, given)) for name, given in self.inputs.items()}
        return Batch(copy(self.video), copy(self.labels), copy(self.rows), inputs, self.epoch)
