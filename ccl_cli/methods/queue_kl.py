"""KL divergence of similarities to a queue of teacher embeddings, without labels.

This is the global term of the method ``distillationv3`` of lightly-train (0.15.0, 2026), which has no paper.
The closest published method is SEED (Fang et al., ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods import (
    Batch,
    CachedEmbedding,
    Embedding,
    Method,
    MethodOptions,
    Setting,
    StudentOutput,
    TeacherBatch,
    TeacherInfo,
)
from ccl_cli.methods.components.losses import EXCLUDED, unit_rows
from ccl_cli.utils.distributed import gather_mask, gather_rows

# Queue size by number of training videos: 16 below 50 videos, 32 below 100, ...
_SIZES = {50: 16, 100: 32, 250: 64, 500: 128, 1000: 256, 2000: 512, 4000: 1024, 10_000: 2048, 20_000: 4096}
_LARGEST = 8192


def queue_size(videos: int) -> int:
    """Published queue size for a training split of ``videos`` videos."""
    return next((size for bound, size in _SIZES.items() if videos < bound), _LARGEST)


class QueueKLOptions(MethodOptions):
    """Options of ``queue_kl``."""

    weight: float = Field(1.0, ge=0, description="Weight of a teacher's divergence.")
    # With a much smaller temperature, the exponentials of the similarities overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities of both sides.")
    size: int | None = Field(
        None,
        ge=1,
        description="Embeddings in a teacher's queue; default: 16 to 8192, by number of training videos.",
    )
    anchors: Literal["queue", "sample"] = Field(
        "queue",
        description="queue: the most recent embeddings; sample: embeddings of training videos that are drawn "
        "once (the teacher must be cached).",
    )


class QueueKL(Method):
    """Matches similarities to a queue of the teacher's most recent embeddings, in the teacher's space.

    Rows with a zero embedding count as absent, because it has no direction.
    """

    Options = QueueKLOptions
    paper = "lightly-train, 2026"
    needs_labels = False

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the projection of the student's feature and the queue."""
        size = self.options.size or queue_size(setting.num_videos)
        rows = torch.randperm(setting.num_videos)[:size] if self.options.anchors == "sample" else None
        size = size if rows is None else len(rows)
        return QueueHead(setting.student_dim, teacher.dim, size, self.options.temperature, rows)

    def use_cached(self, cached: CachedEmbedding) -> None:
        """For ``anchors: sample``: fill the queues.

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
                    f"method.queue_kl.anchors: sample needs a cache of the embeddings of {info.name}.",
                    "Use --set cache.use=build, or anchors: queue.",
                )
            head.fill(embedding)

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Yield each teacher with its embeddings scaled to unit length."""
        for teacher in super().batches(dtype, teachers):
            value = unit_rows(teacher.value)
            yield teacher._replace(value=value, present=teacher.present & value.any(dim=1))

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the term ``queue_kl``."""
        return {"queue_kl": teacher.head(student.feature, teacher.value, teacher.present, batch.rows)}


class QueueHead(nn.Module):
    """The modules for one teacher: a linear projection of the student's feature, and the queue.

    The queue contains the teacher's most recent embeddings of all processes, newest first, and is the same on
    every process. With ``rows`` [Q] int64 of the training split, the embeddings of these rows fill it once,
    and no row is compared with itself.
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
        """Fill the queue with the embeddings of ``rows``, [Q, D_m]."""
        value = unit_rows(embedding.value)
        self.queue.copy_(value)
        self.filled.copy_(embedding.present & value.any(dim=1))

    def forward(self, student: Tensor, teacher: Tensor, present: Tensor, rows: Tensor) -> Tensor:
        """``KL(teacher || student)`` of the softmax over the similarities to the queue, [B].

        In training the batch is added to the queue first. The teacher's rows have unit length, or are zero
        where absent.
        """
        queue, filled = self.queue.to(teacher.dtype, copy=True), self.filled
        if self.rows is not None:
            filled = filled & (self.rows != rows[:, None])
        elif self.training:
            queue, filled = self._enqueued(queue, teacher, present)
            # The loss uses its own copy: another forward pass before backward must not change it.
            self.queue.copy_(queue)
            self.filled.copy_(filled)
        log_p, log_q = (
            (side @ queue.mT / self.temperature).masked_fill(~filled, EXCLUDED).log_softmax(dim=1)
            for side in (teacher, unit_rows(self.project(student)))
        )
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)

    def _enqueued(self, queue: Tensor, teacher: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The queue with the batch's present rows in front, and its filled slots."""
        rows = torch.cat([gather_rows(teacher), queue])
        exists = torch.cat([gather_mask(present), self.filled])
        # A stable sort instead of boolean indexing, which would synchronise with the GPU.
        order = (~exists).to(torch.uint8).argsort(stable=True)[: len(queue)]
        return rows[order], exists[order]
