"""Knowledge distillation with soft targets (Hinton et al., 2015) from a linear probe on each teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

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
from ccl_cli.methods.components.losses import cross_entropy


class KDOptions(MethodOptions):
    """Options of ``kd``."""

    weight: float = Field(
        0.9, ge=0, description="Weight of the soft targets; published together with a ce_weight of 0.1."
    )
    temperature: float = Field(4.0, gt=0, description="Divides the class scores of both sides.")
    combine: Literal["sum", "average"] = Field(
        "sum",
        description="With several teachers: one term each, or one term with their average probabilities.",
    )
    probe_weight: float = Field(
        1.0, ge=0, description="Weight of the probes' cross-entropy, which does not train the student."
    )


class KD(Method):
    """Matches soft targets of a linear probe on each teacher's embedding.

    Teachers are trained on other classes, so a probe on each teacher learns the classes of the run while the
    student trains.
    """

    Options = KDOptions
    paper = "Hinton et al., 2015"

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the probe: [B, D_m] to class scores [B, K]."""
        return nn.Linear(teacher.dim, setting.num_classes)

    def weight(self, term: str) -> float:
        """Return ``probe_weight`` for the probes' term, ``weight`` for the soft targets."""
        return float(self.options.probe_weight if term == "probe" else self.options.weight)

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Yield each teacher with its probe's class scores [B, K] as value.

        With ``combine: average``, a last entry without head has the teachers' average probabilities as value.
        """
        each = []
        for teacher in super().batches(dtype, teachers):
            each.append(teacher._replace(value=teacher.head(teacher.value)))
            yield each[-1]
        if self.options.combine == "average":
            targets = torch.stack([self._soft(teacher.value.detach()) for teacher in each])  # [M, B, K]
            present = torch.stack([teacher.present for teacher in each])  # [M, B]
            count = present.sum(dim=0)
            mean = torch.where(present[:, :, None], targets, 0.0).sum(dim=0) / count.clamp(min=1)[:, None]
            info = TeacherInfo("+".join(teacher.info.name for teacher in each), "", mean.shape[1])
            yield TeacherBatch(info, None, mean, count > 0, ())

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``probe`` and ``kd`` of each teacher, or one ``kd`` for the average of all."""
        if teacher.head is None:
            return {"kd": self._divergence(student.logits, teacher.value)}
        terms = {"probe": cross_entropy(teacher.value, batch.labels)}
        if self.options.combine == "sum":
            terms["kd"] = self._divergence(student.logits, self._soft(teacher.value.detach()))
        return terms

    def _soft(self, scores: Tensor) -> Tensor:
        temperature: float = self.options.temperature
        return (scores / temperature).softmax(dim=1)

    def _divergence(self, logits: Tensor, target: Tensor) -> Tensor:
        """``T^2 KL(target || softmax(logits / T))`` of each row, [B]."""
        temperature: float = self.options.temperature
        log_q = (logits / temperature).log_softmax(dim=1)
        return temperature**2 * F.kl_div(log_q, target, reduction="none").sum(dim=1)
