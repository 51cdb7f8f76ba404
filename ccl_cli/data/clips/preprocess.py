"""Preprocessing of clips for teachers, run and checked in the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ccl_cli.data.clips.batch import TeacherInput
from ccl_cli.errors import CclError, PluginError

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window


class Preprocess(Protocol):
    """Converts a window to a teacher's input, in a worker process.

    It must be picklable, contain no weights, and have a ``repr`` with all settings, which is part of the
    teacher's fingerprint.

    An attribute ``views`` declares its input if the teacher's embeddings may be cached (``ccl cache``).
    "track": one embedding for the whole video, independent of the window (except that ``window.audio``
    returns a part of a longer track, which the cache records); "frame": a single frame of the window; "clip":
    all frames of the window and nothing else. Without the attribute, or if it is None, the teacher runs in
    every step.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Data type of one input."""
        ...

    def __call__(self, window: Window) -> Tensor | None:
        """The input ``[*shape]`` of ``dtype``, or None if the modality is missing."""
        ...


def run_preprocess(name: str, preprocess: Preprocess, window: Window) -> Tensor | None:
    """Run one teacher's preprocessing, check its result, and record the state of its modality.

    Raises:
        DataError: the video cannot be read.
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
    # Only sound has states of its own; for other modalities the input is present or absent.
    own = window.states or {name: "absent" if value is None else "present"}
    window.states = before | own
    if value is not None and tuple(value.shape) != tuple(preprocess.shape):
        raise PluginError(
            f"The preprocessing of '{name}' returned shape {tuple(value.shape)} for '{window.video.id}', "
            f"but declares {tuple(preprocess.shape)}."
        )
    return value


def collate_inputs(values: Sequence[Tensor | None], preprocess: Preprocess) -> TeacherInput:
    """Stack one teacher's inputs of several samples; None becomes a zero row that is absent."""
    value = torch.zeros(len(values), *preprocess.shape, dtype=preprocess.dtype)
    for row, item in enumerate(values):
        if item is not None:
            value[row] = item
    return TeacherInput(value, torch.tensor([item is not None for item in values]))
