"""Training samples: one window of one video, the student's view of it, and every teacher's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.epoch_sampler import Draw, EpochSampler
from ccl_cli.data.clips.replacement import counted, reading
from ccl_cli.data.clips.transforms import train_view
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.decode import frame_range, index_video, read_frames
from ccl_cli.errors import CclError, DataError, PluginError
from ccl_cli.teachers import Preprocess

_ATTEMPTS = 16


@dataclass
class Sample:
    """What a worker made of one draw.

    Attributes:
        index: Row of the training split that was read in the end.
        unreadable: Rows tried before it, with the reason each could not be read.
        states: What became of each modality, for the data counts: e.g. {"audio": "silent"}.
    """

    video: Tensor
    label: int
    index: int
    inputs: dict[str, Tensor | None]
    states: dict[str, str]
    epoch: int
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass
class Loaded:
    """A collated batch and what the workers have to tell about it."""

    batch: Batch
    states: dict[int, dict[str, str]]
    unreadable: dict[int, str]

    def pin_memory(self) -> Loaded:
        """Called by a loader that was asked to pin memory."""
        return replace(self, batch=self.batch.map(lambda tensor: tensor.pin_memory()))


class TrainingSet(Dataset[Sample | CclError]):
    """Reads one window per draw; every random number depends on (seed, epoch, row drawn) alone.

    A video that cannot be read is replaced by its neighbour in the list and reported, so that a batch never
    changes its shape; the neighbour gets other frames and another crop than in its own draw. Errors are
    returned, not raised: a loader would turn a raised one into a traceback.

    Args:
        videos: The training split.
        clip: The student's view.
        preprocess: By teacher.
        seed: Of the windows and views.
    """

    def __init__(
        self, videos: Sequence[Video], clip: Clip, preprocess: Mapping[str, Preprocess], seed: int
    ) -> None:
        self.videos = videos
        self.clip = clip
        self.preprocess = dict(preprocess)
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Sample | CclError:
        """The draw's sample, or the error that must end the run."""
        unreadable: dict[int, str] = {}
        for attempt in range(min(_ATTEMPTS, len(self.videos))):
            index = (draw.row + attempt) % len(self.videos)
            try:
                with reading(index, self.videos[index].path):
                    return self._read(draw, index, unreadable)
            except DataError as error:
                unreadable[index] = error.message
            except CclError as error:
                return error
            except Exception as error:
                return CclError(
                    f"Reading '{self.videos[index].path}' failed: {type(error).__name__}: {error}."
                )
        return DataError(
            f"{len(unreadable)} videos in a row cannot be read; the first: {next(iter(unreadable.values()))}"
        )

    def _read(self, draw: Draw, index: int, unreadable: dict[int, str]) -> Sample:
        video, clip = self.videos[index], self.clip
        # The draw counts too where the video stands in for another: its own draw may be in the same batch.
        instead_of = [] if index == draw.row else [draw.row]
        rng = np.random.default_rng([self.seed, draw.epoch, index, 1, *instead_of])
        first, available = frame_range(index_video(video.path), video.start, video.end)
        first += int(rng.integers(0, max(available - clip.frames, 0) + 1))
        read = read_frames(video.path, first, min(clip.frames, available), short_side=clip.short_side)
        frames = read.frames
        if len(frames) < clip.frames:  # a short clip loops
            frames = frames[torch.arange(clip.frames) % len(frames)]
        window = Window(
            video=video,
            frames=frames,
            student_view=train_view(frames, rng, clip),
            start=read.start,
            end=read.end,
            rng=rng,
            batch_rng=np.random.default_rng([self.seed, draw.step, 2]),
        )
        inputs = {name: run_preprocess(name, each, window) for name, each in self.preprocess.items()}
        return Sample(window.student_view, video.label, index, inputs, window.states, draw.epoch, unreadable)


def run_preprocess(name: str, preprocess: Preprocess, window: Window) -> Tensor | None:
    """One teacher's input, checked; the window's states tell what became of its modality.

    Raises:
        DataError: the window cannot be read.
        PluginError: the preprocessing fails, or returns another shape than it declares.
    """
    before, window.states = window.states, {}
    try:
        value = preprocess(window)
    except CclError:
        raise
    except Exception as error:
        raise PluginError(
            f"The preprocessing of '{name}' failed on '{window.video.id}': {type(error).__name__}: {error}."
        ) from error
    own = window.states or {name: "absent" if value is None else "present"}  # of what it did not say itself
    window.states = before | own
    if value is not None and tuple(value.shape) != tuple(preprocess.shape):
        raise PluginError(
            f"The preprocessing of '{name}' returned shape {tuple(value.shape)} for '{window.video.id}', "
            f"but declares {tuple(preprocess.shape)}."
        )
    return value


def collate(samples: Sequence[Sample | CclError], preprocess: Mapping[str, Preprocess]) -> Loaded | CclError:
    """Samples to a batch; a missing modality becomes a zero row that is marked as absent."""
    good = []
    for sample in samples:
        if isinstance(sample, CclError):
            return sample
        good.append(sample)
    batch = Batch(
        video=torch.stack([sample.video for sample in good]),
        labels=torch.tensor([sample.label for sample in good]),
        rows=torch.tensor([sample.index for sample in good]),
        inputs={
            name: collate_inputs([sample.inputs[name] for sample in good], preprocess[name])
            for name in preprocess
        },
        epoch=good[0].epoch,
    )
    unreadable = {index: reason for sample in good for index, reason in sample.unreadable.items()}
    return Loaded(batch, {sample.index: sample.states for sample in good}, unreadable)


def collate_inputs(values: Sequence[Tensor | None], preprocess: Preprocess) -> TeacherInput:
    """One teacher's inputs of several samples; a zero row where there is none."""
    value = torch.zeros(len(values), *preprocess.shape, dtype=preprocess.dtype)
    for row, item in enumerate(values):
        if item is not None:
            value[row] = item
    return TeacherInput(value, torch.tensor([item is not None for item in values]))


def training_loader(
    dataset: TrainingSet, sampler: EpochSampler, *, workers: int, pin_memory: bool
) -> Iterator[Loaded | CclError]:
    """All the remaining micro-batches of a run in one stream: workers never stop between epochs."""

    def rest(done: int, options: dict[str, Any]) -> DataLoader[Loaded | CclError]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=sampler.after(done),
            collate_fn=partial(collate, preprocess=dataset.preprocess),
            pin_memory=pin_memory,
            **options,
        )

    return counted(rest, workers, {type(each).__module__ for each in dataset.preprocess.values()})
