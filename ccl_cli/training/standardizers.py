"""Standardisation of teachers' embeddings before any method gets them; part of the checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ccl_cli.config.recipe import Standardize
from ccl_cli.errors import RecipeError
from ccl_cli.teachers import Embedding, Teacher
from ccl_cli.teachers.standardize import Transform, fit, inverse_deviation
from ccl_cli.training.cache.read import CachedRows
from ccl_cli.utils.distributed import total

_ALL = "*"  # in a recipe: all teachers that are not named


class Standardizer(nn.Module):
    """Transform of one teacher's embeddings: fixed before the run, or with running statistics.

    ``kind`` is not ``none``, and ``phi_s`` only with a fixed ``transform`` from the whole training split.
    Running statistics include a batch before it is transformed.
    """

    mean: Tensor
    factor: Tensor
    count: Tensor
    squares: Tensor

    def __init__(self, kind: Standardize, dim: int, transform: Transform | None) -> None:
        super().__init__()
        self.kind, self.running = kind, transform is None
        start = transform or Transform(torch.zeros(dim), torch.ones(dim))
        self.register_buffer("mean", start.mean.float())
        self.register_buffer("factor", start.factor.float())
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("squares", torch.zeros(dim))

    def forward(self, embedding: Embedding) -> Embedding:
        """Transform the present rows; the others stay zero."""
        value, present, stages = embedding
        if self.running and self.training:
            self._update(value, present)
        value = Transform(self.mean, self.factor)(value)
        return Embedding(torch.where(present[:, None], value, 0.0), present, stages)

    def get_extra_state(self) -> bool:
        """Whether statistics are running. A resumed run keeps this, even if a cache has been built since."""
        return self.running

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`."""
        self.running = state

    @torch.no_grad()
    def _update(self, value: Tensor, present: Tensor) -> None:
        """Update the statistics with the present rows of all processes (Chan et al. 1979)."""
        counted, new = present[:, None], total(present.sum())
        mean = total(torch.where(counted, value, 0.0).sum(dim=0)) / new.clamp(min=1)
        squares = total(torch.where(counted, value - mean, 0.0).square().sum(dim=0))
        count = self.count + new
        shift, share = mean - self.mean, new / count.clamp(min=1)
        self.squares += squares + shift.square() * self.count * share
        self.mean += shift * share
        self.count.copy_(count)
        if self.kind == "zscore":
            self.factor.copy_(inverse_deviation(self.squares / (count - 1).clamp(min=1)))


class Standardizers(nn.Module):
    """The transforms of all teachers. Teachers without one pass unchanged."""

    def __init__(self, by_teacher: Mapping[str, Standardizer]) -> None:
        super().__init__()
        # A list, because the name of a teacher may contain a dot and that of a module may not.
        self.names, self.each = tuple(by_teacher), nn.ModuleList(by_teacher.values())

    def forward(self, teachers: Mapping[str, Embedding]) -> Mapping[str, Embedding]:
        """Transform embeddings by teacher."""
        standardized = {name: each(teachers[name]) for name, each in zip(self.names, self.each, strict=True)}
        return {**teachers, **standardized}


def make_standardizers(
    kinds: Mapping[str, Standardize], teachers: Mapping[str, Teacher], cached: Mapping[str, CachedRows]
) -> dict[str, Standardizer]:
    """Make the transforms of the recipe's ``standardize``: fixed for cached teachers, running for live ones.

    Raises a RecipeError for an unknown teacher, or for ``phi_s`` of one that is not cached.
    """
    if unknown := sorted(kinds.keys() - teachers.keys() - {_ALL}):
        if teachers:
            raise RecipeError(
                f"standardize: there is no teacher '{unknown[0]}'.", f"This run has {', '.join(teachers)}."
            )
        return {}
    made = {}
    for name, teacher in teachers.items():
        kind: Standardize = kinds.get(name, kinds.get(_ALL, "none"))
        if kind == "phi_s" and name not in cached:
            raise RecipeError(
                f"standardize: phi_s needs all embeddings of {name} before the first step; it is not cached.",
                "Use --set cache.use=build, or zscore, which follows a live teacher.",
            )
        if kind != "none":
            transform = fit(kind, cached[name].moments(), name) if name in cached else None
            made[name] = Standardizer(kind, teacher.dim, transform)
    return made


def cached_embedding(
    cached: Mapping[str, CachedRows], standardizers: Mapping[str, Standardizer], name: str, rows: Tensor
) -> Embedding | None:
    """Standardised embeddings of rows ([n] int64) of the training split; None for a live teacher."""
    if name not in cached:
        return None
    embedding = cached[name].embedding(rows, 0, torch.device("cpu"))
    return standardizers[name](embedding) if name in standardizers else embedding
