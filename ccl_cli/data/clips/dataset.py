"""Clips of videos as the student and the teachers get them: random ones in training, else the centre clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.clips.preprocess import Preprocess, collate_inputs, run_preprocess
from ccl_cli.data.clips.samplers import count_starts, random_clip, single_frame, spread_clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.errors import DataError

B = TypeVar("B")
UNREADABLE = "unreadable"
# Settings of a clip that is a single frame, whatever the student's clips are.
_ONE_FRAME = {"frames": 1, "sampling": "dense", "stride": 1, "fps": None}


class LoadedBatch(NamedTuple):
    """A training batch, with the workers' reports by row of the training split.

    Attributes:
        batch: Tensors of the batch.
        states: State of each modality of the rows in the batch, e.g. {"audio": "silent"}.
        unreadable: Reasons, of rows that could not be read.
    """

    batch: Batch
    states: dict[int, dict[str, str]]
    unreadable: dict[int, str]


@dataclass(eq=False, repr=False)
class TrainingClips(Dataset[LoadedBatch]):
    """A random clip of each drawn video. An index is the list of a batch's draws.

    A video that cannot be read is replaced by the next one in the list and reported, so that all batches have
    the same shape. Random numbers are a function of (seed, epoch, row, draw), and those that a step's samples
    share a function of (seed, step).

    Attributes:
        videos: Training split.
        clip: Settings of the student's view.
        preprocess: Preprocessing of each teacher, by name.
        seed: Seed of clips and views.
        max_unreadable: Largest number of successive videos that may be unreadable; None: all but one.
    """

    videos: Sequence[Video]
    clip: Clip
    preprocess: Mapping[str, Preprocess]
    seed: int
    max_unreadable: int | None = None

    def __getitem__(self, draws: Sequence[Draw]) -> LoadedBatch:
        """Read a clip of each drawn video, or of the next readable one.

        Raises:
            DataError: too many successive videos are unreadable.
            CclError: a teacher's preprocessing or the machine fails.
        """
        views: list[Tensor] = []
        inputs: dict[str, list[Tensor | None]] = {name: [] for name in self.preprocess}
        rows, labels, states, unreadable = [], [], {}, dict[int, str]()
        for draw in draws:
            row, window, values = self._read(draw, unreadable)
            views.append(window.student_view)
            for name, value in values.items():
                inputs[name].append(value)
            rows.append(row)
            labels.append(window.video.target)
            states[row] = window.states
        batch = Batch(
            video=torch.stack(views),
            labels=torch.tensor(labels),
            rows=torch.tensor(rows),
            inputs={name: collate_inputs(inputs[name], each) for name, each in self.preprocess.items()},
            epoch=draws[0].epoch,
        )
        return LoadedBatch(batch, states, unreadable)

    def _read(self, draw: Draw, unreadable: dict[int, str]) -> tuple[int, Window, dict[str, Tensor | None]]:
        """The row that is read for a draw, its clip, and the inputs of the teachers."""
        limit = len(self.videos) - 1 if self.max_unreadable is None else self.max_unreadable
        reasons: list[str] = []
        while len(reasons) <= limit:
            row = (draw.row + len(reasons)) % len(self.videos)
            window = self._window(draw, row)
            try:
                _ = window.student_view  # first, because a preprocess may use the same random numbers
                inputs = {name: run_preprocess(name, each, window) for name, each in self.preprocess.items()}
                return row, window, inputs
            except DataError as error:
                unreadable[row] = error.message
                reasons.append(error.message)
        raise DataError(
            f"{len(reasons)} videos in a row cannot be read, more than max_unreadable allows; the first: "
            f"{reasons[0]}",
            "`ccl data check` names all of them; the recipe's max_unreadable is the limit.",
        )

    def _window(self, draw: Draw, row: int) -> Window:
        seed = [self.seed, draw.epoch, row, 1]
        # A batch may contain this row twice: in place of an unreadable neighbour, or in a step larger than
        # the split. Further numbers in the seed give the second one other frames and another crop.
        if draw.repeat or row != draw.row:
            seed.append(draw.row)
        if draw.repeat:
            seed.append(draw.repeat)
        return Window(
            self.videos[row],
            self.clip,
            random_clip,
            rng=np.random.default_rng(seed),
            batch_rng=np.random.default_rng([self.seed, draw.step, 2]),
            training=True,
        )


class LoadedInputs(NamedTuple):
    """Inputs of teachers from several videos, outside training.

    Attributes:
        rows: [n] int64, rows of the videos.
        inputs: Inputs by teacher: n videos, or n * K views with the K views of a video in succession.
        states: By row and teacher: "present", "absent", "silent", "no track" or "unreadable".
        unreadable: Reasons by row and teacher.
        kinds: By teacher, the name under which its states are counted: "audio", the teacher's name, or "".
        inexact: By teacher, number of videos of which a live teacher may get other inputs than these.
        frames: By teacher of single frames, number of frames of the longest video; 0 for other teachers.
    """

    rows: Tensor
    inputs: dict[str, TeacherInput]
    states: dict[int, dict[str, str]]
    unreadable: dict[int, dict[str, str]]
    kinds: dict[str, str]
    inexact: dict[str, int]
    frames: dict[str, int]


class _Views(NamedTuple):
    """The views of one video that one teacher gets, K in a cache; see :class:`LoadedInputs`."""

    inputs: list[Tensor | None]
    state: str = UNREADABLE
    kind: str = ""
    reason: str = ""
    exact: bool = True
    frames: int = 0


@dataclass(eq=False, repr=False)
class TeacherClips(Dataset[LoadedInputs]):
    """The centre clip of each video, or K evenly spaced views of it for a cache. An index is a list of rows.

    A video that one teacher cannot read is unreadable for this teacher only.

    Attributes:
        videos: Videos by row.
        clip: Length of the clip and size of decoded frames.
        preprocess: Preprocessing of each teacher, by name.
        views: K for a cache: frames or clips per video, for teachers of single frames or of clips.
    """

    videos: Sequence[Video]
    clip: Clip
    preprocess: Mapping[str, Preprocess]
    _: KW_ONLY
    views: int | None = None

    def __getitem__(self, rows: Sequence[int]) -> LoadedInputs:
        """Run every teacher's preprocessing on these videos.

        Raises:
            CclError: a teacher's preprocessing or a decoder fails for another reason than damaged data.
        """
        read = [self._read(row) for row in rows]
        by_row = dict(zip(rows, read, strict=True))
        by_name = {name: [views[name] for views in read] for name in self.preprocess}
        reasons = {
            row: {name: each.reason for name, each in views.items() if each.reason}
            for row, views in by_row.items()
        }
        return LoadedInputs(
            rows=torch.tensor(rows),
            inputs={
                name: collate_inputs(
                    [value for each in views for value in each.inputs], self.preprocess[name]
                )
                for name, views in by_name.items()
            },
            states={row: {name: each.state for name, each in views.items()} for row, views in by_row.items()},
            unreadable={row: by_teacher for row, by_teacher in reasons.items() if by_teacher},
            kinds={
                name: next((each.kind for each in views if each.kind), "") for name, views in by_name.items()
            },
            inexact={name: sum(not each.exact for each in views) for name, views in by_name.items()},
            frames={name: max(each.frames for each in views) for name, views in by_name.items()},
        )

    def _read(self, row: int) -> dict[str, _Views]:
        centre = Window(self.videos[row], self.clip)
        return {name: self._views(name, each, centre) for name, each in self.preprocess.items()}

    def _views(self, name: str, preprocess: Preprocess, centre: Window) -> _Views:
        declared = getattr(preprocess, "views", None) if self.views else None
        windows = self._spread(centre.video, declared, self.views or 1) or [centre]
        inputs = []
        try:
            for window in windows:
                window.states = {}
                inputs.append(run_preprocess(name, preprocess, window))
            last = windows[-1]
            exact = last.whole and (last is centre or _count_starts(last) <= len(windows))
            frames = last.frame_range.count if declared == "frame" else 0
        except DataError as error:
            # A live teacher excludes the video from training, a cache does not; unless the student cannot
            # read the video either.
            nothing: list[Tensor | None] = [None] * (self.views or 1)
            return _Views(nothing, reason=error.message, exact=not _has_picture(centre))
        kind, state = next(iter(last.states.items()))
        return _Views(inputs, state, kind, exact=exact, frames=frames)

    def _spread(self, video: Video, declared: str | None, views: int) -> list[Window]:
        """The windows of a cache, if the teacher looks at frames or clips."""
        if declared == "frame":
            clip = self.clip.model_copy(update=_ONE_FRAME)
            return [Window(video, clip, single_frame(view, views)) for view in range(views)]
        if declared == "clip":
            return [Window(video, self.clip, spread_clip(view, views)) for view in range(views)]
        return []


def clip_loader(
    dataset: Dataset[B], batches: Iterable[Any], *, workers: int, pin_memory: bool, advice: str = ""
) -> Iterator[B]:
    """Read batches of :class:`TrainingClips` or :class:`TeacherClips`; see :func:`read_batches`."""
    modules = {type(each).__module__ for each in getattr(dataset, "preprocess", {}).values()}
    return read_batches(
        dataset, workers, sampler=batches, pin_memory=pin_memory, modules=modules, advice=advice
    )


def split_rows(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split rows into batches of at most ``size``."""
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _count_starts(window: Window) -> float:
    """Number of clips that a live teacher may get; of segments, more than any cache holds."""
    if window.clip.sampling == "segments":
        return math.inf
    return count_starts(window.frame_range, window.clip)


def _has_picture(window: Window) -> bool:
    try:
        return len(window.frames) > 0
    except DataError:
        return False
