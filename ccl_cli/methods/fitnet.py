"""FitNets' hints (Romero et al., ICLR 2015) on embeddings: the student regresses the teacher's embedding."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, MethodOptions, Setting, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.batch_norm import MaskedBatchNorm
from ccl_cli.students import StudentOutput

_POWER = 4
_GUARD = 1e-5  # added inside the logarithm; bounds the gradient as the error approaches zero
_LOG_SUM_WEIGHT = 1.0


def hint(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row.

    Shapes:
        prediction: [B, D_m].
        target: [B, D_m].
        returns: [B].
    """
    return (prediction - target).square().mean(dim=1)


def log_sum(prediction: Tensor, target: Tensor) -> Tensor:
    """Logarithm of the sum of the differences' fourth powers, a soft maximum (Miles and Mikolajczyk, 2024).

    Shapes:
        prediction: [B, D_m].
        target: [B, D_m].
        returns: [B].
    """
    difference = prediction - target
    # Dividing by the largest difference keeps the powers from overflowing.
    scale = difference.detach().abs().amax(dim=1, keepdim=True).clamp(min=1)
    powers = (difference / scale) ** _POWER
    guard = _GUARD / scale.squeeze(1) ** _POWER
    return (powers.sum(dim=1) + guard).log() + _POWER * scale.squeeze(1).log()


class FitNetOptions(MethodOptions):
    """Options of ``fitnet``."""

    weight: float = Field(
        100.0,
        ge=0,
        description="Weight of the loss. The squared error is a mean over rows and dimensions; the default "
        "for logsum is 1.",
    )
    regressor: Literal["auto", "identity", "linear", "linear_bn_relu", "mlp_bn"] = Field(
        "auto",
        description="Maps the student's feature to the teacher's. auto: identity for equal widths, else "
        "linear; mlp_bn: two layers with batch norm and ReLU between them.",
    )
    loss: Literal["mse", "logsum"] = Field(
        "mse",
        description="mse: squared error, as published; logsum: log of the sum of fourth powers, dominated by "
        "the largest errors at any scale of the teacher.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_weight(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("loss") == "logsum":
            return {"weight": _LOG_SUM_WEIGHT, **values}
        return values


class FitNet(Method):
    """Regresses each teacher's embedding from the student's feature, together with the cross-entropy."""

    Options = FitNetOptions
    paper = "Romero et al., ICLR 2015"
    needs_labels = False

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the regressor: ``(feature [B, D], present [B])`` to [B, D_m].

        Raises:
            RecipeError: ``identity`` with different widths.
        """
        kind, equal = self.options.regressor, setting.student_dim == teacher.dim
        if kind == "identity" and not equal:
            raise RecipeError(
                f"method.fitnet.regressor: identity needs a teacher as wide as the student "
                f"({setting.student_dim}), but '{teacher.name}' has {teacher.dim} dimensions.",
                "Use auto, linear, linear_bn_relu or mlp_bn.",
            )
        if kind == "identity" or (kind == "auto" and equal):
            return _Identity()
        if kind in ("auto", "linear"):
            return _Linear(setting.student_dim, teacher.dim)
        output = nn.Linear(teacher.dim, teacher.dim) if kind == "mlp_bn" else nn.Identity()
        return _Normalised(setting.student_dim, teacher.dim, output)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the term ``fitnet``."""
        distance = log_sum if self.options.loss == "logsum" else hint
        return {"fitnet": distance(teacher.head(student.feature, teacher.present), teacher.value)}


class _Identity(nn.Module):
    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return x


class _Linear(nn.Linear):
    def forward(self, x: Tensor, present: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class _Normalised(nn.Module):
    """Linear, batch norm over the present rows of all processes, ReLU, then the output module."""

    def __init__(self, dim_in: int, dim_out: int, output: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.norm = MaskedBatchNorm(dim_out)
        self.output = output

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return self.output(self.norm(self.linear(x), present).relu())  # type: ignore[no-any-return]
