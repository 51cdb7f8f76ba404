"""Memory banks: one remembered embedding per training video, and whether it is known to lack the modality.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018; used by CRD
and CMC. Banks hold an entry for every training video, so that a contrast sees thousands of negatives at a
small batch. Every process holds the same banks, or a share of each, and learns every process's updates.
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
_BLOCK = 65_536  # entries that are drawn at once


class BankOptions(MethodOptions):
    """Options of every method with memory banks."""

    dim: int = Field(128, ge=1, description="Width of the space in which embeddings are compared.")
    # Far below, the exponentials that the normalising constant sums overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities.")
    momentum: Share = Field(0.5, description="Share of a bank's old entry that an update keeps.")
    z_momentum: Share = Field(
        1.0, description="Of nce: share of the normalising constant that later batches keep; 1: fixed."
    )
    shard_memory: bool = Field(
        False,
        description="Each process holds a share of every bank instead of all of it; the steps are the same.",
    )


class MemoryBank(nn.Module):
    """Remembered embeddings of one network, and whether each video is known to lack that modality.

    Args:
        videos: Rows N of the training split.
        dim: Width F of an embedding.
        momentum: Share of the old entry that an update keeps.
    """

    entries: Tensor
    absent: Tensor

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        # What updates have overwritten since `remember`: rows, entries, absent. None: nobody asked.
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] | None = None
        self.register_buffer("entries", _random_entries(videos, dim))
        self.register_buffer("absent", torch.zeros(videos, dtype=torch.bool))

    def scores(self, anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        """Similarity over temperature of each anchor to its own candidates.

        Shapes:
            anchor: [A, F].
            candidates: [A, C] int64, places in the training split.
            returns: [A, C].
        """
        return _similarities(anchor, self.entries, temperature).gather(1, candidates)

    @torch.no_grad()
    def update(self, rows: Tensor, embedding: Tensor, present: Tensor) -> None:
        """Move entries towards new embeddings, those of every process.

        A video that stands in the batch more than once is moved once, by its first embedding.

        Shapes:
            rows: [B] int64, the videos' places in the training split.
            embedding: [B, F], of unit length.
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
        """Keep what updates overwrite from here on, a batch's rows each, so that they can be undone."""
        self._overwritten = []

    def forget(self) -> None:
        """The updates since :meth:`remember` stay."""
        self._overwritten = None

    @torch.no_grad()
    def undo(self) -> None:
        """Take back the updates since :meth:`remember`."""
        for overwritten in reversed(self._overwritten or []):
            self._write(*overwritten)
        self.forget()

    def _write(self, rows: Tensor, entries: Tensor, absent: Tensor) -> None:
        self.entries[self._places(rows)], self.absent[rows] = entries, absent

    def _places(self, rows: Tensor) -> Tensor:
        """Where in ``entries`` the videos' embeddings are."""
        return rows


class ShardedMemoryBank(MemoryBank):
    """A bank of which each process holds an equal share of the entries: the same steps in less memory.

    Anchors are gathered, each process scores them against its share, and the scores are added up. Checkpoints
    contain whole banks, so that a run can continue with another number of processes. Before :meth:`shard`
    there are no entries, because a process does not know its share until the process group exists.
    """

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__(0, dim, momentum)
        self.videos, self.first, self.size = videos, 0, 0
        self.register_buffer("entries", torch.empty(0, dim), persistent=False)
        self.absent = torch.zeros(videos, dtype=torch.bool)
        self._generator_state = torch.get_rng_state()
        for _ in _blocks(videos, dim):  # so that later draws are those after an unsharded bank
            pass

    def shard(self) -> None:
        """Draw this process's share of the initial entries of an unsharded bank."""
        self.size = -(-self.videos // world_size())
        self.first = rank() * self.size
        # The last entry is always zero. All rows of other processes are mapped to it.
        entries = torch.zeros(self.size + 1, self.entries.shape[1])
        generator = torch.Generator()
        generator.set_state(self._generator_state)
        for rows, block in _blocks(self.videos, entries.shape[1], generator):
            entries[self._places(rows)] = block
        entries[-1] = 0
        self.entries = entries.to(self.entries)

    def scores(self, anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
        """As of any bank; all processes call it together, with as many anchors and candidates."""
        places = self._places(gather_rows(candidates))
        similar = _similarities(gather_rows(anchor), self._share(), temperature)
        scores = similar.gather(1, places.clamp(max=self.size - 1))
        scores = summed(torch.where(places < self.size, scores, 0.0))
        return scores.narrow(0, rank() * len(anchor), len(anchor))

    def get_extra_state(self) -> Tensor:
        """The whole bank on the main process, [N, F] on the CPU; all processes call this together."""
        return rows_on_main(self._share(), self.videos)

    @torch.no_grad()
    def set_extra_state(self, state: Tensor) -> None:
        """Take this process's share from the whole bank, [N, F]."""
        rows = state[self.first : self.first + self.size]
        self._share()[: len(rows)] = rows.to(self.entries)

    def _share(self) -> Tensor:
        """This process's entries, [N / processes, F], rounded up: the last may be of no video."""
        if not self.size:
            raise RuntimeError("A bank that is split needs shard() first.")
        return self.entries[:-1]

    def _write(self, rows: Tensor, entries: Tensor, absent: Tensor) -> None:
        super()._write(rows, entries, absent)
        self.entries[-1] = 0

    def _places(self, rows: Tensor) -> Tensor:
        places = rows - self.first
        return torch.where((places >= 0) & (places < self.size), places, self.size)


def make_bank(options: BankOptions, videos: int, dim: int) -> MemoryBank:
    """The bank that the options ask for, of ``videos`` entries of width ``dim``."""
    bank = ShardedMemoryBank if options.shard_memory else MemoryBank
    return bank(videos, dim, options.momentum)


def shard_banks(module: nn.Module) -> None:
    """Give each sharded bank in a module this process's share; the process group must exist."""
    for part in module.modules():
        if isinstance(part, ShardedMemoryBank):
            part.shard()


def _random_entries(videos: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """Entries to begin with, [videos, dim], of unit length on average."""
    bound = math.sqrt(3 / dim)
    return torch.empty(videos, dim).uniform_(-bound, bound, generator=generator)


def _blocks(
    videos: int, dim: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The numbers of :func:`_random_entries`, a block at a time: rows of the training split and entries."""
    for rows in torch.split(torch.arange(videos), _BLOCK):
        yield rows, _random_entries(len(rows), dim, generator)


def _similarities(anchor: Tensor, entries: Tensor, temperature: float) -> Tensor:
    """Of anchors [A, F] to every entry [N, F], over temperature: [A, N].

    One product with the whole bank needs less memory than the chosen entries of each anchor would.
    """
    return anchor @ entries.to(anchor.dtype, copy=True).mT / temperature
