"""Probes on the frozen features of a student, with the same classifiers as for teachers."""

from __future__ import annotations

from typing import Any

import torch

from ccl_cli.data.manifest import Manifest
from ccl_cli.evaluation.predictor import SplitPredictions
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings
from ccl_cli.evaluation.teacher_probe import probe, split_videos
from ccl_cli.evaluation.verdicts import NEIGHBOURS

_STUDENT = "student"


def probe_student(
    manifest: Manifest, split: str, train: SplitPredictions, test: SplitPredictions
) -> dict[str, Any]:
    """Fit nearest neighbours and a logistic regression to training features, and evaluate them.

    Args:
        manifest: Manifest with labelled videos only.
        split: Split to evaluate on.
        train: Predictions for the training split.
        test: Predictions for ``split``.

    Returns:
        ``knn``, ``linear`` and ``chance`` in percent, where videos without a feature count as errors; ``k``;
        the chosen ``penalty``; and ``per_class`` over the videos with a feature.

    Raises:
        DataError: the data set has only one class.
    """
    features = torch.cat([train.features, test.features])
    present = features.isfinite().all(dim=1)
    embedded = TeacherEmbeddings(torch.where(present[:, None], features, 0.0), present)
    figures = probe([_STUDENT], manifest, split_videos(manifest, split), {_STUDENT: embedded})
    read = figures["test"]["present"] / figures["test"]["videos"]
    shares = {name: figures[name] * read for name in ("knn", "linear", "chance") if name in figures}
    rest = {name: figures[name] for name in ("penalty", "per_class") if name in figures}
    return shares | {"k": NEIGHBOURS} | rest
