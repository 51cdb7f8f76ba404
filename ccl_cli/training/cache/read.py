"""Cached embeddings in training: which caches a run may read, and their rows in a batch."""

from __future__ import annotations

import logging
from functools import lru_cache, partial

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.errors import CclError
from ccl_cli.teachers import Embedding
from ccl_cli.teachers.embedding_cache import HEADER, Cached, Key, caches
from ccl_cli.teachers.standardize import Moments
from ccl_cli.training.build import Parts
from ccl_cli.training.cache.build import build_cache
from ccl_cli.training.cache.keys import wanted_key
from ccl_cli.utils.distributed import on_main

_CHUNK = 4096  # embeddings in memory at once, for the moments
_log = logging.getLogger("ccl")


class CachedRows:
    """A cache by rows of the training split; one of the K views of each video is drawn per epoch.

    Rows of ``cached`` are those of ``manifest.cacheable``; rows here are those of ``videos``.
    """

    def __init__(self, cached: Cached, manifest: Manifest, videos: Videos, seed: int) -> None:
        self.cached, self.seed = cached, seed
        self._cache_rows = videos.places_in(manifest.cacheable)
        self._views_of_epoch = lru_cache(maxsize=1)(self._draw_views)

    def embedding(self, rows: Tensor, epoch: int, device: torch.device) -> Embedding:
        """Embeddings of a batch of rows ([B] int64), on a device.

        The epoch, from 0, determines which view of each video is read.
        """
        numbers = rows.cpu().numpy()
        value, present = self.cached.rows(self._cache_rows[numbers], self._views_of_epoch(epoch)[numbers])
        return Embedding(value.to(device, non_blocking=True), present.to(device, non_blocking=True))

    def moments(self) -> Moments:
        """Moments of all finite embeddings of the training split, all views, in one pass over the cache."""
        moments = Moments(self.cached.header.dim)
        for begin in range(0, len(self._cache_rows), _CHUNK):
            rows = self._cache_rows[begin : begin + _CHUNK]
            for view in range(self.cached.header.count):
                value, present = self.cached.rows(rows, np.full_like(rows, view))
                moments.add(value[present & value.isfinite().all(dim=1)])
        return moments

    def state(self, row: int) -> str:
        """State of the modality of a video of the training split, e.g. "silent"."""
        return self.cached.state(self._cache_rows[row])

    def _draw_views(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch, 3])
        return rng.integers(self.cached.header.count, size=len(self._cache_rows))


def open_caches(
    recipe: Recipe, parts: Parts, accelerator: Accelerator, *, build: bool = True
) -> dict[str, Cached]:
    """Open the caches that training reads instead of running a teacher, by the teacher's name.

    There are none if a method uses the teachers' inner stages, which are not cached. With ``build``, those of
    ``cache.use: build`` are built first. Raises a DataError for a damaged cache.
    """
    by_teacher: dict[str, Cached] = {}
    manifest = parts.manifest
    for name, teacher in () if parts.uses_stages else parts.teachers.items():
        key = on_main(partial(wanted_key, name, teacher, manifest, recipe))
        if key is None:
            continue
        if build and recipe.cache.use == "build":
            by_teacher[name] = build_cache(name, teacher, manifest, recipe, accelerator)
        elif cached := find_cache(key, recipe):
            by_teacher[name] = cached
    return by_teacher


def find_cache(key: Key, recipe: Recipe) -> Cached | None:
    """Open the cache of a key if it exists and the recipe reads it. Warns about a cache that is not read."""
    if not on_main((key.folder / HEADER).is_file):
        _warn_if_stale(key)
        return None
    cached = Cached.open(key.folder)
    return cached if recipe.cache.use == "build" or is_exact(cached, recipe.clip) else None


def is_exact(cached: Cached, clip: Clip) -> bool:
    """Whether a live teacher would get the same inputs as the cached ones. Warns with the reason if not."""
    reason = cached.header.differs_from_live(clip.frames if clip.consecutive else 1)
    if reason:
        _log.warning(
            "The cache '%s' is not exact: %s. Train with `--set cache.use=build` to read it all the same.",
            cached.folder.name,
            reason,
        )
    return not reason


def _warn_if_stale(key: Key) -> None:
    """Warn about caches of the same teacher and data set that have another key."""
    for folder in caches():
        try:
            other = Cached.open(folder).header.key
        except CclError:  # `ccl cache verify` reports damaged caches
            continue
        if (other.teacher, other.data) == (key.teacher, key.data):
            _log.warning(
                "The cache '%s' is not used: it was built for %s. `ccl cache build` makes one that fits.",
                folder.name,
                other.differs_from(key),
            )
