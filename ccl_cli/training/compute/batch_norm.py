"""Batch normalisation with statistics over all processes, so that N processes train like one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ccl_cli.errors import RecipeError
from ccl_cli.utils.distributed import summed, world_size


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Make every batch normalisation of a network compute its statistics over all processes.

    All processes must have the same number of rows. Raises a RecipeError for a layer of a subclass, whose
    further behaviour its replacement would not have.
    """
    if world_size() == 1:
        return
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, _Shared)
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and type(module) not in plain:
            raise RecipeError(
                f"The student's layer '{name}', a {type(module).__name__}, cannot share batch statistics.",
                "Switch that off with --set train.sync_batchnorm=false.",
            )
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _Shared


class _Shared(_BatchNorm):
    """``nn.SyncBatchNorm`` for CPUs, which torch does not support."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, [B, C, ...]."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = x.numel() // x.shape[1] * world_size()
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = summed(values.sum(axes)) / count  # [C]
        centred = values - _along(mean, x)
        variance = summed(centred.square().sum(axes)) / count  # [C]; biased, the running one is not
        self._remember(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            return (centred * _along(scale * self.weight, x) + _along(self.bias, x)).to(x.dtype)
        return (centred * _along(scale, x)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


def _along(values: Tensor, x: Tensor) -> Tensor:
    """[C] beside the channels of ``x``, [B, C, ...]."""
    return values.view(-1, *[1] * (x.dim() - 2))
