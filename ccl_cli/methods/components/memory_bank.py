"""Memory banks with one stored embedding per training video (Wu et al., CVPR 2018), used by CRD and CMC.

A bank provides thousands of negatives for a small batch. Every process has the same banks, or a shard of
each, and applies the updates of all processes.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.methods import MethodOptions
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.utils.distributed import gather_mask, gather_rows, rank, rows_on_main, summed, world_size

Share = Annotated[float, Field(ge=0, le=1)]


class BankOptions(MethodOptions):
    """Options of every method with memory banks."""

    dim: int = Field(128, ge=1, description="Width of the space in which embeddings are compared.")
    # With a much smaller temperature, the exponentials in the normalising constant overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities.")
    momentum: Share = Field(0.5, description="Weight of the old bank entry in an update.")
    z_momentum: Share = Field(
        1.0,
        description="nce only: weight of the old normalising constant in an update; 1: it never changes.",
    )
    shard_memory: bool = Field(
        False,
        description="Divide each memory bank between the processes; the results are the same.",
    )


class MemoryBank(nn.Module):
    """Embeddings [N, F] of one network for all training videos, and a mask of videos without its modality.

    ``momentum`` is the weight of the old entry in an update.
    """

    entries: Tensor
    absent: Tensor

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        # Rows, entries and absent flags overwritten since `remember`; None if they are not recorded.
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] | None = None
        bound = math.sqrt(3 / dim)  # entries have unit length on average
        self.register_buffer("entries", torch.empty(videos, dim).uniform_(-bound, bound))
        self.register_buffer("absent", torch.zeros(videos, dtype=torch.bool))

    def scores(self, anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        """Similarity over temperature of each anchor [A, F] to its candidates, rows [A, C]: [A, C]."""
        return _similarities(anchor, self.entries, temperature).gather(1, candidates)

    @torch.no_grad()
    def update(self, rows: Tensor, embedding: Tensor, present: Tensor) -> None:
        """Move entries towards the new embeddings of all processes.

        If a video occurs in the batch several times, only its first embedding is used.

        Shapes:
            rows: [B] int64, indices into the training split.
            embedding: [B, F] of unit length.
            present: [B] bool.
        """
        rows, present = gather_rows(rows), gather_mask(present)
        embedding = gather_rows(embedding.detach()).to(self.entries.dtype)
        same = (rows[:, None] == rows[None, :]) & present[None, :]
        first, any_present = same.int().argmax(dim=1), same.any(dim=1)
        old = self.entries[self._places(rows)]
        if self._overwritten is not None:
            self._overwritten.append((rows, old, self.absent[rows]))
        moved = unit_rows(self.momentum * old + (1 - self.momentum) * embedding[first])
        self._write(rows, torch.where(any_present[:, None], moved, old), ~any_present)

    def remember(self) -> None:
        """Record the entries overwritten by the following updates, so that :meth:`undo` can restore them."""
        self._overwritten = []

    def forget(self) -> None:
        """Stop recording and keep the updates since :meth:`remember`."""
        self._overwritten = None

    @torch.no_grad()
    def undo(self) -> None:
        """Undo the updates since :meth:`remember`."""
        for overwritten in reversed(self._overwritten or []):
            self._write(*overwritten)
        self.forget()

    def _write(self, rows: Tensor, entries: Tensor, absent: Tensor) -> None:
        self.entries[self._places(rows)], self.absent[rows] = entries, absent

    def _places(self, rows: Tensor) -> Tensor:
        """Indices into ``entries`` of training rows."""
        return rows


class ShardedMemoryBank(MemoryBank):
    """A bank whose entries are divided equally between the processes; the results are the same.

    Anchors are gathered, each process scores them against its shard, and the scores are added up. Checkpoints
    contain the whole bank, so a run can continue with another number of processes. Before :meth:`shard` every
    process has all entries, because the rank is unknown until the process group exists.
    """

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__(videos, dim, momentum)
        self.videos, self.first, self.size = videos, 0, videos
        # All rows of other processes are mapped to an additional last entry, which is always zero.
        padded = torch.cat([self.entries, torch.zeros(1, dim)])
        self.register_buffer("entries", padded, persistent=False)

    def shard(self) -> None:
        """Keep only this process's shard of the initial entries."""
        self.size = -(-self.videos // world_size())
        self.first = rank() * self.size
        shard = self.entries.new_zeros(self.size + 1, self.entries.shape[1])
        own = self.entries[self.first : min(self.first + self.size, self.videos)]
        shard[: len(own)] = own
        self.entries = shard

    def scores(self, anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        """See :meth:`MemoryBank.scores`; a collective call with equal shapes on all processes."""
        places = self._places(gather_rows(candidates))
        similar = _similarities(gather_rows(anchor), self.entries[:-1], temperature)
        scores = similar.gather(1, places.clamp(max=self.size - 1))
        scores = summed(torch.where(places < self.size, scores, 0.0))
        return scores.narrow(0, rank() * len(anchor), len(anchor))

    def get_extra_state(self) -> Tensor:
        """The whole bank, [N, F] on the CPU, on the main process; a collective call."""
        return rows_on_main(self.entries[:-1], self.videos)

    @torch.no_grad()
    def set_extra_state(self, state: Tensor) -> None:
        """Load this process's shard from the whole bank, [N, F]."""
        rows = state[self.first : self.first + self.size]
        self.entries[: len(rows)] = rows.to(self.entries)

    def _write(self, rows: Tensor, entries: Tensor, absent: Tensor) -> None:
        super()._write(rows, entries, absent)
        self.entries[-1] = 0

    def _places(self, rows: Tensor) -> Tensor:
        places = rows - self.first
        return torch.where((places >= 0) & (places < self.size), places, self.size)


def make_bank(options: BankOptions, videos: int, dim: int) -> MemoryBank:
    """Build a bank, sharded if the options say so."""
    bank = ShardedMemoryBank if options.shard_memory else MemoryBank
    return bank(videos, dim, options.momentum)


def shard_banks(module: nn.Module) -> None:
    """Call :meth:`ShardedMemoryBank.shard` for all banks in a module; the process group must exist."""
    for part in module.modules():
        if isinstance(part, ShardedMemoryBank):
            part.shard()


def _similarities(anchor: Tensor, entries: Tensor, temperature: float) -> Tensor:
    """Similarities over temperature of anchors [A, F] and all entries [N, F]: [A, N].

    One product with all entries needs less memory than gathering the candidates of each anchor.
    """
    return anchor @ entries.to(anchor.dtype, copy=True).mT / temperature
