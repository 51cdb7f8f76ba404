"""Functions for methods that compare relations between the rows of a batch.

Anchors are this process's rows; candidates are the rows of all processes, with gradient. Absent rows are zero
on both sides and are not counted, so the terms equal those of the batch without these rows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ccl_cli.utils.distributed import gather_mask, gather_rows

Reduction = Literal["mean", "batchmean"]
REDUCTION_HELP = "mean: over all pairs, so larger batches have a smaller term; batchmean: over rows."

# Shorter rows have no direction: they count as zero and receive no gradient from their cosines.
_MIN_NORM = 1e-6


class Rows(NamedTuple):
    """One network's embeddings of a batch.

    Shapes:
        anchor: [A, D] rows of this process.
        candidate: [C, D] rows of all processes, including the anchors.
    """

    anchor: Tensor
    candidate: Tensor


def relate(student: Tensor, teacher: Tensor, present: Tensor) -> tuple[Rows, Rows, Tensor]:
    """Gather the rows of all processes as candidates, with this process's rows as anchors.

    Returns:
        The rows of the student [B, D] and of the teacher [B, D_m], zero where not ``present`` ([B] bool), and
        the present candidates, [C] bool.
    """
    # `where` instead of a product: an absent row may be NaN.
    student, teacher = (torch.where(present[:, None], x, 0.0) for x in (student, teacher))
    return Rows(student, gather_rows(student)), Rows(teacher, gather_rows(teacher)), gather_mask(present)


def half_cosine(rows: Rows, eps: float) -> Tensor:
    """``(1 + cos) / 2`` of anchors and candidates, [A, C] in [0, 1]; ``eps`` is added to every norm."""
    cosine = _unit(rows.anchor, eps) @ _unit(rows.candidate, eps).mT
    return ((1 + cosine) / 2).clamp(min=0)  # rounding may give a tiny negative number


def distribution(kernel: Tensor, present: Tensor) -> Tensor:
    """Scale the rows of a kernel, [A, C], to sum to one over the present candidates ([C] bool)."""
    kernel = torch.where(present, kernel, 0.0)
    return kernel / kernel.sum(dim=1, keepdim=True).clamp(min=1e-12)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances, [A, C], from differences; a matrix product would be inexact for close rows."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def reduce(values: Tensor, present: Tensor, reduction: Reduction) -> Tensor:
    """Leave sums over candidates, [A], unchanged (``batchmean``) or divide by the present ones (``mean``)."""
    return values / present.sum().clamp(min=1) if reduction == "mean" else values


def _unit(x: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    long_enough = norm > _MIN_NORM
    return torch.where(long_enough, x, 0.0) / torch.where(long_enough, norm + eps, 1.0)
