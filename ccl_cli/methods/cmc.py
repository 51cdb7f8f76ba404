"""CMC: contrastive multiview coding (Tian et al., ECCV 2020), with the teachers as frozen views."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods import Batch, Embedding, Method, Setting, StudentOutput
from ccl_cli.methods.components.contrast import ContrastiveLoss, Loss, Negatives, NegativeSampler, View
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.components.memory_bank import BankOptions, MemoryBank, make_bank
from ccl_cli.utils.distributed import masked_mean


class CMCOptions(BankOptions):
    """Options of ``cmc``; defaults of the authors' code, with their recommendations for small data sets."""

    weight: float = Field(1.0, ge=0, description="Weight of the loss.")
    heads: Literal["linear", "identity"] = Field(
        "linear", description="Projection of each view; identity requires equal widths."
    )
    loss: Loss = Field(
        "softmax", description="softmax: recommended for small data sets; nce: as in the paper."
    )
    num_negatives: int = Field(
        4096,
        ge=1,
        description="Negatives per anchor, at most the number of other videos (authors' code: 16384).",
    )
    negatives: Negatives = Field(
        "other_instance", description="Which videos are negatives; uniform may draw the anchor's own video."
    )
    graph: Literal["core", "full"] = Field(
        "core", description="core: the student with each teacher; full: also the teachers with each other."
    )


class CMC(Method):
    """Contrasts views of a video (the student and each teacher) in a common space, against memory banks."""

    Options = CMCOptions
    paper = "Tian et al., ECCV 2020"
    needs_labels = False

    def __init__(self, options: CMCOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        dims = [setting.student_dim, *(teacher.dim for teacher in setting.teachers)]
        if options.heads == "identity" and len(set(dims)) > 1:
            raise RecipeError(
                f"method.cmc.heads: identity needs equal widths, but they are {', '.join(map(str, dims))}.",
                "Use heads: linear.",
            )
        linear = options.heads == "linear"
        width = options.dim if linear else setting.student_dim
        self.view_heads = nn.ModuleList(nn.Linear(dim, width) if linear else nn.Identity() for dim in dims)
        self.banks = nn.ModuleList(make_bank(options, setting.num_videos, width) for _ in dims)
        every_pair = list(combinations(range(len(dims)), 2))
        self.pairs = [pair for pair in every_pair if options.graph == "full" or pair[0] == 0]
        samplers = (
            NegativeSampler(setting.labels, options.num_negatives, options.negatives) for _ in self.pairs
        )
        self.losses = nn.ModuleList(ContrastiveLoss(options, each, options.loss) for each in samplers)

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """Return the loss of both directions of each pair, then update the memory banks with the batch.

        Only the terms ``student/<teacher>`` train the student.
        """
        views = self._views(student.feature, teachers)
        terms: dict[str, Tensor] = {}
        for (first, second), loss in zip(self.pairs, self.losses, strict=True):
            present = views[first].present & views[second].present
            values = loss(views[first], views[second], batch.rows)
            for name, value in zip(self._names(first, second), values, strict=True):
                terms[name] = self.weight(name) * masked_mean(value, present)
        for view in views:
            view.bank.update(batch.rows, view.code, view.present)
        return terms

    def _views(self, feature: Tensor, teachers: Mapping[str, Embedding]) -> list[View]:
        """The views in the order of ``view_heads``: the student, then each teacher."""
        everyone = torch.ones(len(feature), dtype=torch.bool, device=feature.device)
        inputs = [(feature, everyone)]
        inputs += [(each.value, each.present) for each in self.batches(feature.dtype, teachers)]
        return [
            View(unit_rows(head(value)), present, cast(MemoryBank, bank))
            for head, bank, (value, present) in zip(self.view_heads, self.banks, inputs, strict=True)
        ]

    def _names(self, first: int, second: int) -> tuple[str, str]:
        """Names of both directions: ``student/a`` and ``teacher/a``; between teachers ``a/b`` and ``b/a``."""
        other = self.teachers[second - 1].name
        if first == 0:
            return f"student/{other}", f"teacher/{other}"
        name = self.teachers[first - 1].name
        return f"{name}/{other}", f"{other}/{name}"
