"""Activation checkpointing: the student's blocks run again in the backward pass, to save memory.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. Gradients are the same. Memory holds one
block and the outputs of all blocks, and a step takes about one more forward pass of the student.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ccl_cli.students import Student


def recompute_blocks(student: Student) -> None:
    """Run every block of a student again in the backward pass. Names of tensors do not change."""
    for block in student.blocks:
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, context_fn=partial(_contexts, block)
        )


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first and the second forward pass; the second must not update batch statistics."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    norms = [each for each in block.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1
