"""What a published student makes of video files that have no labels."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ccl_cli.data.clips.workers import cores
from ccl_cli.data.manifest import Video
from ccl_cli.data.video_paths import Raw
from ccl_cli.errors import WeightsError
from ccl_cli.evaluation.predictor import Seen, watch
from ccl_cli.training.artefact import Artefact, load_model
from ccl_cli.training.device import set_up
from ccl_cli.training.runs import locate_model
from ccl_cli.utils.text import visible

_FEW = 2  # files that are read sooner than a process to read them has started
_NOT_FINITE = "the model makes numbers of it that are not finite"


@dataclass(frozen=True)
class Model:
    """A published student and where it came from.

    Attributes:
        path: Its file.
        fingerprint: SHA-256 of the file.
        artefact: What is in it.
    """

    path: Path
    fingerprint: str
    artefact: Artefact

    def about(self) -> dict[str, Any]:
        """What identifies it, as plain values."""
        header = self.artefact.header
        student = str(self.artefact.recipe.student)
        return {
            "path": str(self.path),
            "sha256": self.fingerprint,
            "student": student,
            "step": header.get("step"),
        }


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


def load_student(model: str | Path | None = None) -> Model:
    """The student of a run, a model file, or of the newest run if none is named.

    Raises:
        DataError: there is no such run.
        WeightsError: it has no model, or a damaged one.
    """
    _, path = locate_model(model)
    return Model(path.absolute(), fingerprint(path), load_model(path))


def fingerprint(path: Path) -> str:
    """SHA-256 of a model file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The model '{path}' cannot be read: {error.strerror}.") from error


def see(
    model: Model,
    videos: Sequence[Video],
    *,
    title: str,
    precision: str = "fp32",
    batch_size: int | None = None,
    workers: int | None = None,
    mixed: bool = True,
) -> Generator[Seen, None, None]:
    """Look at files as ``ccl eval`` does.

    Args:
        model: The student.
        videos: From :func:`ccl_cli.data.video_paths.list_videos`.
        title: Of the progress bar.
        precision: "fp32", "bf16" or "fp16".
        batch_size: Windows per forward pass; default the recipe's.
        workers: Decoding processes; default the recipe's, at most one per core, and none for a file or two.
        mixed: False: on a CPU a feature does not depend on the other videos, not in its last bits.

    Yields:
        Each once, in the order in which they end. A fault says of "it" what is wrong.
    """
    recipe = model.artefact.recipe
    if workers is None:
        workers = 0 if len(videos) <= _FEW else min(recipe.train.workers, cores())
    found = watch(
        model.artefact,
        videos,
        set_up(precision),
        batch_size=batch_size or recipe.eval.batch_size,
        workers=workers,
        title=title,
        mixed=mixed,
    )
    for seen in found:
        yield seen._replace(fault=_fault(seen, videos[seen.row]))


def predict(model: Model, videos: Raw, *, top: int = 5, **settings: Any) -> Generator[Prediction, None, None]:
    """Name the classes of video files, as ``ccl predict`` does.

    Args:
        model: The student.
        videos: From :func:`ccl_cli.data.video_paths.list_videos`.
        top: How many classes of each.
        settings: As for :func:`see`.

    Yields:
        One for each video, in their order.
    """
    settings = {"title": "predict"} | settings
    classes = model.artefact.classes
    with closing(in_order(see(model, videos.videos, **settings))) as found:
        for seen, name in zip(found, videos.names, strict=True):
            # The order of ``ccl eval``: of equal ones the first in the list of classes.
            order = [] if seen.fault else seen.scores.argsort(descending=True, stable=True)[:top].tolist()
            named = tuple((classes[place], float(seen.scores[place])) for place in order)
            yield Prediction(name, named, seen.windows, seen.fault)


def embed(model: Model, videos: Raw, **settings: Any) -> Generator[Feature, None, None]:
    """Features of video files, as ``ccl embed`` writes them; arguments and order as for :func:`predict`."""
    settings = {"title": "embed"} | settings
    with closing(in_order(see(model, videos.videos, **settings))) as found:
        for seen, video in zip(found, videos.videos, strict=True):
            yield Feature(video, None if seen.fault else seen.feature, seen.windows, seen.fault)


def in_order(found: Iterable[Seen]) -> Generator[Seen, None, None]:
    """The same in the order of the list; the ones that end before their turn wait."""
    waiting: dict[int, Seen] = {}
    turn = 0
    for seen in found:
        waiting[seen.row] = seen
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def _fault(seen: Seen, video: Video) -> str | None:
    if seen.fault is not None:
        return seen.fault.replace(f"'{visible(str(video.path))}'", "it").rstrip(".")
    finite = seen.scores.isfinite().all() and seen.feature.isfinite().all()
    return None if finite else _NOT_FINITE
