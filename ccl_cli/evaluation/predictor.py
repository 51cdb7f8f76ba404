"""Prediction on whole videos: scores and features of all windows, averaged per video."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from ccl_cli.data.clips.evaluation_clips import EvaluationClips
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.clips.transforms import normalize
from ccl_cli.data.manifest import Video
from ccl_cli.training.run.artefact import Artefact
from ccl_cli.utils.distributed import gather_objects, rank, total, world_size
from ccl_cli.utils.progress import Reporter

_BLOCK = 64  # videos per process in each exchange


class VideoPrediction(NamedTuple):
    """Prediction for one video.

    Attributes:
        row: Index in the list of videos.
        scores: [K] mean softmax over windows; NaN for an unreadable video.
        feature: [D] mean feature over windows, not normalised; NaN for an unreadable video.
        windows: Number of windows.
        fault: Reason why the video could not be read, or None.
    """

    row: int
    scores: Tensor
    feature: Tensor
    windows: int = 0
    fault: str | None = None


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions for all videos of a split, as in :class:`VideoPrediction`.

    Shapes: scores: [V, K]. features: [V, D]. labels: [V] int64.

    Attributes:
        unreadable: Reasons by row, including videos that are not on disk.
    """

    scores: Tensor
    features: Tensor
    labels: Tensor
    unreadable: dict[int, str]

    @property
    def predicted(self) -> Tensor:
        """[V] int64: the class with the highest score; -1 if there is none, or no readable video."""
        if not self.scores.shape[1]:
            return torch.full_like(self.labels, -1)
        return self.scores.argmax(dim=1).where(self.scores[:, 0].isfinite(), -1)


def predict_videos(
    artefact: Artefact,
    videos: Sequence[Video],
    accelerator: Accelerator,
    *,
    title: str,
    batch_size: int | None = None,
    workers: int | None = None,
    mixed: bool = True,
) -> Generator[VideoPrediction, None, None]:
    """Run the student on all windows of this process's share of the videos.

    ``batch_size`` (windows per forward pass) and ``workers`` (decoding processes) default to the recipe's.

    Yields:
        Each video once, in order of completion, which is the order of the list within a decoding process.
        Memory holds the sums of unfinished videos.
    """
    recipe, device = artefact.recipe, accelerator.device
    student = artefact.student.to(device)
    dataset = EvaluationClips(
        videos,
        recipe.clip,
        recipe.eval,
        chunk=batch_size or recipe.eval.batch_size,
        mixed=mixed or device.type != "cpu",  # small batches are inefficient on a GPU
        rank=rank(),
        processes=world_size(),
    )
    zero = torch.zeros(student.num_classes), torch.zeros(student.feature_dim), 0
    sums: dict[int, tuple[Tensor, Tensor, int]] = {}
    workers = recipe.train.workers if workers is None else workers
    share = len(range(rank(), len(videos), world_size()))
    with Reporter(title, share, unit="video") as reporter:
        for chunk in read_batches(dataset, workers, pin_memory=device.type == "cuda"):
            if len(chunk.rows):
                scores, features = _forward(artefact, chunk.windows, accelerator)
                for row, score, feature in zip(chunk.rows.tolist(), scores, features, strict=True):
                    scores_sum, feature_sum, count = sums.get(row, zero)
                    sums[row] = scores_sum + score, feature_sum + feature, count + 1
            reporter.advance(len(chunk.finished))
            for row in chunk.finished:  # a video without windows becomes NaN
                scores_sum, feature_sum, count = sums.pop(row, zero)
                fault = chunk.unreadable.get(row)
                yield VideoPrediction(row, scores_sum / count, feature_sum / count, count, fault)


def predict_split(
    artefact: Artefact,
    videos: Sequence[Video],
    accelerator: Accelerator,
    *,
    title: str = "eval",
    batch_size: int | None = None,
    workers: int | None = None,
) -> SplitPredictions:
    """Run the student on all windows of all videos, shared among the processes."""
    scores = torch.zeros(len(videos), artefact.student.num_classes)
    features = torch.zeros(len(videos), artefact.student.feature_dim)
    unreadable: dict[int, str] = {}
    for video in predict_videos(
        artefact, videos, accelerator, title=title, batch_size=batch_size, workers=workers
    ):
        scores[video.row], features[video.row] = video.scores, video.feature
        if video.fault is not None:
            unreadable[video.row] = video.fault
    # Rows of other processes are zero. Sum on the device, because NCCL cannot send CPU tensors.
    scores, features = (total(each.to(accelerator.device)).cpu() for each in (scores, features))
    for of_process in gather_objects(unreadable):
        unreadable |= of_process
    labels = torch.tensor([video.target for video in videos], dtype=torch.long)
    return SplitPredictions(scores, features, labels, unreadable)


def from_all(predictions: Iterable[VideoPrediction]) -> Generator[VideoPrediction, None, None]:
    """Exchange predictions of all processes in blocks. All processes must consume the whole iterator."""
    if world_size() == 1:
        yield from predictions
        return
    own = iter(predictions)
    while any(blocks := gather_objects(list(islice(own, _BLOCK)))):
        yield from chain.from_iterable(blocks)


def in_order(predictions: Iterable[VideoPrediction]) -> Generator[VideoPrediction, None, None]:
    """Yield predictions in the order of the list, buffering those that are early."""
    waiting: dict[int, VideoPrediction] = {}
    next_row = 0
    for prediction in predictions:
        waiting[prediction.row] = prediction
        while next_row in waiting:
            yield waiting.pop(next_row)
            next_row += 1


def _forward(artefact: Artefact, windows: Tensor, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
    """Compute scores [n, K] and features [n, D] of some windows."""
    clip = artefact.recipe.clip
    with torch.inference_mode(), accelerator.autocast():
        video = normalize(windows.to(accelerator.device, non_blocking=True), clip.mean, clip.std)
        output = artefact.student(video)
        return output.logits.float().softmax(dim=1).cpu(), output.feature.float().cpu()
