"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018), as in the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, MethodOptions, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.components.relational import (
    REDUCTION_HELP,
    Reduction,
    Rows,
    distribution,
    half_cosine,
    reduce,
    relate,
)
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding

# The published weight is for a mean over all pairs of 64 rows.
PUBLISHED_WEIGHT, PUBLISHED_ROWS = 30000.0, 64


def pkt(student: Rows, teacher: Rows, present: Tensor, eps: float = 1e-7) -> Tensor:
    """Divergence of the student's cosine neighbourhoods from the teacher's; they include the anchor itself.

    ``sum_j p_ij log((p_ij + eps) / (q_ij + eps))``, where p (teacher) and q (student) are the rows of
    ``(1 + cos) / 2``, scaled to sum to one.

    Shapes:
        student: [A, D] anchors and [C, D] candidates.
        teacher: [A, D_m] anchors and [C, D_m] candidates.
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

    @model_validator(mode="before")
    @classmethod
    def _fill_weight(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("reduction") == "batchmean":
            return {"weight": PUBLISHED_WEIGHT / PUBLISHED_ROWS, **values}
        return values


class PKT(Method):
    """Matches the distributions of cosine similarities between the rows of a batch, by their divergence."""

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
        relation = relate(student.feature, teacher.value, teacher.present)
        return {"pkt": reduce(pkt(*relation, self.options.eps), relation.present, self.options.reduction)}
