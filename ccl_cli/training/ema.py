"""The moving average of the student's weights, which often generalises better than the last step's.

timm's ``ModelEmaV3``, warm-up included; batch statistics are averaged like weights, counters are copied.
"""

from __future__ import annotations

from typing import Any, cast

from ccl_cli.config.recipe import Train
from ccl_cli.students import Student


class AveragedStudent:
    """The moving average of a student, a second network of the same class, over ``updates`` steps.

    Every process averages its own copy; all copies are equal.
    """

    def __init__(self, student: Student, train: Train) -> None:
        from timm.utils import ModelEmaV3  # imports all of timm's networks, so not at the top

        self._average = ModelEmaV3(student, decay=train.ema, use_warmup=train.ema_warmup)
        self.updates = 0

    @property
    def student(self) -> Student:
        """The average, in evaluation mode."""
        return cast(Student, self._average.module)

    def update(self, student: Student) -> None:
        """Average the weights after an optimiser step; the first call copies them."""
        self.updates += 1
        self._average.update(student, step=self.updates)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, equal on all processes."""
        return {"updates": self.updates, "student": self.student.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.updates = state["updates"]
        self.student.load_state_dict(state["student"])
