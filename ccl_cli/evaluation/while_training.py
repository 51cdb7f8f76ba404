"""Training with evaluations on held-out videos, as in ``ccl eval``."""

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
    """Train a student, or resume a run.

    Args:
        recipe: Experiment.
        resume: Run folder, or "auto" for the newest unfinished run of the same recipe (else a new run).
        output: Folder of a new run. Default: ``runs/<name>/<time>-<hash>``.
        dry_run: Build everything and read one batch, but do not train or write.

    Returns:
        The run folder.

    Raises:
        Interrupted: stopped by a signal; the state was saved.
        CclError: an error that the user can fix.
    """
    return training.train(recipe, resume=resume, output=output, dry_run=dry_run, score=score)


def score(recipe: Recipe, parts: Parts, student: Student, accelerator: Accelerator) -> dict[str, float]:
    """Evaluate a student during training, in the run's precision; all processes share the videos.

    The student is not modified: a copy with the batch statistics of the first process is evaluated, as it
    would be published. Videos without a label are ignored.

    Returns:
        ``top1`` in percent and ``loss``, the mean cross-entropy of readable videos, unless the student has no
        classes; ``r1`` in percent, if the recipe asks for it. Identical on every process.
    """
    scored = make_student(recipe.student, len(parts.classes), with_weights=False)
    scored.load_state_dict(student.state_dict())
    for buffer in scored.to(accelerator.device).buffers():
        copy_from_main(buffer)
    artefact, manifest = Artefact(scored.eval(), recipe, parts.classes, {}), parts.manifest.labelled()
    queries = predict_manifest(artefact, manifest, recipe.train.eval_split, accelerator)
    gallery = None
    if recipe.train.eval_retrieval:
        gallery = predict_manifest(artefact, manifest, "train", accelerator)

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

    return on_main(figures)  # all processes must make the same decisions


def _cross_entropy(scores: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy of probabilities [V, K] and labels [V], over the finite rows."""
    own = scores.gather(1, labels[:, None])
    tiny = torch.finfo(own.dtype).tiny
    return float(-own[own.isfinite()].clamp_min(tiny).log().mean())
