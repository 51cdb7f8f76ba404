"""Non-finite numbers: in a step's loss or gradient, and in a teacher's embeddings."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ccl_cli.data.manifest import Video
from ccl_cli.errors import CclError, PluginError
from ccl_cli.methods.components.contrast import NegativeSampler
from ccl_cli.methods.components.draws import SharedDraws
from ccl_cli.methods.components.memory_bank import MemoryBank
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import gather_objects, total
from ccl_cli.utils.sentences import listed

if TYPE_CHECKING:
    from ccl_cli.data.clips.dataset import LoadedBatch
    from ccl_cli.training.trainer import Trainer

_MIN_VIDEOS = 16  # a teacher without a finite embedding among so many videos is broken
_log = logging.getLogger("ccl")


class StepGuard:
    """Undoes everything that a step has changed if it cannot be taken, and counts the non-finite steps.

    ``total`` counts those of the whole run, ``in_a_row`` those since the last step that was taken.
    """

    def __init__(self) -> None:
        self.total = self.in_a_row = 0
        self._buffers: dict[str, Tensor] = {}
        self._banks: list[MemoryBank] = []
        self._draws: list[tuple[SharedDraws, int]] = []

    def snapshot(self, module: nn.Module) -> None:
        """Before a step, save what a forward pass may change: batch statistics, memory banks, random draws.

        Buffers are copied, except those with a row for every video: a bank keeps the rows that its updates
        overwrite, and a sampler's labels never change.
        """
        self._banks = [part for part in module.modules() if isinstance(part, MemoryBank)]
        self._draws = [(part, part.draws) for part in module.modules() if isinstance(part, SharedDraws)]
        for bank in self._banks:
            bank.remember()
        self._buffers = {
            f"{path}.{name}".lstrip("."): buffer.detach().clone()
            for path, part in module.named_modules()
            if not isinstance(part, MemoryBank | NegativeSampler)
            for name, buffer in part.named_buffers(recurse=False)
        }

    def accept(self) -> None:
        """After a step that was taken: discard the snapshot."""
        for bank in self._banks:
            bank.forget()
        self.in_a_row, self._buffers = 0, {}

    @torch.no_grad()
    def undo(self, module: nn.Module) -> None:
        """Restore the snapshot."""
        for name, saved in self._buffers.items():
            module.get_buffer(name).copy_(saved)
        for bank in self._banks:
            bank.undo()
        for part, draws in self._draws:
            part.draws = draws
        self._buffers = {}

    def skip(self, module: nn.Module, step: int) -> None:
        """Undo a non-finite step and count it. Warns about the first one."""
        if not self.total:
            _log.warning(
                "Step %d is skipped: its loss or gradient is not finite. `skipped` counts such steps.",
                step + 1,
            )
        self.undo(module)
        self.total, self.in_a_row = self.total + 1, self.in_a_row + 1

    def check(self, trainer: Trainer, micro_batches: Sequence[LoadedBatch]) -> None:
        """End a run that has skipped too many steps in a row, or all steps of an epoch. Collective."""
        if self.in_a_row < min(trainer.recipe.train.max_skipped, trainer.steps_per_epoch):
            return
        rows = [row for loaded in micro_batches for row in loaded.batch.rows.tolist()]
        names = [trainer.parts.videos[row].id for some in gather_objects(rows) for row in some]
        raise CclError(
            f"The loss or its gradient was not finite in {self.in_a_row} steps in a row, up to step "
            f"{trainer.step}, whose batch was {listed(names, 16)}.",
            "Lower optim.lr, use --precision fp32, or check these videos. The checkpoint, which they "
            f"have not changed, is in '{trainer.save()}'.",
        )

    def state_dict(self) -> dict[str, int]:
        """State for a checkpoint, equal on all processes."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore :meth:`state_dict`."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]


def all_finite(
    losses: Sequence[Tensor], parameters: Iterable[nn.Parameter], scaler: GradScaler | None
) -> bool:
    """Whether the losses of a step's micro-batches and its gradients are finite on all processes. Collective.

    With fp16, gradients are checked only at a scale of 1 or less: a gradient that overflows because of the
    scale is left to the scaler, which skips the step and lowers the scale.
    """
    numbers = list(losses)
    if scaler is None or scaler.get_scale() <= 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # The largest entry: unlike a sum of squares it never overflows.
        numbers.append(torch.nn.utils.get_total_norm(gradients, math.inf))
    bad = ~torch.stack([number.isfinite() for number in numbers]).all()
    return not bool(total(bad.int()) > 0)


class TeacherFaults:
    """Videos with non-finite embeddings of a teacher; they count as absent, as in a cache.

    Counts are kept on the device, so that no step waits for them.
    """

    def __init__(self, videos: int, device: torch.device) -> None:
        self.videos, self.device = videos, device
        self._counts: dict[str, Tensor] = {}  # [2, N]: numbers of finite and of non-finite embeddings
        self._warned: set[str] = set()

    def drop(self, name: str, embedding: Embedding, rows: Tensor) -> Embedding:
        """Mark non-finite embeddings as absent, and count them by row ([B] int64) of the training split."""
        finite = embedding.value.isfinite().all(dim=1)
        good, bad = embedding.present & finite, embedding.present & ~finite
        if name not in self._counts:
            self._counts[name] = torch.zeros(2, self.videos, dtype=torch.int32, device=self.device)
        self._counts[name].index_add_(1, rows, torch.stack([good, bad]).int())
        return Embedding(torch.where(good[:, None], embedding.value, 0.0), good, embedding.stages)

    def rows(self) -> dict[str, list[int]]:
        """Non-finite rows by teacher, without teachers that have none. A collective call."""
        return {name: bad.nonzero().flatten().tolist() for name, (_, bad) in self._totals() if bad.any()}

    def check(self, videos: Sequence[Video]) -> None:
        """Warn once about each teacher with non-finite rows. A collective call.

        Raises a PluginError for a teacher without a finite embedding of many videos.
        """
        for name, (good, bad) in self._totals():
            names = [videos[row].id for row in bad.nonzero().flatten().tolist()]
            if len(names) >= _MIN_VIDEOS and not good.any():
                raise PluginError(
                    f"{name} returns non-finite embeddings for every video: {listed(names, 3)}.",
                    f"Look at it with `ccl plugins check {name.partition('#')[0]}`, or use --precision fp32.",
                )
            if names and name not in self._warned:
                self._warned.add(name)
                _log.warning(
                    "%s returns non-finite embeddings for %s. They count as absent in training; summary.json "
                    "will list all of them.",
                    name,
                    listed(names, 3),
                )

    def state_dict(self) -> dict[str, Tensor]:
        """State for a checkpoint, equal on all processes."""
        return {name: counts.clamp(max=1).cpu() for name, counts in self._totals()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`, where every count above 1 is 1."""
        self._counts = {name: counts.to(self.device) for name, counts in state.items()}

    def _totals(self) -> list[tuple[str, Any]]:
        return [(name, total(counts)) for name, counts in self._counts.items()]
