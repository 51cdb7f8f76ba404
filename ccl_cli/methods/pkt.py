"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018), as in the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ccl_cli.methods import Batch, Embedding, Method, MethodOptions, StudentOutput, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.components.relational import (
    REDUCTION_HELP,
    Reduction,
    distribution,
    half_cosine,
    reduce,
    relate,
)


class PKTOptions(MethodOptions):
    """Options of ``pkt``."""

    # The published weight is for a mean over all pairs of 64 rows.
    implied: ClassVar = {("reduction", "batchmean"): {"weight": 30000 / 64}}

    weight: float = Field(
        30000.0,
        ge=0,
        description="Weight of the divergence; the default for batchmean is 468.75, which is equivalent for "
        "64 rows.",
    )
    reduction: Reduction = Field("mean", description=REDUCTION_HELP)
    combine: Literal["sum", "concat"] = Field(
        "sum",
        description="With several teachers: one term each, or one term for their concatenated unit vectors "
        "(rows with all teachers present).",
    )
    eps: float = Field(1e-7, gt=0, description="Added to norms and probabilities.")


class PKT(Method):
    """Matches the distributions of cosine similarities between the rows of a batch, by their divergence.

    ``sum_j p_ij log((p_ij + eps) / (q_ij + eps))``, where p (teacher) and q (student) are the rows of
    ``(1 + cos) / 2``, scaled to sum to one. They include the anchor itself.
    """

    Options = PKTOptions
    paper = "Passalis and Tefas, ECCV 2018"
    needs_labels = False

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Yield each teacher, or with ``combine: concat`` one entry for all teachers together."""
        each = list(super().batches(dtype, teachers))
        if self.options.combine == "sum":
            yield from each
            return
        joined = torch.cat([unit_rows(teacher.value) for teacher in each], dim=1)
        present = torch.stack([teacher.present for teacher in each]).all(dim=0)
        info = TeacherInfo("+".join(teacher.info.name for teacher in each), "", joined.shape[1])
        yield TeacherBatch(info, None, joined, present, ())

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the term ``pkt``."""
        ours, theirs, present = relate(student.feature, teacher.value, teacher.present)
        eps = self.options.eps
        p, q = (distribution(half_cosine(rows, eps), present) for rows in (theirs, ours))
        values = (p * ((p + eps).log() - (q + eps).log())).sum(dim=1)
        return {"pkt": reduce(values, present, self.options.reduction)}
