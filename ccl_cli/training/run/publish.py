"""The end of a run: the published model ``model.safetensors``, and ``summary.json``.

The published weights are the moving average, if there is one; the raw weights are then a second file.
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
from ccl_cli.training.run.video_states import VideoStates
from ccl_cli.utils.distributed import is_main, world_size

if TYPE_CHECKING:
    from ccl_cli.training.trainer import Trainer


def publish(trainer: Trainer, *, finished: bool) -> None:
    """Write the model and the summary. A collective call; the main process writes.

    A run that ended at ``max_steps`` is not finished: it can be resumed. Raises a CclError for weights that
    are not finite.
    """
    check_finite(trainer)
    states, faults = trainer.video_states.gathered(), trainer.teacher_faults.rows()
    if is_main():
        scores = trainer.held_out.summary()
        summary = {"model": _save_models(trainer)} | _summary(trainer, states, faults) | scores
        trainer.run.update_summary(summary | {"finished": finished, "evaluation": {}})
        data = summary["data"]
        totals = {name: summary[name] for name in ("seconds", "skipped")} | {"videos": data["seen"]}
        totals |= {name: len(data[name]) for name in ("missing", "unreadable")}
        trainer.accelerator.log({f"final/{name}": value for name, value in totals.items()})


def check_finite(trainer: Trainer) -> None:
    """Raise a CclError if weights or batch statistics are not finite, before they are saved or published."""
    parameters = [each for each in trainer.unwrapped.parameters() if each.requires_grad]
    if not all(bool(each.isfinite().all()) for each in [*parameters, *trainer.unwrapped.student.buffers()]):
        folder = trainer.run.checkpoints
        saved = f"; the last good checkpoint is in '{folder}'" if folder.is_dir() else ""
        raise CclError(
            f"The weights are not finite at step {trainer.step}.",
            f"Lower optim.lr or use --precision fp32{saved}.",
        )


def _save_models(trainer: Trainer) -> dict[str, Any]:
    """Write the model files; return a description of the first one."""
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
        "options": {
            name: method_options(type(method), name, recipe.method[name]).model_dump(
                mode="json", exclude_defaults=True
            )
            for name, method in parts.methods.items()
        },
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
        "modalities": states.counts(trainer.cached.values()),
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
