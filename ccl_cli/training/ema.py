"""The moving average of the student's weights, which often generalises better than the last step's.

timm's ``ModelEmaV3``, warm-up included; batch statistics are averaged like weights, counters are copied.
"""

from __future__ import annotations

from typing import Any, cast

from ccl_cli.config.recipe import Train
from ccl_cli.students import Student


class AveragedStudent:
    """A second student that follows the trained one.

    Attributes:
        updates: Steps that it has followed.

    Args:
        student: On its device; every process follows its own, and all of them alike.
        train: The decay, above 0, and whether it warms up.
    """

    def __init__(self, student: Student, train: Train) -> None:
        from timm.utils import ModelEmaV3  # with all of timm's networks: not at the top

        self._average = ModelEmaV3(student, decay=train.ema, use_warmup=train.ema_warmup)
        self.updates = 0

    @property
    def student(self) -> Student:
        """The average, in evaluation mode."""
        return cast(Student, self._average.module)

    def update(self, student: Student) -> None:
        """Follow one optimiser step; the first one is copied."""
        self.updates += 1
        self._average.update(student, step=self.updates)

    def state_dict(self) -> dict[str, Any]:
        """The same on every process."""
        return {"updates": self.updates, "student": self.student.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.updates = state["updates"]
        self.student.load_state_dict(state["student"])


def by_weights(student: Student, average: AveragedStudent | None) -> dict[str, Student]:
    """The students by the name of their weights; the first one is to be scored and published."""
    return {"ema": average.student, "raw": student} if average else {"raw": student}


def averaged(student: Student, train: Train) -> AveragedStudent | None:
    """The student's moving average, if the recipe wants one."""
    return AveragedStudent(student, train) if train.ema else None
