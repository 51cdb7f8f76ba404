"""CMC: contrastive multiview coding (Tian et al., ECCV 2020), with the teachers as frozen views."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, MethodOptions, Setting
from ccl_cli.methods.losses import unit_rows
from ccl_cli.methods.memory_bank import (
    Contrast,
    MemoryBank,
    Negatives,
    NoiseContrast,
    Sampler,
    softmax_contrast,
)
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import masked_mean

Share = Annotated[float, Field(ge=0, le=1)]
STUDENT = "student"


class CMCOptions(MethodOptions):
    """Options of ``cmc``; defaults of the authors' code, with its authors' advice for small data sets."""

    weight: float = Field(1.0, ge=0, description="Weight of the loss.")
    heads: Literal["linear", "identity"] = Field(
        "linear", description="How each view enters the contrast; identity needs equal widths."
    )
    dim: int = Field(128, ge=1, description="Width of the linear heads.")
    # Far below, the exponentials that the normalising constant sums overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities.")
    loss: Literal["softmax", "nce"] = Field(
        "softmax", description="softmax: advised for small data sets; nce: as in the paper."
    )
    num_negatives: int = Field(
        4096, ge=1, description="Negatives per anchor, at most all other videos (16384 in the authors' code)."
    )
    negatives: Negatives = Field(
        "other_instance", description="Which videos are negatives; uniform may draw the anchor's own."
    )
    momentum: Share = Field(0.5, description="Share of a bank's old entry that an update keeps.")
    z_momentum: Share = Field(
        1.0, description="nce: share of the normalising constant that later batches keep; 1: fixed."
    )
    graph: Literal["core", "full"] = Field(
        "core", description="core: the student with each teacher; full: teachers with each other too."
    )


class View(NamedTuple):
    """One network's codes of a batch: [B, F] of unit length, and which rows it has."""

    code: Tensor
    present: Tensor


class CMC(Method):
    """Every view has one head and one bank; each pair of views is contrasted in both directions."""

    Options = CMCOptions

    def __init__(self, options: CMCOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self.options = options
        self.names = [teacher.name for teacher in setting.teachers]
        dims = [setting.student_dim, *(teacher.dim for teacher in setting.teachers)]
        if options.heads == "identity" and len(set(dims)) > 1:
            raise RecipeError(
                f"method.cmc.heads: identity needs equal widths, but they are {', '.join(map(str, dims))}.",
                "Use heads: linear.",
            )
        linear = options.heads == "linear"
        width = options.dim if linear else setting.student_dim
        self.heads = nn.ModuleList(nn.Linear(dim, width) if linear else nn.Identity() for dim in dims)
        self.banks = nn.ModuleList(MemoryBank(setting.num_videos, width, options.momentum) for _ in dims)
        every_pair = list(combinations(range(len(dims)), 2))
        self.pairs = [pair for pair in every_pair if options.graph == "full" or pair[0] == 0]
        self.contrasts = nn.ModuleList(ViewPair(options, setting) for _ in self.pairs)

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Both directions of each pair; only ``student/<teacher>`` reaches the student.

        Then the banks take in the batch.
        """
        names = [STUDENT, *self.names]
        views = self._views(student.feature, [teachers[name] for name in self.names])
        terms: dict[str, Tensor] = {}
        for (first, second), contrast in zip(self.pairs, self.contrasts, strict=True):
            values = contrast(views[first], views[second], self.banks[first], self.banks[second], batch.rows)
            for (anchor, other), value in zip(((first, second), (second, first)), values, strict=True):
                terms[_term(names[anchor], names[other])] = self.options.weight * value
        for view, bank in zip(views, self.banks, strict=True):
            assert isinstance(bank, MemoryBank)
            bank.update(batch.rows, view.code, view.present)
        return terms

    def _views(self, feature: Tensor, teachers: list[Embedding]) -> list[View]:
        everyone = torch.ones(len(feature), dtype=torch.bool, device=feature.device)
        inputs = [(feature, everyone), *((each.value.to(feature.dtype), each.present) for each in teachers)]
        return [
            View(unit_rows(head(value)), present)
            for head, (value, present) in zip(self.heads, inputs, strict=True)
        ]


class ViewPair(nn.Module):
    """The contrast between two views."""

    def __init__(self, options: CMCOptions, setting: Setting) -> None:
        super().__init__()
        self.temperature = options.temperature
        self.sampler = Sampler(setting.labels, options.num_negatives, options.negatives)
        self.nce = None
        if options.loss == "nce":
            self.nce = nn.ModuleList(NoiseContrast(setting.num_videos, options.z_momentum) for _ in range(2))

    def forward(
        self,
        first: View,
        second: View,
        first_bank: MemoryBank,
        second_bank: MemoryBank,
        rows: Tensor,
        contrast: Contrast | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss of the first view as anchor against the second one's bank, and the other way round.

        Shapes:
            rows: [B] int64, places in the training split.
            contrast: Entries to compare with, instead of drawing them.
        """
        contrast = contrast or self.sampler.draw(rows, first_bank.absent | second_bank.absent)
        present = first.present & second.present
        values = []
        for way, (view, bank) in enumerate(((first, second_bank), (second, first_bank))):
            scores = bank.scores(view.code, self.temperature)
            if self.nce is None:
                loss = softmax_contrast(scores, contrast)
            else:
                loss = self.nce[way](scores, contrast, present)
            values.append(masked_mean(loss, present))
        return values[0], values[1]


def _term(anchor: str, other: str) -> str:
    """``student/audio:cnn14``, ``teacher/audio:cnn14``, or ``audio:cnn14/image:resnet34``."""
    if other == STUDENT:
        return f"teacher/{anchor}"
    return f"{anchor}/{other}"
