"""Knowledge distillation with soft targets (Hinton et al., 2015) from a linear probe on each teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, MethodOptions, Setting, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.losses import cross_entropy
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding


def soft_targets(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(target || softmax(logits / T))`` of each row.

    Shapes:
        logits: [B, K] class scores.
        target: [B, K] probabilities at the same temperature.
        returns: [B].
    """
    log_q = (logits / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(log_q, target, reduction="none").sum(dim=1)


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
        each = [
            teacher._replace(value=teacher.head(teacher.value))
            for teacher in super().batches(dtype, teachers)
        ]
        yield from each
        if self.options.combine == "average":
            target, present = _average([(self._target(scores), there) for _, _, scores, there, _ in each])
            name = "+".join(teacher.info.name for teacher in each)
            yield TeacherBatch(TeacherInfo(name, "", target.shape[1]), None, target, present, ())

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``probe`` and ``kd`` of each teacher, or one ``kd`` for the average of all."""
        if teacher.head is None:
            return {"kd": soft_targets(student.logits, teacher.value, self.options.temperature)}
        terms = {"probe": cross_entropy(teacher.value, batch.labels)}
        if self.options.combine == "sum":
            target = self._target(teacher.value)
            terms["kd"] = soft_targets(student.logits, target, self.options.temperature)
        return terms

    def _target(self, scores: Tensor) -> Tensor:
        """Soft targets [B, K], detached from the probe."""
        temperature: float = self.options.temperature
        return (scores.detach() / temperature).softmax(dim=1)


def _average(targets: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean probabilities [B, K] over the teachers present in a row, and whether any is present, [B] bool."""
    probabilities, present = (torch.stack(part) for part in zip(*targets, strict=True))  # [M, B, K], [M, B]
    count = present.sum(dim=0)
    mean = torch.where(present[:, :, None], probabilities, 0.0).sum(dim=0) / count.clamp(min=1)[:, None]
    return mean, count > 0
