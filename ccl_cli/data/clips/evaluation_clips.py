"""Windows at test time: the crops of all clips of all videos, streamed in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.clips.samplers import FrameRange, Frames, evaluation_clips
from ccl_cli.data.clips.transforms import eval_views
from ccl_cli.data.manifest import Video
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
        chunk = _Chunk()
        for row in range(self.rank + part * self.processes, len(self.videos), self.processes * parts):
            is_readable = False
            try:
                for view in self._views(row):
                    is_readable = True
                    chunk.windows.append(view)
                    chunk.rows.append(row)
                    if len(chunk.windows) == self.chunk:
                        yield self._collate(chunk)
                        chunk = _Chunk()
            except DataError as error:
                if not is_readable:
                    chunk.unreadable[row] = error.message
            chunk.finished.append(row)
            if not self.mixed:
                yield self._collate(chunk)
                chunk = _Chunk()
        if chunk.finished:
            yield self._collate(chunk)

    def _views(self, row: int) -> Iterator[Tensor]:
        for decoded in read_evaluation_clips(self.videos[row], self.clip, self.evaluation):
            yield from eval_views(decoded.frames, self.clip, crops=self.evaluation.crops)

    def _collate(self, chunk: _Chunk) -> Chunk:
        empty = torch.empty(0, 3, self.clip.frames, self.clip.size, self.clip.size, dtype=torch.uint8)
        windows = torch.stack(chunk.windows) if chunk.windows else empty
        return Chunk(windows, torch.tensor(chunk.rows, dtype=torch.long), chunk.finished, chunk.unreadable)


def read_evaluation_clips(video: Video, clip: Clip, evaluation: Evaluation) -> Iterator[DecodedClip]:
    """Decode the clips of a video at test time, in one pass.

    Raises:
        DataError: see :func:`iter_clips`.
    """
    reader = open_video(video.path)
    first, count = reader.metadata.frame_range(video.start, video.end)

    def plan(end: int) -> list[Frames]:
        return evaluation_clips(FrameRange(reader.metadata, first, end - first), clip, evaluation)

    return iter_clips(reader, plan, first + count, clip.frames, short_side=clip.short_side)


@dataclass
class _Chunk:
    """A chunk that is being filled."""

    windows: list[Tensor] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
