"""What methods share that compare how the rows of a batch relate to each other.

Anchors are this process's rows, candidates those of all processes, with gradient. A row that a teacher lacks
is zero on both sides, and every count is of the rows present: the terms are those of the batch without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, Setting
from ccl_cli.methods.losses import full_precision
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import gather_mask, gather_rows, masked_mean

Reduction = Literal["mean", "batchmean"]

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


def gather(x: Tensor) -> Rows:
    """``x``, [B, D], as anchors against the rows of all processes."""
    x = full_precision(x)
    return Rows(x, gather_rows(x))


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


class RelationalMethod(Method):
    """A sum over teachers of terms that compare rows; subclasses say how in :meth:`compare`."""

    def __init__(self, options: Any, setting: Setting) -> None:
        super().__init__(options, setting)
        self.options = options
        self.teachers = setting.teachers

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """The terms of :meth:`compare` for each teacher, as ``term/teacher``."""
        feature = gather(student.feature)
        terms: dict[str, Tensor] = {}
        for name, embedding in self.views(teachers):
            terms |= self.terms(name, feature, embedding.value, embedding.present)
        return terms

    def views(self, teachers: Mapping[str, Embedding]) -> Iterator[tuple[str, Embedding]]:
        """What the student is compared with, by name."""
        for info in self.teachers:
            yield info.name, teachers[info.name]

    def terms(self, name: str, student: Rows, value: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Means over all anchors present, for one teacher's ``value`` [B, D_m] and ``present`` [B]."""
        everywhere = gather_mask(present)
        teacher = gather(value.to(student.anchor.dtype))
        student, teacher = (_only(rows, present, everywhere) for rows in (student, teacher))
        compared = self.compare(name, student, teacher, everywhere)
        return {f"{term}/{name}": masked_mean(values, present) for term, values in compared.items()}

    @abstractmethod
    def compare(self, name: str, student: Rows, teacher: Rows, present: Tensor) -> dict[str, Tensor]:
        """Weighted values per anchor, [A], by term; ``present`` marks candidates, [C]."""
        raise NotImplementedError(f"{type(self).__name__} does not define compare")


def _only(rows: Rows, present: Tensor, everywhere: Tensor) -> Rows:
    # `where`, not a product: an absent row may hold anything.
    return Rows(
        torch.where(present[:, None], rows.anchor, 0.0),
        torch.where(everywhere[:, None], rows.candidate, 0.0),
    )


def _unit(x: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    long_enough = norm > MIN_NORM
    return torch.where(long_enough, x, 0.0) / torch.where(long_enough, norm + eps, 1.0)
