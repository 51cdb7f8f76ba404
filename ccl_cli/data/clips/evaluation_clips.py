"""Windows at test time: the crops of all clips of all videos, streamed in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.clips.samplers import FrameRange, Frames, evaluation_clips
from ccl_cli.data.clips.transforms import eval_views
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.reader import DecodedClip, iter_clips, open_video
from ccl_cli.errors import DataError


class Chunk(NamedTuple):
    """Windows of one or several videos.

    Shapes:
        windows: [n, 3, T, S, S] uint8, not normalised.
        rows: [n] int64, row of each window's video.

    Attributes:
        finished: Rows of videos without further windows, including unreadable videos.
        unreadable: Reasons by row.
    """

    windows: Tensor
    rows: Tensor
    finished: list[int]
    unreadable: dict[int, str]


@dataclass(eq=False, repr=False)
class EvaluationClips(IterableDataset[Chunk]):
    """All windows of each video. A video is unreadable if none of its clips can be decoded.

    All windows of a video come from one worker, in order.

    Attributes:
        videos: Videos to read.
        clip: Settings of the student's view.
        evaluation: Clips and crops of each video.
        chunk: Largest number of windows in a chunk.
        mixed: Whether a chunk may contain windows of several videos. If not, a network's output for a video
            does not depend on the others, not even in the last bits.
        rank: Rank of this process.
        processes: Number of processes; each reads its share of the videos.
    """

    videos: Sequence[Video]
    clip: Clip
    evaluation: Evaluation
    _: KW_ONLY
    chunk: int
    mixed: bool = True
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[Chunk]:
        """Read this worker's share of this process's share."""
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        chunk = _Chunk(self.clip)
        for row in range(self.rank + part * self.processes, len(self.videos), self.processes * parts):
            is_readable = False
            try:
                for view in self._views(row):
                    is_readable = True
                    chunk.windows.append(view)
                    chunk.rows.append(row)
                    if len(chunk.windows) == self.chunk:
                        yield chunk.collated()
                        chunk = _Chunk(self.clip)
            except DataError as error:
                if not is_readable:
                    chunk.unreadable[row] = error.message
            chunk.finished.append(row)
            if not self.mixed:
                yield chunk.collated()
                chunk = _Chunk(self.clip)
        if chunk.finished:
            yield chunk.collated()

    def _views(self, row: int) -> Iterator[Tensor]:
        video, clip = self.videos[row], self.clip
        with blaming_video(video.path):
            for decoded in read_evaluation_clips(video, clip, self.evaluation):
                yield from eval_views(decoded.frames, clip, crops=self.evaluation.crops)


def read_evaluation_clips(video: Video, clip: Clip, evaluation: Evaluation) -> Iterator[DecodedClip]:
    """Decode the clips of a video at test time, in one pass.

    Raises:
        DataError: see :func:`iter_clips`.
    """
    reader = open_video(video.path)
    first, count = reader.metadata.frame_range(video.start, video.end)

    def plan(count: int) -> list[Frames]:
        return evaluation_clips(FrameRange(reader.metadata, first, count), clip, evaluation)

    return iter_clips(reader, plan, first, count, clip.frames, short_side=clip.short_side)


class _Chunk:
    """A chunk that is being filled."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.windows: list[Tensor] = []
        self.rows: list[int] = []
        self.finished: list[int] = []
        self.unreadable: dict[int, str] = {}

    def collated(self) -> Chunk:
        """The chunk, with its windows as one tensor."""
        clip = self.clip
        empty = torch.empty(0, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
        windows = torch.stack(self.windows) if self.windows else empty
        rows = torch.tensor(self.rows, dtype=torch.long)
        return Chunk(windows, rows, self.finished, self.unreadable)
