"""Numbers that are not finite: in a teacher's embedding, and in a step's loss or gradient."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ccl_cli.data.manifest import Video
from ccl_cli.errors import CclError, PluginError
from ccl_cli.methods.components.contrast import NegativeSampler
from ccl_cli.methods.components.draws import SharedDraws
from ccl_cli.methods.components.memory_bank import MemoryBank
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import total
from ccl_cli.utils.sentences import listed

_MIN_VIDEOS = 16  # without one finite embedding among so many, a teacher is useless
_log = logging.getLogger("ccl")


class Skipped:
    """Steps that are not taken: they change nothing. Those whose loss or gradient was not finite are counted.

    Attributes:
        total: In the whole run.
        in_a_row: Up to now, without a step between that was taken.
    """

    def __init__(self) -> None:
        self.total = self.in_a_row = 0
        self._buffers: dict[str, Tensor] = {}
        self._banks: list[MemoryBank] = []
        self._draws: list[tuple[SharedDraws, int]] = []

    def before(self, module: nn.Module) -> None:
        """Note what a forward pass may change: batch statistics, memory banks, how far draws have come.

        Buffers are copied, except those that may have a row for every video: a bank keeps the rows that its
        updates overwrite, and a sampler's labels never change.
        """
        self._banks = [part for part in module.modules() if isinstance(part, MemoryBank)]
        self._draws = [(part, part.draws) for part in module.modules() if isinstance(part, SharedDraws)]
        for bank in self._banks:
            bank.remember()
        large = {
            id(buffer)
            for part in module.modules()
            if isinstance(part, MemoryBank | NegativeSampler)
            for buffer in part.buffers(recurse=False)
        }
        self._buffers = {
            name: buffer.detach().clone()
            for name, buffer in module.named_buffers()
            if id(buffer) not in large
        }

    def accept(self) -> None:
        """Keep what the forward pass has changed: the step has been taken."""
        for bank in self._banks:
            bank.forget()
        self.in_a_row, self._buffers = 0, {}

    @torch.no_grad()
    def undo(self, module: nn.Module) -> None:
        """Put back what :meth:`before` has noted."""
        for name, buffer in module.named_buffers():
            if name in self._buffers:
                buffer.copy_(self._buffers[name])
        for bank in self._banks:
            bank.undo()
        for part, draws in self._draws:
            part.draws = draws
        self._buffers = {}

    def skip(self, module: nn.Module, step: int) -> None:
        """Undo a step that is not finite, and count it; warn of the first one."""
        if not self.total:
            _log.warning(
                "Step %d is skipped: its loss or gradient is not finite. `skipped` counts such steps.",
                step + 1,
            )
        self.undo(module)
        self.total, self.in_a_row = self.total + 1, self.in_a_row + 1

    def error(self, step: int, names: Sequence[str], state: Path) -> CclError:
        """Why a run ends that only skips steps: the last one's videos, and where the state is saved."""
        return CclError(
            f"The loss or its gradient was not finite in {self.in_a_row} steps in a row, up to step {step}, "
            f"whose batch was {listed(names, 16)}.",
            "Lower optim.lr, use --precision fp32, or look at these videos. The state, which they have "
            f"left as it was, is in '{state}'.",
        )

    def state_dict(self) -> dict[str, int]:
        """The same on every process."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from :meth:`state_dict`."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]


def all_finite(
    losses: Sequence[Tensor], parameters: Iterable[nn.Parameter], scaler: GradScaler | None
) -> bool:
    """Whether a step's losses and gradients are finite, on every process; each gets the same answer.

    A gradient that overflows only because the scaler has made it large is left to the scaler, which takes no
    step and tries a smaller scale.

    Args:
        losses: Scalars.
        parameters: With the gradients that all processes share.
        scaler: Of fp16.
    """
    numbers = list(losses)
    if scaler is None or scaler.get_scale() <= 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # The largest entry: unlike a sum of squares it never overflows.
        numbers.append(torch.nn.utils.get_total_norm(gradients, math.inf))
    bad = ~torch.stack([number.isfinite() for number in numbers]).all()
    return not bool(total(bad.int()) > 0)


class TeacherFaults:
    """Videos of which a teacher makes numbers that are not finite: as in a cache, they count as lacking it.

    Counted on the device, so that no step waits for it.
    """

    def __init__(self, videos: int, device: torch.device) -> None:
        self.videos, self.device = videos, device
        self._counts: dict[str, Tensor] = {}  # [2, N]: how often finite, how often not
        self._warned: set[str] = set()

    def drop(self, name: str, embedding: Embedding, rows: Tensor) -> Embedding:
        """Count the rows ([B] int64) that are not finite, and mark them as absent."""
        finite = embedding.value.isfinite().all(dim=1)
        good, bad = embedding.present & finite, embedding.present & ~finite
        if name not in self._counts:
            self._counts[name] = torch.zeros(2, self.videos, dtype=torch.int32, device=self.device)
        self._counts[name].index_add_(1, rows, torch.stack([good, bad]).int())
        return Embedding(torch.where(good[:, None], embedding.value, 0.0), good, embedding.stages)

    def rows(self) -> dict[str, list[int]]:
        """By teacher, the rows that were not finite, if there were some. For all processes at once."""
        return {name: bad.nonzero().flatten().tolist() for name, (_, bad) in self._totals() if bad.any()}

    def check(self, videos: Sequence[Video]) -> None:
        """Tell the user once about each teacher that has such rows. For all processes at once.

        Raises:
            PluginError: of many videos it has not made one embedding that is finite.
        """
        for name, (good, bad) in self._totals():
            names = [videos[row].id for row in bad.nonzero().flatten().tolist()]
            if len(names) >= _MIN_VIDEOS and not good.any():
                raise PluginError(
                    f"{name} makes numbers that are not finite of every video: {listed(names, 3)}.",
                    f"Look at it with `ccl plugins check {name.partition('#')[0]}`, or use --precision fp32.",
                )
            if names and name not in self._warned:
                self._warned.add(name)
                _log.warning(
                    "%s makes numbers that are not finite of %s. Such videos are trained on as if they "
                    "lacked it; summary.json will name them all.",
                    name,
                    listed(names, 3),
                )

    def state_dict(self) -> dict[str, Tensor]:
        """The same on every process."""
        return {name: counts.clamp(max=1).cpu() for name, counts in self._totals()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`, which knows whether and not how often."""
        self._counts = {name: counts.to(self.device) for name, counts in state.items()}

    def _totals(self) -> list[tuple[str, Any]]:
        return [(name, total(counts)) for name, counts in self._counts.items()]
