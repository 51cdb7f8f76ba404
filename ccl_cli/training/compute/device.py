"""Device and precision: the only module that sets up Accelerate."""

from __future__ import annotations

import atexit
import logging
import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.nn import functional as F

from ccl_cli.errors import SystemSetupError
from ccl_cli.training.compute.allocator import keep_blocks

_log = logging.getLogger("ccl")


def set_up(precision: str) -> Accelerator:
    """Set up this process and, with several processes, the process group.

    Precision "auto" is bf16 on a GPU that supports it, else fp32. Raises a SystemSetupError if the machine
    does not support the precision, or the processes do not find each other.
    """
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and not torch.cuda.is_available():
        raise SystemSetupError("fp16 needs a GPU.", "Use --precision bf16 or fp32.")
    if not torch.cuda.is_available():
        if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            _log.warning("This CPU has no fast bf16 arithmetic: fp32 will be many times faster.")
        keep_blocks()
    # A second run in the same process may have another precision. The process group is kept.
    AcceleratorState._reset_state(reset_partial_state=False)
    try:
        accelerator = Accelerator(
            # By default, Accelerate gives each of several processes without a GPU its own group.
            cpu=int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available(),
            mixed_precision=precision.replace("fp32", "no"),
            # Do not broadcast buffers: those of methods and batch statistics are equal on all processes.
            # Without train.sync_batchnorm every process has its own, and those of the first are published.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
            ],
        )
    except torch.distributed.DistError as error:
        reason = str(error).partition("\n")[0]
        raise SystemSetupError(
            f"The processes of this run did not find each other: {reason}",
            "Check MASTER_ADDR and MASTER_PORT; each run on a machine needs a port of its own.",
        ) from error
    if accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        # A process that exits with an open gloo group aborts in one of fifteen cases.
        atexit.register(PartialState().destroy_process_group)
    return accelerator


def pad_time_apart(network: nn.Module) -> None:
    """Make convolutions with fewer input frames than their kernel size pad time explicitly beforehand.

    The values are the same. On CPUs with AVX-512 bf16, oneDNN in torch 2.11 returns a wrong weight gradient
    for such a convolution in bf16, for example in the last stage of R(2+1)D.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and isinstance(module.padding, tuple) and module.padding[0]:
            module.register_forward_pre_hook(_PadTime(module.padding))


class _PadTime:
    def __init__(self, padding: tuple[int, ...]) -> None:
        self.padding = padding

    def __call__(self, module: nn.Conv3d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        frames, *sides = self.padding
        short = inputs[0].shape[2] < module.kernel_size[0]
        module.padding = (0 if short else frames, *sides)
        # Pad only if necessary, because the padded copy is kept for the backward pass.
        return (F.pad(inputs[0], (0, 0, 0, 0, frames, frames)),) if short else inputs
