"""Random numbers that do not depend on the number of processes and go on from a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ccl_cli.utils.distributed import rank, world_size


class SharedDraws(nn.Module):
    """A generator for each draw, the same on every process; its seed is drawn from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        # Plain numbers, not buffers: reading one from a GPU would make every step wait.
        self.seed, self.draws = int(torch.randint(2**31, ())), 0

    def next(self, device: torch.device) -> torch.Generator:
        """The generator of the next draw."""
        generator = torch.Generator(device)
        generator.manual_seed(self.seed + self.draws)
        self.draws += 1
        return generator

    def get_extra_state(self) -> dict[str, int]:
        """How far the draws have come."""
        return {"seed": self.seed, "draws": self.draws}

    def set_extra_state(self, state: Any) -> None:
        """Go on from there."""
        self.seed, self.draws = state["seed"], state["draws"]


def uniform_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1) for this process's rows, [B, columns], on the generator's device.

    They are drawn for the rows of all processes, so that each process gets others.
    """
    everyone = torch.rand(world_size() * rows, columns, generator=generator, device=generator.device)
    return everyone.narrow(0, rank() * rows, rows)
