"""Evaluation samples: every window of every video, streamed in chunks of bounded size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.replacement import reading, replacing
from ccl_cli.data.clips.transforms import eval_view
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.decode import iter_windows


class Chunk(NamedTuple):
    """Some windows of one or several videos, and the videos that end with them.

    Shapes:
        windows: [n, 3, T, S, S] uint8, not normalised.
        rows: [n] int64, each window's video.

    Attributes:
        finished: Videos of which no further window comes, unreadable ones among them.
        unreadable: Why, by video.
    """

    windows: Tensor
    rows: Tensor
    finished: list[int]
    unreadable: dict[int, str]


class SlidingWindows(IterableDataset[Chunk]):
    """Consecutive windows of each video, centre crop, as :func:`iter_windows` slides them.

    A video counts as unreadable when not one of its windows can be decoded.

    Args:
        videos: Videos to read.
        clip: The student's view.
        stride: Frames between window starts.
        chunk: Windows per chunk.
        mixed: Whether a chunk may hold windows of several videos. If not, what a network makes of a video
            does not depend on the others in its last bits.
        rank: This process.
        processes: Number of processes; each reads its share of the videos.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clip: Clip,
        *,
        stride: int,
        chunk: int,
        mixed: bool = True,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.videos = videos
        self.clip = clip
        self.stride = stride
        self.chunk = chunk
        self.mixed = mixed
        self.rank = rank
        self.processes = processes
        self.came: Counter[int] = Counter()  # windows by video that need not be read again, and whole videos
        self.finished: set[int] = set()

    def __iter__(self) -> Iterator[Chunk]:
        """This worker's share of this process's share."""
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        windows, index, finished, unreadable = _nothing()
        for number in range(self.rank + part * self.processes, len(self.videos), self.processes * parts):
            if number in self.finished:
                continue
            read = self.came[number]
            try:
                for view in islice(self._views(number), read, None):
                    read += 1
                    windows.append(view)
                    index.append(number)
                    if len(windows) == self.chunk:
                        yield self._chunk(windows, index, finished, unreadable)
                        windows, index, finished, unreadable = _nothing()
            except Exception as error:  # whatever it is, the other videos can still be evaluated
                if not read:
                    unreadable[number] = getattr(error, "message", f"{type(error).__name__}: {error}")
            finished.append(number)
            if not self.mixed:
                yield self._chunk(windows, index, finished, unreadable)
                windows, index, finished, unreadable = _nothing()
        if finished:
            yield self._chunk(windows, index, finished, unreadable)

    def _chunk(
        self, windows: list[Tensor], index: list[int], finished: list[int], unreadable: dict[int, str]
    ) -> Chunk:
        clip = self.clip
        empty = torch.empty(0, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
        stacked = torch.stack(windows) if windows else empty
        return Chunk(stacked, torch.tensor(index, dtype=torch.long), finished, unreadable)

    def _views(self, number: int) -> Iterator[Tensor]:
        video, clip = self.videos[number], self.clip
        windows = iter_windows(
            video.path,
            clip.frames,
            self.stride,
            short_side=clip.short_side,
            start=video.start,
            end=video.end,
        )
        while True:
            with reading(number, video.path):
                read = next(windows, None)
            if read is None:
                return
            yield eval_view(read.frames, clip)


def _nothing() -> tuple[list[Tensor], list[int], list[int], dict[int, str]]:
    return [], [], [], {}


def window_loader(dataset: SlidingWindows, *, workers: int, pin_memory: bool) -> Iterator[Chunk]:
    """Chunks from several workers; a video's windows all come from one worker at a time, in order."""
    came, finished = Counter[int](), set[int]()

    def rest(options: dict[str, Any]) -> DataLoader[Chunk]:
        rest = copy(dataset)
        rest.came, rest.finished = came.copy(), finished.copy()
        return DataLoader(rest, batch_size=None, pin_memory=pin_memory, **options)

    for chunk in replacing(rest, workers):
        came.update(chunk.rows.tolist())
        finished.update(chunk.finished)
        yield chunk
