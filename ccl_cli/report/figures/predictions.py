"""Predictions and features of the best run, for the figures that show its videos."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError
from ccl_cli.evaluation.prediction_cache import Predictions, cached_predictions
from ccl_cli.report.records.results import Results


def predictions(results: Results, split: str) -> Predictions:
    """Predictions of the best run for the readable videos of one split, cached in the run folder.

    Raises:
        DataError: the videos are missing, or the run was evaluated on other videos than its own.
    """
    results.best_run.check_own_videos(results.data)
    return _readable(results.best_run.folder, split)


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise features [V, D] to unit length, in place."""
    norms = np.sqrt(np.einsum("vd,vd->v", features, features))
    features /= np.where(norms == 0, 1, norms)[:, None]
    return features


@lru_cache(maxsize=4)
def _readable(folder: Path, split: str) -> Predictions:
    every = cached_predictions(folder, split)
    readable = np.concatenate([np.isfinite(block).all(axis=1) for block in every.feature_blocks()])
    if not readable.any():
        raise DataError(f"None of the {split} videos of '{folder}' can be read.")
    return every.take(readable)
