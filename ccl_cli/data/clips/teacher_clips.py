"""What frozen teachers see of whole videos: the centre clip, or for caches evenly spread frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import TeacherInput
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.clips.preprocess import Preprocess, collate_inputs, run_preprocess
from ccl_cli.data.clips.samplers import single_frame
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.errors import CclError, DataError

UNREADABLE = "unreadable"


class TeacherBatch(NamedTuple):
    """What the teachers see of one or several videos.

    Attributes:
        rows: [n] int64, places of the videos.
        inputs: By teacher, of n videos, or of n * K views, each video's K views in a row.
        states: By row and teacher: "present", "absent", "silent", "no track", "unreadable".
        unreadable: Why, by row and teacher.
        kinds: By teacher, the name under which its states are counted: "audio", or the teacher's own.
        inexact: Videos of which a live teacher may see something else than these views.
        frames: Of the longest video, where a teacher looks at single frames; else 0.
    """

    rows: Tensor
    inputs: dict[str, TeacherInput]
    states: dict[int, dict[str, str]]
    unreadable: dict[int, dict[str, str]]
    kinds: dict[str, str]
    inexact: int
    frames: int


@dataclass
class _Sample:
    row: int
    inputs: dict[str, list[Tensor | None]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    exact: bool = True
    frames: int = 0


class TeacherClips(Dataset[_Sample | CclError]):
    """Each video through every teacher's preprocessing.

    What one teacher cannot read is unreadable for that one alone.

    Args:
        videos: By place.
        clip: Length of the centre clip and size of decoded frames.
        preprocess: By teacher.
        views: For a cache: K single frames of each video, where a teacher looks at single frames.
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

    def __getitem__(self, row: int) -> _Sample | CclError:
        """One video, or the error that must end the run."""
        sample, centre = _Sample(row), Window(self.videos[row], self.clip)
        for name, preprocess in self.preprocess.items():
            try:
                self._add(sample, name, self._windows(preprocess, centre))
            except DataError as error:
                sample.inputs[name] = [None] * (self.views or 1)
                sample.states[name], sample.unreadable[name] = UNREADABLE, error.message
                # A live teacher keeps such a video out of training; from a cache it is absent there.
                sample.exact, sample.frames = not _is_readable(centre), 0
            except CclError as error:
                return error
        return sample

    def _windows(self, preprocess: Preprocess, centre: Window) -> list[Window]:
        if self.views is None or getattr(preprocess, "views", None) != "frame":
            return [centre]
        clip = self.clip.model_copy(update={"frames": 1})
        return [Window(centre.video, clip, single_frame(view, self.views)) for view in range(self.views)]

    def _add(self, sample: _Sample, name: str, windows: list[Window]) -> None:
        inputs = []
        for window in windows:
            window.states = {}
            inputs.append(run_preprocess(name, self.preprocess[name], window))
        sample.inputs[name] = inputs
        sample.kinds[name], sample.states[name] = next(iter(window.states.items()))
        sample.exact = window.whole
        if self.views and getattr(self.preprocess[name], "views", None) == "frame":
            sample.frames = window.available
            sample.exact = sample.frames <= self.views


def teacher_loader(
    dataset: TeacherClips,
    batches: Sequence[Sequence[int]],
    *,
    workers: int,
    pin_memory: bool,
    advice: str = "",
) -> Iterator[TeacherBatch]:
    """The videos at the given places, batch by batch.

    Raises:
        CclError: as :func:`read_batches`; a preprocessing fails.
    """
    return read_batches(
        dataset,
        workers,
        batch_sampler=batches,
        collate_fn=partial(_collate, preprocess=dataset.preprocess),
        pin_memory=pin_memory,
        modules={type(each).__module__ for each in dataset.preprocess.values()},
        advice=advice,
    )


def split_rows(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """Rows in batches of at most ``size``."""
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _is_readable(window: Window) -> bool:
    try:
        return len(window.frames) > 0
    except DataError:
        return False


def _collate(
    samples: Sequence[_Sample | CclError], preprocess: Mapping[str, Preprocess]
) -> TeacherBatch | CclError:
    good = []
    for sample in samples:
        if isinstance(sample, CclError):
            return sample
        good.append(sample)
    return TeacherBatch(
        torch.tensor([sample.row for sample in good]),
        {
            name: collate_inputs([value for sample in good for value in sample.inputs[name]], each)
            for name, each in preprocess.items()
        },
        {sample.row: sample.states for sample in good},
        {sample.row: sample.unreadable for sample in good if sample.unreadable},
        {name: kind for sample in reversed(good) for name, kind in sample.kinds.items()},
        sum(not sample.exact for sample in good),
        max(sample.frames for sample in good),
    )
