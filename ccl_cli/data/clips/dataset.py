"""Training samples: one window of one video, the student's view of it, and every teacher's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.clips.epoch_sampler import Draw, EpochSampler
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.clips.preprocess import Preprocess, collate_inputs, run_preprocess
from ccl_cli.data.clips.samplers import random_clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.errors import CclError, DataError

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
        video = self.videos[index]
        # The draw counts too where the video stands in for another: its own draw may be in the same batch.
        instead_of = [] if index == draw.row else [draw.row]
        window = Window(
            video,
            self.clip,
            random_clip,
            rng=np.random.default_rng([self.seed, draw.epoch, index, 1, *instead_of]),
            batch_rng=np.random.default_rng([self.seed, draw.step, 2]),
            training=True,
        )
        view = window.student_view  # before a preprocess that may draw random numbers too
        inputs = {name: run_preprocess(name, each, window) for name, each in self.preprocess.items()}
        return Sample(view, video.label, index, inputs, window.states, draw.epoch, unreadable)


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


def training_loader(
    dataset: TrainingSet, sampler: EpochSampler, *, workers: int, pin_memory: bool, advice: str = ""
) -> Iterator[Loaded]:
    """All the remaining micro-batches of a run in one stream: workers never stop between epochs.

    Raises:
        CclError: as :func:`read_batches`; too many videos in a row cannot be read, or a preprocessing fails.
    """
    return read_batches(
        dataset,
        workers,
        batch_sampler=sampler,
        collate_fn=partial(collate, preprocess=dataset.preprocess),
        pin_memory=pin_memory,
        modules={type(each).__module__ for each in dataset.preprocess.values()},
        advice=advice,
    )
