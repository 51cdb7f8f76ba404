"""The caches of embeddings on this machine: what they hold, which are damaged, and which are stale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.embedding_cache import Cached, Key, caches
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache.caching import check_cache, key_of


def cache_records() -> Iterator[dict[str, Any]]:
    """What each cache holds, as plain values."""
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
    """Compare every cache with its checksum: its name, and what is wrong with it."""
    for folder in caches():
        try:
            cached = Cached.open(folder)
        except DataError as error:
            yield folder.name, [error.message]
            continue
        intact = cached.checksum() == cached.header.sha256
        yield folder.name, [] if intact else ["its bytes are not those that were written"]


def check_embeddings(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    """Embed some videos of a recipe again: the name of each teacher's cache, and what is wrong with it.

    Raises:
        DataError: a teacher has no cache.
    """
    for teacher, manifest, key in _keys(recipe):
        yield key.folder.name, check_cache(Cached.open(key.folder), teacher, manifest, recipe)


def stale_caches(recipe: Recipe) -> list[Path]:
    """The caches of a recipe's teachers and data set that its training would not read."""
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
    """Each teacher that can be cached, the data set, and which cache serves it."""
    manifest = load_data(recipe.data)
    for name, teacher in load_teachers(recipe.teachers, manifest.classes).items():
        key = key_of(name, teacher, manifest, recipe.cache, recipe.clip)
        if key is not None:
            yield teacher, manifest, key
