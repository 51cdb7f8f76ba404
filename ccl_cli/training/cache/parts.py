"""Building a cache on several machines: by an executor, or by ``ccl cache build --part`` on each of them."""

from __future__ import annotations

from collections.abc import Mapping
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
from ccl_cli.teachers.embedding_cache import HEADER, Cached, Key
from ccl_cli.training.build import load_teachers
from ccl_cli.training.cache.build import build_cache, embed_parts, has_part, part_numbers, part_rows
from ccl_cli.training.cache.keys import key_of
from ccl_cli.training.compute.device import set_up
from ccl_cli.utils.progress import Reporter


def build_by_executor(name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe) -> Cached:
    """Build a cache with the executor of a recipe with one teacher; each part is a work item."""
    key = key_of(name, teacher, manifest, recipe.cache, recipe.clip)
    if key is not None and not (key.folder / HEADER).is_file():
        numbers, videos = part_numbers(manifest), len(manifest.cacheable)
        shared = {"teacher": name, "key": asdict(key), "recipe": recipe.model_dump(mode="json")}
        items = {f"part-{number:06}": {**shared, "number": number} for number in numbers}
        run, done = f"{__name__}:run", f"{__name__}:done"
        work = Work("cache", key.building / "work", run, done, items, modules=(__name__,))
        sizes = {part: len(part_rows(number, videos)) for part, number in zip(items, numbers, strict=True)}
        with Reporter(f"cache {name}", videos, unit="video") as reporter:
            run_blocks(work, recipe.executor, reporter.advance, sizes)
    return build_cache(name, teacher, manifest, recipe, set_up("fp32"))


def build_part(name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe, part: Part) -> Cached | None:
    """Build a share of the parts. The process that finds all parts complete merges them; else return None."""
    accelerator = set_up("fp32")
    if part != WHOLE and (key := key_of(name, teacher, manifest, recipe.cache, recipe.clip)):
        numbers = part_numbers(manifest)
        embed_parts(name, teacher, manifest, key, recipe, accelerator, part.of(numbers))
        if not all(has_part(key, number) for number in numbers):
            return None
    return build_cache(name, teacher, manifest, recipe, accelerator)


def run(item: Mapping[str, Any]) -> None:
    """Build one part. Raises a DataError if the data set or the teacher differs from that of the cache."""
    recipe, name, key = Recipe.model_validate(item["recipe"]), item["teacher"], Key(**item["key"])
    manifest = load_data(recipe.data)
    (teacher,) = load_teachers(recipe.teachers, manifest.classes).values()
    if key_of(name, teacher, manifest, recipe.cache, recipe.clip) != key:
        raise DataError(
            "The data set or the teacher has changed since the build started.", "Run the same command again."
        )
    embed_parts(name, teacher, manifest, key, recipe, set_up("fp32"), [item["number"]])


def done(item: Mapping[str, Any]) -> bool:
    """Whether a part exists."""
    return has_part(Key(**item["key"]), item["number"])
