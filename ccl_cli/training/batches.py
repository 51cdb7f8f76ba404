"""Batches of a run, for training, dry runs and measurements of reading speed."""

from __future__ import annotations

from collections.abc import Iterable

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.dataset import TrainingClips
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import unreadable_limit
from ccl_cli.training.build import Parts
from ccl_cli.utils.distributed import rank, world_size


def batch_sampler(recipe: Recipe, parts: Parts, start: int = 0) -> EpochSampler:
    """Micro-batches of this process from a step on. A RecipeError if the batch size is not divisible."""
    return EpochSampler(
        videos=len(parts.videos),
        batch_size=recipe.train.batch_size,
        epochs=recipe.train.epochs,
        seed=recipe.train.seed,
        accumulation=recipe.train.accumulation,
        rank=rank(),
        processes=world_size(),
        start=start,
    )


def training_clips(recipe: Recipe, parts: Parts, teachers: Iterable[str]) -> TrainingClips:
    """Dataset of the training videos, with inputs for the student and the named teachers."""
    preprocess = {name: parts.teachers[name].preprocess for name in teachers}
    missing = len(parts.missing)
    limit = unreadable_limit(len(parts.videos) + missing, recipe.max_unreadable) - missing
    return TrainingClips(parts.videos, recipe.clip, preprocess, recipe.train.seed, limit)
