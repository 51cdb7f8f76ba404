"""The method's contract: everything that is trained or remembered besides the student, and its loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ccl_cli.data.batch import Batch
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
    """The sizes a method is built for."""

    student_dim: int
    num_classes: int
    num_videos: int
    teachers: tuple[TeacherInfo, ...]


class MethodOptions(BaseModel):
    """Base of a method's options: validated, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(nn.Module):
    """A distillation method. Subclass it, name the class under ``ccl.methods``, and it works.

    A method owns its layers and buffers; they are saved in checkpoints and dropped from the published model.

    Attributes:
        Options: What the recipe may set.
        uses_teachers: Whether it looks at embeddings; if no method of a run does, teachers are not built.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    uses_teachers: ClassVar[bool] = True

    def __init__(self, options: Any, setting: Setting) -> None:
        super().__init__()

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Named scalar terms, already weighted; their sum is added to the student's cross-entropy.

        A teacher's rows that are not present must contribute nothing; a term without any row is zero and
        still part of the graph.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")
