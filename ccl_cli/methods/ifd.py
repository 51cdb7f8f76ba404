"""Information-flow modelling (Passalis et al., CVPR 2020), as in the authors' code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from ccl_cli.errors import RecipeError
from ccl_cli.methods import Batch, Embedding, Method, MethodOptions, Setting, StudentOutput, TeacherBatch
from ccl_cli.methods.components.losses import full_precision
from ccl_cli.methods.components.relational import (
    REDUCTION_HELP,
    Reduction,
    Rows,
    distances,
    distribution,
    half_cosine,
    reduce,
    relate,
)

# Keeps square roots and norms above zero, and the divergence of opposite rows finite.
_EPS = 1e-6
_PUBLISHED_EPOCHS = 50  # for which the published decay of the stages' weight is


class IFDOptions(MethodOptions):
    """Options of ``ifd``."""

    weight: float = Field(
        1.0,
        ge=0,
        description="Weight of all terms; the published 1 has little effect next to a cross-entropy.",
    )
    reduction: Reduction = Field("mean", description=REDUCTION_HELP)
    kernel: Literal["combined", "cosine", "student_t"] = Field(
        "combined", description="Similarity of rows: cosine, Student-t, or both."
    )
    degree: float = Field(1.0, gt=0, description="Power of the distance in the Student-t kernel.")
    stages: Literal["off", "auto", "broadcast_last"] = Field(
        "off",
        description="auto: the student's inner stages are compared with those of teachers that have enough "
        "stages; broadcast_last: for the other teachers, with the embedding.",
    )
    alpha: float = Field(100.0, ge=0, description="Weight of an inner stage in the first epoch.")
    decay: float = Field(0.7, gt=0, le=1, description="Factor on that weight per epoch.")
    stretch: bool = Field(
        False, description="Scale the decay from the published 50 epochs to the epochs of the run."
    )
    pool: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (1, 1, 1), description="Size (time, height, width) to which an inner stage is average-pooled."
    )


class IFD(Method):
    """Matches similarities between the rows of a batch: of the last layer, and optionally of inner stages."""

    Options = IFDOptions
    paper = "Passalis et al., CVPR 2020"
    needs_labels = False

    def __init__(self, options: IFDOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self.uses_stages = options.stages != "off"
        self.pace = _PUBLISHED_EPOCHS / setting.epochs if options.stretch else 1.0

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Return ``ifd`` of each teacher, and ``stage1``, ``stage2``, ... if stages are compared.

        Raises:
            RecipeError: stages are requested, and no teacher has as many as the student.
        """
        # The student's feature is pooled from the last stage, so that stage is covered by `ifd`.
        inner = student.stages[:-1] if self.uses_stages else ()
        pooled = tuple(pool_stage(stage, self.options.pool) for stage in inner)
        terms = super().forward(student._replace(stages=pooled), teachers, batch)
        if self.uses_stages and not any(term.startswith("stage") for term in terms):
            raise RecipeError(
                f"method.ifd.stages: no teacher has as many stages as the student ({len(student.stages)}).",
                "Use broadcast_last or off.",
            )
        return terms

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the divergence of the embeddings, and of each inner stage from its partner.

        Args:
            student: Its stages are the pooled inner stages, each [B, D].
            teacher: Its stages are all stages, not pooled.
            batch: Its epoch, from 0, determines the weight of the stages.
        """
        terms = {"ifd": self._divergence(student.feature, teacher.value, teacher.present)}
        stage_weight = self.options.alpha * self.options.decay ** (batch.epoch * self.pace)
        partners = self._partners(teacher, len(student.stages))
        for number, (stage, partner) in enumerate(zip(student.stages, partners, strict=False), start=1):
            terms[f"stage{number}"] = stage_weight * self._divergence(stage, partner, teacher.present)
        return terms

    def _partners(self, teacher: TeacherBatch, count: int) -> list[Tensor]:
        """The teacher's features for each of the student's ``count`` inner stages; [] if there are none."""
        if len(teacher.stages) > count:  # the deepest ones, because the first may be the stem
            return [pool_stage(stage, self.options.pool) for stage in teacher.stages[-count - 1 : -1]]
        return [teacher.value] * count if self.options.stages == "broadcast_last" else []

    def _divergence(self, student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
        """Divergence [B] of one layer, with the cosine kernel, the Student-t kernel, or the sum of both."""
        ours, theirs, everywhere = relate(student, teacher, present)
        values = student.new_zeros(len(student))
        if self.options.kernel != "student_t":
            values = values + _jeffreys(_cosine(theirs), _cosine(ours), everywhere)
        if self.options.kernel != "cosine":
            degree = self.options.degree
            values = values + _jeffreys(_student_t(theirs, degree), _student_t(ours, degree), everywhere)
        return reduce(values, everywhere, self.options.reduction)


def _cosine(rows: Rows) -> Tensor:
    """``(1 + cos) / 2``, [A, C], at least 1e-6."""
    return half_cosine(rows, _EPS).clamp(min=_EPS)


def _student_t(rows: Rows, degree: float) -> Tensor:
    """``1 / (1 + distance ** degree)``, [A, C]; depends on the scale of the rows."""
    distance = (distances(rows.anchor, rows.candidate).square() + _EPS).sqrt()
    return 1 / (1 + distance**degree)


def _jeffreys(teacher: Tensor, student: Tensor, present: Tensor) -> Tensor:
    """Sum of both Kullback-Leibler divergences [A] of the neighbourhoods given by two kernels [A, C]."""
    p, q = distribution(teacher, present), distribution(student, present)
    log_p, log_q = (torch.where(x > 0, x, 1.0).log() for x in (p, q))
    return ((p - q) * (log_p - log_q)).sum(dim=1)


def pool_stage(stage: Tensor, cells: tuple[int, int, int]) -> Tensor:
    """Average-pool a stage to ``cells`` (time, height, width) and flatten it.

    Shapes:
        stage: [B, C, T, H, W], [B, C, H, W] (image), [B, C, T] (audio) or [B, C].
        returns: [B, C x number of cells].
    """
    time, height, width = cells
    stage = full_precision(stage)
    if stage.dim() == 5:
        stage = F.adaptive_avg_pool3d(stage, cells)
    elif stage.dim() == 4:
        stage = F.adaptive_avg_pool2d(stage, (height, width))
    elif stage.dim() == 3:
        stage = F.adaptive_avg_pool1d(stage, time)
    return stage.flatten(1)
