"""Collective operations: world size, differentiable gathering of rows, and global means.

Losses use these operations so that N processes give the gradients of one. Anchors are local, candidates are
gathered, and means divide by the global count. DistributedDataParallel then averages gradients over
processes, so :func:`masked_mean` multiplies by their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this process writes files and terminal output."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        gathered = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(gathered, x.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # The loss of every process depends on every row, so gradients are summed over processes.
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.narrow(0, rank() * ctx.rows, ctx.rows)


def gather_rows(x: Tensor) -> Tensor:
    """Gather rows of all processes in rank order, ``[B, ...]`` to ``[N B, ...]``, with gradient.

    All processes must call this with the same number of rows.
    """
    if world_size() == 1:
        return x
    return cast(Tensor, _GatherRows.apply(x))  # type: ignore[no-untyped-call]


def gather_mask(mask: Tensor) -> Tensor:
    """:func:`gather_rows` for booleans, which not every backend can send."""
    return gather_rows(mask.to(torch.uint8)).bool()


@torch.no_grad()
def rows_on_main(x: Tensor, count: int) -> Tensor:
    """Gather the rows of all processes on the CPU of the main process, ``[B, ...]`` to ``[count, ...]``.

    The other processes get no rows. Only the rows of one process at a time are copied to the devices. All
    processes must call this with the same number of rows.

    Args:
        x: This process's rows.
        count: Number of rows to return; further rows are padding.
    """
    rows = torch.empty(count if is_main() else 0, *x.shape[1:], dtype=x.dtype)
    for source in range(world_size()):
        block = x.contiguous() if source == rank() else torch.empty_like(x)
        if world_size() > 1:
            dist.broadcast(block, src=source)
        if is_main():
            target = rows[source * len(x) : (source + 1) * len(x)]
            target.copy_(block[: len(target)])
    return rows


def total(x: Tensor) -> Tensor:
    """Sum a tensor over all processes, without gradient."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def summed(x: Tensor) -> Tensor:
    """:func:`total` with gradient."""
    return cast(Tensor, all_reduce(x)) if world_size() > 1 else x  # type: ignore[no-untyped-call]


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on at least one process."""
    if world_size() == 1:
        return flag
    return bool(total(torch.tensor(int(flag), device=device)) > 0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked rows of all processes; zero, but part of the graph, if there are none.

    Shapes:
        values: [B] one value per local row.
        mask: [B] bool.
        returns: scalar whose average over processes is the global mean.
    """
    count = total(mask.sum()).clamp(min=1)
    # Use `where` instead of a product, so that non-finite values outside the mask do not reach the sum.
    return torch.where(mask, values, 0.0).sum() * world_size() / count


def gather_objects(item: object) -> list[Any]:
    """Gather small picklable objects of all processes, in rank order."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def from_main(item: object) -> Any:
    """Broadcast an object from the main process."""
    if world_size() == 1:
        return item
    items = [item]
    dist.broadcast_object_list(items, src=0)
    return items[0]


def copy_from_main(x: Tensor) -> None:
    """Overwrite a tensor with that of the main process."""
    if world_size() > 1:
        dist.broadcast(x, src=0)


def on_main(make: Callable[[], T]) -> T:
    """Call ``make`` on the main process only, and return its result, or raise its error, on every process."""
    value: T | None = None
    failure: Exception | None = None
    if is_main():
        try:
            value = make()
        except Exception as error:
            failure = error
    value, failure = from_main((value, failure))
    if failure is not None:
        raise failure
    return cast(T, value)
