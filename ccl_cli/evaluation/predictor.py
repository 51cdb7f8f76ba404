"""A student looks at whole videos: all windows of each, and the means over them, as soon as a video ends."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from ccl_cli.data.clips.transforms import normalize
from ccl_cli.data.clips.windows import SlidingWindows, window_loader
from ccl_cli.data.manifest import Video
from ccl_cli.training.artefact import Artefact
from ccl_cli.utils.distributed import rank, world_size
from ccl_cli.utils.progress import Reporter


class Seen(NamedTuple):
    """One video.

    Shapes:
        scores: [K] mean softmax over windows; NaN where the video could not be read.
        feature: [D] mean feature over windows, not scaled; NaN likewise.

    Attributes:
        row: Its place in the list.
        windows: How many there were.
        fault: Why it could not be read; None where it could.
    """

    row: int
    scores: Tensor
    feature: Tensor
    windows: int = 0
    fault: str | None = None


def watch(
    artefact: Artefact,
    videos: Sequence[Video],
    accelerator: Accelerator,
    *,
    batch_size: int,
    workers: int,
    title: str,
    mixed: bool = True,
) -> Generator[Seen, None, None]:
    """Run the student over all windows of this process's share of the videos.

    Yields:
        Each video once, in the order in which they end: that of the list, for each decoding process. What is
        held meanwhile are the sums of the videos that have begun.
    """
    recipe, device = artefact.recipe, accelerator.device
    student = artefact.student.to(device)
    dataset = SlidingWindows(
        videos,
        recipe.clip,
        stride=recipe.eval.stride,
        chunk=batch_size,
        mixed=mixed or device.type != "cpu",  # small batches would keep a GPU waiting
        rank=rank(),
        processes=world_size(),
    )
    nothing = Seen(-1, torch.zeros(student.num_classes), torch.zeros(student.feature_dim))
    sums: dict[int, Seen] = {}
    share = len(range(rank(), len(videos), world_size()))
    with Reporter(title, share, unit="video") as reporter:
        for chunk in window_loader(dataset, workers=workers, pin_memory=device.type == "cuda"):
            if len(chunk.rows):
                scores, features = _forward(artefact, chunk.windows, accelerator)
                for row, score, feature in zip(chunk.rows.tolist(), scores, features, strict=True):
                    before = sums.get(row, nothing)
                    sums[row] = Seen(row, before.scores + score, before.feature + feature, before.windows + 1)
            reporter.advance(len(chunk.finished))
            for row in chunk.finished:
                yield _mean(sums.pop(row, nothing), row, chunk.unreadable.get(row))


def _forward(artefact: Artefact, windows: Tensor, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
    """Scores [n, K] and features [n, D] of some windows."""
    clip = artefact.recipe.clip
    with torch.inference_mode(), accelerator.autocast():
        video = normalize(windows.to(accelerator.device, non_blocking=True), clip.mean, clip.std)
        output = artefact.student(video)
        return output.logits.float().softmax(dim=1).cpu(), output.feature.float().cpu()


def _mean(sums: Seen, row: int, fault: str | None) -> Seen:
    """A video without a window becomes NaN: zero divided by zero."""
    return Seen(row, sums.scores / sums.windows, sums.feature / sums.windows, sums.windows, fault)
