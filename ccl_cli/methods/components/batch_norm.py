"""Batch normalisation of a method's own layers, over the rows that a teacher has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccl_cli.utils.distributed import gather_mask, gather_rows


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over the rows present on all processes.

    It keeps no running statistics: a method's layers are never evaluated.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Normalise every row by the statistics of those present.

        Shapes:
            x: [B, D].
            present: [B] bool.
            returns: [B, D].
        """
        everywhere, keep = gather_rows(x), gather_mask(present)[:, None]
        count = keep.sum().clamp(min=1)
        mean = torch.where(keep, everywhere, 0.0).sum(dim=0) / count
        variance = torch.where(keep, everywhere - mean, 0.0).square().sum(dim=0) / count
        return self.scale * (x - mean) * (variance + self.eps).rsqrt() + self.shift
