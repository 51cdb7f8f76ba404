"""Hints (Romero et al., FitNets, ICLR 2015) between embeddings: the student regresses the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, MethodOptions, Setting, TeacherBatch, TeacherInfo
from ccl_cli.students import StudentOutput
from ccl_cli.utils.distributed import gather_mask, gather_rows


def hint(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row.

    Shapes:
        prediction: [B, D_m].
        target: [B, D_m].
        returns: [B].
    """
    return (prediction - target).square().mean(dim=1)


class FitNetOptions(MethodOptions):
    """Options of ``fitnet``."""

    weight: float = Field(
        100.0, ge=0, description="Weight of the squared error, which is a mean over rows and dimensions."
    )
    regressor: Literal["auto", "identity", "linear", "linear_bn_relu"] = Field(
        "auto",
        description="Maps the student's feature to the teacher's; auto: identity if as wide, else linear.",
    )


class FitNet(Method):
    """One regressor per teacher, one stage, beside the cross-entropy."""

    Options = FitNetOptions
    paper = "Romero et al., ICLR 2015"

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """The regressor: ``(feature [B, D], present [B])`` to [B, D_m]."""
        kind, equal = self.options.regressor, setting.student_dim == teacher.dim
        if kind == "identity" and not equal:
            raise RecipeError(
                f"method.fitnet.regressor: identity needs a teacher as wide as the student "
                f"({setting.student_dim}), but '{teacher.name}' has {teacher.dim} dimensions.",
                "Use auto, linear or linear_bn_relu.",
            )
        if kind == "identity" or (kind == "auto" and equal):
            return _Identity()
        regressor = _LinearNormRelu if kind == "linear_bn_relu" else _Linear
        return regressor(setting.student_dim, teacher.dim)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """``fitnet``."""
        return {"fitnet": hint(teacher.head(student.feature, teacher.present), teacher.value)}


class _Identity(nn.Module):
    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return x


class _Linear(nn.Linear):
    def forward(self, x: Tensor, present: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class _LinearNormRelu(nn.Module):
    """Linear, batch norm over the rows present on all processes, ReLU; keeps no running statistics."""

    def __init__(self, dim_in: int, dim_out: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.scale = nn.Parameter(torch.ones(dim_out))
        self.shift = nn.Parameter(torch.zeros(dim_out))
        self.eps = eps

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        x = self.linear(x)
        everywhere, keep = gather_rows(x), gather_mask(present)[:, None]
        count = keep.sum().clamp(min=1)
        mean = torch.where(keep, everywhere, 0.0).sum(dim=0) / count
        variance = torch.where(keep, everywhere - mean, 0.0).square().sum(dim=0) / count
        return (self.scale * (x - mean) * (variance + self.eps).rsqrt() + self.shift).relu()
