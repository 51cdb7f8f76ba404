"""The method's contract: everything that is trained or remembered besides the student, and its loss terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import masked_mean


@dataclass(frozen=True)
class TeacherInfo:
    """Name, modality and embedding dimension of a teacher."""

    name: str
    modality: str
    dim: int


@dataclass(frozen=True)
class Setting:
    """The run for which a method is built.

    Attributes:
        student_dim: Width D of the student's feature.
        num_classes: K; 0 where no training row has a label.
        labels: [N] int64, the class of each training row; -1 for a row without a label.
        teachers: In the order in which they were named.
        epochs: Number of passes over the training split.
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


class TeacherBatch(NamedTuple):
    """One teacher on one batch, as a method sees it.

    Shapes:
        info: Name, modality and width D_m.
        head: The layers that :meth:`Method.head` returned for this teacher.
        value: [B, D_m] in the type of the student's feature; a row that is not present is zero.
        present: [B] bool.
        stages: Outputs of the inner stages, each [B, C, ...]; empty if the teacher has none.
    """

    info: TeacherInfo
    head: Any
    value: Tensor
    present: Tensor
    stages: tuple[Tensor, ...]


# By name, a teacher's embeddings of some rows of the training split ([n] int64); None: it is not cached.
CachedEmbedding = Callable[[str, Tensor], Embedding | None]


class MethodOptions(BaseModel):
    """Base class of a method's options, which are validated; an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(nn.Module):
    """Base class of methods: a sum over teachers of weighted means over rows. Register under ``ccl.methods``.

    A subclass defines :meth:`compare`, the loss of each row, and :meth:`head`, the layers that are trained
    besides the student. If its terms are not means over rows, it overrides :meth:`forward`. Layers and
    buffers are saved in checkpoints and dropped from the published model.

    Attributes:
        Options: The options in a recipe, with their defaults.
        paper: Publication, for lists.
        tuned: The option that scales the method's terms; ``ccl bench --tune`` searches it.
        uses_teachers: Whether the method reads embeddings. If no method of a run does, no teacher is built.
        needs_labels: Whether the method reads labels. If a method of a run does, training leaves out
            unlabelled videos; otherwise their label is -1.
        uses_stages: Whether the method reads the outputs of the teachers' inner stages.
        ce_weight: Factor on the student's cross-entropy, in addition to the recipe's ``ce_weight``.
        lr_scale: Factor on the learning rate of the method's layers.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    paper: ClassVar[str] = ""
    tuned: ClassVar[str] = "weight"
    uses_teachers: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    uses_stages: bool = False
    ce_weight: float = 1.0
    lr_scale: float = 1.0

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.compare is Method.compare and cls.forward is Method.forward:
            raise TypeError(f"{cls.__name__} defines neither compare nor forward")

    def __init__(self, options: Any, setting: Setting) -> None:
        super().__init__()
        self.options = options
        self.teachers = setting.teachers
        self.heads = nn.ModuleList(self.head(setting, teacher) for teacher in setting.teachers)

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Return the layers and buffers of one teacher; none by default. ``self.options`` is already set."""
        return nn.Identity()

    def use_cached(self, cached: CachedEmbedding) -> None:
        """Read cached embeddings of the training split before the first step; does nothing by default."""

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted terms of one teacher by name, one value per row, ``[B]``.

        Values are ignored where ``teacher.present`` is False. Such a row must not influence other rows.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare")

    def weight(self, term: str) -> float:
        """Return the factor of a term of :meth:`compare`: the option ``weight`` by default."""
        return float(self.options.weight)

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Return weighted scalar terms by name; their sum is added to the student's cross-entropy.

        Rows that are not present contribute nothing. A term without rows is zero, but part of the graph.

        Args:
            student: In single precision at least.
            teachers: By name.
            batch: Labels, rows and epoch.
        """
        return {
            f"{term}/{teacher.info.name}": self.weight(term) * masked_mean(values, teacher.present)
            for teacher in self.batches(student.feature.dtype, teachers)
            for term, values in self.compare(student, teacher, batch).items()
        }

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Yield the embeddings that the student is compared with: those of each teacher."""
        for info, head in zip(self.teachers, self.heads, strict=True):
            value, present, stages = teachers[info.name]
            # `where`, not a product: an absent row may hold anything.
            value = torch.where(present[:, None], value, 0.0).to(dtype)
            yield TeacherBatch(info, head, value, present, stages)
