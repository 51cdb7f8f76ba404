"""Clips of videos as student and teachers see them: random ones in training, else the centre."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.clips.preprocess import Preprocess, collate_inputs, run_preprocess
from ccl_cli.data.clips.samplers import random_clip, single_frame, spread_clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.errors import DataError

UNREADABLE = "unreadable"
# Of a clip that is a single frame, whatever the student's clips are.
_ONE_FRAME = {"frames": 1, "sampling": "dense", "stride": 1, "fps": None}


@dataclass
class TrainingSample:
    """What a worker made of one draw.

    Attributes:
        view: [3, T, S, S] uint8, the student's.
        target: Index of the class; -1 without a label.
        row: Row of the training split that was read in the end.
        inputs: By teacher; None where the modality is missing.
        states: State of each modality, e.g. {"audio": "silent"}.
        unreadable: Rows tried before it, with the reason each could not be read.
    """

    view: Tensor
    target: int
    row: int
    inputs: dict[str, Tensor | None]
    states: dict[str, str]
    epoch: int
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass
class Loaded:
    """A collated batch, with the workers' reports by row of the training split."""

    batch: Batch
    states: dict[int, dict[str, str]]
    unreadable: dict[int, str]

    def pin_memory(self) -> Loaded:
        """Called by a loader that was asked to pin memory."""
        return replace(self, batch=self.batch.map(lambda tensor: tensor.pin_memory()))


