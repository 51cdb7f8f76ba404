"""One run's videos as arrays: who is taken for whom, and who lies near whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.report.study import Study

if TYPE_CHECKING:
    from ccl_cli.data.manifest import Video


@dataclass(frozen=True)
class View:
    """The readable videos of one split.

    Shapes:
        scores: [V, K] mean probabilities.
        features: [V, D] of length one.
        labels: [V].
    """

    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    scores: NDArray[np.float32]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def views(study: Study) -> tuple[View, View]:
    """The queries' split and the training split, as the shown run's student sees them.

    Raises:
        DataError: the videos are gone, or the run was evaluated on other videos than its own.
    """
    study.shown.check_own(study.data)
    queries, gallery = (_view(study.shown.folder, split) for split in (study.split, "train"))
    return queries, gallery


@lru_cache(maxsize=4)
def _view(folder: Path, split: str) -> View:
    from ccl_cli.evaluation.prediction_cache import cached_predictions

    found = cached_predictions(folder, split)
    features = found.predictions.features.numpy()
    read = np.isfinite(features).all(axis=1)
    if not read.any():
        raise DataError(f"None of the {split} videos of '{found.name}' can be read.")
    features = features[read]
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return View(
        found.classes,
        tuple(video for video, there in zip(found.videos, read, strict=True) if there),
        found.predictions.scores.numpy()[read],
        features / np.maximum(lengths, 1e-12),
        found.predictions.labels.numpy()[read],
    )
