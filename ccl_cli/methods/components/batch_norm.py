"""Batch normalisation for a method's layers, over the rows in which a teacher is present."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccl_cli.utils.distributed import gather_mask, gather_rows

_EPSILON = 1e-5  # added to the variance, as in torch


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over the present rows of all processes.

    There are no running statistics, because a method's layers are not used in evaluation.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Normalise all rows [B, D] by the statistics of the present ones ([B] bool)."""
        everywhere, keep = gather_rows(x), gather_mask(present)[:, None]
        count = keep.sum().clamp(min=1)
        mean = torch.where(keep, everywhere, 0.0).sum(dim=0) / count
        variance = torch.where(keep, everywhere - mean, 0.0).square().sum(dim=0) / count
        return self.scale * (x - mean) * (variance + _EPSILON).rsqrt() + self.shift
