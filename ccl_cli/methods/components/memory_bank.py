"""Memory banks with one stored embedding per training video (Wu et al., CVPR 2018), used by CRD and CMC.

A bank provides thousands of negatives for a small batch. Every process has the same banks, or a shard of
each, and applies the updates of all processes.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.methods import MethodOptions
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.utils.distributed import gather_mask, gather_rows, rank, rows_on_main, summed, world_size

Share = Annotated[float, Field(ge=0, le=1)]
_BLOCK = 65_536  # initial entries drawn at a time


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
    """Embeddings of one network for all training videos, and a mask of videos without its modality.

    Args:
        videos: Number N of rows in the training split.
        dim: Width F of an entry.
        momentum: Weight of the old entry in an update.
    """

    entries: Tensor
    absent: Tensor

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        # Rows, entries and absent flags overwritten since `remember`; None if they are not recorded.
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] | None = None
        self.register_buffer("entries", _random_entries(videos, dim))
        self.register_buffer("absent", torch.zeros(videos, dtype=torch.bool))

    def scores(self, anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        """Similarity over temperature of each anchor to its candidates.

        Shapes:
            anchor: [A, F].
            candidates: [A, C] int64, indices into the training split.
            returns: [A, C].
        """
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
    contain the whole bank, so a run can continue with another number of processes. Before :meth:`shard` the
    bank is empty, because the rank is unknown until the process group exists.
    """

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__(0, dim, momentum)
        self.videos, self.first, self.size = videos, 0, 0
        self.register_buffer("entries", torch.empty(0, dim), persistent=False)
        self.absent = torch.zeros(videos, dtype=torch.bool)
        self._generator_state = torch.get_rng_state()
        for _ in _blocks(videos, dim):  # advance the generator as an unsharded bank would
            pass

    def shard(self) -> None:
        """Draw this process's shard of the initial entries of an unsharded bank."""
        self.size = -(-self.videos // world_size())
        self.first = rank() * self.size
        # All rows of other processes are mapped to an additional last entry, which is always zero.
        entries = torch.zeros(self.size + 1, self.entries.shape[1])
        generator = torch.Generator()
        generator.set_state(self._generator_state)
        for rows, block in _blocks(self.videos, entries.shape[1], generator):
            entries[self._places(rows)] = block
        entries[-1] = 0
        self.entries = entries.to(self.entries)

    def scores(self, anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        """See :meth:`MemoryBank.scores`; a collective call with equal shapes on all processes."""
        places = self._places(gather_rows(candidates))
        similar = _similarities(gather_rows(anchor), self._shard(), temperature)
        scores = similar.gather(1, places.clamp(max=self.size - 1))
        scores = summed(torch.where(places < self.size, scores, 0.0))
        return scores.narrow(0, rank() * len(anchor), len(anchor))

    def get_extra_state(self) -> Tensor:
        """The whole bank, [N, F] on the CPU, on the main process; a collective call."""
        return rows_on_main(self._shard(), self.videos)

    @torch.no_grad()
    def set_extra_state(self, state: Tensor) -> None:
        """Load this process's shard from the whole bank, [N, F]."""
        rows = state[self.first : self.first + self.size]
        self._shard()[: len(rows)] = rows.to(self.entries)

    def _shard(self) -> Tensor:
        """This process's entries, [ceil(N / processes), F]; the last ones may be unused."""
        if not self.size:
            raise RuntimeError("Call shard() before using a sharded memory bank.")
        return self.entries[:-1]

    def _write(self, rows: Tensor, entries: Tensor, absent: Tensor) -> None:
        super()._write(rows, entries, absent)
        self.entries[-1] = 0

    def _places(self, rows: Tensor) -> Tensor:
        places = rows - self.first
        return torch.where((places >= 0) & (places < self.size), places, self.size)


def make_bank(options: BankOptions, videos: int, dim: int) -> MemoryBank:
    """Build a bank of ``videos`` entries of width ``dim``, sharded if the options say so."""
    bank = ShardedMemoryBank if options.shard_memory else MemoryBank
    return bank(videos, dim, options.momentum)


def shard_banks(module: nn.Module) -> None:
    """Call :meth:`ShardedMemoryBank.shard` for all banks in a module; the process group must exist."""
    for part in module.modules():
        if isinstance(part, ShardedMemoryBank):
            part.shard()


def _random_entries(videos: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """Initial entries, [videos, dim], of unit length on average."""
    bound = math.sqrt(3 / dim)
    return torch.empty(videos, dim).uniform_(-bound, bound, generator=generator)


def _blocks(
    videos: int, dim: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield row indices and the numbers of :func:`_random_entries`, block by block."""
    for rows in torch.split(torch.arange(videos), _BLOCK):
        yield rows, _random_entries(len(rows), dim, generator)


def _similarities(anchor: Tensor, entries: Tensor, temperature: float) -> Tensor:
    """Similarities over temperature of anchors [A, F] and all entries [N, F]: [A, N].

    One product with all entries needs less memory than gathering the candidates of each anchor.
    """
    return anchor @ entries.to(anchor.dtype, copy=True).mT / temperature
