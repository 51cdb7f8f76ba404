"""Clips of videos as the student and the teachers get them: random ones in training, else the centre clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

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


class _ClipDataset(Dataset[Any], Generic[B]):
    """A dataset of samples that :meth:`collate` makes into batches of type B."""

    preprocess: Mapping[str, Preprocess]

    def collate(self, samples: Sequence[Any]) -> B:
        raise NotImplementedError


@dataclass
class TrainingSample:
    """A worker's result for one draw.

    Attributes:
        view: [3, T, S, S] uint8, the student's view.
        target: Index of the class; -1 without a label.
        row: Row of the training split that was read.
        inputs: Input of each teacher; None if the modality is missing.
        states: State of each modality, e.g. {"audio": "silent"}.
        epoch: Epoch, from 0.
        unreadable: Reasons by row, for the rows that were tried before ``row``.
    """

    view: Tensor
    target: int
    row: int
    inputs: dict[str, Tensor | None]
    states: dict[str, str]
    epoch: int
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass
class LoadedBatch:
    """A training batch, with the workers' reports by row of the training split.

    Attributes:
        batch: Tensors of the batch.
        states: State of each modality, of the rows in the batch.
        unreadable: Reasons, of rows that could not be read.
    """

    batch: Batch
    states: dict[int, dict[str, str]]
    unreadable: dict[int, str]

    def pin_memory(self) -> LoadedBatch:
        """Called by torch's loader if it pins memory."""
        return replace(self, batch=self.batch.map(lambda tensor: tensor.pin_memory()))


