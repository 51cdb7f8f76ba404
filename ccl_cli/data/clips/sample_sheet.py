"""One picture of a batch: what the student sees of each clip, and what each teacher gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.manifest import UNLABELLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRAMES = 4  # of a clip that are shown
_SPECTROGRAM = 256  # samples of a window; as many as a small waveform has


def sample_sheet(batch: Batch, classes: Sequence[str], ids: Sequence[str], count: int = 8) -> Figure:
    """Draw the first clips of a batch, one row each.

    Args:
        batch: As the loader gives it: the student's frames are bytes.
        classes: Names, by label.
        ids: Of the batch's videos.
        count: Rows at most.
    """
    from matplotlib.figure import Figure

    shown = min(count, len(batch.labels))
    columns = [f"{number}" for number in frame_numbers(batch.video.shape[2])]
    teachers = list(batch.inputs)
    size = (1.5 * (len(columns) + 1.4 * len(teachers)) + 0.5, 1.65 * shown + 0.4)
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    ratios = [1.0] * len(columns) + [1.4] * len(teachers)
    grid = figure.subplots(shown, len(ratios), squeeze=False, width_ratios=ratios)
    for row in range(shown):
        _show_clip(grid[row, : len(columns)], batch.video[row])
        label = int(batch.labels[row])
        name = "no label" if label == UNLABELLED else classes[label]
        grid[row, 0].set_title(f"{name}  ·  {ids[row][-40:]}", fontsize=7, loc="left")
        for axes, teacher in zip(grid[row, len(columns) :], teachers, strict=True):
            value, present = batch.inputs[teacher]
            _show_input(axes, value[row] if present[row] else None)
            if row == 0:
                axes.set_title(teacher, fontsize=7)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def frame_numbers(frames: int) -> list[int]:
    """The frames of a clip that are shown, evenly from the first to the last."""
    return sorted(set(np.linspace(0, frames - 1, min(_FRAMES, frames)).round().astype(int).tolist()))


def _show_clip(axes: Iterable[Axes], video: Tensor) -> None:
    for each, number in zip(axes, frame_numbers(video.shape[1]), strict=True):
        each.imshow(video[:, number].permute(1, 2, 0).numpy(), interpolation="nearest")
        each.set_xlabel(f"frame {number}", fontsize=6)


def _show_input(axes: Axes, value: Tensor | None) -> None:
    """A teacher's input by its shape: image, clip (its centre frame), waveform, spectrogram, numbers."""
    if value is None:
        axes.text(0.5, 0.5, "absent", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    value = value.detach().float()
    if value.dim() == 4:  # a clip, channels first or second
        frames = value if value.shape[1] == 3 else value.transpose(0, 1)
        value = frames[len(frames) // 2]
    if value.dim() == 3 and value.shape[0] == 3:
        axes.imshow(_stretched(value).permute(1, 2, 0).numpy(), interpolation="nearest")
    elif value.dim() >= 2:
        axes.imshow(value.flatten(0, -2).numpy(), aspect="auto", origin="lower", cmap="magma")
    elif len(value) > 2 * _SPECTROGRAM:
        axes.imshow(_spectrogram(value), aspect="auto", origin="lower", cmap="magma")
    else:
        axes.plot(value.numpy(), lw=0.8)
    axes.set_xlabel(" x ".join(map(str, value.shape)), fontsize=6)


def _stretched(image: Tensor) -> Tensor:
    """To [0, 1], whatever a teacher's normalisation is."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp(min=1e-6)


def _spectrogram(waveform: Tensor) -> NDArray[np.float32]:
    """[frequency, time] in decibels."""
    spectrum = torch.stft(
        waveform,
        _SPECTROGRAM,
        hop_length=max(_SPECTROGRAM // 4, len(waveform) // 400),
        window=torch.hann_window(_SPECTROGRAM),
        return_complex=True,
    )
    decibels: NDArray[np.float32] = (20 * (spectrum.abs() + 1e-5).log10()).numpy()
    return decibels
