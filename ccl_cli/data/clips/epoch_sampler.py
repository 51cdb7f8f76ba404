"""Order of the videos in an epoch, and their batches: a function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ccl_cli.errors import RecipeError


class Draw(NamedTuple):
    """One sample of a step.

    Attributes:
        epoch: Epoch, from 0.
        step: Step of the whole run, from 0.
        row: Row of the training split.
        repeat: Number of earlier draws of this row in the step; above 0 only in a step larger than the split.
    """

    epoch: int
    step: int
    row: int
    repeat: int = 0


@dataclass(frozen=True)
class EpochSampler:
    """Micro-batches of one process from a step to the end of the run.

    A step takes the next ``batch_size`` videos of the epoch's permutation. The last step of an epoch is
    filled from the permutation's start, so that every batch is full. A step's videos are divided into
    micro-batches and these over the processes: which rows are contrasted with each other does not depend on
    the number of processes.

    Attributes:
        videos: Number of videos in the training split.
        batch_size: Videos per step, over all processes and micro-batches.
        epochs: Number of epochs.
        seed: Seed of the permutations.
        accumulation: Micro-batches per step.
        rank: Rank of this process.
        processes: Number of processes.
        start: First step, counted over the whole run.
    """

    videos: int
    batch_size: int
    epochs: int
    seed: int = 0
    accumulation: int = 1
    rank: int = 0
    processes: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        parts = self.accumulation * self.processes
        if self.batch_size % parts:
            raise RecipeError(
                f"A batch of {self.batch_size} cannot be split over {self.processes} process(es) with "
                f"{self.accumulation} micro-batch(es) each.",
                f"Set train.batch_size to a multiple of {parts}.",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return -(-self.videos // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def __len__(self) -> int:
        """Micro-batches from ``start`` to the end of the run."""
        return max(self.total_steps - self.start, 0) * self.accumulation

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the micro-batches of this process, in order."""
        for epoch in range(self.start // self.steps_per_epoch, self.epochs):
            order = np.arange(self.videos, dtype=np.int32)  # half the memory of int64, and the same order
            np.random.default_rng([self.seed, epoch]).shuffle(order)
            first = max(self.start - epoch * self.steps_per_epoch, 0)
            for step in range(first, self.steps_per_epoch):
                places = np.arange(self.batch_size).reshape(self.accumulation, self.processes, -1)
                number = epoch * self.steps_per_epoch + step
                for micro in places[:, self.rank]:
                    rows = order[(step * self.batch_size + micro) % self.videos]
                    draws = zip(rows.tolist(), (micro // self.videos).tolist(), strict=True)
                    yield [Draw(epoch, number, row, repeat) for row, repeat in draws]
