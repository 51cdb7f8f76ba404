"""The views of a video that stand for all of it when a teacher's embeddings are cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.centre import UNREADABLE, MiddleWindow
from ccl_cli.data.clips.dataset import collate_inputs, run_preprocess
from ccl_cli.data.clips.replacement import counted, reading
from ccl_cli.data.manifest import Video
from ccl_cli.errors import CclError, DataError
from ccl_cli.teachers import Preprocess


class FrameWindow(MiddleWindow):
    """One frame: the middle of the ``view``-th of ``views`` equal parts of the video."""

    def __init__(self, video: Video, clip: Clip, view: int, views: int) -> None:
        super().__init__(video, clip.model_copy(update={"frames": 1}))
        self.view, self.views = view, views

    @cached_property
    def _stretch(self) -> tuple[int, int]:
        first, available = self._span
        return first + (2 * self.view + 1) * available // (2 * self.views), 1

    @property
    def available(self) -> int:
        """Frames of the video."""
        return self._span[1]


@dataclass
class Viewed:
    """What a teacher is going to see of some videos.

    Attributes:
        rows: Places of the videos.
        inputs: [n * K, *preprocess.shape], each video's views in a row; zero where there is none.
        present: [n].
        states: "present", "absent", "silent", "no track" or "unreadable", by place.
        unreadable: Why, by place.
        kind: The name under which the preprocessing reports states: "audio", or the teacher's name.
        inexact: Videos of which a live teacher may see something else than these views.
        frames: Of the longest video, where the teacher looks at single frames; else 0.
    """

    rows: list[int]
    inputs: Tensor
    present: Tensor
    states: dict[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    kind: str = ""
    inexact: int = 0
    frames: int = 0


@dataclass
class _One:
    row: int
    views: list[Tensor | None]
    states: dict[str, str]
    reason: str = ""
    exact: bool = True
    frames: int = 0


class VideoViews(Dataset[_One | CclError]):
    """Every view of each video through one teacher's preprocessing; with errors as :class:`MiddleWindows`.

    Args:
        videos: By place.
        clip: Length of the middle window and size of decoded frames.
        name: The teacher's.
        preprocess: The teacher's; it says which views it can be cached from.
        views: Frames of each video, where it looks at single frames.
    """

    def __init__(
        self, videos: Sequence[Video], clip: Clip, name: str, preprocess: Preprocess, views: int
    ) -> None:
        self.videos, self.clip, self.name, self.preprocess, self.views = videos, clip, name, preprocess, views

    def __getitem__(self, row: int) -> _One | CclError:
        """One video."""
        one = _One(row, [], {})
        try:
            for window in self._windows(self.videos[row]):
                with reading(row, window.video.path):
                    one.views.append(run_preprocess(self.name, self.preprocess, window))
                one.states = window.states
                if isinstance(window, FrameWindow):
                    one.frames = window.available
                    one.exact = one.frames <= self.views
                else:
                    one.exact = window.whole
        except DataError as error:
            # A live teacher keeps such a video out of training; from a cache it is absent there.
            exact = not self._student_reads(row)
            return _One(row, [None] * self.views, {self.name: UNREADABLE}, error.message, exact)
        except CclError as error:
            return error
        return one

    def _student_reads(self, row: int) -> bool:
        video = self.videos[row]
        try:
            with reading(row, video.path):
                return len(MiddleWindow(video, self.clip).frames) > 0
        except DataError:
            return False

    def _windows(self, video: Video) -> Iterator[MiddleWindow]:
        if getattr(self.preprocess, "views", None) == "frame":
            yield from (FrameWindow(video, self.clip, view, self.views) for view in range(self.views))
        else:
            yield MiddleWindow(video, self.clip)


def views_loader(
    dataset: VideoViews, batches: Sequence[Sequence[int]], *, workers: int, pin_memory: bool
) -> Iterator[Viewed | CclError]:
    """The videos at the given places, batch by batch."""

    def rest(done: int, options: dict[str, Any]) -> DataLoader[Viewed | CclError]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches[done:],  # type: ignore[arg-type]
            collate_fn=partial(_collate, preprocess=dataset.preprocess),
            pin_memory=pin_memory,
            **options,
        )

    return counted(rest, workers, {type(dataset.preprocess).__module__})


def _collate(ones: Sequence[_One | CclError], preprocess: Preprocess) -> Viewed | CclError:
    seen = []
    for one in ones:
        if isinstance(one, CclError):
            return one
        seen.append(one)
    value, _ = collate_inputs([view for one in seen for view in one.views], preprocess)
    return Viewed(
        [one.row for one in seen],
        value,
        torch.tensor([all(view is not None for view in one.views) for one in seen]),
        {one.row: next(iter(one.states.values())) for one in seen},
        {one.row: one.reason for one in seen if one.reason},
        next((next(iter(one.states)) for one in seen if not one.reason), ""),
        sum(not one.exact for one in seen),
        max(one.frames for one in seen),
    )
