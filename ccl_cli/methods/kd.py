"""Soft targets (Hinton et al., 2015), from a linear probe on each teacher's embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, MethodOptions, Setting
from ccl_cli.methods.losses import cross_entropy, full_precision
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import masked_mean


def soft_targets(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(target || softmax(logits / T))``, per row.

    Shapes:
        logits: [B, K] class scores.
        target: [B, K] probabilities at the same temperature.
        returns: [B].
    """
    log_q = (full_precision(logits) / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(log_q, target, reduction="none").sum(dim=1)


class KDOptions(MethodOptions):
    """Options of ``kd``."""

    weight: float = Field(
        0.9, ge=0, description="Weight of the soft targets; published with a ce_weight of 0.1 beside it."
    )
    temperature: float = Field(4.0, gt=0, description="Divides the class scores of both sides.")
    combine: Literal["sum", "average"] = Field(
        "sum", description="Several teachers: a term each, or one with the average of their probabilities."
    )
    probe_weight: float = Field(
        1.0, ge=0, description="Weight of the probes' cross-entropy, which never reaches the student."
    )


class KD(Method):
    """Teachers predict other classes: a linear probe on each learns the run's own beside the student."""

    Options = KDOptions

    def __init__(self, options: KDOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self.options = options
        self.teachers = setting.teachers
        self.probes = nn.ModuleList(
            nn.Linear(teacher.dim, setting.num_classes) for teacher in setting.teachers
        )

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """``kd`` and ``probe`` of each teacher; by average one ``kd`` of all."""
        options, logits = self.options, full_precision(student.logits)
        targets: dict[str, tuple[Tensor, Tensor]] = {}
        terms: dict[str, Tensor] = {}
        for info, probe in zip(self.teachers, self.probes, strict=True):
            value, present, _ = teachers[info.name]
            scores = probe(torch.where(present[:, None], value, 0.0).to(logits.dtype))
            terms[f"probe/{info.name}"] = options.probe_weight * masked_mean(
                cross_entropy(scores, batch.labels), present
            )
            targets[info.name] = (scores.detach() / options.temperature).softmax(dim=1), present
        if options.combine == "average":
            targets = {"+".join(targets): _average(list(targets.values()))}
        for name, (target, present) in targets.items():
            divergence = soft_targets(logits, target, options.temperature)
            terms[f"kd/{name}"] = options.weight * masked_mean(divergence, present)
        return terms


def _average(targets: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean probabilities [B, K] of the teachers that a row has, and whether it has any, [B]."""
    probabilities, present = (torch.stack(part) for part in zip(*targets, strict=True))  # [M, B, K], [M, B]
    count = present.sum(dim=0)
    mean = torch.where(present[:, :, None], probabilities, 0.0).sum(dim=0) / count.clamp(min=1)[:, None]
    return mean, count > 0
