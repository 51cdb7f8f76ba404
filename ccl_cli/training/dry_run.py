"""A description of a run (``--dry-run``) and a picture of its first batch (``ccl data show``)."""

from __future__ import annotations

from pathlib import Path

from ccl_cli.config.load import to_yaml
from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.dataset import clip_loader
from ccl_cli.training.batches import batch_sampler, training_clips
from ccl_cli.training.build import Parts, build, parameter_count
from ccl_cli.training.cache.keys import wanted_key
from ccl_cli.training.cache.read import find_cache
from ccl_cli.training.run.samples import draw


def describe(recipe: Recipe, parts: Parts) -> str:
    """The resolved recipe, numbers of parameters and steps, and the shapes of the first batch."""
    sampler = batch_sampler(recipe, parts)
    dataset = training_clips(recipe, parts, parts.teachers)
    loaded = next(clip_loader(dataset, sampler, workers=0, pin_memory=False))
    methods = sum(parameter_count(method) for method in parts.methods.values())
    teachers = sum(parameter_count(teacher) for teacher in parts.teachers.values())
    lines = [
        to_yaml(recipe).rstrip(),
        "---",
        data_line(parts),
        f"parameters: student {parameter_count(parts.student):,}, methods {methods:,}, frozen {teachers:,}",
        f"steps: {sampler.steps_per_epoch} per epoch, {sampler.total_steps} in all",
        f"batch: video {tuple(loaded.batch.video.shape)}",
        *(
            f"  {name}: {tuple(value.shape)}, present in {int(present.sum())} of {len(present)}"
            f"{', RANDOM WEIGHTS' if parts.teachers[name].random_weights else ''}"
            f"{', READS LABELS' if parts.teachers[name].sees_label else ''}"
            f"{_from_cache(recipe, parts, name)}"
            for name, (value, present) in loaded.batch.inputs.items()
        ),
    ]
    return "\n".join(lines)


def data_line(parts: Parts) -> str:
    """The training videos that were listed, without reading any."""
    labelled = f", {parts.labelled} labelled" if parts.labelled < len(parts.videos) else ""
    return (
        f"data: {parts.manifest.name}, {len(parts.videos)} training videos ({len(parts.missing)} missing)"
        f"{labelled}, {len(parts.classes)} classes, manifest {parts.manifest.hash[:8]}"
    )


def draw_samples(recipe: Recipe, clips: int = 8, output: Path | str = "samples.png") -> None:
    """Draw the first clips that a run would train on.

    Args:
        recipe: Recipe with a data set and, if their inputs are to be drawn, teachers.
        clips: Number of clips.
        output: PNG file to write.

    Raises:
        CclError: a part of the recipe is missing, or no video can be read.
        OSError: the file cannot be written.
    """
    parts = build(recipe)
    batch = min(clips, len(parts.videos))
    limits = recipe.train.model_copy(update={"batch_size": batch, "accumulation": 1})
    recipe = recipe.model_copy(update={"train": limits})
    dataset = training_clips(recipe, parts, parts.teachers)
    loaded = next(clip_loader(dataset, batch_sampler(recipe, parts), workers=0, pin_memory=False))
    draw(loaded, parts, Path(output), count=clips)


def _from_cache(recipe: Recipe, parts: Parts, name: str) -> str:
    """Note on the cache that the run would read instead of running this teacher, or ""."""
    key = None if parts.uses_stages else wanted_key(name, parts.teachers[name], parts.manifest, recipe)
    if key is None:
        return ""
    if find_cache(key, recipe):
        return f", read from the cache ({key.views})"
    return f", cached first ({key.views})" if recipe.cache.use == "build" else ""
