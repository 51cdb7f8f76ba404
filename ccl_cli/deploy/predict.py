"""Classes and features of video files that have no labels."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from torch import Tensor

from ccl_cli.data.manifest import Video
from ccl_cli.data.video_paths import Raw
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import Model
from ccl_cli.evaluation.predictor import VideoPrediction, from_all, in_order, predict_videos
from ccl_cli.training.compute.device import set_up
from ccl_cli.utils.distributed import gather_objects, world_size
from ccl_cli.utils.processes import cores
from ccl_cli.utils.text import visible

_FEW = 2  # files that are read sooner than a process to read them has started
_NOT_FINITE = "the model makes numbers of it that are not finite"


@dataclass(frozen=True)
class Prediction:
    """A video's most probable classes.

    Attributes:
        path: The file, as it was named.
        classes: Names and probabilities, the most probable first; empty where it could not be read.
        windows: How many the probabilities are the mean of.
        fault: Why it could not be read; None where it could.
    """

    path: str
    classes: tuple[tuple[str, float], ...]
    windows: int
    fault: str | None


@dataclass(frozen=True)
class Feature:
    """A video's feature.

    Shapes:
        vector: [D] mean over windows, not scaled (retrieval compares by cosine); None with a ``fault``.

    Attributes:
        video: The file and its id.
        windows: How many it is the mean of.
        fault: Why it could not be read; None where it could.
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
) -> Generator[VideoPrediction, None, None]:
    """Scores and features of files, computed as ``ccl eval`` does, by all processes of a launcher together.

    Args:
        model: The student.
        videos: From :func:`ccl_cli.data.video_paths.list_videos`.
        title: Of the progress bar.
        precision: "fp32", "bf16" or "fp16".
        batch_size: Windows per forward pass; default the recipe's.
        workers: Decoding processes; default the recipe's, at most one per core, and none for a file or two.
        mixed: False: on a CPU a feature does not depend on the other videos, not in its last bits.

    Yields:
        Each once, in the order in which they end, on every process. A fault says of "it" what is wrong.

    Raises:
        DataError: the processes do not see the same files.
    """
    recipe, accelerator = model.artefact.recipe, set_up(precision)
    _check_same(videos)
    if workers is None:
        workers = 0 if len(videos) <= _FEW else min(recipe.train.workers, cores())
    predictions = predict_videos(
        model.artefact,
        videos,
        accelerator,
        batch_size=batch_size or recipe.eval.batch_size,
        workers=workers,
        title=title,
        mixed=mixed,
    )
    for prediction in from_all(predictions):
        yield prediction._replace(fault=_fault(prediction, videos[prediction.row]))


def predict(model: Model, videos: Raw, *, top: int = 5, **settings: Any) -> Generator[Prediction, None, None]:
    """Name the classes of video files, as ``ccl predict`` does.

    Args:
        model: The student.
        videos: From :func:`ccl_cli.data.video_paths.list_videos`.
        top: How many classes of each.
        settings: As for :func:`predict_files`.

    Yields:
        One for each video, in their order.

    Raises:
        UsageError: the student was trained without labels.
    """
    settings = {"title": "predict"} | settings
    model.need_classes()
    classes = model.artefact.classes
    with closing(in_order(predict_files(model, videos.videos, **settings))) as predictions:
        for each, name in zip(predictions, videos.names, strict=True):
            # The order of ``ccl eval``: of equal ones the first in the list of classes.
            order = [] if each.fault else each.scores.argsort(descending=True, stable=True)[:top].tolist()
            best = tuple((classes[label], float(each.scores[label])) for label in order)
            yield Prediction(name, best, each.windows, each.fault)


def embed(model: Model, videos: Raw, **settings: Any) -> Generator[Feature, None, None]:
    """Features of video files, as ``ccl embed`` writes them; arguments and order as for :func:`predict`."""
    settings = {"title": "embed"} | settings
    with closing(in_order(predict_files(model, videos.videos, **settings))) as predictions:
        for each, video in zip(predictions, videos.videos, strict=True):
            yield Feature(video, None if each.fault else each.feature, each.windows, each.fault)


def _check_same(videos: Sequence[Video]) -> None:
    """Processes list the files each for itself, and mean by a number the file at that place."""
    if world_size() > 1 and len(set(gather_objects(crc32(repr(videos).encode())))) > 1:
        raise DataError(
            "The processes do not see the same video files.",
            "Name folders that every machine sees, and to which nothing is added meanwhile.",
        )


def _fault(prediction: VideoPrediction, video: Video) -> str | None:
    if prediction.fault is not None:
        return prediction.fault.replace(f"'{visible(str(video.path))}'", "it").rstrip(".")
    finite = prediction.scores.isfinite().all() and prediction.feature.isfinite().all()
    return None if finite else _NOT_FINITE
