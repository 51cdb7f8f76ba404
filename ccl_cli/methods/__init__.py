"""Base class of distillation methods: their loss terms, their trained layers and their buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch as Batch
from ccl_cli.students import StudentOutput as StudentOutput
from ccl_cli.teachers import Embedding as Embedding
from ccl_cli.utils.distributed import masked_mean


@dataclass(frozen=True)
class TeacherInfo:
    """Name, modality and width of a teacher.

    Attributes:
        name: As in the recipe, ``modality:name``.
        modality: For example "audio".
        dim: Width D_m of its embedding.
    """

    name: str
    modality: str
    dim: int


@dataclass(frozen=True)
class Setting:
    """The run for which a method is built.

    Attributes:
        student_dim: Width D of the student's feature.
        num_classes: Number of classes K; 0 if no training row has a label.
        labels: [N] int64, the class of each training row; -1 for a row without a label.
        teachers: In the order of the recipe.
        epochs: Number of epochs.
    """

    student_dim: int
    num_classes: int
    labels: Tensor
    teachers: tuple[TeacherInfo, ...]
    epochs: int = 1

    @property
    def num_videos(self) -> int:
        """Number N of rows in the training split."""
        return len(self.labels)


class TeacherBatch(NamedTuple):
    """One teacher's embeddings of a batch.

    Shapes:
        info: Name, modality and width D_m.
        head: The module that :meth:`Method.head` returned for this teacher.
        value: [B, D_m] embeddings in the dtype of the student's feature; absent rows are zero.
        present: [B] bool; False where the video lacks the teacher's modality.
        stages: Outputs of the teacher's stages, each [B, C, ...]; empty if it does not return any.
    """

    info: TeacherInfo
    head: Any
    value: Tensor
    present: Tensor
    stages: tuple[Tensor, ...]


# (name of a teacher, [n] int64 rows of the training split) -> its cached embeddings, or None without a cache.
CachedEmbedding = Callable[[str, Tensor], Embedding | None]


class MethodOptions(BaseModel):
    """Base class of a method's options, which are validated; an unknown name is an error.

    Attributes:
        implied: Defaults that follow from the value of another option, by its name and value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    implied: ClassVar[Mapping[tuple[str, str], Mapping[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_implied(cls, values: Any) -> Any:
        for (name, choice), defaults in cls.implied.items():
            if isinstance(values, dict) and values.get(name) == choice:
                values = {**defaults, **values}
        return values


class Method(nn.Module):
    """A distillation method: loss terms that are added to the student's cross-entropy.

    By default the loss is a sum over teachers of weighted means over rows. A subclass defines the loss of a
    row in :meth:`compare` and the layers of a teacher in :meth:`head`. A method with another structure
    overrides :meth:`forward`. An entry point in the group ``ccl.methods`` registers it. Its layers and
    buffers are saved in checkpoints, but are not part of the published model.

    Attributes:
        Options: The options that a recipe may set.
        paper: Authors, venue and year, shown in lists.
        tuned: The option that `ccl bench --tune` tunes: the weight against the student's cross-entropy.
        uses_teachers: Whether the method uses embeddings. If no method of a run does, no teacher is built.
        needs_labels: Whether the method uses labels. If any method of a run does, unlabelled videos are not
            trained on. Otherwise batches may contain rows with label -1.
        uses_stages: Whether the method uses the outputs of the teachers' stages.
        ce_weight: Factor on the student's cross-entropy, in addition to the recipe's.
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
        """Return the layers and buffers for one teacher; by default none. ``self.options`` is already set."""
        return nn.Identity()

    def use_cached(self, cached: CachedEmbedding) -> None:
        """Read cached embeddings of the training split before the first step; by default none."""

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted loss terms of one teacher by name, each with one value per row, [B].

        Values of absent rows are ignored. An absent row must not affect the values of other rows.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare")

    def weight(self, term: str) -> float:
        """Return the weight of a term of :meth:`compare`; by default the option ``weight``."""
        return float(self.options.weight)

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Return the weighted scalar terms by name; their sum is added to the student's cross-entropy.

        Absent rows contribute nothing. A term without any present row is zero, but part of the graph.

        Args:
            student: Feature [B, D] and logits [B, K], in float32 or float64.
            teachers: Embeddings by the teacher's name.
            batch: Labels, rows and epoch.
        """
        return {
            f"{term}/{teacher.info.name}": self.weight(term) * masked_mean(values, teacher.present)
            for teacher in self.batches(student.feature.dtype, teachers)
            for term, values in self.compare(student, teacher, batch).items()
        }

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Yield the embeddings that the student is compared with; by default those of each teacher."""
        for info, head in zip(self.teachers, self.heads, strict=True):
            value, present, stages = teachers[info.name]
            # `where` instead of a product: an absent row may be NaN.
            value = torch.where(present[:, None], value, 0.0).to(dtype)
            yield TeacherBatch(info, head, value, present, stages)
