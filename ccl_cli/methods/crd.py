"""CRD: contrastive representation distillation (Tian et al., ICLR 2020)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, Setting, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.contrast import Contrast, Negatives, Positive, View, ViewContrast
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.components.memory_bank import BankOptions, make_bank
from ccl_cli.students import StudentOutput


class CRDOptions(BankOptions):
    """Options of ``crd``; the defaults are those of the authors' code (RepDistiller)."""

    weight: float = Field(0.8, ge=0, description="Weight of the loss.")
    num_negatives: int = Field(
        16384, ge=1, description="Negatives per anchor; at most as many as there are candidates."
    )
    negatives: Negatives = Field(
        "other_class", description="Which videos are negatives; other_instance and uniform ignore labels."
    )
    positive: Positive = Field("own", description="The anchor's own video, or any of its class (relax).")


class CRD(Method):
    """Contrasts student and teacher in a common space, with negatives from memory banks."""

    Options = CRDOptions
    paper = "Tian et al., ICLR 2020"
    needs_labels = False

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Projections and banks."""
        return CRDPair(self.options, setting, teacher.dim)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """``student`` and ``teacher`` half of the loss; the second trains the teacher's projection only."""
        values = teacher.head(student.feature, teacher.value, teacher.present, batch.rows)
        return dict(zip(("student", "teacher"), values, strict=True))


class CRDPair(nn.Module):
    """Everything that belongs to one teacher: two projections, two banks, the loss between them."""

    def __init__(self, options: CRDOptions, setting: Setting, teacher_dim: int) -> None:
        super().__init__()
        self.project_student = nn.Linear(setting.student_dim, options.dim)
        self.project_teacher = nn.Linear(teacher_dim, options.dim)
        self.student_bank = make_bank(options, setting.num_videos, options.dim)
        self.teacher_bank = make_bank(options, setting.num_videos, options.dim)
        self.loss = ViewContrast(
            options, setting.labels, options.num_negatives, options.negatives, options.positive
        )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        present: Tensor,
        rows: Tensor,
        contrast: Contrast | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both halves of the loss of each row, [B]; then the banks take in the batch.

        Shapes:
            student: [B, D].
            teacher: [B, D_m].
            present: [B] bool.
            rows: [B] int64, places in the training split.
            contrast: Entries to compare with, instead of drawing them.
        """
        views = (
            View(unit_rows(self.project_student(student)), present, self.student_bank),
            View(unit_rows(self.project_teacher(teacher)), present, self.teacher_bank),
        )
        values: tuple[Tensor, Tensor] = self.loss(*views, rows, contrast)
        # Only now: the positive of a batch is what the bank remembered before it.
        for view in views:
            view.bank.update(rows, view.code, view.present)
        return values
