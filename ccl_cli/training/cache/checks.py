"""The caches on this machine: their contents, damage, and outdated ones (``ccl cache ls, verify, prune``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.dataset import TeacherClips, clip_loader
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.embedding_cache import Cached, Key, caches
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache.build import embed_views
from ccl_cli.training.cache.keys import key_of, views_per_video

_DAMAGED = "its bytes are not those that were written"
_SAMPLES = 16  # videos that are embedded again


def cache_records() -> Iterator[dict[str, Any]]:
    """Describe each cache in plain values."""
    for folder in caches():
        cached = Cached.open(folder)
        header = cached.header
        yield {
            "name": folder.name,
            "teacher": header.key.teacher,
            "fingerprint": header.key.fingerprint,
            "data": header.key.data,
            "views": header.key.views,
            "videos": header.videos,
            "states": cached.counts(),
            "inexact": header.inexact,
            "dim": header.dim,
            "mb": f"{cached.size / 1e6:.1f}",
            "built": header.built,
            "path": str(folder),
        }


def check_bytes() -> Iterator[tuple[str, list[str]]]:
    """Compare every cache with its checksum; yield its name and the faults."""
    for folder in caches():
        try:
            cached = Cached.open(folder)
        except DataError as error:
            yield folder.name, [error.message]
            continue
        intact = cached.checksum() == cached.header.sha256
        yield folder.name, [] if intact else [_DAMAGED]


def check_embeddings(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    """Embed some videos of a recipe again; yield the name of each teacher's cache and the faults."""
    for teacher, manifest, key in _keys(recipe):
        yield key.folder.name, check_cache(Cached.open(key.folder), teacher, manifest, recipe)


def check_cache(cached: Cached, teacher: Teacher, manifest: Manifest, recipe: Recipe) -> list[str]:
    """Faults of a cache, compared with its checksum and with new embeddings of 16 evenly spaced videos."""
    header, videos = cached.header, manifest.cacheable
    faults = [] if cached.checksum() == header.sha256 else [_DAMAGED]
    rows = sorted({len(videos) * number // _SAMPLES for number in range(_SAMPLES)})
    name, views = header.key.teacher, views_per_video(header.key, recipe.cache)
    dataset = TeacherClips(videos, recipe.clip, {name: teacher.preprocess}, views=views)
    for batch in clip_loader(dataset, [[row] for row in rows], workers=0, pin_memory=False):
        row = int(batch.rows)
        embedding = embed_views(teacher, batch.inputs[name], views, torch.device("cpu"))[0]
        expected, _ = cached.rows(np.full(views, row), np.arange(views))
        state = batch.states[row][name]
        if state != cached.state(row):
            faults.append(f"'{videos[row].id}' is {state} now, it was {cached.state(row)}")
        elif not torch.allclose(embedding, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            faults.append(f"'{videos[row].id}' has another embedding now")
    return faults


def stale_caches(recipe: Recipe) -> list[Path]:
    """Caches of a recipe's teachers and data set that its training does not read."""
    keys = [key for *_, key in _keys(recipe)]
    fitting = {key.folder for key in keys}
    subjects = {(key.teacher, key.data) for key in keys}
    stale = []
    for folder in caches():
        key = Cached.open(folder).header.key
        if folder not in fitting and (key.teacher, key.data) in subjects:
            stale.append(folder)
    return stale


def _keys(recipe: Recipe) -> Iterator[tuple[Teacher, Manifest, Key]]:
    """Each teacher that can be cached, with the data set and the key of its cache."""
    manifest = load_data(recipe.data)
    for name, teacher in load_teachers(recipe.teachers, manifest.classes).items():
        key = key_of(name, teacher, manifest, recipe.cache, recipe.clip)
        if key is not None:
            yield teacher, manifest, key
