"""CRD: contrastive representation distillation (Tian et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, MethodOptions, Setting
from ccl_cli.methods.losses import unit_rows
from ccl_cli.methods.memory_bank import Contrast, MemoryBank, Negatives, NoiseContrast, Positive, Sampler
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import masked_mean

Share = Annotated[float, Field(ge=0, le=1)]


class CRDOptions(MethodOptions):
    """Options of ``crd``; the defaults are those of the authors' code (RepDistiller)."""

    weight: float = Field(0.8, ge=0, description="Weight of the loss.")
    dim: int = Field(128, ge=1, description="Width of the space the contrast takes place in.")
    # Far below, the exponentials that the normalising constant sums overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities.")
    num_negatives: int = Field(
        16384, ge=1, description="Negatives per anchor; at most as many as there are candidates."
    )
    negatives: Negatives = Field(
        "other_class", description="Which videos are negatives; other_instance and uniform ignore labels."
    )
    positive: Positive = Field("own", description="The anchor's own video, or any of its class (relax).")
    momentum: Share = Field(0.5, description="Share of a bank's old entry that an update keeps.")
    z_momentum: Share = Field(
        1.0, description="Share of the normalising constant that later batches keep; 1: fixed by the first."
    )


class CRD(Method):
    """A contrast of student and teacher in a common space, against banks of remembered embeddings."""

    Options = CRDOptions

    def __init__(self, options: CRDOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self.weight = options.weight
        self.names = [teacher.name for teacher in setting.teachers]
        self.pairs = nn.ModuleList(CRDPair(options, setting, teacher.dim) for teacher in setting.teachers)

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """``student`` and ``teacher`` half of each loss; the second trains the teacher's projection only."""
        terms: dict[str, Tensor] = {}
        for name, pair in zip(self.names, self.pairs, strict=True):
            of_student, of_teacher = pair(student.feature, teachers[name], batch.rows)
            terms[f"student/{name}"] = self.weight * of_student
            terms[f"teacher/{name}"] = self.weight * of_teacher
        return terms


class CRDPair(nn.Module):
    """Everything that belongs to one teacher: two projections, two banks, two normalising constants."""

    def __init__(self, options: CRDOptions, setting: Setting, teacher_dim: int) -> None:
        super().__init__()
        self.temperature = options.temperature
        self.project_student = nn.Linear(setting.student_dim, options.dim)
        self.project_teacher = nn.Linear(teacher_dim, options.dim)
        self.student_bank = MemoryBank(setting.num_videos, options.dim, options.momentum)
        self.teacher_bank = MemoryBank(setting.num_videos, options.dim, options.momentum)
        self.student_contrast = NoiseContrast(setting.num_videos, options.z_momentum)
        self.teacher_contrast = NoiseContrast(setting.num_videos, options.z_momentum)
        self.sampler = Sampler(setting.labels, options.num_negatives, options.negatives, options.positive)

    def forward(
        self, feature: Tensor, teacher: Embedding, rows: Tensor, contrast: Contrast | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both halves of the loss; then the banks take in the batch.

        Shapes:
            feature: [B, D] of the student.
            rows: [B] int64, places in the training split.
            contrast: Entries to compare with, instead of drawing them.
        """
        contrast = contrast or self.sampler.draw(rows, self.teacher_bank.absent)
        of_student = unit_rows(self.project_student(feature))
        of_teacher = unit_rows(self.project_teacher(teacher.value.to(feature.dtype)))
        present = teacher.present
        scores = self.teacher_bank.scores(of_student, self.temperature)
        student_loss = masked_mean(self.student_contrast(scores, contrast, present), present)
        scores = self.student_bank.scores(of_teacher, self.temperature)
        teacher_loss = masked_mean(self.teacher_contrast(scores, contrast, present), present)
        # Only now: the positive of a batch is what the bank remembered before it.
        self.student_bank.update(rows, of_student, present)
        self.teacher_bank.update(rows, of_teacher, present)
        return student_loss, teacher_loss
