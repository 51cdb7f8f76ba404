"""FitNets' hints (Romero et al., ICLR 2015) on embeddings: the student regresses the teacher's embedding."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods import Batch, Method, MethodOptions, Setting, StudentOutput, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.batch_norm import MaskedBatchNorm

_POWER = 4
_GUARD = 1e-5  # added inside the logarithm; bounds the gradient as the error approaches zero


class FitNetOptions(MethodOptions):
    """Options of ``fitnet``."""

    implied: ClassVar = {("loss", "logsum"): {"weight": 1.0}}

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
        if kind == "auto":
            kind = "identity" if equal else "linear"
        return _Regressor(kind, setting.student_dim, teacher.dim)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return the term ``fitnet``."""
        difference = teacher.head(student.feature, teacher.present) - teacher.value
        logsum = self.options.loss == "logsum"
        return {"fitnet": _log_sum(difference) if logsum else difference.square().mean(dim=1)}


def _log_sum(difference: Tensor) -> Tensor:
    """Logarithm of the sum of fourth powers, a soft maximum (Miles and Mikolajczyk, 2024); [B, D] to [B]."""
    # Dividing by the largest difference keeps the powers from overflowing.
    scale = difference.detach().abs().amax(dim=1, keepdim=True).clamp(min=1)
    powers = (difference / scale) ** _POWER
    guard = _GUARD / scale.squeeze(1) ** _POWER
    return (powers.sum(dim=1) + guard).log() + _POWER * scale.squeeze(1).log()


class _Regressor(nn.Module):
    """Identity; linear; or linear, batch norm over the present rows, ReLU, and for ``mlp_bn`` linear."""

    def __init__(self, kind: str, dim_in: int, dim_out: int) -> None:
        super().__init__()
        output = nn.Linear(dim_out, dim_out) if kind == "mlp_bn" else nn.Identity()
        self.linear = nn.Identity() if kind == "identity" else nn.Linear(dim_in, dim_out)
        self.norm = MaskedBatchNorm(dim_out) if kind in ("linear_bn_relu", "mlp_bn") else None
        self.output = output

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        x = self.linear(x)
        if self.norm is not None:
            x = self.norm(x, present).relu()
        return self.output(x)  # type: ignore[no-any-return]
