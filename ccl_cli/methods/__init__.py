"""The method's contract: everything that is trained or remembered besides the student, and its loss terms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding


@dataclass(frozen=True)
class TeacherInfo:
    """What a method may know of a teacher."""

    name: str
    modality: str
    dim: int


@dataclass(frozen=True)
class Setting:
    """What a method is built for.

    Attributes:
        student_dim: Width D of the student's feature.
        num_classes: K.
        labels: [N] int64, the class of each training row.
        teachers: In the order in which they were named.
        epochs: Passes over the training list.
    """

    student_dim: int
    num_classes: int
    labels: Tensor
    teachers: tuple[TeacherInfo, ...]
    epochs: int = 1

    @property
    def num_videos(self) -> int:
        """Rows of the training split, N."""
        return len(self.labels)


class MethodOptions(BaseModel):
    """Base of a method's options: validated, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(nn.Module):
    """A distillation method. Subclass it, name the class under ``ccl.methods``, and it works.

    A method owns its layers and buffers; they are saved in checkpoints and dropped from the published model.

    Attributes:
        Options: What the recipe may set.
        tuned: The option that scales what it adds to the student's cross-entropy.
        uses_teachers: Whether it looks at embeddings; if no method of a run does, teachers are not built.
        uses_stages: Whether it also wants what the teachers' inner stages say.
        ce_weight: Factor that its objective puts on the student's cross-entropy, beside the recipe's own.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    tuned: ClassVar[str] = "weight"
    uses_teachers: ClassVar[bool] = True
    uses_stages: bool = False
    ce_weight: float = 1.0

    def __init__(self, options: Any, setting: Setting) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Named scalar terms, already weighted; their sum is added to the student's cross-entropy.

        A teacher's rows that are not present must contribute nothing; a term without any row is zero and
        still part of the graph.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")
