"""The student without distillation, trained with the cross-entropy only."""

from __future__ import annotations

from torch import Tensor

from ccl_cli.methods import Batch, Method, StudentOutput, TeacherBatch


class Baseline(Method):
    """No distillation. Teachers are ignored."""

    uses_teachers = False

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return no terms."""
        return {}
