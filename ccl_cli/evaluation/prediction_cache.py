"""Cache of predicted classes and features of a run's videos, in its folder. Reading it imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ccl_cli.data.manifest import ABSENT, UNLABELLED, Manifest, Videos
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import fingerprint, missing_videos, run_manifest
from ccl_cli.training.run.folder import RunFolder

if TYPE_CHECKING:
    from ccl_cli.evaluation.predictor import SplitPredictions

_BLOCK = 2048  # videos whose features are read at once


@dataclass(frozen=True)
class Predictions:
    """Predictions of a run's student for videos of one split.

    Scores are not kept: a video has 20 KB of them with 5,000 classes.

    Shapes:
        predicted: [V] int64 class with the highest score, or -1; see :attr:`SplitPredictions.predicted`.
        labels: [V] int64.
        rows: [V] row of each video in the file.
    """

    classes: tuple[str, ...]
    videos: Videos
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    rows: NDArray[np.intp]
    path: Path

    def take(self, places: NDArray[Any]) -> Predictions:
        """Select videos by indices [N] or by a mask [V]."""
        places = np.arange(len(self.rows))[places]
        predicted, labels, rows = (each[places] for each in (self.predicted, self.labels, self.rows))
        return Predictions(self.classes, self.videos.take(places), predicted, labels, rows, self.path)

    def feature_blocks(self) -> Iterator[NDArray[np.float32]]:
        """The rows of :attr:`features`, some at a time: those of 20,000 videos take 41 MB."""
        for begin in range(0, len(self.rows), _BLOCK):
            yield self.take(np.arange(begin, min(begin + _BLOCK, len(self.rows)))).features

    @property
    def features(self) -> NDArray[np.float32]:
        """[V, D] mean feature over windows, read from the file; NaN for unreadable videos."""
        with safe_open(self.path, framework="numpy") as file:
            count, width = file.get_slice("features").get_shape()
        features = np.empty((len(self.rows), width), np.float32)
        for block in np.unique(self.rows // _BLOCK):
            places = np.flatnonzero(self.rows // _BLOCK == block)
            begin = int(block) * _BLOCK
            # Opened for each block, because closing the file unmaps what was read.
            with safe_open(self.path, framework="numpy") as file:
                part = file.get_slice("features")[begin : min(begin + _BLOCK, count)]
            features[places] = part[self.rows[places] - begin]
        return features


def cached_predictions(folder: Path, split: str) -> Predictions:
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
    place = path, _, sizes = _place(run, manifest, split)
    cached = _read_cache(*place)
    if cached is None:
        if set(sizes) == {ABSENT}:
            raise missing_videos(f"{split} videos", manifest.name, videos[0])
        computed = _compute(run, videos, split)
        _write_cache(*place, computed)
        cached = computed.predicted.numpy(), computed.labels.numpy()
    return Predictions(manifest.classes, videos, *cached, np.arange(len(videos)), path)


def cache_predictions(run: RunFolder, manifest: Manifest, split: str, predictions: SplitPredictions) -> None:
    """Store predictions of an evaluation for :func:`cached_predictions`.

    The run's published model was evaluated on labelled videos in float32 with the recipe's batch size.
    """
    _write_cache(*_place(run, manifest, split), predictions)


def _place(run: RunFolder, manifest: Manifest, split: str) -> tuple[Path, str, list[int]]:
    """Path of the cached predictions, their key, and the current size of each video in bytes.

    The key is a hash of the model file, the classes, and the ids, labels and segments of the split.
    """
    videos = manifest.split(split)
    sizes = list(videos.columns.measure(videos.numbers))
    labels = (None if label == UNLABELLED else label for label in videos.column("label").tolist())
    times = (
        [None if math.isnan(at) else at for at in videos.column(name).tolist()] for name in ("start", "end")
    )
    rows = list(zip(videos.ids, labels, *times, strict=True))
    content = json.dumps([fingerprint(run.model), manifest.classes, rows])
    name = re.sub(r"[^\w.-]+", "_", manifest.name)
    path = run.path / f"predictions-{name}-{split}.safetensors"
    return path, hashlib.sha256(content.encode()).hexdigest(), sizes


def _read_cache(
    path: Path, key: str, sizes: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Read classes and labels; None if the cache is missing, damaged or outdated."""
    try:
        with safe_open(path, framework="numpy") as file:
            same = (file.metadata() or {}).get("key") == key
            names = ("predicted", "labels", "sizes")
            predicted, labels, cached_sizes = (file.get_tensor(name) for name in names)
            file.get_slice("features")
    except (SafetensorError, OSError):
        return None
    pairs = zip(sizes, cached_sizes.tolist(), strict=False)
    changed = any(size not in (cached, ABSENT) for size, cached in pairs)
    return (predicted, labels) if same and not changed else None


def _compute(run: RunFolder, videos: Videos, split: str) -> SplitPredictions:
    from ccl_cli.evaluation.predictor import predict_split
    from ccl_cli.training.compute.device import set_up
    from ccl_cli.training.run.artefact import load_model

    return predict_split(load_model(run.model), videos, set_up("fp32"), title=f"{run.path.name} {split}")


def _write_cache(path: Path, key: str, sizes: Sequence[int], predictions: SplitPredictions) -> None:
    import torch

    from ccl_cli.utils.tensor_files import write_tensors

    tensors = {
        "predicted": predictions.predicted,
        "features": predictions.features.contiguous(),
        "labels": predictions.labels,
        "sizes": torch.tensor(sizes),
    }
    write_tensors(path, tensors, {"key": key})