@dataclass(eq=False, repr=False)
class TrainingClips(_ClipDataset[LoadedBatch]):
    """A random clip of each drawn video.

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

    def __getitem__(self, draw: Draw) -> TrainingSample:
        """Read a clip of the drawn video, or of the next readable one.

        Raises:
            DataError: too many successive videos are unreadable.
            CclError: a teacher's preprocessing or the machine fails.
        """
        limit = len(self.videos) - 1 if self.max_unreadable is None else self.max_unreadable
        unreadable: dict[int, str] = {}
        while len(unreadable) <= limit:
            row = (draw.row + len(unreadable)) % len(self.videos)
            try:
                return self._read(draw, row, unreadable)
            except DataError as error:
                unreadable[row] = error.message
        raise DataError(
            f"{len(unreadable)} videos in a row cannot be read, more than max_unreadable allows; the first: "
            f"{next(iter(unreadable.values()))}",
            "`ccl data check` names all of them; the recipe's max_unreadable is the limit.",
        )

    def collate(self, samples: Sequence[TrainingSample]) -> LoadedBatch:
        """Make a batch; a missing modality becomes a zero row that is marked as absent."""
        batch = Batch(
            video=torch.stack([sample.view for sample in samples]),
            labels=torch.tensor([sample.target for sample in samples]),
            rows=torch.tensor([sample.row for sample in samples]),
            inputs={
                name: collate_inputs([sample.inputs[name] for sample in samples], each)
                for name, each in self.preprocess.items()
            },
            epoch=samples[0].epoch,
        )
        unreadable = {row: reason for sample in samples for row, reason in sample.unreadable.items()}
        return LoadedBatch(batch, {sample.row: sample.states for sample in samples}, unreadable)

    def _read(self, draw: Draw, row: int, unreadable: dict[int, str]) -> TrainingSample:
        video = self.videos[row]
        seed = [self.seed, draw.epoch, row, 1]
        # A batch may contain this row twice: in place of an unreadable neighbour, or in a step larger than
        # the split. Further numbers in the seed give the second one other frames and another crop.
        if draw.repeat or row != draw.row:
            seed.append(draw.row)
        if draw.repeat:
            seed.append(draw.repeat)
        window = Window(
            video,
            self.clip,
            random_clip,
            rng=np.random.default_rng(seed),
            batch_rng=np.random.default_rng([self.seed, draw.step, 2]),
            training=True,
        )
        view = window.student_view  # first, because a preprocess may use the same random numbers
        inputs = {name: run_preprocess(name, each, window) for name, each in self.preprocess.items()}
        return TrainingSample(view, video.target, row, inputs, window.states, draw.epoch, unreadable)


class TeacherBatch(NamedTuple):
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


@dataclass
class _Views:
    """The views of one video that one teacher gets, K in a cache; see :class:`TeacherBatch`."""

    inputs: list[Tensor | None]
    state: str = UNREADABLE
    kind: str = ""
    reason: str = ""
    exact: bool = True
    frames: int = 0


@dataclass(eq=False, repr=False)
class TeacherClips(_ClipDataset[TeacherBatch]):
    """The centre clip of each video, or K evenly spaced views of it for a cache.

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

    def __getitem__(self, row: int) -> tuple[int, dict[str, _Views]]:
        """Run every teacher's preprocessing on one video.

        Raises:
            CclError: a teacher's preprocessing or a decoder fails for another reason than damaged data.
        """
        by_teacher, centre = {}, Window(self.videos[row], self.clip)
        for name, preprocess in self.preprocess.items():
            try:
                by_teacher[name] = self._read(name, preprocess, centre)
            except DataError as error:
                # A live teacher excludes the video from training, a cache does not; unless the student cannot
                # read the video either.
                exact = not _has_picture(centre)
                by_teacher[name] = _Views([None] * (self.views or 1), reason=error.message, exact=exact)
        return row, by_teacher

    def collate(self, samples: Sequence[tuple[int, dict[str, _Views]]]) -> TeacherBatch:
        """Make a batch of all views of all videos."""
        by_name = {name: [views[name] for _, views in samples] for name in self.preprocess}
        reasons = {
            row: {name: one.reason for name, one in views.items() if one.reason} for row, views in samples
        }
        return TeacherBatch(
            rows=torch.tensor([row for row, _ in samples]),
            inputs={
                name: collate_inputs([value for one in views for value in one.inputs], self.preprocess[name])
                for name, views in by_name.items()
            },
            states={row: {name: one.state for name, one in views.items()} for row, views in samples},
            unreadable={row: by_teacher for row, by_teacher in reasons.items() if by_teacher},
            kinds={
                name: next((one.kind for one in views if one.kind), "") for name, views in by_name.items()
            },
            inexact={name: sum(not one.exact for one in views) for name, views in by_name.items()},
            frames={name: max(one.frames for one in views) for name, views in by_name.items()},
        )

    def _read(self, name: str, preprocess: Preprocess, centre: Window) -> _Views:
        declared = getattr(preprocess, "views", None) if self.views else None
        windows = self._spread(centre.video, declared, self.views or 1) or [centre]
        inputs = []
        for window in windows:
            window.states = {}
            inputs.append(run_preprocess(name, preprocess, window))
        last = windows[-1]
        kind, state = next(iter(last.states.items()))
        exact = last.whole and (last is centre or _count_starts(last) <= len(windows))
        frames = last.frame_range.count if declared == "frame" else 0
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
    dataset: _ClipDataset[B],
    batches: Iterable[Sequence[Any]],
    *,
    workers: int,
    pin_memory: bool,
    advice: str = "",
) -> Iterator[B]:
    """Read all batches in one stream, so that workers do not stop between epochs.

    Args:
        dataset: :class:`TrainingClips` or :class:`TeacherClips`.
        batches: Indices of each batch: draws or rows.
        workers: Number of processes; 0 reads in this process.
        pin_memory: Whether the batches will be copied to a GPU.
        advice: Hint of the error if a worker process ends.

    Raises:
        CclError: see :func:`read_batches`.
    """
    return read_batches(
        dataset,
        workers,
        batch_sampler=batches,
        collate_fn=dataset.collate,
        pin_memory=pin_memory,
        modules={type(each).__module__ for each in dataset.preprocess.values()},
        advice=advice,
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
