"""What a student's frozen features know of the classes: the teachers' probe, on features of whole videos."""

from __future__ import annotations

from typing import Any

import torch

from ccl_cli.data.manifest import Manifest
from ccl_cli.evaluation.predictor import SplitPredictions
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings
from ccl_cli.evaluation.teacher_probe import NEIGHBOURS, probe, split_videos

_STUDENT = "student"


def probe_student(
    manifest: Manifest, split: str, train: SplitPredictions, test: SplitPredictions
) -> dict[str, Any]:
    """Fit nearest neighbours and a logistic regression to the training features, and judge them.

    Args:
        manifest: With labelled videos only.
        split: Whose videos to judge on.
        train: Of the manifest's training split.
        test: Of ``split``.

    Returns:
        ``knn``, ``linear`` and ``chance`` in percent, where a video without a feature is an error; ``k``; the
        ``penalty`` chosen; and ``per_class`` over the videos that have a feature.

    Raises:
        DataError: one class.
    """
    features = torch.cat([train.features, test.features])
    present = features.isfinite().all(dim=1)
    embedded = TeacherEmbeddings(torch.where(present[:, None], features, 0.0), present)
    figures = probe([_STUDENT], manifest, split_videos(manifest, split), {_STUDENT: embedded})
    read = figures["test"]["present"] / figures["test"]["videos"]
    shares = {name: figures[name] * read for name in ("knn", "linear", "chance") if name in figures}
    rest = {name: figures[name] for name in ("penalty", "per_class") if name in figures}
    return shares | {"k": NEIGHBOURS} | rest
