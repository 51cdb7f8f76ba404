"""Random numbers that are independent of the number of processes and can be resumed from a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ccl_cli.utils.distributed import rank, world_size


class SharedDraws(nn.Module):
    """A generator for each draw, the same on every process; torch's global generator draws the seed."""

    def __init__(self) -> None:
        super().__init__()
        # Plain numbers instead of buffers, because reading a buffer would synchronise with the GPU.
        self.seed, self.draws = int(torch.randint(2**31, ())), 0

    def next(self, device: torch.device) -> torch.Generator:
        """Return the generator of the next draw."""
        generator = torch.Generator(device)
        generator.manual_seed(self.seed + self.draws)
        self.draws += 1
        return generator

    def get_extra_state(self) -> dict[str, int]:
        """Seed and number of draws, for checkpoints."""
        return {"seed": self.seed, "draws": self.draws}

    def set_extra_state(self, state: Any) -> None:
        """Restore the seed and the number of draws."""
        self.seed, self.draws = state["seed"], state["draws"]


def uniform_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Uniform random numbers in [0, 1) for this process's rows, [rows, columns], on the generator's device.

    Numbers are drawn for the rows of all processes, so each process gets different ones.
    """
    everyone = torch.rand(world_size() * rows, columns, generator=generator, device=generator.device)
    return everyone.narrow(0, rank() * rows, rows)
