"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018), as its author's code computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce as fold
from operator import and_
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ccl_cli.methods import MethodOptions
from ccl_cli.methods.losses import unit_rows
from ccl_cli.methods.relational import Reduction, RelationalMethod, Rows, distribution, half_cosine, reduce
from ccl_cli.teachers import Embedding

# The published weight belongs to a mean over all pairs of 64 rows.
PUBLISHED_WEIGHT, PUBLISHED_ROWS = 30000.0, 64


def pkt(student: Rows, teacher: Rows, present: Tensor, eps: float = 1e-7) -> Tensor:
    """Divergence of the student's cosine neighbourhood from the teacher's, the anchor itself included.

    ``sum_j p_ij log((p_ij + eps) / (q_ij + eps))`` with p, q the rows of ``(1 + cos) / 2`` scaled to sum to
    one.

    Shapes:
        student: [A, D], [C, D].
        teacher: [A, D_m], [C, D_m].
        present: [C] bool.
        returns: [A].
    """
    p = distribution(half_cosine(teacher, eps), present)
    q = distribution(half_cosine(student, eps), present)
    return (p * ((p + eps).log() - (q + eps).log())).sum(dim=1)


class PKTOptions(MethodOptions):
    """Options of ``pkt``."""

    weight: float = Field(
        PUBLISHED_WEIGHT,
        ge=0,
        description="Weight of the divergence; by batchmean the default is 468.75, its like at 64 rows.",
    )
    reduction: Reduction = Field(
        "mean",
        description="mean: over all pairs, so the term shrinks as batches grow; batchmean: sums, over rows.",
    )
    combine: Literal["sum", "concat"] = Field(
        "sum",
        description="Several teachers: a term each, or one of their joined unit vectors (on rows with all).",
    )
    eps: float = Field(1e-7, gt=0, description="Added to norms and probabilities.")

    @model_validator(mode="before")
    @classmethod
    def _fill_weight(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("reduction") == "batchmean":
            return {"weight": PUBLISHED_WEIGHT / PUBLISHED_ROWS, **values}
        return values


class PKT(RelationalMethod):
    """The student's cosine neighbourhoods become the teachers'."""

    Options = PKTOptions

    def views(self, teachers: Mapping[str, Embedding]) -> Iterator[tuple[str, Embedding]]:
        """Each teacher, or all as one."""
        if self.options.combine == "sum":
            yield from super().views(teachers)
            return
        names = [info.name for info in self.teachers]
        joined = torch.cat([unit_rows(teachers[name].value) for name in names], dim=1)
        yield "+".join(names), Embedding(joined, fold(and_, (teachers[name].present for name in names)))

    def compare(self, name: str, student: Rows, teacher: Rows, present: Tensor) -> dict[str, Tensor]:
        """``pkt``."""
        values = pkt(student, teacher, present, self.options.eps)
        return {"pkt": self.options.weight * reduce(values, present, self.options.reduction)}
