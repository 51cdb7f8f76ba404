"""What a teacher sees of a clip: the preprocessing of each teacher, run in the workers and checked."""

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
    """Turns a decoded window into one teacher's input, inside a loader's worker.

    It must be picklable, hold no weights, and have a ``repr`` that names every setting: the teacher's
    fingerprint is made of it.

    One that may be cached (``ccl cache``) says what it looks at in an attribute ``views``: "track", where one
    embedding serves the whole video whatever the window (unless ``window.audio`` leaves out a part of a
    longer track, which the cache notes), "frame", where it looks at a single frame of the window, or "clip",
    where it looks at all of the window's frames and at nothing else. Without it, or where it is None, its
    teacher always runs.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of one input."""
        ...

    def __call__(self, window: Window) -> Tensor | None:
        """The teacher's input ``[*shape]`` of ``dtype``, or None where the modality is missing."""
        ...


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
    # Where the preprocess has asked for no modality that has states, its input is the only sign.
    own = window.states or {name: "absent" if value is None else "present"}
    window.states = before | own
    if value is not None and tuple(value.shape) != tuple(preprocess.shape):
        raise PluginError(
            f"The preprocessing of '{name}' returned shape {tuple(value.shape)} for '{window.video.id}', "
            f"but declares {tuple(preprocess.shape)}."
        )
    return value


def collate_inputs(values: Sequence[Tensor | None], preprocess: Preprocess) -> TeacherInput:
    """One teacher's inputs of several samples; a zero row where there is none."""
    value = torch.zeros(len(values), *preprocess.shape, dtype=preprocess.dtype)
    for row, item in enumerate(values):
        if item is not None:
            value[row] = item
    return TeacherInput(value, torch.tensor([item is not None for item in values]))
