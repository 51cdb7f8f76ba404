"""The distiller: student and methods in one module with one loss. Accelerate prepares only this module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.clips.transforms import normalize
from ccl_cli.data.manifest import UNLABELLED
from ccl_cli.errors import PluginError
from ccl_cli.methods import Method
from ccl_cli.methods.components.losses import cross_entropy, full_precision
from ccl_cli.methods.components.memory_bank import shard_banks
from ccl_cli.students import Student, StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.build import Parts
from ccl_cli.training.compute.batch_norm import share_statistics
from ccl_cli.training.compute.device import pad_time_apart
from ccl_cli.training.compute.recompute import recompute_blocks
from ccl_cli.training.held_out import LOGGED
from ccl_cli.training.standardizers import Standardizer, Standardizers
from ccl_cli.utils.distributed import masked_mean

# Names in a line of metrics.jsonl, which a term of a method may not have.
RESERVED = {
    *("step", "epoch", "lr", "loss", "ce", "accuracy", "labelled", "skipped", "clips_per_s", "data_wait"),
    *LOGGED,
}


class StepOutput(NamedTuple):
    """Result of one forward pass: the scalar loss; its weighted terms by name; and [B, K] class scores.

    Only the loss has a gradient. There is no term "ce" without classes.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    logits: Tensor


class Distiller(nn.Module):
    """A student, the methods that train it, and the sum of their terms.

    The student's cross-entropy is weighted by ``ce_weight`` and the methods' own factors. ``clip`` has mean
    and standard deviation of the student's input.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        student: Student,
        methods: Mapping[str, Method],
        clip: Clip,
        *,
        ce_weight: float = 1.0,
        memory_format: torch.memory_format = torch.contiguous_format,
        standardizers: Mapping[str, Standardizer] | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.methods = nn.ModuleDict(methods)
        self.ce_weight = ce_weight * math.prod(method.ce_weight for method in methods.values())
        self.memory_format = memory_format
        self.standardizers = Standardizers(standardizers or {})
        # Buffers, because creating a tensor from Python numbers in each step would make a GPU wait.
        self.register_buffer("mean", torch.tensor(clip.mean), persistent=False)
        self.register_buffer("std", torch.tensor(clip.std), persistent=False)

    def forward(self, batch: Batch, teachers: Mapping[str, Embedding]) -> StepOutput:
        """Run the student on the batch, and every method on its output and the teachers' embeddings."""
        dtype = next(self.student.parameters()).dtype
        video = normalize(batch.video, self.mean, self.std, dtype)
        student: StudentOutput = self.student(video.contiguous(memory_format=self.memory_format))
        # Losses in single precision: exp(1 / temperature) overflows half precision.
        with torch.autocast(video.device.type, enabled=False):
            student = _full_precision(student)
            parts = self._parts(student, self.standardizers(teachers), batch)
        loss = torch.stack([part.to(student.logits.dtype) for part in parts.values()]).sum()
        return StepOutput(
            loss, {name: part.detach() for name, part in parts.items()}, student.logits.detach()
        )

    def _parts(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        parts = {}
        if self.student.num_classes:
            parts["ce"] = self.ce_weight * mean_cross_entropy(student.logits, batch.labels)
        for name, method in self.methods.items():
            prefix = f"{name}." if len(self.methods) > 1 else ""
            terms = {prefix + term: value for term, value in method(student, teachers, batch).items()}
            if reserved := sorted(terms.keys() & RESERVED):
                raise PluginError(
                    f"The method '{name}' has a term '{reserved[0]}', which is a reserved name."
                )
            parts |= terms
        return parts


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled rows of all processes; zero, but part of the graph, if there are none.

    Shapes: logits: [B, K]. labels: [B] int64; -1 for a row without a label.
    """
    return masked_mean(cross_entropy(logits, labels), labels != UNLABELLED)


def _full_precision(student: StudentOutput) -> StudentOutput:
    return StudentOutput(full_precision(student.feature), full_precision(student.logits), student.stages)


def make_distiller(
    recipe: Recipe, parts: Parts, accelerator: Accelerator, standardizers: Mapping[str, Standardizer]
) -> Distiller:
    """Build the distiller for the recipe's memory format, precision and device."""
    memory_format = torch.channels_last_3d if recipe.train.channels_last else torch.contiguous_format
    student = parts.student
    if recipe.train.sync_batchnorm:
        share_statistics(student, accelerator.device)
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        pad_time_apart(student)
    student.to(memory_format=memory_format)  # type: ignore[call-overload]
    if recipe.train.recompute:
        recompute_blocks(student)
    if recipe.train.compile:
        student.compile()
    distiller = Distiller(
        student,
        parts.methods,
        recipe.clip,
        ce_weight=recipe.ce_weight,
        memory_format=memory_format,
        standardizers=standardizers,
    )
    shard_banks(distiller)
    return distiller
