"""A cache whose parts other processes make: an executor's, or the same command's on other machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.executors.blocks import run_blocks
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.executors.work import Work
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.embedding_cache import Cached, Key
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache.caching import (
    PART,
    WORK,
    build_cache,
    embed_parts,
    has_part,
    key_of,
    part_numbers,
)
from ccl_cli.training.compute.device import set_up
from ccl_cli.utils.progress import Reporter


def build_by_executor(name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe) -> Cached:
    """Build a cache, every part of which is an item of the recipe's executor.

    Args:
        name: The teacher's, as results show it.
        teacher: The one that the recipe names.
        manifest: The recipe's data set.
        recipe: Of one teacher.

    Raises:
        CclError: a part could not be made; the others are kept.
    """

    def embed(key: Key, numbers: Sequence[int]) -> None:
        shared = {"teacher": name, "key": asdict(key), "recipe": recipe.model_dump(mode="json")}
        items = {f"part-{number:06}": {**shared, "number": number} for number in numbers}
        own = __name__
        work = Work("cache", key.building / WORK, f"{own}:run", f"{own}:done", items, modules=(own,))
        videos = len(manifest.learnt_from)
        sizes = {part: min(PART, videos - n * PART) for part, n in zip(items, numbers, strict=True)}
        with Reporter(f"cache {name}", videos, unit="video") as reporter:
            run_blocks(work, recipe.executor, reporter.advance, sizes)

    return build_cache(name, teacher, manifest, recipe, set_up("fp32"), embed_elsewhere=embed)


def build_part(name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe, part: Part) -> Cached | None:
    """Make a share of a cache; whoever finds that all is there makes it one. None: others are still at it."""
    accelerator = set_up("fp32")
    if part != WHOLE and (key := key_of(name, teacher, manifest, recipe.cache, recipe.clip)):
        numbers = part_numbers(manifest)
        embed_parts(name, teacher, manifest, key, recipe, accelerator, part.of(numbers))
        if not all(has_part(key, number) for number in numbers):
            return None
    return build_cache(name, teacher, manifest, recipe, accelerator)


def run(item: Mapping[str, Any]) -> None:
    """Make one part.

    Raises:
        DataError: the data set or the teacher is not the one that the cache is made of.
    """
    recipe, name, key = Recipe.model_validate(item["recipe"]), item["teacher"], Key(**item["key"])
    manifest = load_data(recipe.data)
    (teacher,) = load_teachers(recipe.teachers, manifest.classes).values()
    if key_of(name, teacher, manifest, recipe.cache, recipe.clip) != key:
        raise DataError(
            "The data set or the teacher has changed since the cache was begun.", "Give the command again."
        )
    embed_parts(name, teacher, manifest, key, recipe, set_up("fp32"), [item["number"]])


def done(item: Mapping[str, Any]) -> bool:
    """Whether a part is there."""
    return has_part(Key(**item["key"]), item["number"])
