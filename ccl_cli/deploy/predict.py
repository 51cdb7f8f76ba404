"""Prediction and feature extraction for unlabelled video files."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors import safe_open
from torch import Tensor

from ccl_cli import __version__
from ccl_cli.data.manifest import Video
from ccl_cli.data.video_paths import VideoFiles
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import Model, load_student
from ccl_cli.evaluation.predictor import VideoPrediction, from_all, in_order, predict_videos
from ccl_cli.executors.blocks import DONE, BlockExecutor, block_size, run_blocks
from ccl_cli.executors.work import Work
from ccl_cli.training.compute.device import set_up
from ccl_cli.utils.distributed import gather_objects, world_size
from ccl_cli.utils.processes import cores
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.tensor_files import write_tensors
from ccl_cli.utils.text import visible

_FEW = 2  # starting a worker takes longer than reading this number of files


@dataclass(frozen=True)
class Prediction:
    """Most probable classes of a video.

    Attributes:
        path: Path as given by the user.
        classes: Names and probabilities, most probable first; empty for unreadable files.
        windows: Number of averaged windows.
        fault: Reason why the file could not be read, or None.
    """

    path: str
    classes: tuple[tuple[str, float], ...]
    windows: int
    fault: str | None


@dataclass(frozen=True)
class Feature:
    """Feature of a video.

    Attributes:
        video: File and id.
        vector: [D] mean over windows, not normalised; None with a ``fault``.
        windows: Number of averaged windows.
        fault: Reason why the file could not be read, or None.
    """

    video: Video
    vector: Tensor | None
    windows: int
    fault: str | None


def predict_files(
    model: Model,
    videos: Sequence[Video],
    *,
    title: str,
    precision: str = "fp32",
    batch_size: int | None = None,
    workers: int | None = None,
    mixed: bool = True,
    executor: BlockExecutor | None = None,
) -> Generator[VideoPrediction, None, None]:
    """Compute scores and features of files as in ``ccl eval``, shared among all processes.

    Args:
        model: Published student.
        videos: Return value of :func:`ccl_cli.data.video_paths.list_videos`.
        title: Title of the progress bar.
        precision: "fp32", "bf16" or "fp16".
        batch_size: Windows per forward pass. Default: the recipe's.
        workers: Decoding processes. Default: the recipe's, at most one per core, and none for one or two
            files.
        mixed: Allow windows of several videos in one batch. If False, features on a CPU do not depend on
            other videos, not even in the last bits.
        executor: Executor that computes the predictions in blocks of videos. None: all processes of this
            command.

    Yields:
        Each video once, in order of completion, on every process. Faults are phrases that start with "it".

    Raises:
        DataError: the processes list different files.
        CclError: the executor failed on some blocks; the others are kept.
    """
    if executor:
        settings = {"precision": precision, "batch_size": batch_size, "workers": workers, "mixed": mixed}
        yield from _predict_blocks(model, videos, executor, title, settings)
        return
    accelerator = set_up(precision)
    # Processes exchange indices into the list.
    if world_size() > 1 and len(set(gather_objects(crc32(repr(videos).encode())))) > 1:
        raise DataError(
            "The processes list different video files.",
            "Use folders on a shared disk, and do not change them while the command runs.",
        )
    if workers is None:
        workers = 0 if len(videos) <= _FEW else min(model.artefact.recipe.train.workers, cores())
    predictions = predict_videos(
        model.artefact,
        videos,
        accelerator,
        batch_size=batch_size,
        workers=workers,
        title=title,
        mixed=mixed,
    )
    for prediction in from_all(predictions):
        yield prediction._replace(fault=_fault(prediction, videos[prediction.row]))


def predict(
    model: Model, videos: VideoFiles, *, top: int = 5, **settings: Any
) -> Generator[Prediction, None, None]:
    """Predict the classes of video files, as ``ccl predict`` does.

    Args:
        model: The student.
        videos: From :func:`ccl_cli.data.video_paths.list_videos`.
        top: Number of classes per video.
        settings: See :func:`predict_files`.

    Yields:
        One prediction per video, in order.

    Raises:
        UsageError: the student was trained without labels.
    """
    model.need_classes()
    classes = model.artefact.classes
    with closing(in_order(predict_files(model, videos.videos, title="predict", **settings))) as predictions:
        for each, name in zip(predictions, videos.names, strict=True):
            # As in ``ccl eval``, the first of equal scores wins.
            order = [] if each.fault else each.scores.argsort(descending=True, stable=True)[:top].tolist()
            best = tuple((classes[label], float(each.scores[label])) for label in order)
            yield Prediction(name, best, each.windows, each.fault)


def embed(model: Model, videos: VideoFiles, **settings: Any) -> Generator[Feature, None, None]:
    """Compute features as ``ccl embed`` does; for arguments and order see :func:`predict`."""
    with closing(in_order(predict_files(model, videos.videos, title="embed", **settings))) as predictions:
        for each, video in zip(predictions, videos.videos, strict=True):
            yield Feature(video, None if each.fault else each.feature, each.windows, each.fault)


def _predict_blocks(
    model: Model, videos: Sequence[Video], executor: BlockExecutor, title: str, settings: Mapping[str, Any]
) -> Iterator[VideoPrediction]:
    """Run :func:`predict_files` on blocks of the videos, and yield in their order."""
    size = block_size(len(videos))
    files = [[video.id, str(video.path), *_stamp(video)] for video in videos]
    blocks = {f"{first // size:06}": files[first : first + size] for first in range(0, len(files), size)}
    shared = {"model": str(model.path.absolute()), "sha256": model.fingerprint, "settings": settings}
    folder = executor.folder(title, __version__, str(Path.cwd()), shared, [*blocks.values()])
    items: dict[str, dict[str, Any]] = {
        name: {**shared, "videos": block, "file": str(folder / f"{name}.safetensors")}
        for name, block in blocks.items()
    }
    work = Work(title, folder, f"{__name__}:predict_block", DONE, items, (__name__,))
    with Reporter(title, len(videos), unit="video") as reporter:
        sizes = {name: len(block) for name, block in blocks.items()}
        run_blocks(work, executor.settings, reporter.advance, sizes, executor.part)
    for number, item in enumerate(items.values()):
        yield from _read_block(Path(item["file"]), number * size)


def predict_block(item: Mapping[str, Any]) -> None:
    """Predict one block; if the model has changed, raise a DataError."""
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


def _read_block(path: Path, first: int) -> Iterator[VideoPrediction]:
    """Read the predictions of a block whose first video has the index ``first`` in the list."""
    with safe_open(path, "pt") as file:
        faults = json.loads(file.metadata()["faults"])
        scores, features, windows = (file.get_tensor(key) for key in ("scores", "feature", "windows"))
    for row, (score, feature, count) in enumerate(zip(scores, features, windows.tolist(), strict=True)):
        yield VideoPrediction(first + row, score, feature, count, faults[row])


def _fault(prediction: VideoPrediction, video: Video) -> str | None:
    if prediction.fault is not None:
        return prediction.fault.replace(f"'{visible(str(video.path))}'", "it").rstrip(".")
    finite = prediction.scores.isfinite().all() and prediction.feature.isfinite().all()
    return None if finite else "the model's output is not finite"
