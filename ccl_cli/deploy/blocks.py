"""Predictions of video files by an executor, in blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ccl_cli import __version__
from ccl_cli.data.manifest import Video
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import Model, load_student
from ccl_cli.evaluation.predictor import VideoPrediction
from ccl_cli.executors.blocks import DONE, BlockExecutor, block_size, run_blocks
from ccl_cli.executors.work import Work
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.tensor_files import write_tensors


def predict_blocks(
    model: Model, videos: Sequence[Video], executor: BlockExecutor, title: str, settings: Mapping[str, Any]
) -> Iterator[VideoPrediction]:
    """Run :func:`ccl_cli.deploy.predict.predict_files` on blocks of the videos, and yield in their order.

    Raises:
        CclError: some blocks failed; the others are kept.
        PartDone: the executor runs a part of the blocks, and others are not done yet.
    """
    size = block_size(len(videos))
    files = [[video.id, str(video.path), *_stamp(video)] for video in videos]
    blocks = {f"{first // size:06}": files[first : first + size] for first in range(0, len(files), size)}
    shared = {"model": str(model.path.absolute()), "sha256": model.fingerprint, "settings": settings}
    folder = executor.folder(title, __version__, str(Path.cwd()), shared, [*blocks.values()])
    items: dict[str, dict[str, Any]] = {
        name: {**shared, "videos": block, "file": str(folder / f"{name}.safetensors")}
        for name, block in blocks.items()
    }
    work = Work(title, folder, f"{__name__}:run", DONE, items, ("ccl_cli.deploy.predict",))
    with Reporter(title, len(videos), unit="video") as reporter:
        sizes = {name: len(block) for name, block in blocks.items()}
        run_blocks(work, executor.settings, reporter.advance, sizes, executor.part)
    for number, item in enumerate(items.values()):
        yield from _read(Path(item["file"]), number * size)


def run(item: Mapping[str, Any]) -> None:
    """Predict one block; if the model has changed, raise a DataError."""
    from ccl_cli.deploy.predict import predict_files  # a circular import

    model = load_student(item["model"])
    if model.fingerprint != item["sha256"]:
        raise DataError("The model has changed since the command started.", "Run the same command again.")
    videos = [Video(name, Path(path), None, "test") for name, path, *_ in item["videos"]]
    predictions = sorted(predict_files(model, videos, title="predict", **item["settings"]))  # by row
    tensors = {
        "scores": torch.stack([each.scores for each in predictions]),
        "feature": torch.stack([each.feature for each in predictions]),
        "windows": torch.tensor([each.windows for each in predictions]),
    }
    faults = json.dumps([each.fault for each in predictions])
    write_tensors(Path(item["file"]), tensors, {"faults": faults})


def _stamp(video: Video) -> tuple[int, ...]:
    """Return values that differ after any change of the file or its permissions; empty if it is missing."""
    try:
        stat = Path(str(video.path)).stat()
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(path: Path, first: int) -> Iterator[VideoPrediction]:
    """Read the predictions of a block whose first video has the index ``first`` in the list."""
    with safe_open(path, "pt") as file:
        faults = json.loads(file.metadata()["faults"])
        scores, features, windows = (file.get_tensor(key) for key in ("scores", "feature", "windows"))
    for row, (score, feature, count) in enumerate(zip(scores, features, windows.tolist(), strict=True)):
        yield VideoPrediction(first + row, score, feature, count, faults[row])
