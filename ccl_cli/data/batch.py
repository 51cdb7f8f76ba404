"""A training batch. Its shape never changes: a missing modality is a zero row that is marked as absent."""

from __future__ import annotations

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
        labels: [B] int64.
        rows: [B] int64, places in the training split.
    """

    video: Tensor
    labels: Tensor
    rows: Tensor
    inputs: dict[str, TeacherInput]
    epoch: int

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return self._replace(
            video=self.video.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            inputs={
                name: TeacherInput(*(tensor.to(device, non_blocking=True) for tensor in given))
                for name, given in self.inputs.items()
            },
        )
