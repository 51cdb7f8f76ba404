"""What a run would do, with one batch really read."""

from __future__ import annotations

from ccl_cli.config.load import to_yaml
from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.dataset import clip_loader
from ccl_cli.training.batches import batch_sampler, training_clips
from ccl_cli.training.build import Parts, parameter_count
from ccl_cli.training.caching import existing, wanted_key


def describe(recipe: Recipe, parts: Parts) -> str:
    """The resolved recipe, sizes, steps and the shapes of the first batch."""
    sampler = batch_sampler(recipe, parts)
    dataset = training_clips(recipe, parts, parts.teachers)
    loaded = next(clip_loader(dataset, sampler, workers=0, pin_memory=False))
    methods = sum(parameter_count(method) for method in parts.methods.values())
    teachers = sum(parameter_count(teacher) for teacher in parts.teachers.values())
    lines = [
        to_yaml(recipe).rstrip(),
        "---",
        f"data: {parts.manifest.name}, {len(parts.videos)} training videos ({len(parts.missing)} missing), "
        f"{len(parts.manifest.classes)} classes, manifest {parts.manifest.hash}",
        f"parameters: student {parameter_count(parts.student):,}, methods {methods:,}, frozen {teachers:,}",
        f"steps: {sampler.steps_per_epoch} per epoch, {sampler.total_steps} in all",
        f"batch: video {tuple(loaded.batch.video.shape)}",
        *(
            f"  {name}: {tuple(value.shape)}, present in {int(present.sum())} of {len(present)}"
            f"{', RANDOM WEIGHTS' if parts.teachers[name].random_weights else ''}"
            f"{', TOLD THE CLASSES' if parts.teachers[name].sees_label else ''}"
            f"{_from_cache(recipe, parts, name)}"
            for name, (value, present) in loaded.batch.inputs.items()
        ),
    ]
    return "\n".join(lines)


def _from_cache(recipe: Recipe, parts: Parts, name: str) -> str:
    """What a run would do instead of running this teacher."""
    key = None if parts.uses_stages else wanted_key(name, parts.teachers[name], parts.manifest, recipe)
    if key is None:
        return ""
    if existing(key, recipe):
        return f", read from the cache ({key.views})"
    return f", cached first ({key.views})" if recipe.cache.use == "build" else ""
