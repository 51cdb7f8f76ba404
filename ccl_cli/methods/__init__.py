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
    """What a method may know of a teacher."""

    name: str
    modality: str
    dim: int


@dataclass(frozen=True)
class Setting:
    """What a method is built for.

    Attributes:
        student_dim: Width D of the student's feature.
        num_classes: K; 0 where no training row has a label.
        labels: [N] int64, the class of each training row; -1 for a row without a label.
        teachers: In the order in which they were named.
        epochs: Passes over the training split.
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
        head: What :meth:`Method.head` has made for this teacher.
        value: [B, D_m] in the type of the student's feature; a row that is not present is zero.
        present: [B] bool.
        stages: Outputs of the inner stages, each [B, C, ...]; empty where it shows none.
    """

    info: TeacherInfo
    head: Any
    value: Tensor
    present: Tensor
    stages: tuple[Tensor, ...]


# By name, a teacher's embeddings of some rows of the training split ([n] int64); None: it is not cached.
CachedEmbedding = Callable[[str, Tensor], Embedding | None]


class MethodOptions(BaseModel):
    """Base of a method's options: validated, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(nn.Module):
    """A distillation method: a sum over teachers of weighted means over rows.

    A subclass says in :meth:`compare` what a row costs, and in :meth:`head` what is trained besides the
    student; named under ``ccl.methods`` it works. One whose terms are no such sum overrides :meth:`forward`.
    Layers and buffers are saved in checkpoints and dropped from the published model.

    Attributes:
        Options: What the recipe may set.
        paper: Where the method was published, for lists.
        tuned: The option that scales what it adds to the student's cross-entropy.
        uses_teachers: Whether it looks at embeddings; if no method of a run does, teachers are not built.
        needs_labels: Whether it looks at labels; if a method of a run does, unlabelled videos are left out of
            the training. One that does not gets rows whose label is -1.
        uses_stages: Whether it also wants what the teachers' inner stages say.
        ce_weight: Factor that its objective puts on the student's cross-entropy, beside the recipe's own.
        lr_scale: Factor on the learning rate of its layers.
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
        """The layers and buffers that belong to one teacher; ``self.options`` is set. By default none."""
        return nn.Identity()

    def use_cached(self, cached: CachedEmbedding) -> None:
        """Look at embeddings of the training split before the first step; by default nothing is asked for."""

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Named terms of one teacher: a value for each row, [B], not weighted.

        A value is ignored where ``teacher.present`` is False; it must not enter the other rows'.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare")

    def weight(self, term: str) -> float:
        """Factor of a term of :meth:`compare`; by default the option ``weight``."""
        return float(self.options.weight)

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Named scalar terms, already weighted; their sum is added to the student's cross-entropy.

        A teacher's rows that are not present contribute nothing; a term without any row is zero and still
        part of the graph.

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
        """What the student is compared with: each teacher."""
        for info, head in zip(self.teachers, self.heads, strict=True):
            value, present, stages = teachers[info.name]
            # `where`, not a product: an absent row may hold anything.
            value = torch.where(present[:, None], value, 0.0).to(dtype)
            yield TeacherBatch(info, head, value, present, stages)