class TrainingClips(Dataset[TrainingSample]):
    """A random clip of each video drawn.

    A video that cannot be read is replaced by its neighbour in the list and reported, so that a batch never
    changes its shape. Random numbers depend on (seed, epoch, row read, draw), those that a whole step shares
    on (seed, step).

    Args:
        videos: The training split.
        clip: The student's view.
        preprocess: By teacher.
        seed: Of the clips and views.
        max_unreadable: Of the videos; None: all but one.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clip: Clip,
        preprocess: Mapping[str, Preprocess],
        seed: int,
        max_unreadable: int | None = None,
    ) -> None:
        self.videos, self.clip, self.preprocess, self.seed = videos, clip, dict(preprocess), seed
        self.max_unreadable = len(videos) - 1 if max_unreadable is None else max_unreadable

    def __getitem__(self, draw: Draw) -> TrainingSample:
        """The clip of a draw, or of the next video that can be read.

        Raises:
            DataError: more videos in a row cannot be read than may be.
            CclError: a teacher's preprocessing or the machine fails.
        """
        unreadable: dict[int, str] = {}
        while len(unreadable) <= self.max_unreadable:
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

    def collate(self, samples: Sequence[TrainingSample]) -> Loaded:
        """A missing modality becomes a zero row that is marked as absent."""
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
        return Loaded(batch, {sample.row: sample.states for sample in samples}, unreadable)

    def _read(self, draw: Draw, row: int, unreadable: dict[int, str]) -> TrainingSample:
        video = self.videos[row]
        # Another draw of this row may be in the same batch: its own, or one that it stands in for. With these
        # seeds it has other frames there.
        repeat = [draw.repeat] if draw.repeat else []
        which = [draw.row, *repeat] if repeat or row != draw.row else []
        window = Window(
            video,
            self.clip,
            random_clip,
            rng=np.random.default_rng([self.seed, draw.epoch, row, 1, *which]),
            batch_rng=np.random.default_rng([self.seed, draw.step, 2]),
            training=True,
        )
        view = window.student_view  # before a preprocess that may draw random numbers too
        inputs = {name: run_preprocess(name, each, window) for name, each in self.preprocess.items()}
        return TrainingSample(view, video.target, row, inputs, window.states, draw.epoch, unreadable)


class TeacherBatch(NamedTuple):
    """What the teachers see of one or several whole videos.

    Attributes:
        rows: [n] int64, rows of the videos.
        inputs: By teacher, of n videos, or of n * K views, each video's K views in a row.
        states: By row and teacher: "present", "absent", "silent", "no track", "unreadable".
        unreadable: Why, by row and teacher.
        kinds: By teacher, the name under which its states are counted: "audio", or the teacher's own.
        inexact: By teacher, videos of which a live one may see something else than these views.
        frames: By teacher, of the longest video, where it looks at single frames; else 0.
    """

    rows: Tensor
    inputs: dict[str, TeacherInput]
    states: dict[int, dict[str, str]]
    unreadable: dict[int, dict[str, str]]
    kinds: dict[str, str]
    inexact: dict[str, int]
    frames: dict[str, int]


@dataclass
class _TeacherSample:
    row: int
    inputs: dict[str, list[Tensor | None]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    exact: dict[str, bool] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)


class TeacherClips(Dataset[_TeacherSample]):
    """The centre clip of each video, or for a cache evenly spread frames or clips, as the teachers see them.

    What one teacher cannot read is unreadable for that one alone.

    Args:
        videos: By row.
        clip: Length of the centre clip and size of decoded frames.
        preprocess: By teacher.
        views: For a cache: K single frames of each video, or K clips, where a teacher looks at those.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clip: Clip,
        preprocess: Mapping[str, Preprocess],
        *,
        views: int | None = None,
    ) -> None:
        self.videos, self.clip, self.preprocess, self.views = videos, clip, dict(preprocess), views

    def __getitem__(self, row: int) -> _TeacherSample:
        """One video through every teacher's preprocessing.

        Raises:
            CclError: a teacher's preprocessing or a decoder fails, otherwise than on damaged data.
        """
        sample, centre = _TeacherSample(row), Window(self.videos[row], self.clip)
        for name in self.preprocess:
            try:
                self._add(sample, name, centre)
            except DataError as error:
                sample.inputs[name] = [None] * (self.views or 1)
                sample.states[name], sample.unreadable[name] = UNREADABLE, error.message
                # Where only the teacher cannot read a video, a live one keeps it out of training, and a cache
                # does not; where nobody can, both do.
                sample.exact[name], sample.frames[name] = not _has_picture(centre), 0
        return sample

    def collate(self, samples: Sequence[_TeacherSample]) -> TeacherBatch:
        """All views of all videos, in one row."""
        return TeacherBatch(
            torch.tensor([sample.row for sample in samples]),
            {
                name: collate_inputs([value for sample in samples for value in sample.inputs[name]], each)
                for name, each in self.preprocess.items()
            },
            {sample.row: sample.states for sample in samples},
            {sample.row: sample.unreadable for sample in samples if sample.unreadable},
            {name: kind for sample in reversed(samples) for name, kind in sample.kinds.items()},
            {name: sum(not sample.exact[name] for sample in samples) for name in self.preprocess},
            {name: max(sample.frames[name] for sample in samples) for name in self.preprocess},
        )

    def _add(self, sample: _TeacherSample, name: str, centre: Window) -> None:
        preprocess, views = self.preprocess[name], self.views
        kind = getattr(preprocess, "views", None)
        windows, frames, places = [centre], 0, 1.0
        if views and kind in ("frame", "clip"):
            single = kind == "frame"
            clip = self.clip.model_copy(update=_ONE_FRAME) if single else self.clip
            spread = single_frame if single else spread_clip
            windows = [Window(centre.video, clip, spread(view, views)) for view in range(views)]
            frames = windows[0].available if single else 0
            places = windows[0].places
        inputs = []
        for window in windows:
            window.states = {}
            inputs.append(run_preprocess(name, preprocess, window))
        last = windows[-1]
        sample.inputs[name] = inputs
        sample.kinds[name], sample.states[name] = next(iter(last.states.items()))
        sample.exact[name] = last.whole and places <= len(windows)
        sample.frames[name] = frames


@overload
def clip_loader(
    dataset: TrainingClips,
    batches: Iterable[Sequence[Draw]],
    *,
    workers: int,
    pin_memory: bool,
    advice: str = "",
) -> Iterator[Loaded]: ...
@overload
def clip_loader(
    dataset: TeacherClips,
    batches: Iterable[Sequence[int]],
    *,
    workers: int,
    pin_memory: bool,
    advice: str = "",
) -> Iterator[TeacherBatch]: ...
def clip_loader(
    dataset: TrainingClips | TeacherClips,
    batches: Iterable[Any],
    *,
    workers: int,
    pin_memory: bool,
    advice: str = "",
) -> Iterator[Any]:
    """All batches in one stream: workers never stop between epochs.

    Args:
        dataset: What is read.
        batches: Indices of each batch.
        workers: Number of processes that read; 0 decodes in this one.
        pin_memory: Whether the batches are meant for a GPU.
        advice: A further step for the error of a process that has ended.

    Raises:
        CclError: as :func:`read_batches`.
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
    """Rows in batches of at most ``size``."""
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _has_picture(window: Window) -> bool:
    try:
        return len(window.frames) > 0
    except DataError:
        return False
