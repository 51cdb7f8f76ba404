"""Relational divergence against a queue of teacher embeddings, without labels.

The method ``distillationv3`` of lightly-train (0.15.0, 2026), its global term; it has no paper. SEED (Fang et
al., ICLR 2021) is its closest published relative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import CachedEmbedding, Method, MethodOptions, Setting, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import gather_mask, gather_rows

# Below this many training videos, this many embeddings in the queue.
_SIZES = {50: 16, 100: 32, 250: 64, 500: 128, 1000: 256, 2000: 512, 4000: 1024, 10_000: 2048, 20_000: 4096}
_LARGEST = 8192
_EXCLUDED = -1e30  # its exponential is zero, and it stays finite where a gradient multiplies it by zero


def queue_size(videos: int) -> int:
    """Published size of the queue for a training split of so many videos."""
    return next((size for bound, size in _SIZES.items() if videos < bound), _LARGEST)


def relational_kl(
    student: Tensor, teacher: Tensor, queue: Tensor, filled: Tensor, temperature: float
) -> Tensor:
    """``KL(teacher || student)`` of the similarities to the queue.

    Shapes:
        student: [B, D_m] of unit length.
        teacher: [B, D_m] of unit length.
        queue: [Q, D_m] of unit length.
        filled: [Q] bool, the slots that hold an embedding; or [B, Q], those that each row looks at.
        returns: [B].
    """
    log_p, log_q = (
        (rows @ queue.mT / temperature).masked_fill(~filled, _EXCLUDED).log_softmax(dim=1)
        for rows in (teacher, student)
    )
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


class QueueKLOptions(MethodOptions):
    """Options of ``queue_kl``."""

    weight: float = Field(1.0, ge=0, description="Weight of a teacher's divergence.")
    # Far below, the exponentials of the similarities overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities of both sides.")
    size: int | None = Field(
        None,
        ge=1,
        description="Embeddings in a teacher's queue; default: 16 to 8192, more for more training videos.",
    )
    anchors: Literal["queue", "sample"] = Field(
        "queue",
        description="queue: the last embeddings; sample: those of training videos that are drawn once, of a "
        "teacher that is cached.",
    )


class QueueKL(Method):
    """Matches similarities to a queue of the teacher's last embeddings, in the teacher's space.

    A zero embedding has no direction: its row counts as absent.
    """

    Options = QueueKLOptions
    paper = "lightly-train, 2026"
    needs_labels = False

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """The map of the student's feature, and the queue."""
        size = self.options.size or queue_size(setting.num_videos)
        if self.options.anchors == "queue":
            return QueueHead(setting.student_dim, teacher.dim, size, self.options.temperature)
        rows = torch.randperm(setting.num_videos)[:size]
        return QueueHead(setting.student_dim, teacher.dim, len(rows), self.options.temperature, rows)

    def use_cached(self, cached: CachedEmbedding) -> None:
        """Of ``sample``: the anchors.

        Raises:
            RecipeError: a teacher is not cached.
        """
        for info, each in zip(self.teachers, self.heads, strict=True):
            head = cast(QueueHead, each)
            if head.rows is None:
                continue
            embedding = cached(info.name, head.rows)
            if embedding is None:
                raise RecipeError(
                    f"method.queue_kl.anchors: sample needs embeddings of {info.name} before the first step, "
                    "and it is not cached.",
                    "Use --set cache.use=build, or anchors: queue.",
                )
            head.fill(embedding)

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Each teacher, with its embeddings at unit length."""
        for teacher in super().batches(dtype, teachers):
            value = unit_rows(teacher.value)
            yield teacher._replace(value=value, present=teacher.present & value.any(dim=1))

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """``queue_kl``."""
        return {"queue_kl": teacher.head(student.feature, teacher.value, teacher.present, batch.rows)}


class QueueHead(nn.Module):
    """Everything that belongs to one teacher: a linear map of the student's feature, and the queue.

    The queue holds the teacher's last embeddings of all processes, the newest first, and is the same on each.
    Or it is filled once with those of some rows, and no row is compared with itself.

    Args:
        student_dim: D.
        teacher_dim: D_m.
        size: Slots of the queue, Q.
        temperature: Divides the similarities.
        rows: [Q] int64, the rows of the training split that fill it for good; None: it follows the batches.
    """

    queue: Tensor
    filled: Tensor
    rows: Tensor | None

    def __init__(
        self, student_dim: int, teacher_dim: int, size: int, temperature: float, rows: Tensor | None = None
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.project = nn.Linear(student_dim, teacher_dim)
        nn.init.trunc_normal_(self.project.weight, std=0.02)
        self.register_buffer("queue", torch.zeros(size, teacher_dim))
        self.register_buffer("filled", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("rows", rows)

    def fill(self, embedding: Embedding) -> None:
        """Let these embeddings of ``rows`` be the queue."""
        value = unit_rows(embedding.value)
        self.queue.copy_(value)
        self.filled.copy_(embedding.present & value.any(dim=1))

    def forward(self, student: Tensor, teacher: Tensor, present: Tensor, rows: Tensor) -> Tensor:
        """Divergence of each row, [B], after the queue has taken in the batch (in training).

        Shapes:
            student: [B, D].
            teacher: [B, D_m] of unit length; a row that is not present is zero.
            present: [B] bool.
            rows: [B] int64, places in the training split.
        """
        queue, filled = self.queue.to(teacher.dtype, copy=True), self.filled
        if self.rows is not None:
            filled = filled & (self.rows != rows[:, None])
        elif self.training:
            queue, filled = self._enqueued(queue, teacher, present)
            # Copied in place, and the loss keeps its own: a later step must not change what it saw.
            self.queue.copy_(queue)
            self.filled.copy_(filled)
        mapped = unit_rows(self.project(student))
        return relational_kl(mapped, teacher, queue, filled, self.temperature)

    def _enqueued(self, queue: Tensor, teacher: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The queue with the rows present in front, and which of its slots are filled."""
        rows = torch.cat([gather_rows(teacher), queue])
        exists = torch.cat([gather_mask(present), self.filled])
        # A stable sort instead of a selection, whose size a GPU would have to be asked for.
        order = (~exists).to(torch.uint8).argsort(stable=True)[: len(queue)]
        return rows[order], exists[order]
