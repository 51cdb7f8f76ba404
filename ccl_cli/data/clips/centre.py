"""The middle of each video, for evaluation: one window, read only as far as a teacher looks at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import TeacherInput
from ccl_cli.data.clips.dataset import collate_inputs, run_preprocess
from ccl_cli.data.clips.replacement import counted, reading
from ccl_cli.data.clips.transforms import eval_view
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.decode import VideoInfo, frame_range, index_video, read_frames
from ccl_cli.errors import CclError, DataError
from ccl_cli.teachers import Preprocess

UNREADABLE = "unreadable"


class MiddleWindow(Window):
    """The window around a video's middle.

    Nothing is read before somebody asks for it: a teacher that only looks the video up needs no file, and
    one that listens needs no picture.
    """

    def __init__(self, video: Video, clip: Clip) -> None:
        self.video, self.clip = video, clip
        self.rng, self.batch_rng = np.random.default_rng(0), np.random.default_rng(0)
        self.training = False
        self.states, self.whole = {}, True

    @cached_property
    def frames(self) -> Tensor:  # type: ignore[override]
        """[T, H, W, 3] uint8 RGB; a short video loops."""
        first, count = self._stretch
        read = read_frames(self.video.path, first, count, short_side=self.clip.short_side).frames
        return read[torch.arange(self.clip.frames) % len(read)]

    @cached_property
    def student_view(self) -> Tensor:  # type: ignore[override]
        """[3, T, S, S] uint8, the centre."""
        return eval_view(self.frames, self.clip)

    @cached_property
    def start(self) -> float:  # type: ignore[override]
        """Seconds."""
        return self._info.time(self._stretch[0])

    @cached_property
    def end(self) -> float:  # type: ignore[override]
        """Seconds."""
        return self._info.time(sum(self._stretch))

    @property
    def _info(self) -> VideoInfo:
        return index_video(self.video.path)

    @property
    def _span(self) -> tuple[int, int]:
        """First frame and number of frames of the whole video."""
        return frame_range(self._info, self.video.start, self.video.end)

    @cached_property
    def _stretch(self) -> tuple[int, int]:
        """First frame and number of frames."""
        first, available = self._span
        count = min(self.clip.frames, available)
        return first + (available - count) // 2, count


class Looked(NamedTuple):
    """What the teachers of one or several videos are going to see.

    Attributes:
        rows: Places of the videos.
        inputs: By teacher.
        states: By row and teacher: "present", "absent", "silent", "no track", "unreadable".
        unreadable: Why, by row and teacher.
    """

    rows: Tensor
    inputs: dict[str, TeacherInput]
    states: dict[int, dict[str, str]]
    unreadable: dict[int, dict[str, str]]


class _Seen(NamedTuple):
    row: int
    inputs: dict[str, Tensor | None]
    states: dict[str, str]
    unreadable: dict[str, str]


class MiddleWindows(Dataset[_Seen | CclError]):
    """The middle window of each video of this process's share, through every teacher's preprocessing.

    What one teacher cannot read is unreadable for that one alone. Errors that must end the run are returned,
    not raised: a loader would turn a raised one into a traceback.

    Args:
        videos: Of all processes.
        clip: Length and size of a window.
        preprocess: By teacher.
        rank: This process.
        processes: Number of processes.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clip: Clip,
        preprocess: Mapping[str, Preprocess],
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.videos, self.clip, self.preprocess = videos, clip, dict(preprocess)
        self.rows = range(rank, len(videos), processes)

    def __len__(self) -> int:
        """This process's share."""
        return len(self.rows)

    def __getitem__(self, index: int) -> _Seen | CclError:
        """One video."""
        row = self.rows[index]
        window = MiddleWindow(self.videos[row], self.clip)
        seen = _Seen(row, {}, {}, {})
        for name, preprocess in self.preprocess.items():
            window.states = {}
            try:
                with reading(row, window.video.path):
                    seen.inputs[name] = run_preprocess(name, preprocess, window)
                seen.states[name] = next(iter(window.states.values()))
            except DataError as error:
                seen.inputs[name], seen.states[name] = None, UNREADABLE
                seen.unreadable[name] = error.message
            except CclError as error:
                return error
        return seen


def middle_loader(
    dataset: MiddleWindows, *, batch_size: int, workers: int, pin_memory: bool
) -> Iterator[Looked | CclError]:
    """All of them once, in order."""

    def rest(done: int, options: dict[str, Any]) -> DataLoader[Looked | CclError]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            sampler=range(done * batch_size, len(dataset)),
            batch_size=batch_size,
            collate_fn=partial(_collate, preprocess=dataset.preprocess),
            pin_memory=pin_memory,
            **options,
        )

    return counted(rest, workers, {type(each).__module__ for each in dataset.preprocess.values()})


def _collate(samples: Sequence[_Seen | CclError], preprocess: Mapping[str, Preprocess]) -> Looked | CclError:
    seen = []
    for sample in samples:
        if isinstance(sample, CclError):
            return sample
        seen.append(sample)
    return Looked(
        torch.tensor([one.row for one in seen]),
        {name: collate_inputs([one.inputs[name] for one in seen], each) for name, each in preprocess.items()},
        {one.row: one.states for one in seen},
        {one.row: one.unreadable for one in seen if one.unreadable},
    )
