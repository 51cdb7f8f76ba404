"""CRD: contrastive representation distillation (Tian et al., ICLR 2020)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ccl_cli.methods import Batch, Method, Setting, StudentOutput, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.contrast import ContrastiveLoss, Negatives, NegativeSampler, Positive, View
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.components.memory_bank import BankOptions, make_bank


class CRDOptions(BankOptions):
    """Options of ``crd``; the defaults are those of the authors' code (RepDistiller)."""

    weight: float = Field(0.8, ge=0, description="Weight of the loss.")
    num_negatives: int = Field(
        16384, ge=1, description="Negatives per anchor, at most the number of candidates."
    )
    negatives: Negatives = Field(
        "other_class", description="Which videos are negatives; other_instance and uniform ignore labels."
    )
    positive: Positive = Field(
        "own", description="own: the anchor's video; same_class: any video of its class (relax)."
    )


class CRD(Method):
    """Contrasts student and teacher in a common space, with negatives from memory banks."""

    Options = CRDOptions
    paper = "Tian et al., ICLR 2020"
    needs_labels = False

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the projections and memory banks."""
        return CRDPair(self.options, setting, teacher.dim)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return both halves of the loss; ``teacher`` trains only the teacher's projection."""
        values = teacher.head(student.feature, teacher.value, teacher.present, batch.rows)
        return dict(zip(("student", "teacher"), values, strict=True))


class CRDPair(nn.Module):
    """The modules for one teacher: two projections, two memory banks and their contrastive loss."""

    def __init__(self, options: CRDOptions, setting: Setting, teacher_dim: int) -> None:
        super().__init__()
        self.project_student = nn.Linear(setting.student_dim, options.dim)
        self.project_teacher = nn.Linear(teacher_dim, options.dim)
        self.student_bank = make_bank(options, setting.num_videos, options.dim)
        self.teacher_bank = make_bank(options, setting.num_videos, options.dim)
        self.loss = ContrastiveLoss(
            options,
            NegativeSampler(setting.labels, options.num_negatives, options.negatives, options.positive),
        )

    def forward(
        self, student: Tensor, teacher: Tensor, present: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute both halves of the loss of each row, [B], then update the banks with the batch."""
        views = (
            View(unit_rows(self.project_student(student)), present, self.student_bank),
            View(unit_rows(self.project_teacher(teacher)), present, self.teacher_bank),
        )
        values: tuple[Tensor, Tensor] = self.loss(*views, rows)
        # After the loss, because a positive is the embedding stored before this batch.
        for view in views:
            view.bank.update(rows, view.code, view.present)
        return values
