"""Cache of predicted classes and features of a run's videos, in its folder. Reading it imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.video.storage import size_of
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import fingerprint, missing_videos, run_manifest
from ccl_cli.training.run.folder import RunFolder

if TYPE_CHECKING:
    from ccl_cli.evaluation.predictor import SplitPredictions

_HEADER, _ABSENT = "ccl", -1


class CacheHeader(BaseModel, strict=True):
    """Header that identifies cached predictions.

    Attributes:
        model: SHA-256 of the model file.
        videos: Hash of the split's ids, labels and segments.
        unreadable: Reasons of unreadable videos by row.
    """

    model: str
    videos: str
    unreadable: dict[int, str] = {}


@dataclass(frozen=True)
class CachedPredictions:
    """Predictions for all videos of a split, without scores, which take 20 KB per video with 5,000 classes.

    Shapes:
        predicted: [V] int64 class with the highest score, or -1; see :attr:`SplitPredictions.predicted`.
        features: [V, D] mean feature over windows; NaN for unreadable videos.
        labels: [V] int64.

    Attributes:
        unreadable: Reasons by row, including videos that are not on disk.
    """

    predicted: NDArray[np.int64]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    unreadable: dict[int, str]


@dataclass(frozen=True)
class RunPredictions:
    """A split of a run's data set and the student's predictions."""

    name: str
    classes: tuple[str, ...]
    videos: Sequence[Video]
    predictions: CachedPredictions


def cached_predictions(folder: Path, split: str) -> RunPredictions:
    """Predict a split of the run's data set with its student, or load the cached predictions.

    Cached in ``predictions-<data>-<split>.safetensors``; recomputed if the model, the manifest or a file has
    changed. Deleted files do not invalidate the cache.

    Raises:
        DataError: the run has no manifest, or none of its videos exists.
        WeightsError: the model is missing or damaged.
    """
    run = RunFolder(folder)
    manifest = run_manifest(folder).labelled()
    videos = manifest.split(split)
    if not videos:
        raise DataError(
            f"The data set '{manifest.name}' has no {split} split.", "`ccl data check` counts its splits."
        )
    path, header, sizes = _place(run, manifest, split)
    predictions = read_cache(path, header, sizes)
    if predictions is None:
        if set(sizes) == {_ABSENT}:
            raise missing_videos(f"{split} videos", manifest.name, videos[0])
        predictions = _cached(_compute(run, videos, split))
        _write_cache(path, predictions, header, sizes)
    return RunPredictions(manifest.name, manifest.classes, videos, predictions)


def cache_predictions(run: RunFolder, manifest: Manifest, split: str, predictions: SplitPredictions) -> None:
    """Store predictions of an evaluation for :func:`cached_predictions`.

    Args:
        run: Run whose published model was evaluated in float32 with the recipe's batch size.
        manifest: Manifest of the run, with labelled videos only.
        split: Split of the manifest.
        predictions: Predictions in the order of the split.
    """
    path, header, sizes = _place(run, manifest, split)
    _write_cache(path, _cached(predictions), header, sizes)


def _cached(each: SplitPredictions) -> CachedPredictions:
    arrays = (each.predicted.numpy(), each.features.numpy(), each.labels.numpy())
    return CachedPredictions(*arrays, each.unreadable)


def _place(run: RunFolder, manifest: Manifest, split: str) -> tuple[Path, CacheHeader, list[int]]:
    """Path and header of the cached predictions, and the current size of each video in bytes."""
    videos = manifest.split(split)
    sizes = [_ABSENT if size is None else size for size in (size_of(video.path) for video in videos)]
    header = CacheHeader(model=fingerprint(run.model), videos=_hash_rows(manifest, videos))
    name = re.sub(r"[^\w.-]+", "_", manifest.name)
    return run.path / f"predictions-{name}-{split}.safetensors", header, sizes


def read_cache(path: Path, expected: CacheHeader, sizes: Sequence[int]) -> CachedPredictions | None:
    """Read cached predictions; None if they are missing, damaged or outdated."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = CacheHeader.model_validate_json((file.metadata() or {}).get(_HEADER, "{}"))
            names = ("predicted", "features", "labels", "sizes")
            predicted, features, labels, cached_sizes = (file.get_tensor(name) for name in names)
    except (SafetensorError, OSError, ValidationError):
        return None
    if (header.model, header.videos) != (expected.model, expected.videos):
        return None
    pairs = zip(sizes, cached_sizes.tolist(), strict=False)
    if any(size not in (cached, _ABSENT) for size, cached in pairs):
        return None
    return CachedPredictions(predicted, features, labels, header.unreadable)


def _compute(run: RunFolder, videos: Sequence[Video], split: str) -> SplitPredictions:
    from ccl_cli.evaluation.predictor import predict_split
    from ccl_cli.training.compute.device import set_up
    from ccl_cli.training.run.artefact import load_model

    artefact = load_model(run.model)
    recipe = artefact.recipe
    return predict_split(
        artefact,
        videos,
        set_up("fp32"),
        batch_size=recipe.eval.batch_size,
        workers=recipe.train.workers,
        title=f"{run.path.name} {split}",
    )


def _write_cache(
    path: Path, predictions: CachedPredictions, header: CacheHeader, sizes: Sequence[int]
) -> None:
    import torch

    from ccl_cli.utils.tensor_files import write_tensors

    arrays = {
        "predicted": predictions.predicted,
        "features": predictions.features,
        "labels": predictions.labels,
        "sizes": np.array(sizes, np.int64),
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    header = header.model_copy(update={"unreadable": predictions.unreadable})
    write_tensors(path, tensors, {_HEADER: header.model_dump_json()})


def _hash_rows(manifest: Manifest, videos: Sequence[Video]) -> str:
    rows = [(video.id, video.label, video.start, video.end) for video in videos]
    return hashlib.sha256(json.dumps([manifest.classes, rows]).encode()).hexdigest()
