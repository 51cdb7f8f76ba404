"""The end of a run: the student as ``model.safetensors``, and ``summary.json``.

With a moving average that is what is published, and the weights themselves lie beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ccl_cli.config.load import method_options
from ccl_cli.errors import CclError
from ccl_cli.teachers import Teacher
from ccl_cli.training.build import parameter_count
from ccl_cli.training.cache.read import CachedRows
from ccl_cli.training.run.artefact import save_model
from ccl_cli.training.run.folder import versions
from ccl_cli.training.run.video_states import VideoStates, count_states
from ccl_cli.utils.distributed import is_main, world_size

if TYPE_CHECKING:
    from ccl_cli.training.trainer import Trainer


def publish(trainer: Trainer, *, finished: bool) -> None:
    """Write the model and the summary; all processes call this together, the first one writes.

    Args:
        trainer: After its last step.
        finished: Whether that was the recipe's last step; a run that ``max_steps`` ended can be resumed.

    Raises:
        CclError: weights that are not finite.
    """
    check_finite(trainer)
    states, faults = trainer.video_states.gathered(), trainer.teacher_faults.rows()
    if is_main():
        scores = trainer.held_out.summary()
        summary = {"model": _save_models(trainer)} | _summary(trainer, states, faults) | scores
        trainer.run.update_summary(summary | {"finished": finished, "evaluation": {}})
        trainer.accelerator.log(_final_figures(summary))


def check_finite(trainer: Trainer) -> None:
    """Refuse to save or publish numbers that nobody can use.

    Raises:
        CclError: weights that are not finite.
    """
    parameters = [each for each in trainer.unwrapped.parameters() if each.requires_grad]
    if not all(bool(each.isfinite().all()) for each in [*parameters, *trainer.unwrapped.student.buffers()]):
        state = trainer.run.state
        saved = f"; the last good state is in '{state}'" if state.is_dir() else ""
        raise CclError(
            f"The weights are not finite any more at step {trainer.step}.",
            f"Lower optim.lr or use --precision fp32{saved}.",
        )


def _final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Totals of the run, for its trackers."""
    data = summary["data"]
    counts = {name: len(data[name]) for name in ("missing", "unreadable")}
    figures = {name: summary[name] for name in ("seconds", "skipped")} | {"videos": data["seen"]} | counts
    return {f"final/{name}": value for name, value in figures.items()}


def _save_models(trainer: Trainer) -> dict[str, Any]:
    """Write the model, and beside a moving average the weights themselves; what the first file holds."""
    parts, files = trainer.parts, (trainer.run.model, trainer.run.raw_model)
    record = {"step": trainer.step, "selection": "last"} | trainer.held_out.restore_best(trainer.students)
    about = record | {"manifest": parts.manifest.hash, "data": parts.manifest.name}
    for file, (weights, student) in zip(files, trainer.students.items(), strict=False):
        save_model(file, student, trainer.recipe, parts.classes, **about, weights=weights)
    return record | {"weights": next(iter(trainer.students))}


def _summary(trainer: Trainer, states: VideoStates, faults: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    recipe, parts = trainer.recipe, trainer.parts
    return {
        "recipe": recipe.hash(),
        "method": recipe.method_label,
        "options": {name: _changed_options(trainer, name) for name in parts.methods},
        "seed": recipe.train.seed,
        "steps": trainer.step,
        "skipped": trainer.guard.total,
        "seconds": round(trainer.seconds, 1),
        "precision": trainer.accelerator.mixed_precision.replace("no", "fp32"),
        "processes": world_size(),
        "device": str(trainer.device),
        "data": _data(trainer, states, faults),
        "teachers": {
            name: _teacher(teacher, trainer.cached.get(name)) for name, teacher in parts.teachers.items()
        },
        "student": {"spec": recipe.student, "parameters": parameter_count(parts.student)},
        "versions": versions(),
    }


def _changed_options(trainer: Trainer, name: str) -> dict[str, Any]:
    """A method's options that differ from its defaults; the recipe may write defaults out."""
    options = method_options(type(trainer.parts.methods[name]), name, trainer.recipe.method[name])
    return options.model_dump(mode="json", exclude_defaults=True)


def _data(trainer: Trainer, states: VideoStates, faults: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    manifest, videos = trainer.parts.manifest, trainer.parts.videos
    return {
        "name": manifest.name,
        "manifest": manifest.hash,
        "classes": len(trainer.parts.classes),
        "train": len(manifest.split("train")),
        "labelled": trainer.parts.labelled,
        "seen": len(states.modalities),
        "missing": [video.id for video in trainer.parts.missing],
        "unreadable": {videos[row].id: reason for row, reason in sorted(states.unreadable.items())},
        "not_finite": {name: [videos[row].id for row in rows] for name, rows in faults.items()},
        "modalities": count_states(_with_cached(trainer.cached, states)),
    }


def _with_cached(cached: Mapping[str, CachedRows], states: VideoStates) -> dict[int, dict[str, str]]:
    """States of modalities by video, those too for which a cache was read instead of the video."""
    return {
        row: modalities | {rows.cached.header.kind: rows.state(row) for rows in cached.values()}
        for row, modalities in states.modalities.items()
    }


def _teacher(teacher: Teacher, rows: CachedRows | None) -> dict[str, Any]:
    return {
        "variant": teacher.variant,
        "dim": teacher.dim,
        "fingerprint": teacher.fingerprint,
        "random_weights": teacher.random_weights,
        "sees_label": teacher.sees_label,
        "cached": rows.cached.header.key.views if rows else None,
    }
