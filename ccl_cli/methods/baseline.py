"""The student alone: cross-entropy and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding


class Baseline(Method):
    """No distillation. Teachers, if any are given, are ignored."""

    uses_teachers = False

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """No terms besides the student's own cross-entropy."""
        return {}
