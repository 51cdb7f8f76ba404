"""What methods share that compare how the rows of a batch relate to each other.

Anchors are this process's rows, candidates those of all processes, with gradient. A row that a teacher lacks
is zero on both sides, and every count is of the rows present: the terms are those of the batch without it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ccl_cli.utils.distributed import gather_mask, gather_rows

Reduction = Literal["mean", "batchmean"]
REDUCTION_HELP = "mean: over all pairs, so the term shrinks as batches grow; batchmean: sums, over rows."

# Rows shorter than this have no direction: they count as zero and receive no gradient from their cosines.
MIN_NORM = 1e-6


class Rows(NamedTuple):
    """One network's embeddings of a batch.

    Shapes:
        anchor: [A, D] the rows that a value is computed for.
        candidate: [C, D] the rows that they are compared with, the anchors among them.
    """

    anchor: Tensor
    candidate: Tensor


class Relation(NamedTuple):
    """Rows of a student and of a teacher; a row that is not present ([C] bool) is zero on both sides."""

    student: Rows
    teacher: Rows
    present: Tensor


def relate(student: Tensor, teacher: Tensor, present: Tensor) -> Relation:
    """This process's rows as anchors against the rows of all processes.

    Shapes:
        student: [B, D].
        teacher: [B, D_m].
        present: [B] bool.
    """
    # `where`, not a product: an absent row may hold anything.
    student, teacher = (torch.where(present[:, None], x, 0.0) for x in (student, teacher))
    everywhere = gather_mask(present)
    return Relation(Rows(student, gather_rows(student)), Rows(teacher, gather_rows(teacher)), everywhere)


def half_cosine(rows: Rows, eps: float) -> Tensor:
    """``(1 + cos) / 2`` of anchors and candidates, [A, C] in [0, 1]; ``eps`` is added to every norm."""
    cosine = _unit(rows.anchor, eps) @ _unit(rows.candidate, eps).mT
    return ((1 + cosine) / 2).clamp(min=0)  # rounding may leave an opposite row just below zero


def distribution(kernel: Tensor, present: Tensor) -> Tensor:
    """Rows of a kernel, [A, C], scaled to sum to one over the candidates that are present, [C]."""
    kernel = torch.where(present, kernel, 0.0)
    return kernel / kernel.sum(dim=1, keepdim=True).clamp(min=1e-12)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean, [A, C], from differences: the usual product of matrices loses rows that are close."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def reduce(values: Tensor, present: Tensor, reduction: Reduction) -> Tensor:
    """Sums over candidates, [A], as they are (``batchmean``) or divided by the number present (``mean``)."""
    return values / present.sum().clamp(min=1) if reduction == "mean" else values


def _unit(x: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    long_enough = norm > MIN_NORM
    return torch.where(long_enough, x, 0.0) / torch.where(long_enough, norm + eps, 1.0)
