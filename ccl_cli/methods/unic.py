"""UNIC (Sariyildiz et al., ECCV 2024): regress all teachers, with random teacher dropping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.methods import (
    Batch,
    Embedding,
    Method,
    MethodOptions,
    Setting,
    StudentOutput,
    TeacherBatch,
    TeacherInfo,
)
from ccl_cli.methods.components.draws import SharedDraws, uniform_rows
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.utils.distributed import total, world_size

Weight = Annotated[float, Field(ge=0)]
_EPSILON = 1e-6  # added to standard deviations, and again before dividing by them
_LAST_MOMENTUM = 0.001


def momentum(progress: Tensor) -> Tensor:
    """Weight of the new batch in the running statistics: half a cosine from 1 to 0.001 over the run."""
    cosine = (1 + (math.pi * progress.clamp(max=1)).cos()) / 2
    return _LAST_MOMENTUM + (1 - _LAST_MOMENTUM) * cosine


def choose_teachers(losses: Tensor, present: Tensor, uniform: Tensor, probability: float) -> Tensor:
    """Choose the teachers of each row: the one with the largest loss, and the others at random.

    Shapes:
        losses: [T, B].
        present: [T, B] bool.
        uniform: [T, B] random numbers in [0, 1).
        probability: Probability of dropping a teacher.
        returns: [T, B] bool, True for chosen teachers. Among equal losses the first teacher is chosen.
    """
    scores = losses.detach().masked_fill(~present, -torch.inf)
    largest = scores == scores.amax(dim=0)
    first = largest & (largest.cumsum(dim=0) == 1)
    return present & (first | (uniform >= probability))


class UNICOptions(MethodOptions):
    """Options of ``unic``; the defaults are those of the authors' code."""

    weight: Weight = Field(1.0, description="Weight of the loss.")
    cosine: Weight = Field(0.5, description="Weight of the cosine distance.")
    smooth_l1: Weight = Field(0.5, description="Weight of the smooth L1 distance.")
    drop: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability that a row drops a teacher; the teacher with the largest loss is never "
        "dropped.",
    )
    hidden: int | None = Field(
        None, ge=1, description="Hidden width of a projector; default: twice the larger of input and output."
    )
    standardize: Literal["ema", "none"] = Field(
        "ema",
        description="ema: standardise targets by running mean and standard deviation; none: use the "
        "embeddings unchanged.",
    )


class UNIC(Method):
    """A projector for each teacher regresses its standardised embedding.

    For each row, teachers are dropped at random, except the one with the largest loss. The loss is one mean
    over all remaining pairs of row and teacher; each teacher's term is its share of this mean.
    """

    Options = UNICOptions
    paper = "Sariyildiz et al., ECCV 2024"
    needs_labels = False

    rows_done: Tensor

    def __init__(self, options: UNICOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self.total_rows = setting.epochs * setting.num_videos
        self.random = SharedDraws()
        self.register_buffer("rows_done", torch.zeros((), dtype=torch.int64))

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the projector and the running statistics."""
        hidden = self.options.hidden or 2 * max(setting.student_dim, teacher.dim)
        return UNICHead(setting.student_dim, hidden, teacher.dim)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``unic``, the loss of each row, [B], without teacher dropping."""
        target = teacher.value
        if self.options.standardize == "ema":
            target = teacher.head.standardize(target)
            if self.training:
                teacher.head.update(
                    teacher.value, teacher.present, momentum(self.rows_done / self.total_rows)
                )
        prediction = teacher.head(student.feature)
        cosine = 1 - (unit_rows(prediction) * unit_rows(target)).sum(dim=1)
        smooth = F.smooth_l1_loss(prediction, target, reduction="none").mean(dim=1)
        return {"unic": self.options.cosine * cosine + self.options.smooth_l1 * smooth}

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Return each teacher's share of the mean over the remaining pairs of all processes."""
        each = list(self.batches(student.feature.dtype, teachers))
        losses = torch.stack([self.compare(student, teacher, batch)["unic"] for teacher in each])
        chosen = torch.stack([teacher.present for teacher in each])
        if self.training:
            self.rows_done += world_size() * losses.shape[1]
            uniform = uniform_rows(losses.shape[1], len(each), self.random.next(losses.device)).mT
            chosen = choose_teachers(losses, chosen, uniform, self.options.drop)
        count = total(chosen.sum()).clamp(min=1)
        sums = torch.where(chosen, losses, 0.0).sum(dim=1)
        shares = self.options.weight * sums * world_size() / count
        return {f"unic/{info.name}": share for info, share in zip(self.teachers, shares, strict=True)}


class UNICHead(nn.Module):
    """The modules for one teacher: the projector, and running statistics of the embeddings."""

    mean: Tensor
    std: Tensor

    def __init__(self, student_dim: int, hidden: int, teacher_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(student_dim, hidden), nn.Linear(hidden, teacher_dim)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.register_buffer("mean", torch.zeros(teacher_dim))
        self.register_buffer("std", torch.ones(teacher_dim))

    def forward(self, feature: Tensor) -> Tensor:
        """Project the student's feature [B, D] to [B, D_m]."""
        return self.fc2(F.gelu(self.fc1(feature)))  # type: ignore[no-any-return]

    def standardize(self, value: Tensor) -> Tensor:
        """Standardise [B, D_m] by the statistics before this batch; constant dimensions become zero."""
        scaled = (value - self.mean) / (self.std + _EPSILON)
        return torch.where(self.std > 2 * _EPSILON, scaled, 0.0)

    @torch.no_grad()
    def update(self, value: Tensor, present: Tensor, momentum: Tensor) -> None:
        """Update with the present rows [B, D_m] of all processes, if there are at least two."""
        counted, count = present[:, None], total(present.sum())
        mean = total(torch.where(counted, value, 0.0).sum(dim=0)) / count.clamp(min=1)
        squares = total(torch.where(counted, value - mean, 0.0).square().sum(dim=0))
        std = (squares / (count - 1).clamp(min=1)).sqrt() + _EPSILON
        momentum = torch.where(count > 1, momentum, 0.0)  # a single row has no standard deviation
        self.mean.copy_((1 - momentum) * self.mean + momentum * mean)
        self.std.copy_((1 - momentum) * self.std + momentum * std)
