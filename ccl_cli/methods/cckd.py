"""Correlation congruence (Peng et al., ICCV 2019), and RepDistiller's different loss of the same name."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.methods import Batch, Method, MethodOptions, Setting, StudentOutput, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.components.relational import Rows, relate
from ccl_cli.utils.distributed import rank


class CCKDOptions(MethodOptions):
    """Options of ``cckd``."""

    implied: ClassVar = {("variant", "neighbour"): {"weight": 0.02}}

    weight: float = Field(
        100.0, ge=0, description="Weight of the term; the default for variant neighbour is 0.02."
    )
    variant: Literal["taylor", "bilinear", "neighbour"] = Field(
        "taylor",
        description="Kernel of the correlations. neighbour: products of successive rows' errors instead.",
    )
    gamma: float = Field(0.4, gt=0, description="taylor only: inverse width of the Gaussian.")
    order: int = Field(2, ge=1, description="taylor only: highest power of the series.")


class CCKD(Method):
    """Matches the correlations between the rows of a batch (COR in the CCL paper).

    Variant ``neighbour`` compares embeddings entry by entry. If the widths differ, a trained linear layer
    maps the student's feature to the teacher's width. The teacher's side has no trained layer, because both
    sides could then collapse to a constant.
    """

    Options = CCKDOptions
    paper = "Peng et al., ICCV 2019"
    needs_labels = False

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """For ``neighbour``: a linear layer to the teacher's width, if the widths differ."""
        if self.options.variant != "neighbour" or teacher.dim == setting.student_dim:
            return nn.Identity()
        return nn.Linear(setting.student_dim, teacher.dim)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the term ``cckd``: the mean squared difference of the kernels over the present rows."""
        feature = teacher.head(student.feature)
        ours, theirs, present = relate(feature, teacher.value, teacher.present)
        if self.options.variant == "neighbour":
            values = _neighbour((ours.candidate - theirs.candidate).abs(), present)
            return {"cckd": values.narrow(0, rank() * len(feature), len(feature))}
        difference = torch.where(present, self._kernel(ours) - self._kernel(theirs), 0.0)
        return {"cckd": difference.square().sum(dim=1) / present.sum().clamp(min=1)}

    def _kernel(self, rows: Rows) -> Tensor:
        """Inner products, or a Gaussian kernel of unit vectors by a Taylor series, [A, C].

        ``exp(-gamma |x - y|^2) = exp(-2 gamma) exp(2 gamma cos)``. The series of the second factor is
        truncated after the power ``order``.
        """
        if self.options.variant == "bilinear":
            return rows.anchor @ rows.candidate.mT
        gamma = self.options.gamma
        cosine = 2 * gamma * unit_rows(rows.anchor) @ unit_rows(rows.candidate).mT
        series = torch.ones_like(cosine)
        for power in range(1, self.options.order + 1):
            series = series + cosine**power / math.factorial(power)
        return math.exp(-2 * gamma) * series


def _neighbour(error: Tensor, present: Tensor) -> Tensor:
    """Products of the errors [C, D] of successive present rows of the batch (RepDistiller's "CC"), [C].

    The values are scaled so that their mean over the present rows is the mean over successive pairs. They
    depend on the order of the batch.
    """
    count, rows = present.sum(), torch.arange(len(present), device=present.device)
    # Index of the next present row: the running minimum, from the end, of the indices of present rows.
    index = torch.where(present, rows, len(rows))
    following = index.flip(0).cummin(0).values.flip(0).roll(-1)
    exists = (rows < len(rows) - 1) & (following < len(rows))
    products = (error * error[following.clamp(max=len(rows) - 1)]).sum(dim=1)
    return torch.where(exists, products, 0.0) * count / (count - 1).clamp(min=1)
