"""A training batch. Its shape never changes: a missing modality is a zero row that is marked as absent."""

from __future__ import annotations

from typing import NamedTuple

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
        index: [B] int64, rows of the training split.
    """

    video: Tensor
    labels: Tensor
    index: Tensor
    inputs: dict[str, TeacherInput]
    epoch: int
