"""Training with a score on held-out videos, which is made as ``ccl eval`` makes it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from ccl_cli.config.recipe import Recipe
from ccl_cli.evaluation.evaluate import predict_manifest
from ccl_cli.evaluation.metrics import recognition, retrieval
from ccl_cli.students import Student
from ccl_cli.training import train as training
from ccl_cli.training.build import Parts, make_student
from ccl_cli.training.run.artefact import Artefact
from ccl_cli.utils.distributed import copy_from_main, on_main


def train(
    recipe: Recipe, *, resume: Path | str | None = None, output: Path | None = None, dry_run: bool = False
) -> Path:
    """Train a student as the recipe says, or go on with a run.

    Args:
        recipe: The experiment.
        resume: A run folder, or "auto" for the newest unfinished run of the same recipe (a new one if none).
        output: Folder of a new run; default ``runs/<name>/<time>-<hash>``.
        dry_run: Build everything and read one batch, but write and train nothing.

    Returns:
        The run's folder.

    Raises:
        Interrupted: stopped by a signal; the state was saved.
        CclError: anything the user can fix.
    """
    return training.train(recipe, resume=resume, output=output, dry_run=dry_run, score=score)


def score(recipe: Recipe, parts: Parts, student: Student, accelerator: Accelerator) -> dict[str, float]:
    """Score a student that is being trained, in the run's precision; all processes share the videos.

    Args:
        recipe: Which split, and whether retrieval too, for which the training videos are read as well.
        parts: The run's videos; those without a label are left out.
        student: Left as it is: a second one with its weights is scored, and with the first process's batch
            statistics, as they would be published.
        accelerator: The run's.

    Returns:
        ``top1`` in percent and ``loss``, the mean cross-entropy of the videos that could be read, unless the
        student has no classes; ``r1`` in percent, if wanted. The same on every process.
    """
    scored = make_student(recipe.student, len(parts.classes), with_weights=False)
    scored.load_state_dict(student.state_dict())
    for buffer in scored.to(accelerator.device).buffers():
        copy_from_main(buffer)
    artefact, manifest = Artefact(scored.eval(), recipe, parts.classes, {}), parts.manifest.labelled()
    settings = {"batch_size": recipe.eval.batch_size, "workers": recipe.train.workers}
    queries = predict_manifest(artefact, manifest, recipe.train.eval_split, accelerator, **settings)
    gallery = None
    if recipe.train.eval_retrieval:
        gallery = predict_manifest(artefact, manifest, "train", accelerator, **settings)

    def figures() -> dict[str, float]:
        scores: dict[str, float] = {}
        if parts.classes:
            top1 = recognition(queries.scores, queries.labels, parts.classes)["top1"]
            loss = _cross_entropy(queries.scores, queries.labels)
            scores |= {"top1": cast(float, top1), "loss": loss}
        if gallery:
            of_all = retrieval(queries.features, queries.labels, gallery.features, gallery.labels)
            scores["r1"] = of_all["r1"]
        return scores

    return on_main(figures)  # one process decides for all


def _cross_entropy(scores: Tensor, labels: Tensor) -> float:
    """Of probabilities, [V, K], over the videos that have some; [V] int64."""
    own = scores.gather(1, labels[:, None])
    tiny = torch.finfo(own.dtype).tiny
    return float(-own[own.isfinite()].clamp_min(tiny).log().mean())
