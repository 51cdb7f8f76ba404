"""Predictions and features of the best run, for the figures that show its videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.report.records.results import Results

if TYPE_CHECKING:
    from ccl_cli.data.manifest import Video


@dataclass(frozen=True)
class Predictions:
    """Predictions of a run's student for the readable videos of one split.

    Shapes:
        predicted: [V] class with the highest score; -1 if the student has no classifier.
        features: [V, D] unit vectors.
        labels: [V].
    """

    classes: tuple[str, ...]
    videos: Sequence[Video]
    predicted: NDArray[np.int64]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]

    def take(self, places: NDArray[Any]) -> Predictions:
        """Select videos by indices [N] or by a mask [V]."""
        videos = tuple(self.videos[place] for place in np.arange(len(self.videos))[places])
        return Predictions(
            self.classes, videos, self.predicted[places], self.features[places], self.labels[places]
        )


def predictions(results: Results, split: str) -> Predictions:
    """Predictions of the best run on one split, cached in the run folder.

    Raises:
        DataError: the videos are missing, or the run was evaluated on other videos than its own.
    """
    results.best_run.check_own_videos(results.data)
    return _predictions(results.best_run.folder, split)


@lru_cache(maxsize=4)
def _predictions(folder: Path, split: str) -> Predictions:
    from ccl_cli.evaluation.prediction_cache import cached_predictions

    cached = cached_predictions(folder, split)
    arrays = cached.predictions.predicted, cached.predictions.features, cached.predictions.labels
    complete = Predictions(cached.classes, cached.videos, *arrays)
    readable = np.asarray(np.isfinite(complete.features).all(axis=1))
    if not readable.any():
        raise DataError(f"None of the {split} videos of '{cached.name}' can be read.")
    predictions = complete if readable.all() else complete.take(readable)
    features = predictions.features  # normalised in place: 5,000 classes have 40 MB of features per copy
    norms = np.sqrt(np.einsum("vd,vd->v", features, features))
    features /= np.where(norms == 0, 1, norms)[:, None]
    return predictions
